"""Outlines of objects, as COCO writes them: polygons, or runs of pixels. https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.errors import DataError


@dataclass(frozen=True, slots=True)
class Polygons:
    """An object that one or several polygons enclose.

    Attributes:
        rings: x and y in turn, in pixels from the image's upper left corner; at least three points each.
    """

    rings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """An object as the lengths of runs of pixels outside and inside of it in turn, column by column.

    Attributes:
        counts: the lengths, beginning outside; or COCO's compressed string of them.
    """

    counts: tuple[int, ...] | str


Shape = Polygons | Runs
_FARTHEST = 1e6
"""Pixels that a point may lie from the corner; NaN is none."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of an image's objects.

    Attributes:
        shapes: of each object; None where only its box is known.
    """

    shapes: tuple[Shape | None, ...]

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, indices: Sequence[int]) -> Outlines:
        """The outlines at `indices`, in that order."""
        return replace(self, shapes=tuple(self.shapes[i] for i in indices))


def shape_of(segmentation: Any, size: tuple[int, int]) -> Shape | None:
    """What an annotation's `segmentation` says of an image of `size` (height, width); None where it says nothing that
    can be drawn: neither polygons of three points and more, nor runs that fill the image."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        fits = segmentation.get("size", list(size)) == list(size)
        if isinstance(counts, list):
            whole = all(type(n) is int and n >= 0 for n in counts) and sum(counts) == size[0] * size[1]
            return Runs(tuple(counts)) if whole and fits else None
        return Runs(counts) if isinstance(counts, str) and counts and fits else None
    rings = segmentation if isinstance(segmentation, list) else []
    good = tuple(tuple(map(float, ring)) for ring in rings if _is_ring(ring))
    return Polygons(good) if good else None


def _is_ring(ring: Any) -> bool:
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return False
    return all(isinstance(value, int | float) and abs(value) < _FARTHEST for value in ring)


def inside(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of an image of `size` the shape covers, bool (height, width); the same as pycocotools'.

    Raises `DataError` for runs that make no sense.
    """
    from hotcoco import mask

    height, width = size
    try:
        if isinstance(shape, Runs):
            counts = list(shape.counts) if isinstance(shape.counts, tuple) else shape.counts
            return mask.decode({"size": [height, width], "counts": counts}).astype(bool)
        return mask.decode(mask.merge(mask.frPyObjects([list(r) for r in shape.rings], height, width))).astype(bool)
    except (ValueError, TypeError) as error:
        raise DataError(f"the outline of an object cannot be drawn: {error}.") from error
