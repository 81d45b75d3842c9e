"""`masks`: a class for every pixel. The target is a `zoo.targets.masks.Mask`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError
from zoo.targets.base import TargetKind
from zoo.targets.check_masks import MaskReport, check_masks
from zoo.targets.examine_masks import CHECKS, examine
from zoo.targets.faults import Fault, Policy
from zoo.targets.masks import MOST_CLASSES, Mask, painted, read_mask

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample


class MasksKind(TargetKind):
    """A class for every pixel. Finding out which classes occur means reading the mask."""

    name = "masks"
    labelled = True
    made_from = ("boxes",)
    checks = CHECKS
    counted = "masks"

    def labels(self, target: Mask) -> tuple[int, ...]:
        return target.present()

    def mapped(self, target: Mask, mapping: Sequence[int]) -> Mask:
        return target.mapped(mapping)

    def check(self, dataset: Dataset) -> None:
        if len(dataset.classes) > MOST_CLASSES:
            raise DataError(f"{dataset.name} has {len(dataset.classes)} classes; masks have at most {MOST_CLASSES}.")
        for sample in dataset:
            highest = max(sample.target.classes(), default=0)
            if highest >= len(dataset.classes):
                raise DataError(
                    f"{dataset.name}: the mask of {sample.id} has class index {highest}, but there are "
                    f"{len(dataset.classes)} classes (0 to {len(dataset.classes) - 1}). Correct the table of values or "
                    "the list of class names."
                )

    def checked(self, dataset: Dataset, policy: Policy) -> tuple[Dataset, MaskReport]:
        return check_masks(dataset, policy)

    def examined(self, sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], tuple[Fault, ...]]:
        return examine(sample, classes)

    def files(self, target: Mask) -> tuple[Path, ...]:
        return target.files

    def size(self, target: Mask) -> tuple[int, int]:
        return target.size

    def same(self, one: Mask, other: Mask, tolerance: float) -> bool:
        classes = [read_mask(mask) for mask in (one, other)]
        return classes[0].shape == classes[1].shape and bool((classes[0] == classes[1]).all())

    def made(self, dataset: Dataset) -> Dataset:
        return painted(dataset)


KIND = MasksKind()
