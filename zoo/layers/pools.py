"""Pooling over windows, with torch's rules at the border, fast on CPU too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zoo.layers.windows import Padding, Pads, output_size, pair, resolve_padding, tap_slices


def _pool_padding(x: Array, window: int, stride: int, padding: Padding, ceil_mode: bool) -> Pads:
    """Return the padding for a pooling window.

    With `ceil_mode`, a last, partial window is added at the bottom and right, unless it would start beyond the input
    and its left padding (torch's rule).
    """
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), pair(window), pair(stride))
    if not ceil_mode:
        return pads
    grown = []
    for n, (low, high) in zip(x.shape[1:3], pads, strict=True):
        steps = -(-(n + low + high - window) // stride)
        if steps * stride >= n + low:
            steps -= 1
        grown.append((low, max(steps * stride + window - n - low, 0)))
    return tuple(grown)  # type: ignore[return-value]


PoolKind = Literal["max", "sum"]
_POOLS = {"max": (-math.inf, lax.max), "sum": (0.0, lax.add)}


def _library_pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    fill, combine = _POOLS[kind]
    start = np.array(fill, x.dtype)  # must be concrete: JAX differentiates max and sum pools only if it knows the start
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, start, combine, shape, strides, ((0, 0), *pads, (0, 0)))


def _shifted_pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    fill, combine = _POOLS[kind]
    size = output_size((x.shape[1], x.shape[2]), pair(window), pair(stride), pads)
    pieces = (piece for _, _, piece in tap_slices(x, size, pair(window), pair(stride), pads, fill))
    return reduce(combine, pieces)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))  # outside of another jit, compile it as a whole
def _pool_by_platform(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    return lax.platform_dependent(
        x,
        cpu=lambda x: _shifted_pool(x, kind, window, stride, pads),
        default=lambda x: _library_pool(x, kind, window, stride, pads),
    )


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    """Return the maximum or sum over square windows.

    On CPU, shifted inputs are combined, which XLA fuses: two to nine times as fast as its window reduction. The
    gradient is that of XLA's reduction, where the first of equal maxima gets it.
    """
    return _pool_by_platform(x, kind, window, stride, pads)


def _pool_forward(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads):
    return _pool(x, kind, window, stride, pads), x


def _pool_backward(kind: PoolKind, window: int, stride: int, pads: Pads, x: Array, g: Array):
    return jax.vjp(lambda x: _library_pool(x, kind, window, stride, pads), x)[1](g)


_pool.defvjp(_pool_forward, _pool_backward)


def max_pool(x: Array, window: int, stride: int, padding: Padding = 0, *, ceil_mode: bool = False) -> Array:
    """Return the maximum over square windows: (b, h, w, c) -> (b, h', w', c). Padding is never the maximum."""
    return _pool(x, "max", window, stride, _pool_padding(x, window, stride, padding, ceil_mode))


def avg_pool(
    x: Array, window: int, stride: int, padding: Padding = 0, *, ceil_mode: bool = False, count_padding: bool = True
) -> Array:
    """Return the mean over square windows: (b, h, w, c) -> (b, h', w', c).

    Args:
        x: map.
        window: side of the windows.
        stride: pixels from one window to the next.
        padding: around the map.
        ceil_mode: add a last, partial window at the bottom and right.
        count_padding: divide by the area of the window even where it overlaps the padding (torch's
            `count_include_pad`). The partial windows of `ceil_mode` never count what lies beyond the padding.
    """
    pads = _pool_padding(x, window, stride, padding, ceil_mode)
    total = _pool(x, "sum", window, stride, pads)
    ones = jnp.ones((1, x.shape[1], x.shape[2], 1), x.dtype)
    if count_padding:
        inner = resolve_padding(padding, (x.shape[1], x.shape[2]), pair(window), pair(stride))
        ones = jnp.pad(ones, ((0, 0), *inner, (0, 0)), constant_values=1)
        pads = tuple((p[0] - q[0], p[1] - q[1]) for p, q in zip(pads, inner, strict=True))  # type: ignore[assignment]
    return total / _library_pool(ones, "sum", window, stride, pads)


@dataclass(frozen=True)
class MaxPool:
    """`max_pool` as a member of a `Chain`."""

    window: int
    stride: int
    padding: Padding = 0
    ceil_mode: bool = False

    def __call__(self, x: Array) -> Array:
        return max_pool(x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode)


@dataclass(frozen=True)
class AvgPool:
    """`avg_pool` as a member of a `Chain`."""

    window: int
    stride: int
    padding: Padding = 0
    ceil_mode: bool = False
    count_padding: bool = True

    def __call__(self, x: Array) -> Array:
        return avg_pool(
            x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode, count_padding=self.count_padding
        )


def global_avg_pool(x: Array) -> Array:
    """Return the mean over the image: (b, h, w, c) -> (b, c)."""
    return jnp.mean(x, axis=(1, 2))
