"""A convolution with its norm and activation, called `conv` and `bn` as in the checkpoints of many families."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Conv, Padding


class ConvNormAct(nnx.Module):
    """act(bn(conv(x))), the convolution without bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: Padding = 0,
        *,
        groups: int = 1,
        act: Callable[[Array], Array] = jax.nn.relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
        scale_init: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(inputs, outputs, kernel, stride, padding, groups=groups, bias=False, rngs=rngs)
        self.bn = BatchNorm(outputs, eps=eps, momentum=momentum, scale_init=scale_init, rngs=rngs)
        self.act = act

    def __call__(self, x: Array) -> Array:
        return self.act(self.bn(self.conv(x)))
