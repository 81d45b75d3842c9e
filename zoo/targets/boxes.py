"""Bounding boxes: the annotation of a detection sample, and its arrays of fixed shape. No pixels are read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import ConfigError, DataError, counted
from zoo.targets.outlines import Outlines

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

Box = tuple[float, float, float, float]

UNKNOWN = -1
"""Label of a box whose class is not among the dataset's classes. `check_boxes` removes such boxes."""

_STEP = 8
"""Numbers of rows are multiples of this, so that similar datasets share compiled programs."""


@dataclass(frozen=True, slots=True)
class InstanceMasks:
    """A mask file in which each object has its own pixel value; 0 is the background.

    Attributes:
        file: mask of the image's size. A colour counts as red + 256 green + 65536 blue.
        values: pixel value of each box's object.
    """

    file: Path = field(repr=False)  # fingerprints use the repr, and must not change if the dataset is moved
    values: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Sequence[int]) -> InstanceMasks:
        """Return the objects at `indices`, in that order."""
        return replace(self, values=tuple(self.values[i] for i in indices))


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of one image.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the upright image, with x2 - x1 the width. Python floats, so that the
            representation is the same on all machines.
        labels: class index of each box.
        crowd: whether a detector need not find the box as one object: COCO's `iscrowd`, Pascal VOC's `difficult`.
        size: height and width of the image that the boxes were drawn on.
        masks: a mask file or the outlines of the objects, if there are any.
    """

    boxes: tuple[Box, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    size: tuple[int, int]
    masks: InstanceMasks | Outlines | None = None

    def __post_init__(self) -> None:
        """Raise `DataError` unless there is one label, one crowd flag and (with masks) one mask for each box."""
        counts = {
            len(self.boxes),
            len(self.labels),
            len(self.crowd),
            len(self.boxes if self.masks is None else self.masks),
        }
        if len(counts) > 1:
            raise DataError(
                f"{len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.crowd)} crowd flags"
                f"{'' if self.masks is None else f', {len(self.masks)} masks'}: each box needs exactly one of each."
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def mapped(self, mapping: Sequence[int]) -> Boxes:
        """Return the boxes with label i replaced by `mapping[i]`; unknown classes stay unknown."""
        return replace(self, labels=tuple(i if i == UNKNOWN else mapping[i] for i in self.labels))

    def take(self, indices: Sequence[int]) -> Boxes:
        """Return the boxes at `indices`, in that order."""
        return replace(
            self,
            boxes=tuple(self.boxes[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            crowd=tuple(self.crowd[i] for i in indices),
            masks=None if self.masks is None else self.masks.take(indices),
        )


def padded_targets(target: Boxes, limit: int) -> dict[str, np.ndarray]:
    """Return the boxes of a sample as arrays of `limit` rows.

    If there are more boxes than rows, crowds are dropped first, then the smallest boxes. `box_limit` gives the number
    of rows that a dataset needs.

    Returns:
        `boxes` float32 (limit, 4), `labels` int32 (limit,), `box_valid` bool (limit,), `crowd` bool (limit,), all 0
        in rows without a box, and `box_cut` int32 (), the number of dropped boxes.

    Raises:
        DataError: a box is of an unknown class, whose index -1 a loss would take for the last class.
    """
    if UNKNOWN in target.labels:
        raise DataError(
            "a box has a class that is not among the dataset's classes; zoo.data.check_boxes removes such boxes."
        )
    kept = target if len(target) <= limit else target.take(_most_important(target, limit))
    count = len(kept)
    boxes, labels = np.zeros((limit, 4), np.float32), np.zeros(limit, np.int32)
    crowd = np.zeros(limit, bool)
    boxes[:count] = np.array(kept.boxes, np.float32).reshape(-1, 4)
    labels[:count], crowd[:count] = kept.labels, kept.crowd
    return {
        "boxes": boxes,
        "labels": labels,
        "box_valid": np.arange(limit) < count,
        "crowd": crowd,
        "box_cut": np.asarray(len(target) - count, np.int32),
    }


def _most_important(target: Boxes, limit: int) -> list[int]:
    """Return the indexes of the `limit` boxes to keep, in the sample's order: largest first, crowds last."""

    def rank(index: int) -> tuple[bool, float]:
        x1, y1, x2, y2 = target.boxes[index]
        return target.crowd[index], -(x2 - x1) * (y2 - y1)

    return sorted(sorted(range(len(target)), key=rank)[:limit])


def box_limit(datasets: Sequence[Dataset], most: int = 512) -> tuple[int, str]:
    """Return (number of rows that the targets need, a note on dropped boxes or an empty string).

    The number of rows is the largest number of boxes in an image, rounded up to a multiple of 8, at most `most`.

    Args:
        datasets: all splits for training and evaluation. Boxes that are dropped from the latter would turn correct
            detections into false positives.
        most: upper limit of the number of rows.
    """
    if most < 1:
        raise ConfigError(f"the largest number of boxes per image is {most}; it must be at least 1.")
    counts = [(len(sample.target), dataset.name, sample.id) for dataset in datasets for sample in dataset]
    largest = max((count for count, *_ in counts), default=0)
    limit = min(max(-(-largest // _STEP), 1) * _STEP, most)
    cut = [(count - limit, name, id) for count, name, id in counts if count > limit]
    if not cut:
        return limit, ""
    worst, name, id = max(cut)
    images = counted(len(cut), "image")
    lost = counted(sum(count for count, *_ in cut), f"box in {images} is", f"boxes in {images} are")
    return limit, (
        f"{lost} left out, because an image may have at most {limit} (most of them,"
        f" {worst}, in {id} of {name}): first crowds, then the smallest."
    )
