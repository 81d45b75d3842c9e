"""From a backbone's stages to a logit for every class and place: a table row a decoder.

A backbone's last map was made to tell classes of whole images, and is poor at telling where they are: of a frozen
MobileNetV2, a linear map of it finds people with an IoU of 0.38, of the map of half its stride with 0.64. So a decoder
of the last map alone reads that map beside it, as the FCN paper's skips do, unless it is to be as torchvision's are.
No decoder reads what an architecture has between its last block and its classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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

PYRAMID = (4, 8, 16, 32)
AUXILIARY_DROPOUT = 0.1
CLASSIFIERS = "head"
"""The stage that a checkpoint has between its last block and its classifier, here where it is still a map (the 1x1
convolution that widens the last map of the MobileNets)."""

RECIPE: Mapping[str, Any] = {
    "epochs": 12,
    "steps": 80,
    "batch_size": 4,  # data sets of masks are small: twice the steps of 8 for the same work
    "lr": 1e-3,
    "weight_decay": 0.05,
    "ema": 0.99,  # so small batches leave the parameters restless
    "augment": {"scale": (0.4, 1.6), "ratio": (0.8, 1.25), "color": 0.4, "hue": 0.05},
}
"""Training defaults of every decoder; a row may override them. See `zoo.models.adapter.Training.recipe`."""


@dataclass(frozen=True)
class Decoder:
    """What sets a decoder apart.

    Attributes:
        build: `build(maps, classes, width=, norm=, rate=, rngs=)` makes a module, `module(maps)` gives `Decoded`.
        strides: of the maps it reads. last: whether the last map or tokens are read beside them, whatever the stride.
        skip: whether the map of half the last one's detail, or the tokens two thirds of the way up, are, too.
        width, norm, dropout: its own. A width of 0 follows the backbone's.
        output_stride: that a backbone should not go beyond, where it can be dilated; 0 for any.
        dilated: whether it is refused where the backbone cannot.
        auxiliary: what deep supervision reads: the `levels` the decoder makes, an intermediate `stage`, or nothing.
        recipe: what it trains by where a user does not say.
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
    # A step of Adam moves a weight by the rate at most, and the sum of a few weights less than that of many: its last
    # convolutions have 8 to 16 channels, where others have 64 and more.
    "unet": Decoder(
        unet.UNet, (1, 2, *PYRAMID), dropout=0.0, auxiliary="levels", recipe={**RECIPE, "lr": 4e-3, "steps": 105}
    ),
    "fpn": Decoder(fpn.FPN, norm="group", dropout=0.2, auxiliary="levels"),
    "upernet": Decoder(fpn.UPerNet, recipe={**RECIPE, "epochs": 9, "steps": 60}),
    "deeplabv3plus": Decoder(
        deeplab.DeepLabV3Plus, (4,), last=True, skip=True, dropout=0.5, output_stride=16, dilated=True
    ),
    "deeplabv3": Decoder(deeplab.DeepLabV3, (), last=True, skip=True, dropout=0.5, output_stride=16, dilated=True),
    "fcn": Decoder(deeplab.FCN, (), last=True, skip=True, width=0, output_stride=8),
    "linear": Decoder(light.Linear, (), last=True, width=0, dropout=0.0, auxiliary=""),
    "mlp": Decoder(light.MLP),
}
"""The rows of zoo's own decoders, which `zoo_parts` gives."""

DECODERS = Point("segmenter.decoder", "decoder", Decoder)
"""The decoders there are, zoo's own and those of other plugins."""


def parts() -> list[Part]:
    """The rows of zoo's own decoders."""
    summaries = {
        "unet": "U-Net (arXiv:1505.04597): up to the image's own detail, with a skip at every step.",
        "fpn": "Panoptic FPN (arXiv:1901.02446): the levels of a feature pyramid added up.",
        "upernet": "UPerNet (arXiv:1807.10221): pooled context, and a pyramid put side by side.",
        "deeplabv3plus": "DeepLabV3+ (arXiv:1802.02611): dilated convolutions, and detail from a fine map.",
        "deeplabv3": "DeepLabV3 (arXiv:1706.05587): dilated convolutions on the last map.",
        "fcn": "FCN (arXiv:1411.4038): convolutions on the last map.",
        "linear": "A linear map of the last map: a probe of what the features say.",
        "mlp": "SegFormer's decoder (arXiv:2105.15203): a linear map of every level, then one of all.",
    }
    return [Part(DECODERS.name, name, row, summaries[name]) for name, row in OWN.items()]


def decoder_of(name: str) -> Decoder:
    """The row of a decoder. Raises `UnknownNameError`."""
    return DECODERS[name]


def backbone_options(spec: BackboneSpec, decoder: str) -> dict[str, int]:
    """Build options that a decoder wants a backbone to have."""
    wanted = decoder_of(decoder).output_stride
    return {OUTPUT_STRIDE: wanted} if wanted and DILATABLE in spec.capabilities else {}


def stages_for(spec: BackboneSpec, decoder: str, *, skip: bool = True) -> tuple[Stage, ...]:
    """The stages that a decoder reads, finest first; the map before the last only with `skip`, see `Decoder.skip`.

    Raises `ConfigError` where the backbone cannot serve.
    """
    chosen = decoder_of(decoder)
    if chosen.dilated and DILATABLE not in spec.capabilities:
        rows = [row for row in registry().rows("backbones") if DILATABLE in row.data.get("capabilities", ())]
        able = {row.data.get("family"): row.name for row in sorted(rows, key=lambda row: row.name, reverse=True)}
        undilated = [name for name, other in DECODERS.items() if not other.dilated]
        raise ConfigError(
            f"{spec.name} cannot serve {decoder}: its last stages cannot be dilated. Choose a backbone that is "
            f"{DILATABLE}, such as {', '.join(sorted(able.values()))}, or one of the decoders {', '.join(undilated)}."
        )
    placed = tuple(stage for stage in spec.stages if stage.kind != "vector" and stage.name != CLASSIFIERS)
    found = pyramid_stages(replace(spec, stages=placed), chosen.strides) if chosen.strides else ()
    if not chosen.last:
        return found
    if not placed:
        raise ConfigError(f"{spec.name} cannot serve {decoder}: no stage of it is a map or tokens. Choose another.")
    before = _earlier(placed, placed[-1])[-1:] if chosen.skip and skip else ()
    others = tuple(stage for stage in found if stage not in (*before, placed[-1]))
    return (*others, *before, placed[-1])


def taps_for(spec: BackboneSpec, decoder: str, *, auxiliary: bool = False, skip: bool = True) -> tuple[str, ...]:
    """Names of the stages that a decoder reads, and what deep supervision reads beside them."""
    stages = list(stages_for(spec, decoder, skip=skip))
    if auxiliary and (side := auxiliary_stage(spec, decoder)):
        stages.append(side)
    return tuple(dict.fromkeys(stage.name for stage in stages))


def auxiliary_stage(spec: BackboneSpec, decoder: str) -> Stage | None:
    """The stage that deep supervision reads, where it is not maps that the decoder makes: the last map of half the
    detail of the last one, whatever is dilated, or of tokens those two thirds of the way up.

    Raises `ConfigError` where there is nothing to supervise.
    """
    chosen = decoder_of(decoder)
    if chosen.auxiliary == "levels":
        return None
    earlier = _earlier(spec.stages, stages_for(spec, decoder)[-1])
    if not chosen.auxiliary or not earlier:
        raise _nothing_on_the_way(spec, decoder)
    return earlier[-1]


def _earlier(stages: tuple[Stage, ...], last: Stage) -> tuple[Stage, ...]:
    """The maps of more detail than `last` has, whatever is dilated, or of tokens those up to two thirds of the way."""
    earlier = tuple(stage for stage in stages[: stages.index(last)] if stage.kind == last.kind)
    if last.kind == "map":
        return tuple(stage for stage in earlier if stage.stride * stage.dilation < last.stride * last.dilation)
    return earlier[: -(-2 * len(earlier) // 3)]


def _nothing_on_the_way(spec: BackboneSpec, decoder: str) -> ConfigError:
    able = ", ".join(name for name, other in DECODERS.items() if other.auxiliary and name != decoder)
    return ConfigError(
        f"auxiliary: {decoder} on {spec.name} has nothing to supervise on the way. Leave it out, or choose another "
        f"decoder ({able})."
    )


class SegmentationHead(nnx.Module):
    """A decoder on the maps or tokens of a backbone.

    Args:
        inputs: what it is built for; tokens are a map of images of its size.
        skip: see `stages_for`. Deep supervision may read another stage, see `taps_for`.
        width: channels of the decoder. norm: of its convolutions. dropout: before the classifier. 0 and None stand for
            the decoder's own.
        auxiliary: whether there are logits of maps on the way as well (deep supervision).
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
            wanted = [stride for stride in chosen.strides if stride >= PYRAMID[0]]
            self.neck = SimplePyramid(maps.channels[0], int(maps.strides[0]), wanted, channels, extra=0, rngs=rngs)
            maps = Maps((channels,) * len(wanted), self.neck.strides)
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
                    raise _nothing_on_the_way(spec, decoder)
        self.auxiliary = nnx.List(supervised)
        self.maps, self.side = (StageMaps.of(part, inputs.size, inputs.shapes) for part in (stages, side))

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return self.maps.reduce(features) | self.side.reduce(features)

    def reads(self) -> dict[str, str]:
        return {}

    def __call__(self, reduced: Mapping[str, Array]) -> dict[str, Any]:
        """`logits` (b, h, w, classes) at the decoder's own stride, and `aux`, a tuple of such at other strides."""
        maps = self.maps(reduced)
        decoded: Decoded = self.decoder(maps if self.neck is None else self.neck(maps))
        levels = self.side(reduced) or decoded.levels
        aux = tuple(head(x) for head, x in zip(self.auxiliary, levels, strict=False))
        return {"logits": decoded.logits, "aux": aux}
