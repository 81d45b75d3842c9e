"""The CIFAR ResNets.

Paper: Deep Residual Learning, arXiv:1512.03385, section 4.2, with parameter-free shortcuts. Names are those of the
published weights (akamaster/pytorch_resnet_cifar10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.residual import BasicBlock, Shortcut, residual_stage
from zoo.layers import BatchNorm, Conv
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec


@dataclass(frozen=True)
class SubsampleAndPad:
    """The parameter-free shortcut (option A of arXiv:1512.03385, section 3.3).

    It takes every `stride`-th pixel and pads the new channels with zeros, half of them on each side, as the published
    CIFAR weights expect.
    """

    stride: int
    outputs: int

    def __call__(self, x: Array) -> Array:
        extra = self.outputs - x.shape[-1]
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


class CifarResNet(Backbone):
    """Three stages of basic blocks with 16, 32 and 64 channels for 32x32 images."""

    def __init__(self, depth: int, *, in_channels: int = 3, rngs: nnx.Rngs):
        def shortcut(inputs: int, outputs: int, stride: int) -> Shortcut:
            del inputs
            return SubsampleAndPad(stride, outputs)

        self.conv1 = Conv(in_channels, 16, 3, 1, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(16, rngs=rngs)
        # The published weights were trained from a last scale of 1.
        stage = partial(residual_stage, BasicBlock, shortcut=shortcut, rates=(0.0,) * depth, rngs=rngs, last_scale=1.0)
        self.layer1 = stage(inputs=16, width=16, stride=1)
        self.layer2 = stage(inputs=16, width=32, stride=2)
        self.layer3 = stage(inputs=32, width=64, stride=2)

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": lambda x: jax.nn.relu(self.bn1(self.conv1(x))),
            "layer1": self.layer1,
            "layer2": self.layer2,
            "layer3": self.layer3,
        }


# arXiv:1512.03385, table 6: 6n + 2 layers. name: n
VARIANTS = {f"resnet{6 * n + 2}": n for n in (3, 5, 7, 9, 18)}
PREPROCESS = Preprocess(size=(32, 32), crop_pct=1.0)
CITATION = """@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {770--778},
  year = {2016}
}"""
# Weights of the reference implementation of these nets, published as pickles: known as safetensors files only.
WEIGHTS = {
    "resnet20": "4c1035f50331b1cb8d6bdc554acf1c3c89eb1af72cd300db74d04d69247683bd",
    "resnet56": "6300afed6d43f00c760784384284519fd7cd1d6a4432845a4fb82955345cac02",
}


def _spec(name: str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        family="CIFAR ResNet",
        build=partial(CifarResNet, VARIANTS[name]),
        stages=(
            Stage("stem", 16, 1, modules=("conv1", "bn1")),
            *(Stage(f"layer{i + 1}", 16 * 2**i, 2**i, modules=(f"layer{i + 1}",)) for i in range(3)),
        ),
        classifier=ClassifierLayout("linear", labels="cifar-10"),
        preprocess=PREPROCESS,
        pretrained="cifar10" if name in WEIGHTS else None,
        native_layout="original",
        min_size=8,
        paper="https://arxiv.org/abs/1512.03385",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [
        WeightSpec(
            f"{name}.cifar10",
            sha256=digest,
            preprocess=PREPROCESS,
            num_classes=10,
            labels="cifar-10",
            license="bsd-2-clause",
            commercial_use="yes",
            note="akamaster/pytorch_resnet_cifar10, converted to safetensors",
        )
        for name, digest in WEIGHTS.items()
    ]
