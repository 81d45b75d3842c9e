"""Decoders that look at single positions only: a linear map, and SegFormer's (arXiv:2105.15203, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.parts import Decoded, Maps, Norm, classifier, dropout, norm_of, size_of
from zoo.dense.resize import resize_bilinear
from zoo.layers import Conv, Normal


class Linear(nnx.Module):
    """A norm and a linear map of the last map: what a backbone knows of each place (arXiv:2304.07193, section 7.4)."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        del width
        self.bn = norm_of(norm, maps.channels[-1], rngs)
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(maps.channels[-1], classes, rngs=rngs)

    def __call__(self, maps: Sequence[Array]) -> Decoded:
        x = self.bn(maps[-1])
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x))


class MLP(nnx.Module):
    """Every map to the same width by a linear map, to the finest one's size, side by side, then a linear map, a norm,
    a ReLU and the classifier.

    A linear map of maps side by side is the sum of linear maps of each, and can be computed before they are enlarged.
    """

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        def linear(inputs: int, bias: bool) -> Conv:
            return Conv(inputs, width, 1, bias=bias, kernel_init=Normal(1 / math.sqrt(inputs)), rngs=rngs)

        self.linear_c = nnx.List(linear(inputs, True) for inputs in maps.channels)
        self.linear_fuse = nnx.List(linear(width, False) for _ in maps.channels)
        self.batch_norm = norm_of(norm, width, rngs)
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(width, classes, rngs=rngs)

    def __call__(self, maps: Sequence[Array]) -> Decoded:
        size = size_of(maps[0])
        parts = zip(self.linear_fuse, self.linear_c, maps, strict=True)
        x = reduce(jnp.add, (resize_bilinear(fuse(linear(x)), size) for fuse, linear, x in parts))
        x = jax.nn.relu(self.batch_norm(x))
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x))
