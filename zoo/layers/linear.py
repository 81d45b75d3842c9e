"""Linear layer, chain of layers, and stochastic depth."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers.initialisers import Normal

_SMALL = Normal(0.02, truncated=True)


class Linear(nnx.Linear):
    """Linear layer over the last axis: (..., in) -> (..., out); kernel (in, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        kernel_init: Callable[..., Array] = _SMALL,
        rngs: nnx.Rngs,
    ):
        super().__init__(in_features, out_features, use_bias=bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Chain(nnx.List):
    """Modules and plain functions applied in order, numbered as in torch's `Sequential`."""

    def __call__(self, x: Array) -> Array:
        for layer in self:
            x = layer(x)
        return x


class DropPath(nnx.Dropout):
    """Stochastic depth (arXiv:1603.09382).

    In training, the residual branch of an image is dropped with probability `rate`, else scaled by 1 / (1 - rate). In
    evaluation, or with rate 0, it is the identity.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        super().__init__(rate, rngs=rngs if rate else None)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        if self.rate == 0 or self.deterministic:
            return x
        return x * super().__call__(jnp.ones((x.shape[0],) + (1,) * (x.ndim - 1), x.dtype))
