"""Find the likely reason if many annotations of a dataset are wrong: coordinates in another unit, class numbers that
start at 1 instead of 0, masks that were saved for viewing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_SLACK = 0.01
"""Share of a side by which rounded coordinates may lie outside the image."""
_MOST = 0.5
"""A reason must explain more than this share of the boxes."""
_FAR = 8
"""Coordinates beyond this many sides of the image are in another unit, rather than from a larger image."""
_BLENDED = 24
"""More unknown values than this are not missing classes, but come from blending."""

Box = tuple[float, float, float, float]
Size = tuple[int, int]


class Dropped(NamedTuple):
    """A dropped box.

    Attributes:
        kind: kind of its fault.
        box: x1, y1, x2, y2 in pixels.
        size: height and width of its image.
    """

    kind: str
    box: Box
    size: Size


def of_boxes(dropped: Sequence[Dropped]) -> str:
    """Return why most of the dropped boxes are wrong; empty if that is unclear."""
    kinds = Counter(one.kind for one in dropped)
    if kinds["class"] > _MOST * len(dropped):
        return (
            "class numbers or names that are not in the dataset's list of classes, because they start at 1 instead of "
            "0 (or the reverse), or because the list belongs to another dataset"
        )
    if kinds["number"] > _MOST * len(dropped):
        return "missing coordinates"
    placed = [one for one in dropped if all(map(math.isfinite, one.box))]
    tests = (
        (_as_shares, "coordinates as shares of the image (0 to 1) instead of pixels"),
        (_times_the_size, "coordinates in pixels or per cent instead of shares of the image (0 to 1)"),
        (_exchanged, "x and y swapped"),
        (_beyond, "boxes drawn on larger versions of the images, whose size is not in the annotations"),
    )
    return next((reason for fits, reason in tests if sum(map(fits, placed)) > _MOST * len(dropped)), "")


def _as_shares(one: Dropped) -> bool:
    """Whether the coordinates lie in 0 to 1, though pixels were expected."""
    return max(map(abs, one.box)) <= 1 + _SLACK


def _times_the_size(one: Dropped) -> bool:
    """Whether the coordinates were multiplied by the image's size, though they were pixels or per cent already."""
    height, width = one.size
    x1, y1, x2, y2 = one.box
    undone = (x1 / width, y1 / height, x2 / width, y2 / height)
    return max(undone) > _FAR and _fits(undone, one.size)


def _exchanged(one: Dropped) -> bool:
    """Whether the box lies in the image if x and y are swapped."""
    x1, y1, x2, y2 = one.box
    return _fits((y1, x1, y2, x2), one.size)


def _beyond(one: Dropped) -> bool:
    """Whether the box reaches beyond the right or lower border only, as on a larger image."""
    return min(one.box) >= 0 and one.kind in ("outside", "overhang")


def _fits(box: Box, size: Size) -> bool:
    """Whether a box has an area of more than one pixel and lies in the image, up to rounding."""
    (x1, y1, x2, y2), (height, width) = box, size
    inside = x1 >= -_SLACK * width and y1 >= -_SLACK * height
    inside = inside and x2 <= (1 + _SLACK) * width and y2 <= (1 + _SLACK) * height
    return inside and x2 > x1 and y2 > y1 and (x2 - x1) * (y2 - y1) > 1


def other_corners(boxes: Sequence[tuple[Box, Size]], rounding: float) -> str:
    """Return why most boxes reach outside their images: two corners were read as corner (or centre) and size.

    Undo that reading: if the corners that result lie inside the image for all boxes, this is the reason. Otherwise,
    or if only few boxes reach outside, return an empty string.

    Args:
        boxes: (box, image size) of all boxes.
        rounding: pixels by which a box may reach outside.
    """
    over = sum(
        box[2] > size[1] + rounding or box[3] > size[0] + rounding or min(box[:2]) < -rounding for box, size in boxes
    )
    if over <= _MOST * len(boxes):
        return ""
    readings = (
        (lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1), "x, y, width and height"),
        (lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), "centre, width and height"),
    )
    for undo, expected in readings:
        if all(_fits(undo(*box), size) for box, size in boxes):
            return f"two corners (x1, y1, x2, y2) instead of {expected}"
    return ""


def counted_otherwise(numbers: Sequence[int], known: Sequence[int]) -> str:
    """Return how class numbers are counted if all of them become known when shifted by one; else empty.

    Args:
        numbers: class numbers in the annotations.
        known: class numbers in the list of classes.
    """
    used, listed = set(numbers), set(known)
    if not used or used <= listed:
        return ""
    for shift, wrong in ((-1, "counted from 1 instead of 0"), (1, "counted from 0 instead of 1")):
        if {number + shift for number in used} <= listed:
            return f"{wrong}: they are {min(used)} to {max(used)}, but the classes have {min(listed)} to {max(listed)}"
    return ""


def of_masks(
    strange: Mapping[int, int], known_values: Sequence[int], table: Sequence[tuple[int, int]], colours: bool
) -> str:
    """Return why values of masks are no class; empty if that is unclear.

    Args:
        strange: value -> pixels, for the values that are no class.
        known_values: values that are a class and occur.
        table: as in `MaskFile`.
        colours: whether the values in the table are colours.
    """
    if not strange:
        return ""
    numbers = sorted(value for value, _ in table)
    classes = len({value for value, _ in table if value < 255})
    if not colours and set(strange) == {classes} and numbers[:classes] == list(range(classes)):
        has = f"{classes} classes have 0 to {classes - 1}"
        if 0 not in known_values:
            return f"class numbers that are counted from 1: they go up to {classes}, but {has}"
        return (
            f"a list of classes without the background: the masks hold 0 to {classes}, but {has}. Add a first line for "
            "0, called background, or void if it is to be ignored"
        )
    if len(strange) > _BLENDED and len(strange) > 3 * classes:
        return "masks resized or saved with blended edges, which creates values between those of the classes"
    if not colours and min(strange) > 255:
        return "colours that are not in the list of classes: add red, green and blue to each class there"
    # Equal steps larger than 1, e.g. 0, 85, 170, 255: class numbers spread over the grey levels for viewing.
    values = np.array(sorted({0, *strange, *known_values}))
    steps = np.diff(values)
    if not colours and len(values) > 1 and len(set(steps.tolist())) == 1 and steps[0] > 1 and len(values) <= classes:
        shown = ", ".join(map(str, values[:4].tolist())) + (", ..." if len(values) > 4 else "")
        return f"grey levels for viewing ({shown}) instead of class numbers"
    return ""
