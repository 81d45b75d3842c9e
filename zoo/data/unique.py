"""One sample per file: a file that is listed several times is one sample, and no file is in two splits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from zoo.data.dataset import Dataset, Kind, Sample
from zoo.data.refusals import refuse
from zoo.errors import DataError, counted
from zoo.targets import TargetKind
from zoo.targets import kind as kind_of
from zoo.targets.faults import Fault


def locator() -> Callable[[str | Path], str]:
    """Return a function that maps a path to an identifier of the file: equal for two paths of the same file.

    The identifier is the real path: symbolic links are followed, and `a/../b.png` is `b.png`. Files with several hard
    links have no single path, so they are identified by device and inode number. Real paths of folders are cached,
    so that each file costs one `lstat`.
    """
    folders: dict[str, str] = {}

    def real(path: str | Path) -> str:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        place = os.path.join(folders[folder], name)
        try:
            state = os.lstat(place)
            if name in ("", ".", "..") or stat.S_ISLNK(state.st_mode):
                place = os.path.realpath(place)
                state = os.stat(place)
        except OSError:  # the file does not exist; the code that reads it reports that
            return place
        return f"{state.st_dev}:{state.st_ino}" if state.st_nlink > 1 and stat.S_ISREG(state.st_mode) else place

    return real


def listed(
    samples: Sequence[Sample],
    classes: tuple[str, ...],
    kind: Kind,
    name: str,
    root: Path,
    *,
    places: Sequence[str] = (),
    advice: str = "",
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Return a dataset of listed samples, in which a file may occur several times.

    Equal entries count once. Different entries of one file are merged if their kind allows it: the classes of kind
    `classes`, and boxes.

    Args:
        samples: one for each entry.
        classes: class names.
        kind: kind of the targets.
        name: of the dataset.
        root: folder that the ids are relative to.
        places: where each sample is listed, for errors, e.g. `data.csv, line 3`; by default its id.
        advice: a further remedy for contradicting entries, appended to the error.
        notes: of the dataset, before those on merged entries.

    Raises:
        DataError: two entries of one file contradict each other, or two files have the same id.
    """
    by_file, merge_notes = _once(
        samples, classes, kind_of(kind), name, places or [sample.id for sample in samples], advice
    )
    return Dataset(tuple(by_file.values()), classes, kind, name, root, (*notes, *merge_notes))


def unified(parts: Mapping[str, Dataset], *, deliberate: bool = False) -> dict[str, Dataset]:
    """Return the splits of a dataset with each file once, and in one split only.

    Args:
        parts: split name -> dataset.
        deliberate: accept two splits with exactly the same files, and only add a note.

    Raises:
        DataError: a file is in two splits, or occurs twice with contradicting targets.
    """
    unique, files = {}, {}
    for split, dataset in parts.items():
        files[split], merge_notes = _once(
            dataset.samples, dataset.classes, dataset.targets, dataset.name, [s.id for s in dataset]
        )
        samples = tuple(files[split].values())
        notes = (*dataset.notes, *merge_notes)
        unique[split] = replace(dataset, samples=samples, notes=notes) if merge_notes else dataset
    for one, other in combinations(files, 2):
        common = [file for file in files[one] if file in files[other]]
        if not common:
            continue
        ids = f"{files[one][common[0]].id} and {files[other][common[0]].id}"
        if deliberate and len(common) == len(files[one]) == len(files[other]):
            remark = (
                f"{one} and {other} are the same {len(common)} files: metrics on {other} say nothing about new images."
            )
            unique[other] = replace(unique[other], notes=(*unique[other].notes, remark))
            continue
        raise DataError(
            f"{unique[one].name} and {unique[other].name} have "
            f"{counted(len(common), 'file')} in common, e.g. {ids} ({files[other][common[0]].image}). A file must be "
            "in one split only: remove it from the others."
        )
    return unique


def require_once(dataset: Dataset) -> None:
    """Raise `DataError` if two samples of a dataset are the same file: a split could then have it on both sides."""
    real = locator()
    by_file: dict[str, Sample] = {}
    for sample in dataset:
        other = by_file.setdefault(real(sample.image), sample)
        if other is not sample:
            raise DataError(
                f"{dataset.name}: {other.id} and {sample.id} are the same file, {sample.image}. Merge their targets "
                "into one sample."
            )


def _once(
    samples: Iterable[Sample],
    classes: Sequence[str],
    kind: TargetKind,
    name: str,
    places: Sequence[str],
    advice: str = "",
) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Return (file -> sample, notes on repeated entries).

    Files are identified as by `locator`, and are in the order of their first entries.
    """
    real = locator()
    by_file: dict[str, Sample] = {}
    listed_in: dict[str, str] = {}
    repeated: list[str] = []
    for sample, place in zip(samples, places, strict=True):
        file = real(sample.image)
        if file not in by_file:
            by_file[file], listed_in[file] = sample, place
            continue
        first, earlier = by_file[file], listed_in[file]
        if first.target != sample.target:
            target = kind.merged(first.target, sample.target)
            if target is None:
                words = [kind.words(one.target, classes) for one in (first, sample)]
                refuse(
                    f"{name}: {sample.image} occurs twice with different targets: in {earlier} ({words[0]}) and in "
                    f"{place} ({words[1]}). Keep the right one{advice}.",
                    Fault("contradicting", first.id, None, "", f"{words[0]} in {earlier}; {words[1]} in {place}"),
                )
                continue
            by_file[file] = replace(first, target=target)
        repeated.append(first.id)
    if not repeated:
        return by_file, ()
    count = counted(len(repeated), "entry repeats a file", "entries repeat files")
    return by_file, (f"{name}: {count} listed before, e.g. {repeated[0]}; each file is one sample.",)
