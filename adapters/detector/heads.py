"""From a backbone's stages to detections: the neck and the head that belong to each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flax import nnx
from jax import Array

from zoo.adapters.detector import fcos, rcnn, yolox
from zoo.dense.necks import FPN, SimplePyramid
from zoo.dense.pyramid import StageMaps, pyramid_stages
from zoo.models.task.head import HeadInputs
from zoo.registry.parts import Point
from zoo.registry.spec import BackboneSpec, Stage

Source = Literal["pyramid", "pool"]
Size = Any
"""(height, width) of the images in pixels: one for all, or (b, 2) without what pads each."""

RECIPE: Mapping[str, Any] = {
    "epochs": 16,
    "batch_size": 4,  # data sets of boxes are small: twice the steps of 8 for the same work
    "lr": 1e-3,
    "ema": 0.99,  # so small batches leave the parameters restless
    "augment": {"scale": (0.4, 1.6), "ratio": (0.8, 1.25), "min_visible": 0.3},
}
"""Training defaults of every head; a row may override them. See `zoo.models.adapter.Training.recipe`."""


@dataclass(frozen=True)
class Method:
    """What sets a way to detect apart.

    Attributes:
        strides: of the levels that the neck makes from the backbone's.
        head: `head(strides, channels, classes, rngs=)`.
        decode: `decode(outputs, size, pre_nms_threshold=, nms_iou=, max_detections=)`.
        pre_nms_threshold, nms_iou: defaults of the options of the same names, see `Detector`.
        extra: coarser levels on top. source: what they are made of, see `zoo.dense.necks.FPN`.
        path: the neck is a path aggregation network in place of a feature pyramid.
        sized: whether the head must know the images' size.
        neck_options, head_options: which of the adapter's options the neck and the head take.
        recipe: what it trains by where a user does not say.
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


# The least numbers of steps are those after which each had learned photos of blood cells (docs/benchmarks.md).
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
"""The rows of zoo's own heads, which `zoo_parts` gives."""

METHODS = Point("detector.head", "detector head", Method)
"""The heads there are, zoo's own and those of other plugins."""


def stages_for(spec: BackboneSpec, method: str) -> tuple[Stage, ...]:
    """The stages that a method reads. Raises `ConfigError` where the backbone has no pyramid."""
    return pyramid_stages(spec, METHODS[method].strides)


class DetectionHead(nnx.Module):
    """A neck and a head on the maps of a backbone.

    Args:
        inputs: what it is built for.
        width: channels of the pyramid, of its finest level where they differ. options: those of the method's neck and
            head by name, beside others.
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
        chosen = METHODS[method]
        self.neck = _neck(chosen, self.maps.stages, width, {name: options[name] for name in chosen.neck_options}, rngs)
        channels = getattr(self.neck, "channels", None) or self.neck.width
        given = {name: options[name] for name in chosen.head_options}
        self.head = chosen.head(self.neck.strides, channels, classes, **given, rngs=rngs)

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return self.maps.reduce(features)

    def reads(self) -> dict[str, str]:
        return {}

    def levels(self, reduced: Mapping[str, Array]) -> list[Array]:
        """The pyramid, finest level first."""
        return list(self.neck(self.maps(reduced)))

    def __call__(self, reduced: Mapping[str, Array], size: Size | None = None) -> dict[str, Any]:
        maps = self.levels(reduced)
        found: dict[str, Any] = self.head(maps, size) if METHODS[self.method].sized else self.head(maps)
        return found

    def losses(
        self, reduced: Mapping[str, Array], targets: Mapping[str, Array], size: Size | None = None
    ) -> dict[str, Array]:
        """The terms of the loss of each image by name, each (b,)."""
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
        """What is found in each image, in pixels of the prepared images. See `zoo.dense.nms.detections`."""
        method = METHODS[self.method]
        return method.decode(
            self(reduced, size),
            size,
            pre_nms_threshold=method.pre_nms_threshold if pre_nms_threshold is None else pre_nms_threshold,
            nms_iou=method.nms_iou if nms_iou is None else nms_iou,
            max_detections=max_detections,
        )


def _neck(method: Method, stages: Sequence[Stage], width: int, options: Mapping[str, Any], rngs: nnx.Rngs) -> Any:
    channels, strides = [stage.channels for stage in stages], [stage.stride for stage in stages]
    if stages[0].kind == "tokens":
        pyramid = SimplePyramid(
            channels[0], strides[0], method.strides, width, extra=method.extra, source=method.source, rngs=rngs
        )
        if not method.path:
            return pyramid
        return Stacked(pyramid, yolox.PAFPN([width] * 3, pyramid.strides, width, **options, rngs=rngs))
    if method.path:
        return yolox.PAFPN(channels, strides, width, **options, rngs=rngs)
    # A backbone that ends early gets more levels on top, so that all pyramids reach as far.
    extra = method.extra + len(method.strides) - len(stages)
    return FPN(channels, strides, width, extra=extra, source=method.source, rngs=rngs)


class Stacked(nnx.Module):
    """Two necks, one on the other."""

    def __init__(self, first: Any, second: Any):
        self.first, self.second = first, second
        self.strides, self.channels = second.strides, second.channels

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        found: list[Array] = self.second(self.first(maps))
        return found
