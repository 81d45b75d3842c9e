"""The base class of kinds of target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import ConfigError, DataError
from zoo.targets.faults import Check, Fault, Policy, Report

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample


class TargetKind:
    """Base class of the kinds of target. The defaults suit targets without classes that need no check.

    A kind that names classes sets `labelled` and overrides `labels` and `mapped`; everything else is optional.
    """

    name: str = ""
    """Name of the kind, as in `Dataset.kind`."""
    labelled: ClassVar[bool] = False
    """Whether targets hold class indexes."""
    exclusive: ClassVar[bool] = False
    """Whether each sample has exactly one class. Splits then divide every class in the same proportion."""
    lowest: ClassVar[int] = 0
    """Smallest class index in a target; below 0 if the check of annotations removes targets of unknown classes."""
    several_numberings: ClassVar[bool] = False
    """Whether published models number the same classes differently, so that a class number alone is ambiguous."""
    format: ClassVar[str] = ""
    """Data format to read by default if a task accepts only this kind."""
    made_from: ClassVar[tuple[str, ...]] = ()
    """Other kinds that `made` converts to this one."""
    checks: ClassVar[Mapping[str, Check]] = {}
    """Kinds of fault that `examined` finds: `Fault.kind` -> description."""
    counted: ClassVar[str] = "images"
    """What the counts of the classes count."""

    def labels(self, target: Any) -> tuple[int, ...]:
        """Return the class indexes in a target. May read files."""
        return ()

    def used(self, dataset: Dataset) -> set[int] | None:
        """Return the classes that occur, or None if finding out means reading files."""
        return None

    def mapped(self, target: Any, mapping: Sequence[int]) -> Any:
        """Return the target with class i replaced by `mapping[i]`."""
        return target

    def check(self, dataset: Dataset) -> None:
        """Raise `DataError` for a target with a class that the dataset does not have.

        Called whenever a dataset is created, so it must not read files.
        """
        if not self.labelled:
            return
        for sample in dataset:
            for index in self.labels(sample.target):
                if not self.lowest <= index < len(dataset.classes):
                    raise DataError(
                        f"{dataset.name}: {sample.id} has class index {index}, but there are {len(dataset.classes)} "
                        f"classes (0 to {len(dataset.classes) - 1}). Correct the label or the list of class names."
                    )

    def checked(self, dataset: Dataset, policy: Policy) -> tuple[Dataset, Report]:
        """Return (the dataset with corrected annotations, a report of the faults).

        Called once, before training or evaluation starts, so it may read files.
        """
        return dataset, Report(dataset.name, len(dataset), ())

    def examined(self, sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], Sequence[Fault]]:
        """Return (class indexes in the target of one sample, all that is wrong or suspicious about it).

        For `zoo.check`: nothing is corrected, and no fault keeps others from being found. May read files; called from
        several threads.

        Raises:
            DataError: a file of the target cannot be read.
        """
        return self.labels(sample.target), ()

    def area(self, target: Any, index: int) -> tuple[float, float, float, float] | None:
        """Return x1, y1, x2, y2 in pixels around one annotation, to show where it is; None if it has no place."""
        return None

    def files(self, target: Any) -> tuple[Path, ...]:
        """Return the files besides the image that the target depends on. Fingerprints hold their sizes and times."""
        return ()

    def read_from(self, target: Any) -> tuple[Path, ...]:
        """Return the files besides the image that were read for this target alone, e.g. its mask."""
        return self.files(target)

    def size(self, target: Any) -> tuple[int, int] | None:
        """Return the (height, width) of the upright image if the target knows it, else None."""
        return None

    def merged(self, one: Any, other: Any) -> Any:
        """Merge two different targets of the same file; return None if they contradict each other."""
        return None

    def words(self, target: Any, classes: Sequence[str]) -> str:
        """Describe a target in a few words, for messages."""
        return "another target"

    def same(self, one: Any, other: Any, tolerance: float) -> bool:
        """Whether two targets of one image are the same, though written in different formats. May read files.

        Args:
            one: a target.
            other: another.
            tolerance: pixels by which coordinates may differ.
        """
        return bool(one == other)

    def made(self, dataset: Dataset) -> Dataset:
        """Convert a dataset of a kind in `made_from` to this kind."""
        raise NotImplementedError


class Opaque(TargetKind):
    """An unregistered kind. Targets are passed on unchanged, and may have `mapped`, `files` and `size` themselves."""

    def __init__(self, name: str) -> None:
        self.name = name

    def mapped(self, target: Any, mapping: Sequence[int]) -> Any:
        if not hasattr(target, "mapped"):
            raise ConfigError(
                f"class indexes of targets of kind {self.name} cannot be changed. Add the kind (zoo.targets.add, or a "
                "part of target.kind), give the targets a method `mapped`, or list the classes in the model's order."
            )
        return target.mapped(mapping)

    def files(self, target: Any) -> tuple[Path, ...]:
        return tuple(getattr(target, "files", ()))

    def size(self, target: Any) -> tuple[int, int] | None:
        size: tuple[int, int] | None = getattr(target, "size", None)
        return size
