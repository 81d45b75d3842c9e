"""`classes`: any number of classes per sample. The target is a tuple of their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.targets.base import TargetKind

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset


class Labels(TargetKind):
    """Any number of classes per sample, including none."""

    name = "classes"
    labelled = True

    def labels(self, target: Sequence[int]) -> tuple[int, ...]:
        return tuple(target)

    def used(self, dataset: Dataset) -> set[int]:
        return {index for sample in dataset for index in sample.target}

    def mapped(self, target: Sequence[int], mapping: Sequence[int]) -> tuple[int, ...]:
        return tuple(mapping[index] for index in target)

    def merged(self, one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
        # An entry without labels says that the image has no class, which contradicts an entry with labels.
        return tuple(sorted({*one, *other})) if one and other else None

    def words(self, target: Sequence[int], classes: Sequence[str]) -> str:
        return " ".join(repr(classes[index]) for index in target) or "no label"


KIND = Labels()
