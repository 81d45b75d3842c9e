"""Likely reasons why many annotations of a data set are wrong together: coordinates in another unit, numbers that are
counted otherwise, masks that were saved for people to look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_SLACK = 0.01
"""Share of a side by which rounded coordinates may lie beyond it."""
_MOST = 0.5
"""Share of the boxes that a reason must explain."""
_FAR = 8
"""Sides of the image beyond which a box lies in another unit, and not on a larger image."""
_BLENDED = 24
"""So many values that stand for no class are no classes: they come from blending."""

Box = tuple[float, float, float, float]
Size = tuple[int, int]


class Dropped(NamedTuple):
    """A box that is dropped.

    Attributes:
        kind: of its fault. box: x1, y1, x2, y2 in pixels. size: height and width of its image.
    """

    kind: str
    box: Box
    size: Size


def of_boxes(dropped: Sequence[Dropped]) -> str:
    """Why boxes are wrong, for people; empty where it is not plain."""
    kinds = Counter(one.kind for one in dropped)
    if kinds["class"] > _MOST * len(dropped):
        return (
            "numbers or names of classes that the data's list of classes does not have, because they are counted from "
            "1 where 0 is meant (or the reverse), or the list is of other data"
        )
    if kinds["number"] > _MOST * len(dropped):
        return "coordinates that are missing"
    placed = [one for one in dropped if all(map(math.isfinite, one.box))]
    tests = (
        (_as_shares, "coordinates that are shares of the image (0 to 1) where pixels are due"),
        (_times_the_size, "coordinates in pixels or per cent where shares of the image (0 to 1) are due"),
        (_exchanged, "x and y exchanged"),
        (_beyond, "boxes that were drawn on larger images than the files are, whose size the annotations do not tell"),
    )
    return next((said for fits, said in tests if sum(map(fits, placed)) > _MOST * len(dropped)), "")


def _as_shares(one: Dropped) -> bool:
    return max(map(abs, one.box)) <= 1 + _SLACK


def _times_the_size(one: Dropped) -> bool:
    height, width = one.size
    x1, y1, x2, y2 = one.box
    meant = (x1 / width, y1 / height, x2 / width, y2 / height)
    return max(meant) > _FAR and _fits(meant, one.size)


def _exchanged(one: Dropped) -> bool:
    x1, y1, x2, y2 = one.box
    return _fits((y1, x1, y2, x2), one.size)


def _beyond(one: Dropped) -> bool:
    return min(one.box) >= 0 and one.kind in ("outside", "overhang")


def _fits(box: Box, size: Size) -> bool:
    """Whether a box has an area of more than a pixel and lies in the image, but for rounding."""
    (x1, y1, x2, y2), (height, width) = box, size
    inside = x1 >= -_SLACK * width and y1 >= -_SLACK * height
    inside = inside and x2 <= (1 + _SLACK) * width and y2 <= (1 + _SLACK) * height
    return inside and x2 > x1 and y2 > y1 and (x2 - x1) * (y2 - y1) > 1


def other_corners(boxes: Sequence[tuple[Box, Size]], rounding: float) -> str:
    """Why most boxes reach beyond their images: two corners that were read as a corner, or the centre, and a size.
    Empty unless all boxes lie inside when they are read so."""
    over = sum(
        box[2] > size[1] + rounding or box[3] > size[0] + rounding or min(box[:2]) < -rounding for box, size in boxes
    )
    if over <= _MOST * len(boxes):
        return ""
    readings = (
        (lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1), "x, y, width and height"),
        (lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), "centre, width and height"),
    )
    for read, due in readings:
        if all(_fits(read(*box), size) for box, size in boxes):
            return f"two corners (x1, y1, x2, y2) where {due} are due"
    return ""


def counted_otherwise(numbers: Sequence[int], known: Sequence[int]) -> str:
    """Whether numbers of classes, some of which are not known, would all be known if they were counted from 1 in place
    of 0, or the reverse; for people, empty where they would not."""
    used, listed = set(numbers), set(known)
    if not used or used <= listed:
        return ""
    for shift, said in ((-1, "counted from 1 where 0 is the first"), (1, "counted from 0 where 1 is the first")):
        if {number + shift for number in used} <= listed:
            return f"{said}: they are {min(used)} to {max(used)}, and the classes have {min(listed)} to {max(listed)}"
    return ""


def of_masks(strange: Mapping[int, int], there: Sequence[int], table: Sequence[tuple[int, int]], colours: bool) -> str:
    """Why values of masks stand for no class, for people; empty where it is not plain.

    Args:
        strange: value -> pixels, of those that stand for none. there: those that do and occur. table: as in `MaskFile`.
        colours: whether the table's values are colours.
    """
    if not strange:
        return ""
    numbers = sorted(value for value, _ in table)
    classes = len({value for value, _ in table if value < 255})
    if not colours and set(strange) == {classes} and numbers[:classes] == list(range(classes)):
        has = f"{classes} classes have 0 to {classes - 1}"
        if 0 not in there:
            return f"class numbers that are counted from 1: they go up to {classes}, and {has}"
        return (
            f"a list of classes that lacks the background: the masks hold 0 to {classes}, and {has}. Name 0 there, too "
            "(background), or call what does not count void"
        )
    if len(strange) > _BLENDED and len(strange) > 3 * classes:
        return "masks that were resized or saved with blended edges: values between those of the classes occur"
    if not colours and min(strange) > 255:
        return "colours without a list of what they stand for: name each class with its red, green and blue"
    values = np.array(sorted({0, *strange, *there}))
    steps = np.diff(values)
    if not colours and len(values) > 1 and len(set(steps.tolist())) == 1 and steps[0] > 1 and len(values) <= classes:
        shown = ", ".join(map(str, values[:4].tolist())) + (", ..." if len(values) > 4 else "")
        return f"grey levels for people to look at ({shown}) where the numbers of the classes are due"
    return ""
