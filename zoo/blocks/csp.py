"""Blocks of cross-stage partial networks, named as in YOLOX's checkpoints (arXiv:1911.11929, arXiv:2107.08430)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.layers import Chain

if TYPE_CHECKING:
    from jaxtyping import Float


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, rngs: nnx.Rngs
) -> ConvNormAct:
    """Return a convolution with batch norm and SiLU. At stride 1 it keeps the size of the map."""
    norm: dict[str, float] = {"eps": 1e-3, "momentum": 0.03}
    return ConvNormAct(inputs, outputs, kernel, stride, kernel // 2, groups=groups, act=jax.nn.silu, **norm, rngs=rngs)


class SeparableConv(nnx.Module):
    """A depthwise and a 1x1 convolution, which replace a full convolution in the smallest variant."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.dconv = convolution(inputs, inputs, kernel, stride, groups=inputs, rngs=rngs)
        self.pconv = convolution(inputs, outputs, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        return self.pconv(self.dconv(x))


def spatial(
    inputs: int, outputs: int, stride: int = 1, *, separable: bool, rngs: nnx.Rngs
) -> ConvNormAct | SeparableConv:
    """Return a 3x3 convolution, full or depthwise separable."""
    return (SeparableConv if separable else convolution)(inputs, outputs, 3, stride, rngs=rngs)


class Bottleneck(nnx.Module):
    """A 1x1 and a 3x3 convolution of the same width, with an optional shortcut around both."""

    def __init__(self, width: int, shortcut: bool, separable: bool, *, rngs: nnx.Rngs):
        self.conv1 = convolution(width, width, 1, rngs=rngs)
        self.conv2 = spatial(width, width, separable=separable, rngs=rngs)
        self.shortcut = shortcut

    def __call__(self, x: Float[Array, "b h w width"]) -> Float[Array, "b h w width"]:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CrossStage(nnx.Module):
    """Half of the channels pass through `depth` bottlenecks, half skip them, and both are concatenated.

    Source: arXiv:1911.11929, figure 2b.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool, separable: bool, *, rngs: nnx.Rngs):
        width = outputs // 2
        self.conv1 = convolution(inputs, width, 1, rngs=rngs)
        self.conv2 = convolution(inputs, width, 1, rngs=rngs)
        self.conv3 = convolution(2 * width, outputs, 1, rngs=rngs)
        self.m = Chain([Bottleneck(width, shortcut, separable, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b h w outputs"]:
        return self.conv3(jnp.concatenate([self.m(self.conv1(x)), self.conv2(x)], axis=-1))
