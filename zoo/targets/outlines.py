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
        segmentation: a list of polygons, or an object with `counts` and perhaps `size`. A polygon is a list of x and y
            in turn, or of points. A single one may stand for the list.
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
    if rings and all(isinstance(value, int | float) for value in rings):
        rings = [rings]
    good = tuple(tuple(map(float, ring)) for ring in map(_flat, rings) if _is_ring(ring))
    return Polygons(good) if good else None


def _flat(ring: Any) -> Any:
    """Return x and y of the points in turn, if a polygon is a list of points."""
    if isinstance(ring, list) and ring and all(isinstance(point, list) and len(point) == 2 for point in ring):
        return [value for point in ring for value in point]
    return ring


def _is_ring(ring: Any) -> bool:
    """Whether `ring` is a flat list of at least three points with plausible coordinates."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return False
    return all(isinstance(value, int | float) and abs(value) < _FARTHEST for value in ring)


def box_of(shape: Shape, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return the box around a shape in an image of `size`, as x1, y1, x2, y2; None if the runs are invalid or empty."""
    if isinstance(shape, Polygons):
        across = [value for ring in shape.rings for value in ring[::2]]
        down = [value for ring in shape.rings for value in ring[1::2]]
        return min(across), min(down), max(across), max(down)
    try:
        pixels = inside(shape, size)
    except DataError:
        return None
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


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
