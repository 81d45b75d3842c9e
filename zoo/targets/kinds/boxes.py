"""`boxes`: the objects of an image, each with a box and a class. The target is a `zoo.targets.boxes.Boxes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import counted
from zoo.targets.base import TargetKind
from zoo.targets.boxes import UNKNOWN, Box, Boxes, InstanceMasks
from zoo.targets.check_boxes import BoxReport, check_boxes
from zoo.targets.examine_boxes import CHECKS, examine
from zoo.targets.faults import Fault, Policy
from zoo.targets.outlines import Outlines

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample


class BoxesKind(TargetKind):
    """Objects with a box each, perhaps with an outline."""

    name = "boxes"
    labelled = True
    # Boxes of unknown classes are allowed at first; the check of the annotations handles them.
    lowest = UNKNOWN
    # Published detectors number the same classes differently: those for COCO have 80, 90 or 91 class numbers.
    several_numberings = True
    checks = CHECKS
    counted = "boxes"

    def labels(self, target: Boxes) -> tuple[int, ...]:
        return target.labels

    def used(self, dataset: Dataset) -> set[int]:
        return {index for sample in dataset for index in sample.target.labels} - {UNKNOWN}

    def mapped(self, target: Boxes, mapping: Sequence[int]) -> Boxes:
        return target.mapped(mapping)

    def checked(self, dataset: Dataset, policy: Policy) -> tuple[Dataset, BoxReport]:
        return check_boxes(dataset, policy)

    def examined(self, sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], tuple[Fault, ...]]:
        return tuple(label for label in sample.target.labels if label != UNKNOWN), examine(sample, classes)

    def area(self, target: Boxes, index: int) -> Box:
        return target.boxes[index]

    def read_from(self, target: Boxes) -> tuple[Path, ...]:
        return (target.masks.file,) if isinstance(target.masks, InstanceMasks) else ()

    def size(self, target: Boxes) -> tuple[int, int]:
        return target.size

    def merged(self, one: Boxes, other: Boxes) -> Boxes | None:
        # Outlines belong to single boxes and can be put together. The values of two mask files could collide.
        outlines = [target.masks for target in (one, other)]
        if one.size != other.size or not all(masks is None or isinstance(masks, Outlines) for masks in outlines):
            return None
        shapes = [
            masks.shapes if isinstance(masks, Outlines) else (None,) * len(target)
            for masks, target in zip(outlines, (one, other), strict=True)
        ]
        return Boxes(
            one.boxes + other.boxes,
            one.labels + other.labels,
            one.crowd + other.crowd,
            one.size,
            Outlines(shapes[0] + shapes[1]) if any(outlines) else None,
        )

    def same(self, one: Boxes, other: Boxes, tolerance: float) -> bool:
        # Formats differ in whether they hold outlines and crowd marks.
        if one.labels != other.labels or one.size != other.size:
            return False
        pairs = zip(one.boxes, other.boxes, strict=True)
        return all(abs(a - b) <= tolerance for box, back in pairs for a, b in zip(box, back, strict=True))

    def words(self, target: Boxes, classes: Sequence[str]) -> str:
        return counted(len(target), "box", "boxes")


KIND = BoxesKind()
