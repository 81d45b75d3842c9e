"""RoIAlign: features of regions of interest as small maps of a fixed size (arXiv:1703.06870, section 3).

A region is divided into bins. The value of a bin is the mean of the map at a few points inside it, each interpolated
between its four neighbouring positions. A region is read from the pyramid level that fits its size (arXiv:1612.03144,
eq. 1). Positions lie at multiples of the stride (torchvision's `aligned=False`, which its detectors use).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zoo.dense.boxes import area

if TYPE_CHECKING:
    from jaxtyping import Integer, Num

CANONICAL = 224 / 2**4
"""Side of the smallest region that a level serves, in strides of the level: 224 pixels at stride 16."""
_TIE = 2**1e-6  # regions at the limit go to the coarser level, whatever the rounding errors
_BINS_AT_ONCE = {"cpu": 128, "default": 16384}


def region_levels(boxes: Num[Array, "*n 4"], strides: Sequence[float]) -> Integer[Array, "*n"]:
    """Return the index of the pyramid level that each region is read from, int32.

    It is the coarsest level whose stride fits at least 14 times into the square root of the region's area, or the
    finest level if none does. For strides 4, 8, 16, 32 this is eq. 1 of arXiv:1612.03144 with k0 = 4.
    """
    side = jnp.sqrt(area(boxes)) * _TIE
    return sum(
        ((side >= CANONICAL * stride).astype(jnp.int32) for stride in strides[1:]),
        start=jnp.zeros(side.shape, jnp.int32),
    )


def _samples(low: Array, high: Array, length: Array, bins: int, ratio: int) -> tuple[Array, Array]:
    """Return where to read a map along one axis: positions and weights, both (..., bins, 2 * ratio).

    Each point of a bin is interpolated between two neighbouring positions, hence the factor of 2.

    Args:
        low: start of the regions, in positions of the map.
        high: end of the regions, in positions of the map.
        length: positions of the map along this axis.
        bins: bins of a region along this axis.
        ratio: points of a bin along this axis.
    """
    step = jnp.maximum(high - low, 1.0) / bins
    within = (np.arange(bins)[:, None] + (np.arange(ratio) + 0.5) / ratio).astype(np.float32)
    shape = (1,) * low.ndim + within.shape
    place = low[..., None, None] + jnp.asarray(within).reshape(shape) * step[..., None, None]
    # Beyond the first and the last position, the map continues with the value at its border.
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
    """Return weighted sums of a table's rows: (n, c), (bins, k), (bins, k) -> (bins, c), in the table's dtype."""
    # One gather for each of the k terms, added as it is read. A single gather of all terms would store bins * k rows
    # before the sum, and is ten times slower on CPU.
    total = jnp.zeros((len(rows), table.shape[1]), jnp.float32)
    for i in range(rows.shape[1]):
        row = table.at[rows[:, i]].get(mode="promise_in_bounds")
        total = total + row.astype(jnp.float32) * weights[:, i, None]
    return total.astype(table.dtype)


def _weighted_rows_forward(table: Array, rows: Array, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _weighted_rows(table, rows, weights), (table, rows, weights)


def _scattered(gradient: Array, rows: Array, weights: Array, length: int, *, bins: int) -> Array:
    """Return the gradient of `_weighted_rows` with respect to its table of `length` rows, float32.

    It is a scatter-add of `bins` bins at a time. On CPU the rows of one step must stay in the cache (10 times as fast
    as all at once); on other devices they must fit in memory.
    """
    parts = -(-len(rows) // bins)
    # The bins that fill up the last part have weight 0, so they add nothing to row 0.
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


def roi_align(
    maps: Sequence[Num[Array, "b _h _w c"]],
    boxes: Num[Array, "b n 4"],
    strides: Sequence[float],
    *,
    bins: int = 7,
    ratio: int = 2,
) -> Num[Array, "b n bins bins c"]:
    """Return the features of regions as maps of bins x bins, in the dtype of `maps`.

    No gradient flows to the regions: their corners are not learned through the features.

    Args:
        maps: pyramid levels, finest first.
        boxes: regions in pixels. Padding rows give finite values without meaning.
        strides: pixels for each position of the levels.
        bins: bins along each axis of a region.
        ratio: points along each axis of a bin.
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

    # All levels of all images are stacked in one table with a row for each position, so that a region may come from any
    # level with the same gather: (level, y, x) becomes a row number, and the four corners of all points of a bin become
    # one weighted sum.
    first = jnp.asarray(starts[:-1])[level] + starts[-1] * jnp.arange(images, dtype=jnp.int32)[:, None]
    rows = y * width[..., None, None] + first[..., None, None]
    rows = rows[:, :, :, None, :, None] + x[:, :, None, :, None, :]
    weights = of_y[:, :, :, None, :, None] * of_x[:, :, None, :, None, :]
    channels = maps[0].shape[-1]
    table = jnp.concatenate([one.reshape(images, -1, channels) for one in maps], axis=1).reshape(-1, channels)
    points = 4 * ratio * ratio
    pooled = _weighted_rows(table, rows.reshape(-1, points), weights.reshape(-1, points))
    return pooled.reshape(images, count, bins, bins, channels)
