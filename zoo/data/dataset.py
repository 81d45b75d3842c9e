"""Samples and data sets: which images there are and what is known about each. No pixel is read here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.targets import TargetKind
from zoo.targets import kind as kind_of

Kind = str
"""A name that `zoo.targets.kind` knows. Of another one nothing is known, and its targets are passed on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its target.

    Attributes:
        image: path of the image file.
        target: a class index for kind `class`, a tuple of class indexes for kind `classes`, `zoo.data.boxes.Boxes`
            for kind `boxes`, `zoo.data.masks.Mask` for kind `masks`, None for kind `images`.
        id: unique in the data set and the same on every machine: the path below the data set's root, with `/`.
        number: what the data's own file calls the image (COCO's `id`), where it has such a name.
    """

    image: Path
    target: Any
    id: str
    number: int | str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples in a fixed order, with random access. Small, picklable, and never changed in place.

    Attributes:
        samples: in the order that every index refers to.
        classes: names; a target's class index points here.
        kind: what the targets are: `class` (an int), `classes` (a tuple of ints, possibly empty), `boxes`, `masks`,
            `images` (nothing is known), or one that was added to `zoo.targets`.
        name: for people, e.g. `ants_bees/train`.
        root: folder that the ids are relative to.
        notes: what whoever read the data has to say about it, for people: files left out, classes that look alike.
        category_ids: what the data's own file calls each class (COCO's category `id`), None for one that it lacks;
            empty where it has no such names.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    kind: Kind
    name: str
    root: Path
    notes: tuple[str, ...] = field(default=(), compare=False)
    category_ids: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        """Raise `DataError` when two samples have the same id, or a target names a class that is not there."""
        if len({sample.id for sample in self.samples}) < len(self.samples):
            id, count = Counter(sample.id for sample in self.samples).most_common(1)[0]
            raise DataError(f"{self.name}: {count} samples have the id {id!r}; each sample needs an id of its own.")
        self.targets.check(self)

    @property
    def targets(self) -> TargetKind:
        """What is known about targets of this kind."""
        return kind_of(self.kind)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def labels(self, sample: Sample) -> tuple[int, ...]:
        """Class indexes of one sample: one for each box; of masks those that occur, for which the mask
        is read where nobody has counted them yet; none where targets name no classes."""
        return self.targets.labels(sample.target)

    def subset(self, indices: Iterable[int], name: str) -> Dataset:
        """The samples at `indices`, in that order, under a new name."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices), name=name)

    def counts(self) -> dict[str, int]:
        """How many samples (or boxes) each class has, of masks in how many it occurs, in the order of `classes`;
        classes without any have 0."""
        found = Counter(index for sample in self.samples for index in self.labels(sample))
        return {name: found[index] for index, name in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """A hex digest that changes with ids, order, targets, class names, sizes or modification times of files
        (of images, and of masks).

        Pixels are not read, so it costs one `stat` a file. Raises `DataError` when a file is gone.
        """
        digest = hashlib.sha256(repr((self.kind, self.classes)).encode("utf-8", "surrogateescape"))
        kind = self.targets
        for sample in self.samples:
            stats: list[int] = []
            for file in (sample.image, *kind.files(sample.target)):
                try:
                    stat = file.stat()
                except OSError as error:
                    raise DataError(f"{self.name}: {file} cannot be read ({error.strerror}).") from error
                stats += [stat.st_size, stat.st_mtime_ns]
            line = repr((sample.id, sample.target, *stats))
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
