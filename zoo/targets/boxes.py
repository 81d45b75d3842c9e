"""Boxes: the truth of a detection sample, and its arrays of fixed shape. No pixel is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import ConfigError, DataError
from zoo.targets.outlines import Outlines

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

Box = tuple[float, float, float, float]

UNKNOWN = -1
"""The label of a box whose class the annotation names and the data set does not. `check_boxes` removes such boxes."""

_STEP = 8


@dataclass(frozen=True, slots=True)
class InstanceMasks:
    """An image file whose pixel values number the objects; 0 is the background.

    Attributes:
        file: of the size of the photo. Colours count as red + 256 green + 65536 blue.
        values: the value of each box's object.
    """

    file: Path = field(repr=False)  # a data set is the same one in another place
    values: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Sequence[int]) -> InstanceMasks:
        """The objects at `indices`, in that order."""
        return replace(self, values=tuple(self.values[i] for i in indices))


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of one image.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the upright image; x2 and y2 are where the object ends, so that x2 - x1 is
            its width. Python floats, so that the representation is the same everywhere.
        labels: class index of each box.
        crowd: whether a box is not one object that a detector must find: COCO's `iscrowd`, Pascal VOC's `difficult`.
        size: height and width of the image that the boxes were drawn on.
        masks: where the objects' masks lie, or their outlines, if there are any.
    """

    boxes: tuple[Box, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    size: tuple[int, int]
    masks: InstanceMasks | Outlines | None = None

    def __post_init__(self) -> None:
        """Raise `DataError` unless there is one label, one crowd mark and one mask for each box."""
        counts = {
            len(self.boxes),
            len(self.labels),
            len(self.crowd),
            len(self.boxes if self.masks is None else self.masks),
        }
        if len(counts) > 1:
            raise DataError(
                f"{len(self.boxes)} boxes, {len(self.labels)} labels and {len(self.crowd)} crowd marks: each box "
                "needs one of each, and one mask where there are masks."
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def mapped(self, mapping: Sequence[int]) -> Boxes:
        """The same boxes with label i as `mapping[i]`; unknown classes stay unknown."""
        return replace(self, labels=tuple(i if i == UNKNOWN else mapping[i] for i in self.labels))

    def take(self, indices: Sequence[int]) -> Boxes:
        """The boxes at `indices`, in that order."""
        return replace(
            self,
            boxes=tuple(self.boxes[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            crowd=tuple(self.crowd[i] for i in indices),
            masks=None if self.masks is None else self.masks.take(indices),
        )


def padded_targets(target: Boxes, limit: int) -> dict[str, np.ndarray]:
    """The boxes of a sample as arrays of `limit` rows.

    Where there are more boxes, those of crowds go first, then the smallest; `box_limit` tells beforehand how many.

    Returns:
        `boxes` float32 (limit, 4), `labels` int32 (limit,), `box_valid` bool (limit,), `crowd` bool (limit,), all 0
        in rows without a box, and `box_cut` int32 (), the number of boxes that found no row.

    Raises:
        DataError: a box is of an unknown class, which a loss would take for the last one.
    """
    if UNKNOWN in target.labels:
        raise DataError("a box is of a class that the data set does not name; zoo.data.check_boxes removes such boxes.")
    kept = target if len(target) <= limit else target.take(_foremost(target, limit))
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


def _foremost(target: Boxes, limit: int) -> list[int]:
    """Indexes of the `limit` boxes to keep, in the sample's order."""

    def rank(index: int) -> tuple[bool, float]:
        x1, y1, x2, y2 = target.boxes[index]
        return target.crowd[index], -(x2 - x1) * (y2 - y1)

    return sorted(sorted(range(len(target)), key=rank)[:limit])


def box_limit(datasets: Sequence[Dataset], most: int = 512) -> tuple[int, str]:
    """(rows that the targets need, a note on what is cut or nothing).

    The rows are the largest number of boxes in an image, rounded up to a multiple of 8, at most `most`. Give all parts
    that are trained and evaluated on: truths that are cut from the latter would count as false alarms.
    """
    if most < 1:
        raise ConfigError(f"the most boxes of an image is {most}; it must be at least 1.")
    counts = [(len(sample.target), dataset.name, sample.id) for dataset in datasets for sample in dataset]
    largest = max((count for count, *_ in counts), default=0)
    limit = min(max(-(-largest // _STEP), 1) * _STEP, most)
    cut = [(count - limit, name, id) for count, name, id in counts if count > limit]
    if not cut:
        return limit, ""
    worst, name, id = max(cut)
    return limit, (
        f"{sum(count for count, *_ in cut)} boxes in {len(cut)} images are left out, because an image may have {limit} "
        f"(most of them, {worst}, in {id} of {name}): first crowds, then the smallest."
    )
