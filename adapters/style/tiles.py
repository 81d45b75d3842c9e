"""Painting large pictures part by part, without visible seams.

Parts overlap; what lies near a part's border, where it sees padding in place of the picture, is thrown away, and what
is left of the overlap is blended. All parts have one size, so that one compiled program serves them, and begin at
multiples of the coarsest stride, so that pooling meets the same pixels in each.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from zoo.adapters.style.pictures import resized

MARGIN = 64
"""Pixels at a part's border that are thrown away: about what a transform net sees to either side."""
BLEND = 64
STRIDE = 32
SMALLEST = 2 * (2 * MARGIN + BLEND)

Window = tuple[slice, slice]


def fits(content: np.ndarray, tile: int) -> bool:
    """Whether a picture is painted in one piece; `tile` 0 paints every one so."""
    return not tile or max(content.shape[:2]) <= tile


def reduced(content: np.ndarray, tile: int) -> np.ndarray:
    """The whole picture, small enough for one piece."""
    return content if fits(content, tile) else resized(content, tile)


def painted(content: np.ndarray, one: Callable[[np.ndarray, Window], np.ndarray], tile: int) -> np.ndarray:
    """`one` on a picture (h, w, 3), in parts of `tile` pixels a side where it does not fit.

    Args:
        one: paints a part; the window says where it lies in the picture, which is mirrored beyond its border.
    """
    height, width = content.shape[:2]
    if fits(content, tile):
        return one(content, (slice(0, height), slice(0, width)))
    sides = [min(side, tile) for side in (height, width)]
    starts = [_starts(side, part) for side, part in zip((height, width), sides, strict=True)]
    grown = [start[-1] + part for start, part in zip(starts, sides, strict=True)]
    padded = np.pad(content, ((0, grown[0] - height), (0, grown[1] - width), (0, 0)), mode="symmetric")
    total = np.zeros((*grown, 3), np.float32)
    weight = np.zeros((*grown, 1), np.float32)
    for top, left in product(*starts):
        window = (slice(top, top + sides[0]), slice(left, left + sides[1]))
        ramps = [_ramp(part, start, full) for part, start, full in zip(sides, (top, left), grown, strict=True)]
        share = (ramps[0][:, None] * ramps[1][None])[..., None]
        total[window] += share * one(padded[window], window)
        weight[window] += share
    return (total / weight)[:height, :width]


def grown(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """(height, width) of what `painted` cuts parts from."""
    if not tile or max(size) <= tile:
        return size
    height, width = (_starts(side, min(side, tile))[-1] + min(side, tile) for side in size)
    return height, width


def _starts(side: int, part: int) -> list[int]:
    if side <= part:
        return [0]
    step = (part - 2 * MARGIN - BLEND) // STRIDE * STRIDE
    count = -(-(side - part) // step) + 1
    return [i * step for i in range(count)]


def _ramp(part: int, start: int, full: int) -> np.ndarray:
    """Weights along one axis of a part: 0 in the margin, then rising to 1, but 1 at the picture's own border."""
    place = np.arange(part, dtype=np.float32)
    rising = np.clip((place - MARGIN + 0.5) / BLEND, 0, 1) if start else np.ones(part, np.float32)
    falling = np.clip((part - place - MARGIN - 0.5) / BLEND, 0, 1) if start + part < full else np.ones(part, np.float32)
    return rising * falling
