"""EfficientNetV2, trained in torch and, with the prefix `tf_`, converted from TensorFlow.

Paper: EfficientNetV2: Smaller Models and Faster Training, arXiv:2104.00298. Names are timm's, whose `rw` nets were
drawn after the paper's figures before its code was published. The converted weights need TensorFlow's padding and its
epsilon in the batch norms; torchvision's weights of the small net have the latter as well (`eps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from flax import nnx

from zoo.blocks.inverted import (
    ConvBnAct,
    EdgeResidual,
    InvertedNet,
    InvertedResidual,
    Row,
    Style,
    blocks_of,
    declared,
    round_channels,
)
from zoo.blocks.squeeze import SqueezeExcite
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Convention, Preprocess, Range, WeightSpec, weight_table


def plain(repeats: int, channels: int) -> Row:
    """3x3 convolutions of stride 1 with shortcuts."""
    return Row(ConvBnAct, repeats, 3, 1, channels, {"skip": True})


def fused(repeats: int, stride: int, expansion: int, channels: int) -> Row:
    """Fused-MBConv (figure 2): the expansion is the 3x3 convolution."""
    return Row(EdgeResidual, repeats, 3, stride, channels, {"expansion": expansion})


def inverted(repeats: int, stride: int, expansion: int, channels: int) -> Row:
    """MBConv (figure 2) with squeeze-and-excitation."""
    return Row(InvertedResidual, repeats, 3, stride, channels, {"expansion": expansion, "squeeze": True})


@dataclass(frozen=True)
class Plan:
    """Channels of the stem and the head around the rows; `least` is that of `round_channels`."""

    stem: int
    rows: tuple[Row, ...]
    head: int = 1280
    least: float = 0.9

    def scaled(self, width: float, depth: float) -> Plan:
        """With channels times `width`, rounded, and repeats times `depth`, rounded up."""
        size = partial(round_channels, least=self.least)
        rows = [
            replace(row, repeats=math.ceil(row.repeats * depth), channels=size(row.channels * width))
            for row in self.rows
        ]
        return Plan(size(self.stem * width), tuple(rows), size(self.head * width), self.least)


# arXiv:2104.00298, table 4.
S_TAIL = (fused(4, 2, 4, 48), fused(4, 2, 4, 64), inverted(6, 2, 4, 128), inverted(9, 1, 6, 160))
SMALL = Plan(24, (plain(2, 24), *S_TAIL, inverted(15, 2, 6, 256)))
RW_SMALL = Plan(24, (fused(2, 1, 1, 24), *S_TAIL, inverted(15, 2, 6, 272)), 1792)
# The nets of EfficientNet's scale, by the paper's published code.
BASE = Plan(
    32,
    (
        plain(1, 16),
        fused(2, 2, 4, 32),
        fused(2, 2, 4, 48),
        inverted(3, 2, 4, 96),
        inverted(5, 1, 6, 112),
        inverted(8, 2, 6, 192),
    ),
    least=0.0,
)
# name: (plan, image size, crop_pct, tag of the default weights)
VARIANTS: dict[str, tuple[Plan, int, float, str | None]] = {
    "efficientnetv2_s": (SMALL, 288, 1.0, None),
    "efficientnetv2_rw_t": (SMALL.scaled(0.8, 0.9), 224, 1.0, "ra2_in1k"),
    "efficientnetv2_rw_s": (RW_SMALL, 288, 1.0, "ra2_in1k"),
    "tf_efficientnetv2_s": (SMALL, 300, 1.0, "in21k_ft_in1k"),
    "tf_efficientnetv2_b0": (BASE, 192, 0.875, "in1k"),
    "tf_efficientnetv2_b1": (BASE.scaled(1.0, 1.1), 192, 0.882, "in1k"),
    "tf_efficientnetv2_b2": (BASE.scaled(1.1, 1.2), 208, 0.89, "in1k"),
    "tf_efficientnetv2_b3": (BASE.scaled(1.2, 1.4), 240, 0.904, "in21k_ft_in1k"),
}


def squeeze(inputs: int, wide: int, rngs: nnx.Rngs) -> SqueezeExcite:
    """A quarter of the block's input channels, not of the wide map's."""
    return SqueezeExcite(wide, inputs // 4, act=jax.nn.silu, rngs=rngs)


TORCH = Style(jax.nn.silu, squeeze=squeeze)
TENSORFLOW = Style(jax.nn.silu, eps=1e-3, padding="same", squeeze=squeeze)


def build(
    plan: Plan,
    style: Style,
    *,
    in_channels: int = 3,
    eps: float | None = None,
    drop_path_rate: float = 0.0,
    rngs: nnx.Rngs,
) -> InvertedNet:
    """The stem, six rows of blocks, and the 1x1 convolution that widens the last map."""
    style = style if eps is None else replace(style, eps=eps)
    rows = [(row,) for row in plan.rows]
    return InvertedNet(
        rows, plan.stem, plan.head, style, in_channels=in_channels, drop_path_rate=drop_path_rate, rngs=rngs
    )


# What torchvision counts as the steps of a block: (convolution, norm), or the two maps of squeeze-and-excitation.
STEPS: Mapping[Any, tuple[tuple[str, str], ...]] = {
    ConvBnAct: (("conv", "bn1"),),
    EdgeResidual: (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    InvertedResidual: (
        ("conv_pw", "bn1"),
        ("conv_dw", "bn2"),
        ("se.conv_reduce", "se.conv_expand"),
        ("conv_pwl", "bn3"),
    ),
}


def torchvision_layout(plan: Plan) -> Mapping[str, str]:
    """Module paths here -> module paths of torchvision's EfficientNetV2, where a block is a list of steps."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
        for path, row in blocks_of([(row,) for row in plan.rows]):
            _, stage, index = path.split(".")
            for i, names in enumerate(STEPS[row.block]):
                there = ("fc1", "fc2") if names[0].startswith("se") else ("0", "1")
                for name, leaf in zip(names, there, strict=True):
                    yield f"{path}.{name}", f"features.{int(stage) + 1}.{index}.block.{i}.{leaf}"
        final = f"features.{len(plan.rows) + 1}"
        yield from (("conv_head", f"{final}.0"), ("bn2", f"{final}.1"), ("classifier", "classifier.1"))

    return dict(pairs())


def has_torchvision_names(tensors: Mapping[str, Any]) -> bool:
    """Whether these are torchvision's names, possibly below a wrapper's."""
    return any(name.endswith("features.1.0.block.0.0.weight") for name in tensors)


TORCHVISION = Convention("torchvision", has_torchvision_names, Preprocess(size=(384, 384), crop_pct=1.0), {"eps": 1e-3})
CITATION = """@inproceedings{tan2021efficientnetv2,
  title = {{EfficientNetV2}: Smaller Models and Faster Training},
  author = {Tan, Mingxing and Le, Quoc V.},
  booktitle = {Proceedings of the 38th International Conference on Machine Learning},
  pages = {10096--10106},
  year = {2021}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    efficientnetv2_rw_s.ra2_in1k 288 1.0 bicubic apache-2.0
    efficientnetv2_rw_t.ra2_in1k 224 1.0 bicubic apache-2.0
    tf_efficientnetv2_b0.in1k 192 0.875 bicubic apache-2.0
    tf_efficientnetv2_b1.in1k 192 0.882 bicubic apache-2.0
    tf_efficientnetv2_b2.in1k 208 0.89 bicubic apache-2.0
    tf_efficientnetv2_b3.in1k 240 0.904 bicubic apache-2.0
    tf_efficientnetv2_b3.in21k 240 0.904 bicubic apache-2.0 stats=half classes=21843
    tf_efficientnetv2_b3.in21k_ft_in1k 240 0.9 bicubic apache-2.0 stats=half crop=squash
    tf_efficientnetv2_s.in1k 300 1.0 bicubic apache-2.0 stats=half
    tf_efficientnetv2_s.in21k 300 1.0 bicubic apache-2.0 stats=half classes=21843
    tf_efficientnetv2_s.in21k_ft_in1k 300 1.0 bicubic apache-2.0 stats=half
""")


def _spec(name: str) -> BackboneSpec:
    plan, size, crop_pct, tag = VARIANTS[name]
    converted = name.startswith("tf_")
    shared: dict[str, Any] = {"options": {"drop_path_rate": Range(0.0)}}
    if plan is SMALL and not converted:
        shared["layouts"] = {"torchvision": partial(torchvision_layout, plan)}
        shared["options"] |= {"eps": (1e-5, 1e-3)}
        shared["export_args"] = {"eps": {1e-3: {"bn_eps": 1e-3}}}
        shared["conventions"] = (TORCHVISION,)
    return BackboneSpec(
        name=name,
        family="EfficientNetV2",
        build=partial(build, plan, TENSORFLOW if converted else TORCH),
        stages=declared([(row,) for row in plan.rows], plan.stem, plan.head),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=Preprocess(size=(size, size), interpolation="bicubic", crop_pct=crop_pct),
        pretrained=tag,
        paper="https://arxiv.org/abs/2104.00298",
        citation=CITATION,
        **shared,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
