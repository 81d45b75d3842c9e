"""EfficientNet b0 to b4, trained in torch and, with the prefix `tf_`, converted from TensorFlow.

Paper: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946. Names are timm's;
torchvision's layout of the former and that of transformers of the latter are read too. The converted weights need
TensorFlow's padding and its epsilon in the batch norms. transformers pads by fixed numbers, which are TensorFlow's for
images of the variant's own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial

import jax
from flax import nnx

from zoo.blocks.inverted import (
    DepthwiseSeparable,
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
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, WeightSpec, weight_table

# arXiv:1905.11946, table 1: (repeats, kernel, stride, channels). The first row has no expansion, the others one by six.
ROWS = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
# Width, depth and dropout of the paper's reference code; size and crop of its evaluation.
# scale: (width multiplier, depth multiplier, image size, crop_pct, dropout)
SCALES = {
    "b0": (1.0, 1.0, 224, 0.875, 0.2),
    "b1": (1.0, 1.1, 240, 0.882, 0.2),
    "b2": (1.1, 1.2, 260, 0.89, 0.3),
    "b3": (1.2, 1.4, 300, 0.904, 0.3),
    "b4": (1.4, 1.8, 380, 0.922, 0.4),
}
# name: tag of the default weights
VARIANTS = {
    "efficientnet_b0": "ra_in1k",
    "efficientnet_b1": "ra4_e3600_r240_in1k",
    "efficientnet_b2": "ra_in1k",
    "efficientnet_b3": "ra2_in1k",
    "efficientnet_b4": "ra2_in1k",
    "tf_efficientnet_b0": "ns_jft_in1k",
    "tf_efficientnet_b1": "ns_jft_in1k",
    "tf_efficientnet_b2": "ns_jft_in1k",
    "tf_efficientnet_b3": "ns_jft_in1k",
    "tf_efficientnet_b4": "ns_jft_in1k",
}


def squeeze(inputs: int, wide: int, rngs: nnx.Rngs) -> SqueezeExcite:
    """A quarter of the block's input channels, not of the wide map's."""
    return SqueezeExcite(wide, inputs // 4, act=jax.nn.silu, rngs=rngs)


TORCH = Style(jax.nn.silu, squeeze=squeeze)
TENSORFLOW = Style(jax.nn.silu, eps=1e-3, padding="same", squeeze=squeeze)


def plan(scale: str) -> tuple[int, tuple[tuple[Row], ...], int]:
    """(stem channels, rows, head channels) of a scale."""
    width, depth, *_ = SCALES[scale]
    rows, squeezed = [], {"squeeze": True}
    for index, (repeats, kernel, stride, channels) in enumerate(ROWS):
        block = DepthwiseSeparable if index == 0 else InvertedResidual
        rows.append(
            (Row(block, math.ceil(repeats * depth), kernel, stride, round_channels(channels * width), squeezed),)
        )
    return round_channels(32 * width), tuple(rows), round_channels(1280 * width)


def build(
    scale: str, style: Style, *, in_channels: int = 3, drop_path_rate: float = 0.0, rngs: nnx.Rngs
) -> InvertedNet:
    """The stem, seven rows of blocks, and the 1x1 convolution that widens the last map."""
    stem, rows, head = plan(scale)
    return InvertedNet(rows, stem, head, style, in_channels=in_channels, drop_path_rate=drop_path_rate, rngs=rngs)


def torchvision_layout(scale: str) -> Mapping[str, str]:
    """Module paths here -> module paths of torchvision's EfficientNet, where a block is a list of steps."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
        for path, row in blocks_of(plan(scale)[1]):
            _, stage, index = path.split(".")
            wide = (("conv_pw", "bn1"),) if row.block is InvertedResidual else ()
            last = ("conv_pwl", "bn3") if row.block is InvertedResidual else ("conv_pw", "bn2")
            steps = (*wide, ("conv_dw", "bn2" if wide else "bn1"), ("se.conv_reduce", "se.conv_expand"), last)
            for i, names in enumerate(steps):
                there = ("fc1", "fc2") if names[0].startswith("se") else ("0", "1")
                for name, leaf in zip(names, there, strict=True):
                    yield f"{path}.{name}", f"features.{int(stage) + 1}.{index}.block.{i}.{leaf}"
        yield from (("conv_head", "features.8.0"), ("bn2", "features.8.1"), ("classifier", "classifier.1"))

    return dict(pairs())


def transformers_layout(scale: str) -> Mapping[str, str]:
    """Module paths here -> module paths of transformers' EfficientNet, whose blocks stand in one flat list."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "embeddings.convolution"), ("bn1", "embeddings.batchnorm"))
        for flat, (path, row) in enumerate(blocks_of(plan(scale)[1])):
            wide = row.block is InvertedResidual
            names = {
                ("conv_dw", "bn2" if wide else "bn1"): (
                    "depthwise_conv.depthwise_conv",
                    "depthwise_conv.depthwise_norm",
                ),
                ("se.conv_reduce", "se.conv_expand"): ("squeeze_excite.reduce", "squeeze_excite.expand"),
                ("conv_pwl", "bn3") if wide else ("conv_pw", "bn2"): (
                    "projection.project_conv",
                    "projection.project_bn",
                ),
            }
            if wide:
                names["conv_pw", "bn1"] = ("expansion.expand_conv", "expansion.expand_bn")
            for here, there in names.items():
                yield from ((f"{path}.{a}", f"encoder.blocks.{flat}.{b}") for a, b in zip(here, there, strict=True))
        yield from (("conv_head", "encoder.top_conv"), ("bn2", "encoder.top_bn"), ("classifier", "classifier"))

    return dict(pairs())


CITATION = """@inproceedings{tan2019efficientnet,
  title = {{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks},
  author = {Tan, Mingxing and Le, Quoc V.},
  booktitle = {Proceedings of the 36th International Conference on Machine Learning},
  pages = {6105--6114},
  year = {2019}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    efficientnet_b0.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
    efficientnet_b0.ra_in1k 224 0.875 bicubic apache-2.0
    efficientnet_b1.ft_in1k 224 0.875 bicubic apache-2.0
    efficientnet_b1.ra4_e3600_r240_in1k 240 0.9 bicubic apache-2.0 stats=half
    efficientnet_b2.ra_in1k 256 0.875 bicubic apache-2.0
    efficientnet_b3.ra2_in1k 288 0.875 bicubic apache-2.0
    efficientnet_b4.ra2_in1k 320 0.875 bicubic apache-2.0
    tf_efficientnet_b0.aa_in1k 224 0.875 bicubic apache-2.0
    tf_efficientnet_b0.ap_in1k 224 0.875 bicubic apache-2.0 stats=half
    tf_efficientnet_b0.in1k 224 0.875 bicubic apache-2.0
    tf_efficientnet_b0.ns_jft_in1k 224 0.875 bicubic apache-2.0
    tf_efficientnet_b1.aa_in1k 240 0.882 bicubic apache-2.0
    tf_efficientnet_b1.ap_in1k 240 0.882 bicubic apache-2.0 stats=half
    tf_efficientnet_b1.in1k 240 0.882 bicubic apache-2.0
    tf_efficientnet_b1.ns_jft_in1k 240 0.882 bicubic apache-2.0
    tf_efficientnet_b2.aa_in1k 260 0.89 bicubic apache-2.0
    tf_efficientnet_b2.ap_in1k 260 0.89 bicubic apache-2.0 stats=half
    tf_efficientnet_b2.in1k 260 0.89 bicubic apache-2.0
    tf_efficientnet_b2.ns_jft_in1k 260 0.89 bicubic apache-2.0
    tf_efficientnet_b3.aa_in1k 300 0.904 bicubic apache-2.0
    tf_efficientnet_b3.ap_in1k 300 0.904 bicubic apache-2.0 stats=half
    tf_efficientnet_b3.in1k 300 0.904 bicubic apache-2.0
    tf_efficientnet_b3.ns_jft_in1k 300 0.904 bicubic apache-2.0
    tf_efficientnet_b4.aa_in1k 380 0.922 bicubic apache-2.0
    tf_efficientnet_b4.ap_in1k 380 0.922 bicubic apache-2.0 stats=half
    tf_efficientnet_b4.in1k 380 0.922 bicubic apache-2.0
    tf_efficientnet_b4.ns_jft_in1k 380 0.922 bicubic apache-2.0
""")


def _spec(name: str) -> BackboneSpec:
    scale = name.rpartition("_")[2]
    converted = name.startswith("tf_")
    *_, size, crop_pct, dropout = SCALES[scale]
    stem, rows, head = plan(scale)
    other = {"transformers": transformers_layout} if converted else {"torchvision": torchvision_layout}
    return BackboneSpec(
        name=name,
        family="EfficientNet",
        build=partial(build, scale, TENSORFLOW if converted else TORCH),
        stages=declared(rows, stem, head),
        classifier=ClassifierLayout("classifier", dropout=dropout),
        preprocess=Preprocess(size=(size, size), interpolation="bicubic", crop_pct=crop_pct),
        options={"drop_path_rate": Range(0.0)},
        pretrained=VARIANTS[name],
        layouts={layout: partial(function, scale) for layout, function in other.items()},
        paper="https://arxiv.org/abs/1905.11946",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
