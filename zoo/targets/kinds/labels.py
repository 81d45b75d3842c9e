"""`classes`: any number of classes per sample. The target is a tuple of their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.targets.base import TargetKind
from zoo.targets.faults import Check, Fault

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample

_NO_LABEL = Check(
    "no-label",
    "note",
    "images without a label",
    "Right for images that show none of the classes; otherwise label them.",
)


class Labels(TargetKind):
    """Any number of classes per sample, including none."""

    name = "classes"
    labelled = True
    checks = {"none": _NO_LABEL}

    def labels(self, target: Sequence[int]) -> tuple[int, ...]:
        return tuple(target)

    def used(self, dataset: Dataset) -> set[int]:
        return {index for sample in dataset for index in sample.target}

    def examined(self, sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], tuple[Fault, ...]]:
        return sample.target, () if sample.target else (Fault("none", sample.id, None, "", ""),)

    def mapped(self, target: Sequence[int], mapping: Sequence[int]) -> tuple[int, ...]:
        return tuple(mapping[index] for index in target)

    def merged(self, one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
        # An entry without labels says that the image has no class, which contradicts an entry with labels.
        return tuple(sorted({*one, *other})) if one and other else None

    def same(self, one: Sequence[int], other: Sequence[int], tolerance: float) -> bool:
        return set(one) == set(other)

    def words(self, target: Sequence[int], classes: Sequence[str]) -> str:
        return " ".join(repr(classes[index]) for index in target) or "no label"


KIND = Labels()
