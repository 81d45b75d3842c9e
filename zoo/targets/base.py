"""What a kind of target knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import ConfigError, DataError
from zoo.targets.faults import Policy, Report

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset


class TargetKind:
    """Base of the kinds of target. Its defaults are those of targets that name no classes and need no check.

    A kind that names classes sets `labelled` and overrides `labels` and `mapped`; everything else is optional.
    """

    name: str = ""
    """What `Dataset.kind` calls it."""
    labelled: ClassVar[bool] = False
    """Whether targets name classes by their index."""
    exclusive: ClassVar[bool] = False
    """Whether each sample has exactly one class. Splits then divide every class in the same proportion."""
    lowest: ClassVar[int] = 0
    """The smallest class index that a target may hold: below 0 where the check of annotations removes unknown ones."""
    several_numberings: ClassVar[bool] = False
    """Whether published models number the same classes in several ways, so that a number alone may mislead."""
    format: ClassVar[str] = ""
    """Name of the data format to read, unless another is named, where a task accepts this kind alone."""
    made_from: ClassVar[tuple[str, ...]] = ()
    """Other kinds that `made` takes."""

    def labels(self, target: Any) -> tuple[int, ...]:
        """Return the class indexes that a target names. May read files."""
        return ()

    def used(self, dataset: Dataset) -> set[int] | None:
        """Return the classes that occur, or None where this cannot be told without reading files."""
        return None

    def mapped(self, target: Any, mapping: Sequence[int]) -> Any:
        """Return the target with class i as `mapping[i]`."""
        return target

    def check(self, dataset: Dataset) -> None:
        """Raise `DataError` for a target that names a class that the data set lacks. Called for every data set that is
        made, so it must read no file."""
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
        """Return the data set with its annotations in order, and what was wrong with them. Called before anything is
        computed, so it may read files."""
        return dataset, Report(dataset.name, len(dataset), ())

    def files(self, target: Any) -> tuple[Path, ...]:
        """Return the files beside the image's that the target depends on: a fingerprint holds their sizes and times."""
        return ()

    def read_from(self, target: Any) -> tuple[Path, ...]:
        """Return all files beside the image's that the target was read from, one for itself alone."""
        return self.files(target)

    def size(self, target: Any) -> tuple[int, int] | None:
        """Return the (height, width) of the upright image where the target knows it."""
        return None

    def merged(self, one: Any, other: Any) -> Any:
        """Return what two different entries of one file say together; None where they contradict each other."""
        return None

    def words(self, target: Any, classes: Sequence[str]) -> str:
        """Return what a target says, in a few words for people."""
        return "another target"

    def made(self, dataset: Dataset) -> Dataset:
        """Return a data set of this kind, made from one of a kind in `made_from`."""
        raise NotImplementedError


class Opaque(TargetKind):
    """A kind that nobody added: nothing is known about it, and targets may know some of it themselves."""

    def __init__(self, name: str) -> None:
        self.name = name

    def mapped(self, target: Any, mapping: Sequence[int]) -> Any:
        if not hasattr(target, "mapped"):
            raise ConfigError(
                f"targets of kind {self.name} cannot be given other class indexes: add the kind "
                "(zoo.targets.add, or a "
                "part of target.kind), give the targets a method `mapped`, or list the classes in the model's order."
            )
        return target.mapped(mapping)

    def files(self, target: Any) -> tuple[Path, ...]:
        return tuple(getattr(target, "files", ()))

    def size(self, target: Any) -> tuple[int, int] | None:
        found: tuple[int, int] | None = getattr(target, "size", None)
        return found
