"""Maps at another size, as torch's `interpolate` makes them.

Each axis is resized by itself: repeated rows, or weighted sums of rows with weights that are known when the program is
traced.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BAND = 16
"""Most neighbouring inputs of an output that are added one by one."""


def nearest_rows(inputs: int, outputs: int) -> np.ndarray:
    """Index of the row that each of `outputs` rows takes from `inputs`: torch's `nearest`, in its float32."""
    scale = np.float32(inputs) / np.float32(outputs)
    return np.minimum((np.arange(outputs, dtype=np.float32) * scale).astype(np.int64), inputs - 1)


def _enlarged(x: Array, axis: int, outputs: int) -> Array:
    rows, times = nearest_rows(x.shape[axis], outputs), -(-outputs // x.shape[axis])
    if np.array_equal(rows, np.arange(outputs) // times):
        # Each row so many times, which XLA fuses, where a gather's gradient is a slow scatter on CPU.
        repeated = jnp.broadcast_to(
            jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        ).reshape(*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])
        return jax.lax.slice_in_dim(repeated, 0, outputs, axis=axis)
    return jnp.take(x, rows, axis=axis)


def resize_nearest(x: Array, size: tuple[int, int]) -> Array:
    """A map (b, h, w, c) at another size (height, width), each position the nearest one's copy, as torch resizes."""
    return _enlarged(_enlarged(x, 1, size[0]), 2, size[1])


def bilinear_weights(inputs: int, outputs: int, align_corners: bool = False) -> np.ndarray:
    """What each of `outputs` rows takes from each of `inputs`, (outputs, inputs), without antialiasing: torch's
    `bilinear`. With `align_corners` the first and the last row stay where they are; otherwise the borders do."""
    if align_corners:
        places = np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1))
    else:
        places = np.maximum((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0)
    low = np.minimum(places.astype(np.int64), inputs - 1)
    high, rows = np.minimum(low + 1, inputs - 1), np.arange(outputs)
    weights = np.zeros((outputs, inputs), np.float32)
    np.add.at(weights, (rows, low), 1 - (places - low))
    np.add.at(weights, (rows, high), places - low)
    return weights


def pooling_weights(inputs: int, outputs: int) -> np.ndarray:
    """What each of `outputs` rows takes from each of `inputs`, (outputs, inputs): the mean over its share of them, as
    torch's adaptive pool has it. Shares overlap where the rows do not divide."""
    weights = np.zeros((outputs, inputs), np.float32)
    for i in range(outputs):
        low, high = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
        weights[i, low:high] = 1 / (high - low)
    return weights


def _product(x: Array, weights: np.ndarray, axis: int) -> Array:
    """A map with one axis multiplied by weights (outputs, inputs). Where few inputs next to each other count, they are
    taken, weighted and added in one loop: ten times as fast on CPU as the matrix product."""
    first = (weights != 0).argmax(1)
    band = int((weights.shape[1] - (weights[:, ::-1] != 0).argmax(1) - first).max())
    if band > BAND:
        return jnp.einsum("ph,bhwc->bpwc" if axis == 1 else "qw,bhwc->bhqc", weights.astype(x.dtype), x)
    first, rows = np.minimum(first, weights.shape[1] - band), np.arange(len(weights))
    shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    terms = (
        jnp.take(x, first + i, axis=axis) * weights[rows, first + i].reshape(shape).astype(x.dtype) for i in range(band)
    )
    return reduce(jnp.add, terms)


def _along(x: Array, weights: np.ndarray, axis: int) -> Array:
    """The same, with the gradient computed in the same way: that of a gather would be a scatter."""

    @jax.custom_vjp
    def multiplied(x: Array) -> Array:
        return _product(x, weights, axis)

    multiplied.defvjp(lambda x: (multiplied(x), None), lambda _, g: (_product(g, weights.T, axis),))
    found: Array = multiplied(x)
    return found


def by_matrices(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """A map (b, h, w, c) with both axes multiplied by weights (h', h) and (w', w): (b, h', w', c)."""
    return _along(_along(x, rows, 1), columns, 2)


def resize_bilinear(x: Array, size: tuple[int, int], *, align_corners: bool = False) -> Array:
    """A map (b, h, w, c) at another size (height, width), see `bilinear_weights`."""
    if (x.shape[1], x.shape[2]) == size:
        return x
    return by_matrices(x, *(bilinear_weights(a, b, align_corners) for a, b in zip(x.shape[1:3], size, strict=True)))


def pool_to(x: Array, size: tuple[int, int]) -> Array:
    """Means over `size` (rows, columns) parts of a map (b, h, w, c), see `pooling_weights`."""
    return by_matrices(x, *(pooling_weights(a, b) for a, b in zip(x.shape[1:3], size, strict=True)))
