"""Resize maps with the results of torch's `interpolate`.

Each axis is resized separately, by repeating rows or by weighted sums of rows. The weights are constants of the traced
program.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Integer, Num, Shaped

BAND = 16
"""Largest number of neighbouring inputs of an output that are summed term by term instead of by a matrix product."""


def nearest_rows(inputs: int, outputs: int) -> Integer[np.ndarray, " outputs"]:
    """Return the index of the input row that each output row copies: torch's `nearest`, with its float32 rounding."""
    scale = np.float32(inputs) / np.float32(outputs)
    return np.minimum((np.arange(outputs, dtype=np.float32) * scale).astype(np.int64), inputs - 1)


def _enlarged(x: Array, axis: int, outputs: int) -> Array:
    rows, times = nearest_rows(x.shape[axis], outputs), -(-outputs // x.shape[axis])
    if np.array_equal(rows, np.arange(outputs) // times):
        # Repeat each row by a broadcast, which XLA fuses: the gradient of a gather is a scatter, slow on CPU.
        repeated = jnp.broadcast_to(
            jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        ).reshape(*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])
        return jax.lax.slice_in_dim(repeated, 0, outputs, axis=axis)
    return jnp.take(x, rows, axis=axis)


def resize_nearest(x: Shaped[Array, "b h w c"], size: tuple[int, int]) -> Shaped[Array, "b height width c"]:
    """Resize a map to `size` (height, width) by copying the nearest position, as torch does."""
    return _enlarged(_enlarged(x, 1, size[0]), 2, size[1])


def bilinear_weights(inputs: int, outputs: int, align_corners: bool = False) -> Float[np.ndarray, "outputs inputs"]:
    """Return the weight of each input row in each output row: torch's `bilinear`, without antialiasing.

    Args:
        inputs: number of input rows.
        outputs: number of output rows.
        align_corners: align the centres of the first and last rows; otherwise align the borders.
    """
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


def pooling_weights(inputs: int, outputs: int) -> Float[np.ndarray, "outputs inputs"]:
    """Return the weight of each input row in each output row of torch's adaptive average pooling.

    Windows overlap where `outputs` does not divide `inputs`.
    """
    weights = np.zeros((outputs, inputs), np.float32)
    for i in range(outputs):
        low, high = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
        weights[i, low:high] = 1 / (high - low)
    return weights


def _product(x: Array, weights: np.ndarray, axis: int) -> Array:
    """Multiply one axis of a map by weights (outputs, inputs)."""
    # Where every output reads a few neighbouring inputs only, sum the weighted slices: XLA fuses them into one loop,
    # which on CPU is ten times as fast as a matrix product that consists mostly of zeros.
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
    """Return `_product`, with a gradient that is a product too: the gradient of its gathers would be scatters."""

    @jax.custom_vjp
    def multiplied(x: Array) -> Array:
        return _product(x, weights, axis)

    multiplied.defvjp(lambda x: (multiplied(x), None), lambda _, g: (_product(g, weights.T, axis),))
    result: Array = multiplied(x)
    return result


def by_matrices(
    x: Num[Array, "b h w c"], rows: Float[np.ndarray, "height h"], columns: Float[np.ndarray, "width w"]
) -> Num[Array, "b height width c"]:
    """Multiply both image axes of a map by weights."""
    return _along(_along(x, rows, 1), columns, 2)


def resize_bilinear(
    x: Num[Array, "b h w c"], size: tuple[int, int], *, align_corners: bool = False
) -> Num[Array, "b height width c"]:
    """Resize a map bilinearly to `size` (height, width), see `bilinear_weights`."""
    if (x.shape[1], x.shape[2]) == size:
        return x
    return by_matrices(x, *(bilinear_weights(a, b, align_corners) for a, b in zip(x.shape[1:3], size, strict=True)))


def pool_to(x: Num[Array, "b h w c"], size: tuple[int, int]) -> Num[Array, "b rows columns c"]:
    """Average-pool a map to `size` (rows, columns), see `pooling_weights`."""
    return by_matrices(x, *(pooling_weights(a, b) for a, b in zip(x.shape[1:3], size, strict=True)))
