"""Samples and datasets: the images and their targets. No pixels are read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.content import fingerprint, rows
from zoo.errors import DataError
from zoo.targets import TargetKind
from zoo.targets import kind as kind_of
from zoo.targets.faults import Fault

Kind = str
"""Name of a kind of target, known to `zoo.targets.kind`. Targets of an unknown kind are passed on unchanged."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its target.

    Attributes:
        image: path of the image file.
        target: a class index for kind `class`, a tuple of class indexes for kind `classes`, `zoo.data.boxes.Boxes`
            for kind `boxes`, `zoo.data.masks.Mask` for kind `masks`, None for kind `images`.
        id: unique in the dataset and the same on every machine: the path relative to the dataset's root, with `/`.
        number: the image's identifier in the annotation file (COCO's `id`), None if it has none.
    """

    image: Path
    target: Any
    id: str
    number: int | str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples in a fixed order, with random access. Small, picklable, and never changed in place.

    Attributes:
        samples: in a fixed order; every index refers to it.
        classes: class names; a class index in a target points here.
        kind: kind of the targets: `class` (an int), `classes` (a tuple of ints, possibly empty), `boxes`, `masks`,
            `images` (no targets), or a kind added to `zoo.targets`.
        name: name shown to the user, e.g. `ants_bees/train`.
        root: folder that the ids are relative to.
        notes: remarks of the reader, shown to the user: files left out, class names that are nearly the same.
        category_ids: identifier of each class in the annotation file (COCO's category `id`), None for a class that
            the file lacks. Empty if the format has no such identifiers.
        faults: entries of the annotation files that are no samples, e.g. images that do not exist. The check of the
            annotations reports them and applies its policy.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    kind: Kind
    name: str
    root: Path
    notes: tuple[str, ...] = field(default=(), compare=False)
    category_ids: tuple[int | str | None, ...] = ()
    faults: tuple[Fault, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Raise `DataError` if two samples share an id, or a target refers to a class that does not exist."""
        if len({sample.id for sample in self.samples}) < len(self.samples):
            id, count = Counter(sample.id for sample in self.samples).most_common(1)[0]
            raise DataError(f"{self.name}: {count} samples have the id {id!r}; each sample needs a unique id.")
        self.targets.check(self)

    @property
    def targets(self) -> TargetKind:
        """The kind of target, as an object."""
        return kind_of(self.kind)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def labels(self, sample: Sample) -> tuple[int, ...]:
        """Return the class indexes of one sample.

        Boxes give one index per box, masks the classes that occur. For the latter, the mask is read unless its classes
        are known already. Targets without classes give none.
        """
        return self.targets.labels(sample.target)

    def subset(self, indices: Iterable[int], name: str) -> Dataset:
        """Return a dataset of the samples at `indices`, in that order, under a new name."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices), name=name)

    def counts(self) -> dict[str, int]:
        """Return class name -> count, in the order of `classes`, including classes with a count of 0.

        Counts samples (kinds `class` and `classes`), boxes, or masks in which the class occurs.
        """
        counts = Counter(index for sample in self.samples for index in self.labels(sample))
        return {name: counts[index] for index, name in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """Return a hex digest of the dataset's content.

        It changes with ids, order, targets, class names, and the content of image and mask files, and with nothing
        else: a copy in another place has the same one. Each file is read once per process, see `zoo.data.content`.

        Raises:
            DataError: a file cannot be read.
        """
        return fingerprint(self.kind, self.classes, rows(self))
