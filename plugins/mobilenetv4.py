"""MobileNetV4, the nets without attention.

Paper: MobileNetV4: Universal Models for the Mobile Ecosystem, arXiv:2404.10518. Names and weights are timm's, which
trained them anew. In `aa` and `blur` variants a halving block convolves at stride 1 and averages afterwards
(arXiv:1904.11486).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.inverted import (
    Activation,
    ConvBnAct,
    EdgeResidual,
    InvertedNet,
    Row,
    Style,
    UniversalInvertedResidual,
    declared,
    round_channels,
)
from zoo.layers import AvgPool, depthwise_conv
from zoo.models.backbone import StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, Stage, WeightSpec, weight_table

FEATURES = 1280


def blur(x: Array) -> Array:
    """x (b, h, w, c) filtered by the binomial (1, 2, 1) along both axes and halved, zeros around it."""
    taps = jnp.asarray([1, 2, 1], x.dtype) / 4
    kernel = taps.reshape(3, 1, 1, 1) * taps.reshape(1, 3, 1, 1)
    return depthwise_conv(x, jnp.broadcast_to(kernel, (3, 3, 1, x.shape[-1])), (2, 2), ((1, 1), (1, 1)))


def conv(kernel: int, stride: int, channels: int) -> Row:
    """A plain convolution."""
    return Row(ConvBnAct, 1, kernel, stride, channels)


def uib(repeats: int, start: int, middle: int, stride: int, expansion: int, channels: int) -> Row:
    """Universal inverted bottlenecks with depthwise kernels before and after the expansion."""
    args = {"start": start, "expansion": expansion}
    return Row(UniversalInvertedResidual, repeats, middle, stride, channels, args)


# arXiv:2404.10518, appendix D: the tables of Conv-S, Conv-M and Conv-L, by stage.
SMALL = (
    (conv(3, 2, 32), conv(1, 1, 32)),
    (conv(3, 2, 96), conv(1, 1, 64)),
    (uib(1, 5, 5, 2, 3, 96), uib(4, 0, 3, 1, 2, 96), uib(1, 3, 0, 1, 4, 96)),
    (
        uib(1, 3, 3, 2, 6, 128),
        uib(1, 5, 5, 1, 4, 128),
        uib(1, 0, 5, 1, 4, 128),
        uib(1, 0, 5, 1, 3, 128),
        uib(2, 0, 3, 1, 4, 128),
    ),
    (conv(1, 1, 960),),
)
MEDIUM = (
    (Row(EdgeResidual, 1, 3, 2, 48),),
    (uib(1, 3, 5, 2, 4, 80), uib(1, 3, 3, 1, 2, 80)),
    (
        uib(1, 3, 5, 2, 6, 160),
        uib(2, 3, 3, 1, 4, 160),
        uib(1, 3, 5, 1, 4, 160),
        uib(1, 3, 3, 1, 4, 160),
        uib(1, 3, 0, 1, 4, 160),
        uib(1, 0, 0, 1, 2, 160),
        uib(1, 3, 0, 1, 4, 160),
    ),
    (
        uib(1, 5, 5, 2, 6, 256),
        uib(1, 5, 5, 1, 4, 256),
        uib(2, 3, 5, 1, 4, 256),
        uib(1, 0, 0, 1, 4, 256),
        uib(1, 3, 0, 1, 4, 256),
        uib(1, 3, 5, 1, 2, 256),
        uib(1, 5, 5, 1, 4, 256),
        uib(2, 0, 0, 1, 4, 256),
        uib(1, 5, 0, 1, 2, 256),
    ),
    (conv(1, 1, 960),),
)
LARGE = (
    (Row(EdgeResidual, 1, 3, 2, 48),),
    (uib(1, 3, 5, 2, 4, 96), uib(1, 3, 3, 1, 4, 96)),
    (
        uib(1, 3, 5, 2, 4, 192),
        uib(3, 3, 3, 1, 4, 192),
        uib(1, 3, 5, 1, 4, 192),
        uib(5, 5, 3, 1, 4, 192),
        uib(1, 3, 0, 1, 4, 192),
    ),
    (
        uib(4, 5, 5, 2, 4, 512),
        uib(1, 5, 0, 1, 4, 512),
        uib(1, 5, 3, 1, 4, 512),
        uib(2, 5, 0, 1, 4, 512),
        uib(1, 5, 3, 1, 4, 512),
        uib(1, 5, 5, 1, 4, 512),
        uib(3, 5, 0, 1, 4, 512),
    ),
    (conv(1, 1, 960),),
)
# name: (stages, stem channels at every width, width multiplier, what halves, tag of the default weights)
VARIANTS: dict[str, tuple[Any, int, float, Activation | None, str | None]] = {
    "mobilenetv4_conv_small_035": (SMALL, 32, 0.35, None, None),
    "mobilenetv4_conv_small_050": (SMALL, 32, 0.5, None, "e3000_r224_in1k"),
    "mobilenetv4_conv_small": (SMALL, 32, 1.0, None, "e2400_r224_in1k"),
    "mobilenetv4_conv_medium": (MEDIUM, 32, 1.0, None, "e500_r256_in1k"),
    "mobilenetv4_conv_blur_medium": (MEDIUM, 32, 1.0, blur, "e500_r224_in1k"),
    "mobilenetv4_conv_aa_medium": (MEDIUM, 32, 1.0, AvgPool(2, 2), None),
    "mobilenetv4_conv_large": (LARGE, 24, 1.0, None, "e600_r384_in1k"),
    "mobilenetv4_conv_aa_large": (LARGE, 24, 1.0, AvgPool(2, 2), "e230_r448_in12k_ft_in1k"),
}


def plan(name: str) -> tuple[tuple[Row, ...], ...]:
    """The rows of a variant by stage."""
    stages, _, width, *_ = VARIANTS[name]
    return tuple(tuple(replace(row, channels=round_channels(row.channels * width)) for row in rows) for rows in stages)


class MobileNetV4(InvertedNet):
    """The stem, five stages, and the head: a 1x1 convolution and its norm after pooling."""

    def __init__(self, name: str, *, in_channels: int = 3, drop_path_rate: float = 0.0, rngs: nnx.Rngs):
        _, stem, _, pool, _ = VARIANTS[name]
        style, stages = Style(jax.nn.relu, pool=pool), plan(name)
        super().__init__(stages, stem, 0, style, in_channels=in_channels, drop_path_rate=drop_path_rate, rngs=rngs)
        self.conv_head = style.conv(stages[-1][-1].channels, FEATURES, rngs=rngs)
        self.norm_head = style.norm(FEATURES, rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return {**super().stages(), "head": self._head}

    def _head(self, x: Array) -> Array:
        """(b, h, w, c) -> (b, features)."""
        y = self.norm_head(self.conv_head(jnp.mean(x, axis=(1, 2), keepdims=True)))
        return self.act(y).reshape(x.shape[0], FEATURES)


CITATION = """@inproceedings{qin2024mobilenetv4,
  title = {{MobileNetV4}: Universal Models for the Mobile Ecosystem},
  author = {Qin, Danfeng and Leichner, Chas and Delakis, Manolis and Fornoni, Marco and Luo, Shixin and Yang, Fan and
    Wang, Weijun and Banbury, Colby and Ye, Chengxi and Akin, Berkin and Aggarwal, Vaibhav and Zhu, Tenghui and
    Moro, Daniele and Howard, Andrew},
  booktitle = {Proceedings of the European Conference on Computer Vision},
  year = {2024}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    mobilenetv4_conv_aa_large.e230_r384_in12k 384 0.95 bicubic apache-2.0 classes=11821
    mobilenetv4_conv_aa_large.e230_r384_in12k_ft_in1k 384 0.95 bicubic apache-2.0
    mobilenetv4_conv_aa_large.e230_r448_in12k_ft_in1k 448 0.95 bicubic apache-2.0
    mobilenetv4_conv_aa_large.e600_r384_in1k 384 0.95 bicubic apache-2.0
    mobilenetv4_conv_blur_medium.e500_r224_in1k 224 0.95 bicubic apache-2.0
    mobilenetv4_conv_large.e500_r256_in1k 256 0.95 bicubic apache-2.0
    mobilenetv4_conv_large.e600_r384_in1k 384 0.95 bicubic apache-2.0
    mobilenetv4_conv_medium.e180_ad_r384_in12k 384 1.0 bicubic apache-2.0 classes=11821
    mobilenetv4_conv_medium.e180_r384_in12k 384 1.0 bicubic apache-2.0 classes=11821
    mobilenetv4_conv_medium.e250_r384_in12k 384 1.0 bicubic apache-2.0 classes=11821
    mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k 384 0.95 bicubic apache-2.0
    mobilenetv4_conv_medium.e500_r224_in1k 224 0.95 bicubic apache-2.0
    mobilenetv4_conv_medium.e500_r256_in1k 256 0.95 bicubic apache-2.0
    mobilenetv4_conv_small.e1200_r224_in1k 224 0.875 bicubic apache-2.0
    mobilenetv4_conv_small.e2400_r224_in1k 224 0.875 bicubic apache-2.0
    mobilenetv4_conv_small.e3600_r256_in1k 256 0.95 bicubic apache-2.0 stats=half
    mobilenetv4_conv_small_050.e3000_r224_in1k 224 0.875 bicubic apache-2.0 stats=half
""")


def _spec(name: str) -> BackboneSpec:
    _, stem, _, _, tag = VARIANTS[name]
    head = Stage("head", FEATURES, 1, kind="vector", modules=("conv_head", "norm_head"))
    return BackboneSpec(
        name=name,
        family="MobileNetV4",
        build=partial(MobileNetV4, name),
        stages=(*declared(plan(name), stem), head),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=Preprocess(interpolation="bicubic", crop_pct=0.95),
        options={"drop_path_rate": Range(0.0)},
        pretrained=tag,
        paper="https://arxiv.org/abs/2404.10518",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
