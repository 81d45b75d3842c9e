"""The heads of the detector: for each method its neck, its head, its loss and its decoding, on any backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flax import nnx
from jax import Array

from zoo.adapters.detector import fcos, rcnn, yolox
from zoo.adapters.detector.fcos import Size
from zoo.dense.necks import FPN, SimplePyramid
from zoo.dense.pyramid import StageMaps, pyramid_stages
from zoo.models.task.head import HeadInputs
from zoo.registry.parts import Point
from zoo.registry.spec import BackboneSpec, Stage

if TYPE_CHECKING:
    from jaxtyping import Float

    PerImage = Float[Array, " b"]

Source = Literal["pyramid", "pool"]

RECIPE: Mapping[str, Any] = {
    "epochs": 16,
    "batch_size": 4,  # datasets with boxes are small: twice as many updates as with 8, for the same work
    "lr": 1e-3,
    "ema": 0.99,  # updates from so small batches are noisy
    "augment": {"scale": (0.4, 1.6), "ratio": (0.8, 1.25), "min_visible": 0.3},
}
"""Training defaults of all heads. A method may override them. See `zoo.models.adapter.Training.recipe`."""


@dataclass(frozen=True)
class Method:
    """A detection method: a row of the extension point `detector.head`.

    Attributes:
        strides: of the levels that the neck makes from the backbone's stages.
        head: `head(strides, channels, classes, rngs=)` returns the module, see `zoo.adapters.detector.fcos`.
        decode: `decode(outputs, size, pre_nms_threshold=, nms_iou=, max_detections=)` returns the detections.
        pre_nms_threshold: default of the option of the same name, see `Detector`.
        nms_iou: default of the option of the same name.
        extra: number of coarser levels on top of the pyramid.
        source: input of the coarser levels, see `zoo.dense.necks.FPN`.
        path: whether the neck is a path aggregation network instead of a feature pyramid.
        sized: whether the head takes the size of the images.
        neck_options: options of the task that the neck takes.
        head_options: options of the task that the head takes.
        recipe: training defaults.
    """

    strides: tuple[int, ...]
    head: Callable[..., Any]
    decode: Callable[..., dict[str, Array]]
    pre_nms_threshold: float
    nms_iou: float
    extra: int = 0
    source: Source = "pyramid"
    path: bool = False
    sized: bool = False
    neck_options: tuple[str, ...] = ()
    head_options: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=lambda: RECIPE)


# `steps` is the least number of updates: after that many, each method had converged on images of blood cells
# (docs/benchmarks.md).
OWN: Mapping[str, Method] = {
    "fcos": Method(
        (8, 16, 32),
        fcos.Head,
        fcos.decode,
        0.05,
        0.6,
        extra=2,
        head_options=("convs", "steps"),
        recipe={**RECIPE, "steps": 300},
    ),
    "yolox": Method(
        (8, 16, 32),
        yolox.Head,
        yolox.decode,
        0.01,
        0.65,
        path=True,
        neck_options=("depth", "separable"),
        head_options=("separable",),
        recipe={**RECIPE, "steps": 400},
    ),
    "rcnn": Method(
        (4, 8, 16, 32),
        rcnn.Head,
        rcnn.decode,
        0.05,
        0.5,
        extra=1,
        source="pool",
        sized=True,
        head_options=("steps",),
        recipe={**RECIPE, "steps": 150},
    ),
}
"""zoo's own methods by name. `zoo_parts` of the detector contributes them."""

METHODS = Point("detector.head", "detector head", Method)
"""All detector heads, zoo's own and those of other plugins."""


def stages_for(spec: BackboneSpec, method: str) -> tuple[Stage, ...]:
    """Return the stages of a backbone that a method reads. Raises `ConfigError` if it has no feature pyramid."""
    return pyramid_stages(spec, METHODS[method].strides)


class DetectionHead(nnx.Module):
    """A neck and a head on the maps of a backbone.

    Args:
        method: name of a part of `METHODS`.
        inputs: the backbone, the size of its images and the shapes of its maps.
        classes: number of classes.
        width: channels of the pyramid, or of its finest level if levels differ.
        options: the task's options by name; the neck and the head take those that the method declares.
    """

    def __init__(
        self,
        method: str,
        inputs: HeadInputs,
        classes: int,
        *,
        width: int,
        options: Mapping[str, Any],
        rngs: nnx.Rngs,
    ):
        self.method = method
        self.maps = StageMaps.of(stages_for(inputs.spec, method), inputs.size, inputs.shapes)
        row = METHODS[method]
        neck_options = {name: options[name] for name in row.neck_options}
        head_options = {name: options[name] for name in row.head_options}
        self.neck = _neck(row, self.maps.stages, width, neck_options, rngs)
        channels = getattr(self.neck, "channels", None) or self.neck.width
        self.head = row.head(self.neck.strides, channels, classes, **head_options, rngs=rngs)

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return self.maps.reduce(features)

    def reads(self) -> dict[str, str]:
        return {}

    def levels(self, reduced: Mapping[str, Array]) -> list[Float[Array, "b _h _w _c"]]:
        """Return the pyramid, finest level first."""
        return list(self.neck(self.maps(reduced)))

    def __call__(self, reduced: Mapping[str, Array], size: Size | None = None) -> dict[str, Any]:
        """Return the outputs of the head by name."""
        maps = self.levels(reduced)
        outputs: dict[str, Any] = self.head(maps, size) if METHODS[self.method].sized else self.head(maps)
        return outputs

    def losses(
        self, reduced: Mapping[str, Array], targets: Mapping[str, Array], size: Size | None = None
    ) -> dict[str, PerImage]:
        """Return the terms of the loss of each image by name."""
        terms: dict[str, Array] = self.head.losses(self.levels(reduced), targets, size)
        return terms

    def detections(
        self,
        reduced: Mapping[str, Array],
        size: Size,
        *,
        pre_nms_threshold: float | None,
        nms_iou: float | None,
        max_detections: int,
    ) -> dict[str, Array]:
        """Return the detections of each image in pixels of the prepared images, see `zoo.dense.nms.detections`."""
        method = METHODS[self.method]
        return method.decode(
            self(reduced, size),
            size,
            pre_nms_threshold=method.pre_nms_threshold if pre_nms_threshold is None else pre_nms_threshold,
            nms_iou=method.nms_iou if nms_iou is None else nms_iou,
            max_detections=max_detections,
        )


def _neck(method: Method, stages: Sequence[Stage], width: int, options: Mapping[str, Any], rngs: nnx.Rngs) -> Any:
    """Return the neck that makes the method's levels from the stages, which are maps or the tokens of a transformer."""
    channels, strides = [stage.channels for stage in stages], [stage.stride for stage in stages]
    if stages[0].kind == "tokens":
        pyramid = SimplePyramid(
            channels[0], strides[0], method.strides, width, extra=method.extra, source=method.source, rngs=rngs
        )
        if not method.path:
            return pyramid
        # A path aggregation network needs several maps, so the tokens become a pyramid first.
        return Stacked(pyramid, yolox.PAFPN([width] * 3, pyramid.strides, width, **options, rngs=rngs))
    if method.path:
        return yolox.PAFPN(channels, strides, width, **options, rngs=rngs)
    # A backbone without the coarsest strides gets more levels on top, so that every pyramid covers the same sizes.
    extra = method.extra + len(method.strides) - len(stages)
    return FPN(channels, strides, width, extra=extra, source=method.source, rngs=rngs)


class Stacked(nnx.Module):
    """Two necks in sequence.

    Args:
        first: neck on the maps of the backbone.
        second: neck on the levels of `first`.
    """

    def __init__(self, first: Any, second: Any):
        self.first, self.second = first, second
        self.strides, self.channels = second.strides, second.channels

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> list[Float[Array, "b _h _w _width"]]:
        levels: list[Array] = self.second(self.first(maps))
        return levels
