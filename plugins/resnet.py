"""ResNet, ResNeXt, Wide ResNet and their `d` stems, and the CIFAR ResNets.

Papers: Deep Residual Learning, arXiv:1512.03385; Aggregated Residual Transformations (ResNeXt), arXiv:1611.05431;
Wide Residual Networks, arXiv:1605.07146; Bag of Tricks (the `d` stem and shortcut), arXiv:1812.01187.
Weights: timm's on the Hugging Face hub (licence in each row below). The stride of a bottleneck is on its 3x3
convolution, as in torchvision and timm. CIFAR nets follow section 4.2 of the first paper with parameter-free shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.backbone import Backbone, StageFunction
from zoo.hookspecs import hookimpl
from zoo.layers import AvgPool, BatchNorm, Chain, Conv, max_pool
from zoo.spec import BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec, weight_table

Shortcut = Callable[[Array], Array]


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut. With a `last_scale` of 0 the block starts as its shortcut
    (arXiv:1706.02677, section 5.1), as ImageNet nets do; the CIFAR nets were trained from 1."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut | None,
        *,
        last_scale: float = 0.0,
        rngs: nnx.Rngs,
        **_: int,
    ):
        self.conv1 = Conv(inputs, width, 3, stride, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, 1, 1, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(width, scale_init=last_scale, rngs=rngs)
        self.downsample = shortcut

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """1x1 down, 3x3 (grouped in ResNeXt), 1x1 up by four, and a shortcut."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut | None,
        *,
        groups: int = 1,
        base_width: int = 64,
        rngs: nnx.Rngs,
    ):
        inner = width * base_width // 64 * groups
        self.conv1 = Conv(inputs, inner, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(inner, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, stride, 1, groups=groups, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(inner, rngs=rngs)
        self.conv3 = Conv(inner, width * 4, 1, bias=False, rngs=rngs)
        self.bn3 = BatchNorm(width * 4, scale_init=0.0, rngs=rngs)
        self.downsample = shortcut

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


def projection(inputs: int, outputs: int, stride: int, averaged: bool, rngs: nnx.Rngs) -> Chain:
    """The shortcut that changes shape. `averaged` pools first and then convolves at stride 1 (the `d` shortcut)."""
    conv = Conv(inputs, outputs, 1, 1 if averaged else stride, bias=False, rngs=rngs)
    layers = [conv, BatchNorm(outputs, rngs=rngs)]
    return Chain([AvgPool(stride, stride, ceil_mode=True, count_padding=False), *layers] if averaged else layers)


@dataclass(frozen=True)
class SubsampleAndPad:
    """The parameter-free shortcut (option A of arXiv:1512.03385, section 3.3): every `stride`-th pixel, and zeros for
    the new channels, half of them on each side as the published CIFAR weights expect."""

    stride: int
    outputs: int

    def __call__(self, x: Array) -> Array:
        extra = self.outputs - x.shape[-1]
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    width: int,
    depth: int,
    stride: int,
    shortcut: Callable[[int, int, int], Shortcut],
    rngs: nnx.Rngs,
    **kwargs: Any,
) -> Chain:
    """`depth` blocks; the first changes stride and channels, and takes a shortcut that does so too."""
    outputs = width * block.expansion
    changes = stride != 1 or inputs != outputs
    first = block(inputs, width, stride, shortcut(inputs, outputs, stride) if changes else None, rngs=rngs, **kwargs)
    return Chain([first, *(block(outputs, width, 1, None, rngs=rngs, **kwargs) for _ in range(depth - 1))])


class ResNet(Backbone):
    """Four stages of residual blocks after a stem of stride 2; pooling to stride 4 opens the first of them."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        *,
        groups: int = 1,
        base_width: int = 64,
        deep_stem: bool = False,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        if deep_stem:
            sizes = ((in_channels, 32, 2), (32, 32, 1))
            inner = [
                layer
                for a, b, s in sizes
                for layer in (Conv(a, b, 3, s, 1, bias=False, rngs=rngs), BatchNorm(b, rngs=rngs), jax.nn.relu)
            ]
            self.conv1 = Chain([*inner, Conv(32, 64, 3, 1, 1, bias=False, rngs=rngs)])
        else:
            self.conv1 = Conv(in_channels, 64, 7, 2, 3, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(64, rngs=rngs)
        inputs = 64
        for index, depth in enumerate(depths):
            width, stride = 64 * 2**index, 1 if index == 0 else 2
            shortcut = partial(projection, averaged=deep_stem, rngs=rngs)
            stage = residual_stage(
                block, inputs, width, depth, stride, shortcut, rngs, groups=groups, base_width=base_width
            )
            setattr(self, f"layer{index + 1}", stage)
            inputs = width * block.expansion

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": lambda x: jax.nn.relu(self.bn1(self.conv1(x))),
            "layer1": lambda x: self.layer1(max_pool(x, 3, 2, 1)),
            "layer2": self.layer2,
            "layer3": self.layer3,
            "layer4": self.layer4,
        }


class CifarResNet(Backbone):
    """Three stages of basic blocks with 16, 32 and 64 channels for 32x32 images."""

    def __init__(self, depth: int, *, in_channels: int = 3, rngs: nnx.Rngs):
        def shortcut(inputs: int, outputs: int, stride: int) -> Shortcut:
            del inputs
            return SubsampleAndPad(stride, outputs)

        self.conv1 = Conv(in_channels, 16, 3, 1, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(16, rngs=rngs)
        self.layer1 = residual_stage(BasicBlock, 16, 16, depth, 1, shortcut, rngs, last_scale=1.0)
        self.layer2 = residual_stage(BasicBlock, 16, 32, depth, 2, shortcut, rngs, last_scale=1.0)
        self.layer3 = residual_stage(BasicBlock, 32, 64, depth, 2, shortcut, rngs, last_scale=1.0)

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": lambda x: jax.nn.relu(self.bn1(self.conv1(x))),
            "layer1": self.layer1,
            "layer2": self.layer2,
            "layer3": self.layer3,
        }


# Depths: arXiv:1512.03385, table 1; groups and widths: arXiv:1611.05431, table 1 and arXiv:1605.07146 via torchvision.
# name: (block, depths, groups, width of a group in the first stage, deep stem, tag of the default weights)
VARIANTS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64, False, "a1_in1k"),
    "resnet18d": (BasicBlock, (2, 2, 2, 2), 1, 64, True, "ra2_in1k"),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64, False, "a1_in1k"),
    "resnet34d": (BasicBlock, (3, 4, 6, 3), 1, 64, True, "ra2_in1k"),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64, False, "a1_in1k"),
    "resnet50d": (Bottleneck, (3, 4, 6, 3), 1, 64, True, "ra2_in1k"),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64, False, "a1h_in1k"),
    "resnet101d": (Bottleneck, (3, 4, 23, 3), 1, 64, True, "ra2_in1k"),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 1, 64, False, "a1h_in1k"),
    "resnet152d": (Bottleneck, (3, 8, 36, 3), 1, 64, True, "ra2_in1k"),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4, False, "a1h_in1k"),
    "resnext50d_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4, True, "bt_in1k"),
    "resnext101_32x4d": (Bottleneck, (3, 4, 23, 3), 32, 4, False, "gluon_in1k"),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8, False, "tv_in1k"),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4, False, "c1_in1k"),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 1, 128, False, "racm_in1k"),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), 1, 128, False, "tv2_in1k"),
}
# arXiv:1512.03385, table 6: 6n + 2 layers. name: (n, tag of the weights known as a file)
CIFAR_VARIANTS = {f"resnet{6 * n + 2}": n for n in (3, 5, 7, 9, 18)}

CIFAR_PREPROCESS = Preprocess(size=(32, 32), crop_pct=1.0)
CITATION = """@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {770--778},
  year = {2016}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    resnet18.a1_in1k 224 0.95 bicubic apache-2.0
    resnet18.a2_in1k 224 0.95 bicubic apache-2.0
    resnet18.a3_in1k 160 0.95 bicubic apache-2.0
    resnet18.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet18.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet18.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet18.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet18d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet18d.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
    resnet34.a1_in1k 224 0.95 bicubic apache-2.0
    resnet34.a2_in1k 224 0.95 bicubic apache-2.0
    resnet34.a3_in1k 160 0.95 bicubic apache-2.0
    resnet34.bt_in1k 224 0.875 bicubic apache-2.0
    resnet34.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet34.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
    resnet34.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet34d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet50.a1_in1k 224 0.95 bicubic apache-2.0
    resnet50.a1h_in1k 176 0.9 bicubic apache-2.0
    resnet50.a2_in1k 224 0.95 bicubic apache-2.0
    resnet50.a3_in1k 160 0.95 bicubic apache-2.0
    resnet50.am_in1k 224 0.875 bicubic apache-2.0
    resnet50.b1k_in1k 224 0.95 bicubic apache-2.0
    resnet50.b2k_in1k 224 0.95 bicubic apache-2.0
    resnet50.bamboo 224 1.0 bicubic unknown classes=0
    resnet50.bt_in1k 224 0.875 bicubic apache-2.0
    resnet50.c1_in1k 224 0.95 bicubic apache-2.0
    resnet50.c2_in1k 224 0.95 bicubic apache-2.0
    resnet50.d_in1k 224 0.95 bicubic apache-2.0
    resnet50.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet50.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet50.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet50.ra_in1k 224 0.875 bicubic apache-2.0
    resnet50.ram_in1k 224 0.875 bicubic apache-2.0
    resnet50.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet50.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet50d.a1_in1k 224 0.95 bicubic apache-2.0
    resnet50d.a2_in1k 224 0.95 bicubic apache-2.0
    resnet50d.a3_in1k 160 0.95 bicubic apache-2.0
    resnet50d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet50d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet50d.ra4_e3600_r224_in1k 224 0.95 bicubic apache-2.0 stats=half
    resnet101.a1_in1k 224 0.95 bicubic apache-2.0
    resnet101.a1h_in1k 224 0.95 bicubic apache-2.0
    resnet101.a2_in1k 224 0.95 bicubic apache-2.0
    resnet101.a3_in1k 160 0.95 bicubic apache-2.0
    resnet101.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet101.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet101.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet101d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet101d.ra2_in1k 256 0.95 bicubic apache-2.0
    resnet152.a1_in1k 224 0.95 bicubic apache-2.0
    resnet152.a1h_in1k 224 0.95 bicubic apache-2.0
    resnet152.a2_in1k 224 0.95 bicubic apache-2.0
    resnet152.a3_in1k 160 0.95 bicubic apache-2.0
    resnet152.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet152.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet152.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet152d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet152d.ra2_in1k 256 0.95 bicubic apache-2.0
    resnext50_32x4d.a1_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a1h_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a2_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a3_in1k 160 0.95 bicubic apache-2.0
    resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext50_32x4d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext50_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext50_32x4d.ra_in1k 224 0.875 bicubic apache-2.0
    resnext50_32x4d.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnext50_32x4d.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnext50d_32x4d.bt_in1k 224 0.875 bicubic apache-2.0
    resnext101_32x4d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x4d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.fb_wsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnext101_32x8d.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnext101_64x4d.c1_in1k 224 0.95 bicubic apache-2.0
    resnext101_64x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext101_64x4d.tv_in1k 224 0.875 bilinear bsd-3-clause
    wide_resnet50_2.racm_in1k 224 0.875 bicubic apache-2.0
    wide_resnet50_2.tv2_in1k 176 0.875 bilinear bsd-3-clause
    wide_resnet50_2.tv_in1k 224 0.875 bilinear bsd-3-clause
    wide_resnet101_2.tv2_in1k 176 0.875 bilinear bsd-3-clause
    wide_resnet101_2.tv_in1k 224 0.875 bilinear bsd-3-clause
""")
# Weights of the reference implementation of the CIFAR nets, published as pickles: known as safetensors files only.
CIFAR_WEIGHTS = {
    "resnet20": "4c1035f50331b1cb8d6bdc554acf1c3c89eb1af72cd300db74d04d69247683bd",
    "resnet56": "6300afed6d43f00c760784384284519fd7cd1d6a4432845a4fb82955345cac02",
}


def _spec(name: str) -> BackboneSpec:
    block, depths, groups, base_width, deep_stem, tag = VARIANTS[name]
    widths = [64 * 2**i * block.expansion for i in range(4)]
    return BackboneSpec(
        name=name,
        family="ResNet",
        build=partial(ResNet, block, depths, groups=groups, base_width=base_width, deep_stem=deep_stem),
        stages=(
            Stage("stem", 64, 2, modules=("conv1", "bn1")),
            *(Stage(f"layer{i + 1}", w, 4 * 2**i, modules=(f"layer{i + 1}",)) for i, w in enumerate(widths)),
        ),
        classifier=ClassifierLayout("fc"),
        preprocess=Preprocess(interpolation="bicubic", crop_pct=0.95),
        pretrained=tag,
        layouts={} if deep_stem else {"torchvision": dict},
        paper="https://arxiv.org/abs/1512.03385",
        citation=CITATION,
    )


def _cifar_spec(name: str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        family="CIFAR ResNet",
        build=partial(CifarResNet, CIFAR_VARIANTS[name]),
        stages=(
            Stage("stem", 16, 1, modules=("conv1", "bn1")),
            *(Stage(f"layer{i + 1}", 16 * 2**i, 2**i, modules=(f"layer{i + 1}",)) for i in range(3)),
        ),
        classifier=ClassifierLayout("linear", labels="cifar-10"),
        preprocess=CIFAR_PREPROCESS,
        pretrained="cifar10" if name in CIFAR_WEIGHTS else None,
        native_layout="original",
        min_size=8,
        paper="https://arxiv.org/abs/1512.03385",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS), *map(_cifar_spec, CIFAR_VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    cifar = [
        WeightSpec(
            f"{name}.cifar10",
            sha256=digest,
            preprocess=CIFAR_PREPROCESS,
            num_classes=10,
            labels="cifar-10",
            license="bsd-2-clause",
            commercial_use="yes",
            note="akamaster/pytorch_resnet_cifar10, converted to safetensors",
        )
        for name, digest in CIFAR_WEIGHTS.items()
    ]
    return [*WEIGHTS, *cifar]
