"""VGG, with and without batch normalisation.

Paper: Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556. Weights: torchvision's, as
timm publishes them on the Hugging Face hub. Names are timm's, which keeps the two wide layers of the classifier as
convolutions; torchvision's layout, where they are linear maps, is read too. Every convolution ends a stage of its own,
named as in the paper's tables and the literature on style transfer: `relu3_1` is the first of the third group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Chain, Conv, MaxPool, global_avg_pool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, Stage, Stored, WeightSpec, weight_table

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096
WINDOW = 7  # side of the map that the first wide layer covers, for images of 224


def at_least(x: Array, side: int) -> Array:
    """Enlarge maps (b, h, w, c) with sides below `side` to it, as torch's adaptive average pooling does.

    Output i is the mean of the inputs from floor(i n / side) to ceil((i + 1) n / side).
    """
    for axis in (1, 2):
        n = x.shape[axis]
        if n < side:
            ends = [(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]
            means = [jnp.mean(jax.lax.slice_in_dim(x, *end, axis=axis), axis, keepdims=True) for end in ends]
            x = jnp.concatenate(means, axis)
    return x


class WideLayers(nnx.Module):
    """The first two layers of the classifier as convolutions: (b, h, w, 512) -> (b, 4096).

    Larger images give several positions, which are averaged.
    """

    def __init__(self, channels: int, drop_rate: float, *, rngs: nnx.Rngs):
        self.fc1 = Conv(channels, HIDDEN, WINDOW, rngs=rngs)
        self.drop = nnx.Dropout(drop_rate, rngs=rngs if drop_rate else None)
        self.fc2 = Conv(HIDDEN, HIDDEN, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.drop(jax.nn.relu(self.fc1(at_least(x, WINDOW))))
        return global_avg_pool(jax.nn.relu(self.fc2(x)))


class VGG(Backbone):
    """Groups of 3x3 convolutions, each group closed by a 2x2 maximum, then the two wide layers."""

    def __init__(
        self, depths: tuple[int, ...], batch_norm: bool, *, in_channels: int = 3, drop_rate: float = 0.0, rngs: nnx.Rngs
    ):
        layers: list = []
        inputs = in_channels
        for depth, width in zip(depths, WIDTHS, strict=True):
            for _ in range(depth):
                layers.append(Conv(inputs, width, 3, 1, 1, rngs=rngs))
                layers += [BatchNorm(width, rngs=rngs)] if batch_norm else []
                layers.append(jax.nn.relu)
                inputs = width
            layers.append(MaxPool(2, 2))
        self.features = Chain(layers)
        self.pre_logits = WideLayers(inputs, drop_rate, rngs=rngs)
        self.sections = tuple((name, first, last) for name, first, last, *_ in sections(depths, batch_norm))

    def stages(self) -> Mapping[str, StageFunction]:
        def section(first: int, last: int) -> StageFunction:
            def run(x: Array) -> Array:
                for layer in self.features[first:last]:
                    x = layer(x)
                return x

            return run

        return {**{name: section(*ends) for name, *ends in self.sections}, "head": self.pre_logits}


def sections(depths: tuple[int, ...], batch_norm: bool) -> Iterator[tuple[str, int, int, int, int]]:
    """(stage, its first layer in `features`, the one after its last, channels, stride): convolutions and pools."""
    length, index = 3 if batch_norm else 2, 0
    for group, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
        for i in range(1, depth + 1):
            yield f"relu{group}_{i}", index, index + length, width, 2 ** (group - 1)
            index += length
        yield f"pool{group}", index, index + 1, width, 2**group
        index += 1


# arXiv:1409.1556, table 1, columns A, B, D and E. name: (convolutions in each group, batch norm)
VARIANTS = {
    "vgg11": ((1, 1, 2, 2, 2), False),
    "vgg13": ((2, 2, 2, 2, 2), False),
    "vgg16": ((2, 2, 3, 3, 3), False),
    "vgg19": ((2, 2, 4, 4, 4), False),
    "vgg11_bn": ((1, 1, 2, 2, 2), True),
    "vgg13_bn": ((2, 2, 2, 2, 2), True),
    "vgg16_bn": ((2, 2, 3, 3, 3), True),
    "vgg19_bn": ((2, 2, 4, 4, 4), True),
}


def torchvision_layout() -> Mapping[str, str | Stored]:
    """torchvision has the wide layers as linear maps, numbered with the ReLUs and dropouts between them."""
    return {
        "pre_logits.fc1": "classifier.0",
        "pre_logits.fc1.weight": Stored(("classifier.0.weight",), shape=(HIDDEN, -1)),
        "pre_logits.fc2": "classifier.3",
        "pre_logits.fc2.weight": Stored(("classifier.3.weight",), shape=(HIDDEN, -1)),
        "head.fc": "classifier.6",
    }


CITATION = """@inproceedings{simonyan2015very,
  title = {Very Deep Convolutional Networks for Large-Scale Image Recognition},
  author = {Simonyan, Karen and Zisserman, Andrew},
  booktitle = {International Conference on Learning Representations},
  year = {2015}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    vgg11.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg11_bn.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg13.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg13_bn.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg16.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg16_bn.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg19.tv_in1k 224 0.875 bilinear bsd-3-clause
    vgg19_bn.tv_in1k 224 0.875 bilinear bsd-3-clause
""")


def _spec(name: str) -> BackboneSpec:
    depths, batch_norm = VARIANTS[name]
    stages = []
    for stage, first, last, channels, stride in sections(depths, batch_norm):
        # The last layer, a ReLU or a pool, has no parameters.
        modules = tuple(f"features.{i}" for i in range(first, last - 1))
        stages.append(Stage(stage, channels, stride, modules=modules))
    return BackboneSpec(
        name=name,
        family="VGG",
        build=partial(VGG, depths, batch_norm),
        stages=(*stages, Stage("head", HIDDEN, 1, "vector", modules=("pre_logits",))),
        classifier=ClassifierLayout("head.fc", dropout=0.5),
        preprocess=Preprocess(),
        options={"drop_rate": Range(0.0)},
        pretrained="tv_in1k",
        layouts={"torchvision": torchvision_layout},
        paper="https://arxiv.org/abs/1409.1556",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]
