"""Squeeze-and-excitation (arXiv:1709.01507): channels are weighted by a function of their means over the map.

The paper's two fully connected layers are 1x1 convolutions here, as in the checkpoints. Published checkpoints name them
in two ways, so there is one class for each pair of names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers import Conv

if TYPE_CHECKING:
    from jaxtyping import Float


def hard_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return min(max(x + 3, 0), 6) / 6, the piecewise linear sigmoid of arXiv:1905.02244, section 5.2."""
    return jax.nn.relu6(x + 3) / 6


def _weigh(
    x: Array, reduce: Conv, expand: Conv, act: Callable[[Array], Array], gate: Callable[[Array], Array]
) -> Array:
    """Multiply x (b, h, w, c) by the gate of its mean over the map, (b, 1, 1, c)."""
    return x * gate(expand(act(reduce(jnp.mean(x, axis=(1, 2), keepdims=True)))))


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excitation with layers `conv_reduce` and `conv_expand`, as in networks of inverted residuals."""

    def __init__(
        self,
        channels: int,
        reduced: int,
        *,
        act: Callable[[Array], Array] = jax.nn.relu,
        gate: Callable[[Array], Array] = jax.nn.sigmoid,
        rngs: nnx.Rngs,
    ):
        self.conv_reduce = Conv(channels, reduced, 1, rngs=rngs)
        self.conv_expand = Conv(reduced, channels, 1, rngs=rngs)
        self.act, self.gate = act, gate

    def __call__(self, x: Float[Array, "b h w channels"]) -> Float[Array, "b h w channels"]:
        return _weigh(x, self.conv_reduce, self.conv_expand, self.act, self.gate)


class SqueezeExciteFc(nnx.Module):
    """Squeeze-and-excitation with layers `fc1` and `fc2`, ReLU and sigmoid, as in residual networks."""

    def __init__(self, channels: int, reduced: int, *, rngs: nnx.Rngs):
        self.fc1 = Conv(channels, reduced, 1, rngs=rngs)
        self.fc2 = Conv(reduced, channels, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w channels"]) -> Float[Array, "b h w channels"]:
        return _weigh(x, self.fc1, self.fc2, jax.nn.relu, jax.nn.sigmoid)
