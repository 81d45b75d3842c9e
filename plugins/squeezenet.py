"""SqueezeNet 1.0 and 1.1.

Paper: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, arXiv:1602.07360. Names and the ceil-mode pooling
are torchvision's. The classifier is a 1x1 convolution on the last map, ReLU, then the mean: logits are never negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers import Chain, Conv, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec


class Fire(nnx.Module):
    """Squeeze to few channels by 1x1, then expand by 1x1 and 3x3 side by side (arXiv:1602.07360, section 3.2)."""

    def __init__(self, inputs: int, squeeze: int, expand: int, *, rngs: nnx.Rngs):
        self.squeeze = Conv(inputs, squeeze, 1, rngs=rngs)
        self.expand1x1 = Conv(squeeze, expand, 1, rngs=rngs)
        self.expand3x3 = Conv(squeeze, expand, 3, 1, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = jax.nn.relu(self.squeeze(x))
        return jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], axis=-1))


class SqueezeNet(Backbone):
    """`features` numbered as in torchvision: convolution, ReLU, then fire modules (squeeze, expand) and `None` for a
    pooling layer. A pooling layer opens the stage it leads to."""

    def __init__(
        self,
        stem: tuple[int, int],
        layout: tuple[tuple[int, int] | None, ...],
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels, kernel = stem
        layers: list = [Conv(in_channels, channels, kernel, 2, rngs=rngs), jax.nn.relu]
        for row in layout:
            if row is None:
                layers.append(MaxPool(3, 2, ceil_mode=True))
            else:
                layers.append(Fire(channels, *row, rngs=rngs))
                channels = 2 * row[1]
        self.features = Chain(layers)
        self.cuts = _cuts(layout)

    def stages(self) -> Mapping[str, StageFunction]:
        def section(start: int, stop: int) -> StageFunction:
            def run(x: Array) -> Array:
                for layer in self.features[start:stop]:
                    x = layer(x)
                return x

            return run

        names = ["stem", *(f"fire{i}" for i in range(1, len(self.cuts) - 1))]
        return {name: section(*ends) for name, ends in zip(names, pairwise(self.cuts), strict=True)}


def _cuts(layout: tuple[tuple[int, int] | None, ...]) -> tuple[int, ...]:
    """Return where the stages start in `features` (at the stem and at each pooling layer), and the end."""
    return (0, *(i + 2 for i, row in enumerate(layout) if row is None), len(layout) + 2)


# arXiv:1602.07360, table 1; version 1.1 after the authors' repository (DeepScale/SqueezeNet).
# name: (stem channels and kernel, fire modules as (squeeze, expand) with None for pooling)
VARIANTS = {
    "squeezenet1_0": (
        (96, 7),
        (None, (16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256), None, (64, 256)),
    ),
    "squeezenet1_1": (
        (64, 3),
        (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256)),
    ),
}
CITATION = """@article{iandola2016squeezenet,
  title = {SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size},
  author = {Iandola, Forrest N. and Han, Song and Moskewicz, Matthew W. and Ashraf, Khalid and Dally, William J. and
            Keutzer, Kurt},
  journal = {arXiv:1602.07360},
  year = {2016}
}"""
WEIGHTS = (
    WeightSpec(
        "squeezenet1_0.deepcompression_in1k",
        sha256="d3ad4622d756d22ccf10c579f01824752d41517bf7d9b8b922647263864f1323",
        labels="imagenet-1k",
        license="bsd-2-clause",
        commercial_use="yes",
        note="songhan/SqueezeNet-Deep-Compression, decoded to float32 in torchvision's layout",
    ),
)


def _spec(name: str) -> BackboneSpec:
    stem, layout = VARIANTS[name]
    cuts = _cuts(layout)
    stages, channels = [Stage("stem", stem[0], 2, modules=("features.0",))], stem[0]
    for index, (start, stop) in enumerate(pairwise(cuts[1:]), start=1):
        expanded = [row[1] for row in layout[start - 2 : stop - 2] if row]
        channels = 2 * expanded[-1]
        modules = tuple(f"features.{i}" for i in range(start + 1, stop))
        stages.append(Stage(f"fire{index}", channels, 2 ** (index + 1), modules=modules))
    return BackboneSpec(
        name=name,
        family="SqueezeNet",
        build=partial(SqueezeNet, stem, layout),
        stages=tuple(stages),
        classifier=ClassifierLayout("classifier.1", form="conv", dropout=0.5),
        preprocess=Preprocess(),
        pretrained=next((w.tag for w in WEIGHTS if w.backbone == name), None),
        native_layout="torchvision",
        min_size=21,
        paper="https://arxiv.org/abs/1602.07360",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return list(WEIGHTS)
