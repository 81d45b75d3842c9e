"""Sliding windows of convolutions and pools: padding in torch's notation, and the slices under each tap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = int | tuple[int, int] | Literal["same"]
Pads = tuple[tuple[int, int], tuple[int, int]]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) from one value for both or a pair."""
    return (value, value) if isinstance(value, int) else value


def resolve_padding(
    padding: Padding,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Pads:
    """Return the padding ((top, bottom), (left, right)) in pixels for an input of `size`.

    `same` is TensorFlow's rule: output side = ceil(side / stride), an odd pixel of padding goes to the bottom or right.
    """
    if padding == "same":
        extents = extent(kernel, dilation)
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, stride, extents, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)  # type: ignore[return-value]
    vertical, horizontal = pair(padding)
    return (vertical, vertical), (horizontal, horizontal)


def extent(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the window of a kernel with taps `dilation` apart."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))  # type: ignore[return-value]


def tap_slices(
    x: Array,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: Pads,
    fill: float = 0.0,
    dilation: tuple[int, int] = (1, 1),
) -> Iterator[tuple[int, int, Array]]:
    """Yield (row, column, slice) for each tap of a kernel.

    The slice (b, h', w', c) is what the tap multiplies, from the input padded with `fill`.
    """
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.array(fill, x.dtype))
    (h, w), (sh, sw) = size, stride
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            limit = (x.shape[0], top + (h - 1) * sh + 1, left + (w - 1) * sw + 1, x.shape[3])
            yield i, j, lax.slice(padded, (0, top, left, 0), limit, (1, sh, sw, 1))


def output_size(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> tuple[int, int]:
    """Return (height, width) of the output of a window that moves over a padded image of `size`."""
    sides = zip(size, kernel, stride, pads, strict=True)
    return tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in sides)  # type: ignore[return-value]
