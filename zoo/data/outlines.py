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


def shape_of(segmentation: Any, size: tuple[int, int], place: str) -> Shape | None:
    """What an annotation's `segmentation` says; None for an empty one.

    Args:
        size: height and width of the image. place: what to call the annotation in an error.
    Raises:
        DataError: for what is neither polygons nor runs that fill the image.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _runs(segmentation, size, place)
    rings = segmentation if isinstance(segmentation, list) else [segmentation]
    for ring in rings:
        good = isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0
        if not good or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in ring):
            raise DataError(
                f"{place}: segmentation holds {str(ring)[:80]}; a polygon is a list of x and y in turn, of at least "
                "three points."
            )
    return Polygons(tuple(tuple(map(float, ring)) for ring in rings))


def _runs(found: dict[str, Any], size: tuple[int, int], place: str) -> Runs:
    counts = found.get("counts")
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != size[0] * size[1]:
            raise DataError(
                f"{place}: the counts of segmentation must be whole numbers that together are the image's "
                f"{size[0] * size[1]} pixels."
            )
    elif not isinstance(counts, str):
        raise DataError(f"{place}: counts is {str(counts)[:80]}; needed are numbers or COCO's compressed string.")
    if "size" in found and found["size"] != list(size):
        raise DataError(f"{place}: segmentation is for {found['size']}, the image has {list(size)}.")
    runs = Runs(tuple(counts) if isinstance(counts, list) else counts)
    if isinstance(counts, str):
        inside(runs, size, place)  # now, where the place is known
    return runs


def inside(shape: Shape, size: tuple[int, int], place: str = "an outline") -> np.ndarray:
    """Which pixels of an image of `size` the shape covers, bool (height, width); the same as pycocotools'."""
    from hotcoco import mask

    height, width = size
    try:
        if isinstance(shape, Runs):
            counts = list(shape.counts) if isinstance(shape.counts, tuple) else shape.counts
            return mask.decode({"size": [height, width], "counts": counts}).astype(bool)
        return mask.decode(mask.merge(mask.frPyObjects([list(r) for r in shape.rings], height, width))).astype(bool)
    except (ValueError, TypeError) as error:
        raise DataError(f"{place} cannot be drawn: {error}.") from error
