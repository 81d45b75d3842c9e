"""DenseNet.

Paper: Densely Connected Convolutional Networks, arXiv:1608.06993, in its `BC` form: bottlenecks, and transitions that
halve the channels. Weights: timm's and torchvision's, as timm publishes them on the Hugging Face hub. Names are timm's
and today's torchvision's alike; the files that torchvision publishes have an older spelling, which is read too. A
transition opens the stage that it leads to, so that each stage ends in the widest map of its stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Chain, Conv, MaxPool, avg_pool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, Stage, WeightSpec, weight_table


class DenseLayer(nnx.Module):
    """Norm, ReLU and 1x1 convolution to 4k channels, then the same with 3x3 to k, concatenated with the input.

    Channels c -> c + k, where k is the growth rate (arXiv:1608.06993, section 3).
    """

    def __init__(self, inputs: int, growth: int, drop_rate: float, *, rngs: nnx.Rngs):
        self.norm1 = BatchNorm(inputs, rngs=rngs)
        self.conv1 = Conv(inputs, 4 * growth, 1, bias=False, rngs=rngs)
        self.norm2 = BatchNorm(4 * growth, rngs=rngs)
        self.conv2 = Conv(4 * growth, growth, 3, 1, 1, bias=False, rngs=rngs)
        self.drop = nnx.Dropout(drop_rate, rngs=rngs if drop_rate else None)

    def __call__(self, x: Array) -> Array:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        y = self.drop(self.conv2(jax.nn.relu(self.norm2(y))))
        return jnp.concatenate([x, y], axis=-1)


class DenseBlock(nnx.Module):
    """Dense layers on maps of one size, called `denselayer1` and so on."""

    def __init__(self, inputs: int, growth: int, depth: int, drop_rate: float, *, rngs: nnx.Rngs):
        self.depth = depth
        for i in range(depth):
            layer = DenseLayer(inputs + i * growth, growth, drop_rate, rngs=rngs)
            setattr(self, f"denselayer{i + 1}", layer)

    def __call__(self, x: Array) -> Array:
        for i in range(self.depth):
            x = getattr(self, f"denselayer{i + 1}")(x)
        return x


class Transition(nnx.Module):
    """Norm, ReLU, 1x1 convolution to half of the channels, and 2x2 means."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(inputs, rngs=rngs)
        self.conv = Conv(inputs, inputs // 2, 1, bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return avg_pool(self.conv(jax.nn.relu(self.norm(x))), 2, 2)


class Features(nnx.Module):
    """The layers, under the names that they have below `features`."""

    denseblock1: DenseBlock
    denseblock2: DenseBlock
    denseblock3: DenseBlock
    denseblock4: DenseBlock
    transition1: Transition
    transition2: Transition
    transition3: Transition

    def __init__(self, growth: int, depths: tuple[int, ...], drop_rate: float, in_channels: int, *, rngs: nnx.Rngs):
        channels = 2 * growth
        self.conv0 = Conv(in_channels, channels, 7, 2, 3, bias=False, rngs=rngs)
        self.norm0 = BatchNorm(channels, rngs=rngs)
        for index, depth in enumerate(depths, start=1):
            if index > 1:
                setattr(self, f"transition{index - 1}", Transition(channels, rngs=rngs))
                channels //= 2
            setattr(self, f"denseblock{index}", DenseBlock(channels, growth, depth, drop_rate, rngs=rngs))
            channels += depth * growth
        self.norm5 = BatchNorm(channels, rngs=rngs)


class DenseNet(Backbone):
    """A stem of stride 2 and four dense blocks; a norm and a ReLU close the last."""

    def __init__(
        self, growth: int, depths: tuple[int, ...], *, in_channels: int = 3, drop_rate: float = 0.0, rngs: nnx.Rngs
    ):
        self.features = Features(growth, depths, drop_rate, in_channels, rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        f = self.features
        return {
            "stem": Chain([f.conv0, f.norm0, jax.nn.relu]),
            "denseblock1": Chain([MaxPool(3, 2, 1), f.denseblock1]),
            "denseblock2": Chain([f.transition1, f.denseblock2]),
            "denseblock3": Chain([f.transition2, f.denseblock3]),
            "denseblock4": Chain([f.transition3, f.denseblock4, f.norm5, jax.nn.relu]),
        }


# arXiv:1608.06993, table 1, and the authors' repository (liuzhuang13/DenseNet) for 161.
# name: (growth rate, layers of each block, tag of the default weights)
VARIANTS = {
    "densenet121": (32, (6, 12, 24, 16), "ra_in1k"),
    "densenet169": (32, (6, 12, 32, 32), "tv_in1k"),
    "densenet201": (32, (6, 12, 48, 32), "tv_in1k"),
    "densenet161": (48, (6, 12, 36, 24), "tv_in1k"),
}


def legacy_layout(depths: tuple[int, ...]) -> Mapping[str, str]:
    """torchvision's files of 2017, in which the layers of a dense layer are `norm.1`, `conv.1`, `norm.2`, `conv.2`."""
    layers = [f"features.denseblock{b}.denselayer{i}" for b, n in enumerate(depths, 1) for i in range(1, n + 1)]
    return {
        f"{layer}.{kind}{i}": f"{layer}.{kind}.{i}" for layer in layers for kind in ("norm", "conv") for i in (1, 2)
    }


CITATION = """@inproceedings{huang2017densely,
  title = {Densely Connected Convolutional Networks},
  author = {Huang, Gao and Liu, Zhuang and van der Maaten, Laurens and Weinberger, Kilian Q.},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {2261--2269},
  year = {2017}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    densenet121.ra_in1k 224 0.875 bicubic apache-2.0
    densenet121.tv_in1k 224 0.875 bicubic apache-2.0
    densenet161.tv_in1k 224 0.875 bicubic apache-2.0
    densenet169.tv_in1k 224 0.875 bicubic apache-2.0
    densenet201.tv_in1k 224 0.875 bicubic apache-2.0
""")


def _spec(name: str) -> BackboneSpec:
    growth, depths, tag = VARIANTS[name]
    channels = 2 * growth
    stages = [Stage("stem", channels, 2, modules=("features.conv0", "features.norm0"))]
    for index, depth in enumerate(depths, start=1):
        before = (f"features.transition{index - 1}",) if index > 1 else ()
        after = ("features.norm5",) if index == len(depths) else ()
        channels = (channels // 2 if index > 1 else channels) + depth * growth
        modules = (*before, f"features.denseblock{index}", *after)
        stages.append(Stage(f"denseblock{index}", channels, 2 ** (index + 1), modules=modules))
    return BackboneSpec(
        name=name,
        family="DenseNet",
        build=partial(DenseNet, growth, depths),
        stages=tuple(stages),
        classifier=ClassifierLayout("classifier"),
        preprocess=Preprocess(interpolation="bicubic"),
        options={"drop_rate": Range(0.0)},
        pretrained=tag,
        layouts={"torchvision": dict, "torchvision-legacy": partial(legacy_layout, depths)},
        paper="https://arxiv.org/abs/1608.06993",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
