"""`class`: one class per sample. The target is its index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.targets.base import TargetKind

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset


class Label(TargetKind):
    """One class per sample."""

    name = "class"
    labelled = True
    exclusive = True

    def labels(self, target: int) -> tuple[int, ...]:
        return (target,)

    def used(self, dataset: Dataset) -> set[int]:
        return {sample.target for sample in dataset}

    def mapped(self, target: int, mapping: Sequence[int]) -> int:
        return mapping[target]

    def words(self, target: int, classes: Sequence[str]) -> str:
        return repr(classes[target])


KIND = Label()
