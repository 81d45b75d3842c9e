"""Segmentation decoders: from the stages of a backbone to logits for every class and position, one table row each.

The last map of a classification backbone locates objects poorly. On a frozen MobileNetV2, a linear classifier on the
last map segments people with an IoU of 0.38, and on the map of half its stride with 0.64. Decoders of the last map
alone therefore also read that finer map, like the skips of the FCN paper; `skip=False` builds torchvision's form. No
decoder reads layers between a backbone's last block and its classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from flax import nnx
from jax import Array

from zoo.adapters.segmenter import deeplab, fpn, light, unet
from zoo.adapters.segmenter.parts import Decoded, Maps, Norm, classifier, fcn_head
from zoo.blocks.dilation import DILATABLE
from zoo.dense.necks import SimplePyramid
from zoo.dense.pyramid import StageMaps, pyramid_stages
from zoo.errors import ConfigError
from zoo.layers import Chain, Conv
from zoo.models.task.head import HeadInputs
from zoo.registry import registry
from zoo.registry.parts import Point
from zoo.registry.spec import OUTPUT_STRIDE, BackboneSpec, Part, Stage

if TYPE_CHECKING:
    from jaxtyping import Float

PYRAMID = (4, 8, 16, 32)
"""Strides of a feature pyramid."""
AUXILIARY_DROPOUT = 0.1
CLASSIFIERS = "head"
"""Name of a stage between the last block and the classifier, such as the 1x1 convolution that widens the last map of
MobileNets. It is trained for classification, and decoders skip it."""

RECIPE: Mapping[str, Any] = {
    "epochs": 12,
    "steps": 80,
    "batch_size": 4,  # segmentation datasets are small: twice as many steps as with 8, at the same cost
    "lr": 1e-3,
    "weight_decay": 0.05,
    "ema": 0.99,  # parameters are noisy with such small batches
    "augment": {"scale": (0.4, 1.6), "ratio": (0.8, 1.25), "color": 0.4, "hue": 0.05},
}
"""Training defaults of every decoder; a row may override them. See `zoo.models.adapter.Training.recipe`."""


@dataclass(frozen=True)
class Decoder:
    """A decoder and its defaults.

    Attributes:
        build: function (maps, classes, width=, norm=, rate=, rngs=) that returns a module; `module(maps)` returns
            `Decoded`.
        strides: strides of the maps it reads.
        last: whether it also reads the last map or tokens, whatever their stride.
        skip: whether it also reads the last map that is finer than the very last one, or the tokens at two thirds of
            the depth.
        width: default channels; 0 for a width that follows the backbone's.
        norm: default normalisation.
        dropout: default dropout rate.
        output_stride: largest stride of the backbone if it can be dilated; 0 for any.
        dilated: whether backbones that cannot be dilated are refused.
        auxiliary: what deep supervision reads: `levels` of the decoder, an intermediate `stage`, or nothing.
        recipe: training defaults, see `zoo.models.adapter.Training.recipe`.
    """

    build: Callable[..., Any]
    strides: tuple[int, ...] = PYRAMID
    last: bool = False
    skip: bool = False
    width: int = 256
    norm: Norm = "batch"
    dropout: float = 0.1
    output_stride: int = 0
    dilated: bool = False
    auxiliary: Literal["levels", "stage", ""] = "stage"
    recipe: Mapping[str, Any] = field(default_factory=lambda: RECIPE)


OWN: Mapping[str, Decoder] = {
    # The last convolutions of U-Net have 8 to 16 channels, where other decoders have 64 or more. A step of Adam moves
    # each weight by about the learning rate, so an output, a sum over few inputs, changes less per step: U-Net needs a
    # higher learning rate.
    "unet": Decoder(unet.UNet, (1, 2, *PYRAMID), dropout=0.0, auxiliary="levels", recipe={**RECIPE, "lr": 8e-3}),
    "fpn": Decoder(fpn.FPN, norm="group", dropout=0.2, auxiliary="levels"),
    "upernet": Decoder(fpn.UPerNet, recipe={**RECIPE, "epochs": 6, "steps": 42}),
    "deeplabv3plus": Decoder(
        deeplab.DeepLabV3Plus, (4,), last=True, skip=True, dropout=0.5, output_stride=16, dilated=True
    ),
    "deeplabv3": Decoder(deeplab.DeepLabV3, (), last=True, skip=True, dropout=0.5, output_stride=16, dilated=True),
    "fcn": Decoder(deeplab.FCN, (), last=True, skip=True, width=0, output_stride=8),
    "linear": Decoder(light.Linear, (), last=True, width=0, dropout=0.0, auxiliary=""),
    "mlp": Decoder(light.MLP),
}
"""The built-in decoders, which `zoo_parts` registers."""

DECODERS = Point("segmenter.decoder", "decoder", Decoder)
"""All decoders: the built-in ones and those of other plugins."""


def parts() -> list[Part]:
    """Return the registry rows of the built-in decoders."""
    summaries = {
        "unet": "U-Net (arXiv:1505.04597): upsamples to full resolution, with a skip connection at every step.",
        "fpn": "Panoptic FPN (arXiv:1901.02446): the sum of the levels of a feature pyramid.",
        "upernet": "UPerNet (arXiv:1807.10221): pyramid pooling and a feature pyramid, concatenated.",
        "deeplabv3plus": "DeepLabV3+ (arXiv:1802.02611): dilated convolutions, and detail from a fine map.",
        "deeplabv3": "DeepLabV3 (arXiv:1706.05587): dilated convolutions on the last map.",
        "fcn": "FCN (arXiv:1411.4038): convolutions on the last map.",
        "linear": "Linear probe: a linear classifier on the last map.",
        "mlp": "SegFormer's decoder (arXiv:2105.15203): a linear layer for every level, and one for all.",
    }
    return [Part(DECODERS.name, name, row, summaries[name]) for name, row in OWN.items()]


def decoder_of(name: str) -> Decoder:
    """Return the row of a decoder.

    Raises:
        UnknownNameError: for an unknown decoder.
    """
    return DECODERS[name]


def backbone_options(spec: BackboneSpec, decoder: str) -> dict[str, int]:
    """Return the build options of a backbone under a decoder: the output stride, if it can be dilated."""
    stride = decoder_of(decoder).output_stride
    return {OUTPUT_STRIDE: stride} if stride and DILATABLE in spec.capabilities else {}


def stages_for(spec: BackboneSpec, decoder: str, *, skip: bool = True) -> tuple[Stage, ...]:
    """Return the stages that a decoder reads, finest first.

    Args:
        spec: the backbone.
        decoder: name of the decoder.
        skip: whether to read the stage of `Decoder.skip` as well, for decoders that have one.

    Raises:
        ConfigError: for a backbone that the decoder cannot work on.
    """
    chosen = decoder_of(decoder)
    if chosen.dilated and DILATABLE not in spec.capabilities:
        rows = [row for row in registry().rows("backbones") if DILATABLE in row.data.get("capabilities", ())]
        able = {row.data.get("family"): row.name for row in sorted(rows, key=lambda row: row.name, reverse=True)}
        undilated = [name for name, other in DECODERS.items() if not other.dilated]
        raise ConfigError(
            f"decoder={decoder} needs a backbone whose last stages can be dilated; those of {spec.name} cannot. Choose "
            f"a {DILATABLE} backbone, such as {', '.join(sorted(able.values()))}, or one of the decoders "
            f"{', '.join(undilated)}."
        )
    placed = tuple(stage for stage in spec.stages if stage.kind != "vector" and stage.name != CLASSIFIERS)
    pyramid = pyramid_stages(replace(spec, stages=placed), chosen.strides) if chosen.strides else ()
    if not chosen.last:
        return pyramid
    if not placed:
        raise ConfigError(
            f"decoder={decoder} needs a backbone with maps or tokens, and {spec.name} has neither. Choose another "
            "backbone."
        )
    before = _earlier(placed, placed[-1])[-1:] if chosen.skip and skip else ()
    others = tuple(stage for stage in pyramid if stage not in (*before, placed[-1]))
    return (*others, *before, placed[-1])


def taps_for(spec: BackboneSpec, decoder: str, *, auxiliary: bool = False, skip: bool = True) -> tuple[str, ...]:
    """Return the names of the stages that a decoder and, with `auxiliary`, deep supervision read."""
    stages = list(stages_for(spec, decoder, skip=skip))
    if auxiliary and (side := auxiliary_stage(spec, decoder)):
        stages.append(side)
    return tuple(dict.fromkeys(stage.name for stage in stages))


def auxiliary_stage(spec: BackboneSpec, decoder: str) -> Stage | None:
    """Return the stage that deep supervision reads, or None if it reads levels of the decoder.

    It is the last map finer than the last one the decoder reads, or the tokens at two thirds of the depth.

    Raises:
        ConfigError: if there is nothing to supervise.
    """
    chosen = decoder_of(decoder)
    if chosen.auxiliary == "levels":
        return None
    earlier = _earlier(spec.stages, stages_for(spec, decoder)[-1])
    if not chosen.auxiliary or not earlier:
        raise _nothing_to_supervise(spec, decoder)
    return earlier[-1]


def _earlier(stages: tuple[Stage, ...], last: Stage) -> tuple[Stage, ...]:
    """Return the maps finer than `last`, or the first two thirds of the token stages before it."""
    earlier = tuple(stage for stage in stages[: stages.index(last)] if stage.kind == last.kind)
    if last.kind == "map":
        # Dilated stages have the stride of the stage before them. Their stride without dilation tells them apart, so
        # that the same stages are read whatever the output stride.
        return tuple(stage for stage in earlier if stage.stride * stage.dilation < last.stride * last.dilation)
    return earlier[: -(-2 * len(earlier) // 3)]


def _nothing_to_supervise(spec: BackboneSpec, decoder: str) -> ConfigError:
    able = ", ".join(name for name, other in DECODERS.items() if other.auxiliary and name != decoder)
    return ConfigError(
        f"auxiliary: {decoder} on {spec.name} has no intermediate map for deep supervision. Leave auxiliary out, or "
        f"choose another decoder ({able})."
    )


class SegmentationHead(nnx.Module):
    """A decoder on the maps or tokens of a backbone.

    Args:
        decoder: name of the decoder.
        inputs: the backbone, its shapes and the image size; tokens are arranged as a map of an image of that size.
        classes: number of classes.
        skip: see `stages_for`.
        width: channels of the decoder; 0 for its default.
        norm: normalisation of its convolutions; None for its default.
        dropout: dropout rate before the classifier; None for its default.
        auxiliary: whether intermediate maps get logits, too (deep supervision).
    """

    def __init__(
        self,
        decoder: str,
        inputs: HeadInputs,
        classes: int,
        *,
        skip: bool = True,
        width: int = 0,
        norm: Norm | None = None,
        dropout: float | None = None,
        auxiliary: bool = False,
        rngs: nnx.Rngs,
    ):
        chosen, spec = decoder_of(decoder), inputs.spec
        stages = stages_for(spec, decoder, skip=skip)
        channels, norm = width or chosen.width, norm or chosen.norm
        maps = Maps(tuple(s.channels for s in stages), tuple(float(s.stride) for s in stages))
        self.neck: Any = nnx.data(None)
        if stages[0].kind == "tokens" and chosen.strides:
            # Tokens have one stride; the other levels of the pyramid are made from them.
            strides = [stride for stride in chosen.strides if stride >= PYRAMID[0]]
            self.neck = SimplePyramid(maps.channels[0], int(maps.strides[0]), strides, channels, extra=0, rngs=rngs)
            maps = Maps((channels,) * len(strides), self.neck.strides)
        rate = chosen.dropout if dropout is None else dropout
        self.decoder = chosen.build(maps, classes, width=channels, norm=norm, rate=rate, rngs=rngs)
        side: list[Stage] = []
        supervised: list[Conv | Chain] = []
        if auxiliary:
            if stage := auxiliary_stage(spec, decoder):
                side = [stage]
                supervised = [fcn_head(stage.channels, width, classes, norm, AUXILIARY_DROPOUT, rngs)]
            else:
                supervised = [classifier(n, classes, rngs=rngs) for n in self.decoder.level_channels]
                if not supervised:
                    raise _nothing_to_supervise(spec, decoder)
        self.auxiliary = nnx.List(supervised)
        self.maps, self.side = (StageMaps.of(part, inputs.size, inputs.shapes) for part in (stages, side))

    def reduce(self, features: Mapping[str, Float[Array, "b *_n _c"]]) -> dict[str, Float[Array, "b _h _w _c"]]:
        return self.maps.reduce(features) | self.side.reduce(features)

    def reads(self) -> dict[str, str]:
        return {}

    def __call__(self, reduced: Mapping[str, Float[Array, "b _h _w _c"]]) -> dict[str, Any]:
        """Return `logits` (b, h, w, classes) at the decoder's stride and `aux`, a tuple of logits at other strides."""
        maps = self.maps(reduced)
        decoded: Decoded = self.decoder(maps if self.neck is None else self.neck(maps))
        levels = self.side(reduced) or decoded.levels
        aux = tuple(head(x) for head, x in zip(self.auxiliary, levels, strict=False))
        return {"logits": decoded.logits, "aux": aux}
