"""A convolution with batch norm and activation, named `conv` and `bn` as in the checkpoints of many families."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Conv, Padding

if TYPE_CHECKING:
    from jaxtyping import Float


class ConvNormAct(nnx.Module):
    """act(bn(conv(x))), where the convolution has no bias."""

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        return self.act(self.bn(self.conv(x)))
