"""Decoders without spatial convolutions: a linear probe, and the MLP of SegFormer (arXiv:2105.15203, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.parts import Decoded, Maps, Norm, classifier, dropout, norm_of, size_of
from zoo.dense.resize import resize_bilinear
from zoo.layers import Conv, Normal

if TYPE_CHECKING:
    from jaxtyping import Float


class Linear(nnx.Module):
    """Linear probe: normalisation and a linear classifier on the last map (arXiv:2304.07193, section 7.4)."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        del width
        self.bn = norm_of(norm, maps.channels[-1], rngs)
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(maps.channels[-1], classes, rngs=rngs)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        x = self.bn(maps[-1])
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x))


class MLP(nnx.Module):
    """The decoder of SegFormer.

    A linear layer brings every map to the same width; the maps are upsampled to the size of the finest and
    concatenated. A linear layer, normalisation, a ReLU and the classifier follow.
    """

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        def linear(inputs: int, bias: bool) -> Conv:
            return Conv(inputs, width, 1, bias=bias, kernel_init=Normal(1 / math.sqrt(inputs)), rngs=rngs)

        self.linear_c = nnx.List(linear(inputs, True) for inputs in maps.channels)
        self.linear_fuse = nnx.List(linear(width, False) for _ in maps.channels)
        self.batch_norm = norm_of(norm, width, rngs)
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(width, classes, rngs=rngs)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        # A linear layer on concatenated maps is the sum of linear layers on each of them, and it commutes with bilinear
        # upsampling: computed before it, at low resolution, it gives the same result at a fraction of the cost.
        size = size_of(maps[0])
        branches = zip(self.linear_fuse, self.linear_c, maps, strict=True)
        x = reduce(jnp.add, (resize_bilinear(fuse(linear(x)), size) for fuse, linear, x in branches))
        x = jax.nn.relu(self.batch_norm(x))
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x))
