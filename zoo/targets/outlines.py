"""Outlines of objects as in COCO: polygons or run-length encoding. https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.errors import DataError


@dataclass(frozen=True, slots=True)
class Polygons:
    """The outline of an object as one or more polygons.

    Attributes:
        rings: polygons of at least three points each; x and y in turn, in pixels from the image's upper left corner.
    """

    rings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """The pixels of an object in COCO's run-length encoding, column by column.

    Attributes:
        counts: lengths of runs outside and inside the object in turn, starting outside; or COCO's compressed string.
    """

    counts: tuple[int, ...] | str


Shape = Polygons | Runs
_FARTHEST = 1e6
"""Coordinates must be smaller than this, in pixels. NaN is refused by the same comparison."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of an image's objects.

    Attributes:
        shapes: outline of each object, None if only its box is known.
    """

    shapes: tuple[Shape | None, ...]

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, indices: Sequence[int]) -> Outlines:
        """Return the outlines at `indices`, in that order."""
        return replace(self, shapes=tuple(self.shapes[i] for i in indices))


def shape_of(segmentation: Any, size: tuple[int, int]) -> Shape | None:
    """Parse the `segmentation` of a COCO annotation.

    Args:
        segmentation: a list of polygons, or an object with `counts` and perhaps `size`.
        size: height and width of the image.

    Returns:
        The outline; None if it has neither a polygon of at least three points nor runs that fill the image.
    """
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
    """Whether `ring` is a flat list of at least three points with plausible coordinates."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return False
    return all(isinstance(value, int | float) and abs(value) < _FARTHEST for value in ring)


def inside(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of an image of `size` the shape covers, bool (height, width), the same as pycocotools.

    Raises:
        DataError: the runs are invalid.
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
