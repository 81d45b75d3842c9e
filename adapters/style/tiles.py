"""Paint large images in overlapping tiles, without visible seams.

Near the border of a tile a network reads padding instead of the image: there the result is discarded, and the rest of
the overlap is blended. All tiles have one size, so that one compiled program serves them. They begin at multiples of
the coarsest stride, so that strided convolutions and pooling read the same pixels in each.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from zoo.adapters.style.pictures import resized

MARGIN = 64
"""Pixels discarded at the border of a tile: about the radius of a transform net's receptive field."""
BLEND = 64
"""Pixels over which neighbouring tiles are blended."""
STRIDE = 32
"""Tiles begin at multiples of this."""
SMALLEST = 2 * (2 * MARGIN + BLEND)
"""Smallest side of a tile in pixels."""

Window = tuple[slice, slice]


def fits(content: np.ndarray, tile: int) -> bool:
    """Return whether an image is painted in one piece, as all are with a `tile` of 0."""
    return not tile or max(content.shape[:2]) <= tile


def reduced(content: np.ndarray, tile: int) -> np.ndarray:
    """Return the whole image, reduced until it fits into one tile."""
    return content if fits(content, tile) else resized(content, tile)


def painted(content: np.ndarray, one: Callable[[np.ndarray, Window], np.ndarray], tile: int) -> np.ndarray:
    """Paint an image (h, w, 3), in tiles if it is larger than one.

    Args:
        content: the image.
        one: function (pixels, window) that paints a tile; `window` is its position in the image, which is mirrored
            beyond its border.
        tile: side of the tiles in pixels; 0 for one piece.
    """
    height, width = content.shape[:2]
    if fits(content, tile):
        return one(content, (slice(0, height), slice(0, width)))
    sides = [min(side, tile) for side in (height, width)]
    starts = [_starts(length, side) for length, side in zip((height, width), sides, strict=True)]
    grown = [start[-1] + side for start, side in zip(starts, sides, strict=True)]
    padded = np.pad(content, ((0, grown[0] - height), (0, grown[1] - width), (0, 0)), mode="symmetric")
    total = np.zeros((*grown, 3), np.float32)
    weight = np.zeros((*grown, 1), np.float32)
    for top, left in product(*starts):
        window = (slice(top, top + sides[0]), slice(left, left + sides[1]))
        ramps = [_ramp(side, start, full) for side, start, full in zip(sides, (top, left), grown, strict=True)]
        share = (ramps[0][:, None] * ramps[1][None])[..., None]
        total[window] += share * one(padded[window], window)
        weight[window] += share
    return (total / weight)[:height, :width]


def grown(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """Return the (height, width) of the mirrored image that `painted` cuts tiles from."""
    if not tile or max(size) <= tile:
        return size
    height, width = (_starts(side, min(side, tile))[-1] + min(side, tile) for side in size)
    return height, width


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin along an axis. Neighbours overlap by two margins and the blended pixels, or more."""
    if length <= tile:
        return [0]
    step = (tile - 2 * MARGIN - BLEND) // STRIDE * STRIDE
    count = -(-(length - tile) // step) + 1
    return [i * step for i in range(count)]


def _ramp(tile: int, start: int, full: int) -> np.ndarray:
    """Return the weights along an axis of a tile: 0 in the margin, then rising to 1; at the image's border always 1."""
    place = np.arange(tile, dtype=np.float32)
    rising = np.clip((place - MARGIN + 0.5) / BLEND, 0, 1) if start else np.ones(tile, np.float32)
    falling = np.clip((tile - place - MARGIN - 0.5) / BLEND, 0, 1) if start + tile < full else np.ones(tile, np.float32)
    return rising * falling
