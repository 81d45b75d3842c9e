"""Windows that move over an image: their padding as torch writes it, and the slices they see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = int | tuple[int, int] | Literal["same"]
Pads = tuple[tuple[int, int], tuple[int, int]]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """`value` for both image axes."""
    return (value, value) if isinstance(value, int) else value


def resolve_padding(
    padding: Padding,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Pads:
    """((top, bottom), (left, right)) in pixels for an input of `size`.

    `same` is TensorFlow's rule: output side = ceil(side / stride), an odd pixel of padding goes to the bottom or right.
    """
    if padding == "same":
        seen = extent(kernel, dilation)
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, stride, seen, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)  # type: ignore[return-value]
    vertical, horizontal = pair(padding)
    return (vertical, vertical), (horizontal, horizontal)


def extent(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of what a kernel sees whose taps are `dilation` apart."""
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
    """For each kernel tap, the (b, h', w', c) view of the input, padded with `fill`, that it multiplies."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.array(fill, x.dtype))
    (h, w), (sh, sw) = size, stride
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            limit = (x.shape[0], top + (h - 1) * sh + 1, left + (w - 1) * sw + 1, x.shape[3])
            yield i, j, lax.slice(padded, (0, top, left, 0), limit, (1, sh, sw, 1))


def output_size(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> tuple[int, int]:
    """(height, width) of what a window gives on a padded image of `size`."""
    sides = zip(size, kernel, stride, pads, strict=True)
    return tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in sides)  # type: ignore[return-value]
