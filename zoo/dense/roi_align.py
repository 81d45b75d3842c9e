"""RoIAlign: what maps say about regions, as small maps of one size (arXiv:1703.06870, section 3).

A region is parted into bins; a bin's value is the mean of the map at a few points in it, each interpolated between the
four positions around it. A region is read on the level of a pyramid that fits its size (arXiv:1612.03144, eq. 1).
Positions lie at multiples of the stride (torchvision's `aligned=False`, which its detectors use).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zoo.dense.boxes import area

CANONICAL = 224 / 2**4
"""Strides in the side of the smallest region that a level is for: 224 pixels are read at a stride of 16."""
_TIE = 2**1e-6  # regions at the limit are read on the coarser level, rounding errors or not
_BINS_AT_ONCE = {"cpu": 128, "default": 16384}


def region_levels(boxes: Array, strides: Sequence[float]) -> Array:
    """Which level each region is read on: (..., 4) -> (...) int32, the coarsest for which the square root of its area
    is at least 14 strides, else the finest. For strides 4, 8, 16, 32 that is eq. 1 of arXiv:1612.03144, with k0 = 4."""
    side = jnp.sqrt(area(boxes)) * _TIE
    return sum(
        ((side >= CANONICAL * stride).astype(jnp.int32) for stride in strides[1:]),
        start=jnp.zeros(side.shape, jnp.int32),
    )


def _samples(low: Array, high: Array, length: Array, bins: int, ratio: int) -> tuple[Array, Array]:
    """Where one axis of regions is read: position and weight, (..., bins, 2 * ratio) both, of the two neighbours of
    each of a bin's points.

    Args:
        low, high: ends of the regions in positions. length: of the map.
    """
    step = jnp.maximum(high - low, 1.0) / bins
    within = (np.arange(bins)[:, None] + (np.arange(ratio) + 0.5) / ratio).astype(np.float32)
    shape = (1,) * low.ndim + within.shape
    place = low[..., None, None] + jnp.asarray(within).reshape(shape) * step[..., None, None]
    # Beyond the first and the last position the map goes on as it is there.
    last = (length - 1)[..., None, None].astype(jnp.float32)
    place = jnp.clip(place, 0.0, last)
    below = jnp.floor(place)
    share = place - below
    positions = jnp.stack([below, jnp.minimum(below + 1, last)], axis=-1)
    weights = jnp.stack([1 - share, share], axis=-1) / ratio
    joined = (*place.shape[:-1], 2 * ratio)
    return positions.astype(jnp.int32).reshape(joined), weights.reshape(joined)


@jax.custom_vjp
def _weighted_rows(table: Array, rows: Array, weights: Array) -> Array:
    """Sums of a table's rows: (n, c), (bins, k), (bins, k) -> (bins, c), in the table's dtype.

    One gather for each of the k, added up as it is read, is ten times as fast on CPU as one gather of all that a
    product then sums: nothing of that size is ever stored.
    """
    total = jnp.zeros((len(rows), table.shape[1]), jnp.float32)
    for i in range(rows.shape[1]):
        row = table.at[rows[:, i]].get(mode="promise_in_bounds")
        total = total + row.astype(jnp.float32) * weights[:, i, None]
    return total.astype(table.dtype)


def _weighted_rows_forward(table: Array, rows: Array, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _weighted_rows(table, rows, weights), (table, rows, weights)


def _scattered(gradient: Array, rows: Array, weights: Array, length: int, *, bins: int) -> Array:
    """The gradient of `_weighted_rows` with respect to its table of `length` rows, float32, so many bins at a time:
    what is added must stay in the cache on CPU (10 times as fast as all at once), and in memory anywhere."""
    parts = -(-len(rows) // bins)
    # Bins that fill up the last part add nothing to row 0.
    padding = ((0, parts * bins - len(rows)), (0, 0))
    rows, weights, gradient = (
        jnp.pad(x, padding).reshape(parts, bins, -1) for x in (rows, weights, gradient.astype(jnp.float32))
    )

    def add(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
        gradient, rows, weights = part
        added = (gradient[:, None] * weights[..., None]).reshape(-1, gradient.shape[-1])
        return total.at[rows.reshape(-1)].add(added, mode="promise_in_bounds"), None

    start = jnp.zeros((length, gradient.shape[-1]), jnp.float32)
    return lax.scan(add, start, (gradient, rows, weights))[0]


def _weighted_rows_backward(kept: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, None, Array]:
    table, rows, weights = kept
    by_platform = {
        platform: partial(_scattered, length=len(table), bins=bins) for platform, bins in _BINS_AT_ONCE.items()
    }
    return (
        lax.platform_dependent(gradient, rows, weights, **by_platform).astype(table.dtype),
        None,
        jnp.zeros_like(weights),
    )


_weighted_rows.defvjp(_weighted_rows_forward, _weighted_rows_backward)


def roi_align(maps: Sequence[Array], boxes: Array, strides: Sequence[float], *, bins: int = 7, ratio: int = 2) -> Array:
    """Regions of the images of a batch as maps of bins x bins.

    Regions have no gradient: their corners are not learned through what they show.

    Args:
        maps: (b, h, w, c) of each level, finest first. strides: pixels for each position of them.
        boxes: (b, n, 4) in pixels; what is not a box (padding, zeros) is read somewhere, and finite.
        ratio: points along each axis of a bin.
    Returns:
        (b, n, bins, bins, c), in the maps' dtype.
    """
    images, count = boxes.shape[:2]
    boxes = lax.stop_gradient(boxes.astype(jnp.float32))
    level = region_levels(boxes, strides)
    sizes = np.asarray([one.shape[1:3] for one in maps], np.int32)
    starts = np.cumsum([0, *sizes.prod(axis=1)], dtype=np.int32)
    height, width = (jnp.asarray(sizes[:, axis])[level] for axis in (0, 1))
    scaled = boxes / jnp.asarray(strides, jnp.float32)[level][..., None]
    y, of_y = _samples(scaled[..., 1], scaled[..., 3], height, bins, ratio)
    x, of_x = _samples(scaled[..., 0], scaled[..., 2], width, bins, ratio)

    # All levels of all images lie below one another in one table, with a row for each position.
    first = jnp.asarray(starts[:-1])[level] + starts[-1] * jnp.arange(images, dtype=jnp.int32)[:, None]
    rows = y * width[..., None, None] + first[..., None, None]
    rows = rows[:, :, :, None, :, None] + x[:, :, None, :, None, :]
    weights = of_y[:, :, :, None, :, None] * of_x[:, :, None, :, None, :]
    channels = maps[0].shape[-1]
    table = jnp.concatenate([one.reshape(images, -1, channels) for one in maps], axis=1).reshape(-1, channels)
    points = 4 * ratio * ratio
    found = _weighted_rows(table, rows.reshape(-1, points), weights.reshape(-1, points))
    return found.reshape(images, count, bins, bins, channels)
