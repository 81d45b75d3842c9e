"""A sample is its file: a file that is listed several times is one sample, and no file is in two splits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from zoo.data.dataset import Dataset, Kind, Sample
from zoo.errors import DataError
from zoo.targets import TargetKind
from zoo.targets import kind as kind_of


def locator() -> Callable[[str | Path], str]:
    """Return a function that tells files apart: by the real path, or of files with hard links by their number.

    Links are followed, and `a/../b.png` is `b.png`. It remembers folders, so that a file costs one look at the disk.
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
        except OSError:  # it is not there; who reads it says so
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
    """Make a data set of samples that a list gives, in which a file may be several times.

    Equal entries are one. Classes of several entries (kind `classes`) and their boxes are put together.

    Args:
        places: where each sample is listed, for errors, e.g. `data.csv, line 3`; its id without it.
        advice: what else to do about entries that contradict each other.

    Raises:
        DataError: two entries of one file contradict each other, or two files have the same id.
    """
    found, said = _once(samples, classes, kind_of(kind), name, places or [sample.id for sample in samples], advice)
    return Dataset(tuple(found.values()), classes, kind, name, root, (*notes, *said))


def unified(parts: Mapping[str, Dataset], *, deliberate: bool = False) -> dict[str, Dataset]:
    """Return the parts of a data set with each file once, and in one part only.

    Args:
        deliberate: two parts of exactly the same files are meant to be that, and it is only said.

    Raises:
        DataError: a file is in two parts, or there twice with contradicting targets.
    """
    found, files = {}, {}
    for split, part in parts.items():
        files[split], said = _once(part.samples, part.classes, part.targets, part.name, [s.id for s in part])
        samples = tuple(files[split].values())
        found[split] = replace(part, samples=samples, notes=(*part.notes, *said)) if said else part
    for one, other in combinations(files, 2):
        common = [file for file in files[one] if file in files[other]]
        if not common:
            continue
        ids = f"{files[one][common[0]].id} and {files[other][common[0]].id}"
        if deliberate and len(common) == len(files[one]) == len(files[other]):
            remark = (
                f"{one} and {other} are the same {len(common)} files: figures on one tell nothing about new images."
            )
            found[other] = replace(found[other], notes=(*found[other].notes, remark))
            continue
        raise DataError(
            f"{found[one].name} and {found[other].name} have {len(common)} "
            f"file{'s' * (len(common) > 1)} in common, e.g. {ids} ({files[other][common[0]].image}). A file must be in "
            "one split only: remove it from the others."
        )
    return found


def require_once(dataset: Dataset) -> None:
    """Raise `DataError` when two samples of a data set are the same file: a split would have it on both sides."""
    real = locator()
    seen: dict[str, Sample] = {}
    for sample in dataset:
        other = seen.setdefault(real(sample.image), sample)
        if other is not sample:
            raise DataError(
                f"{dataset.name}: {other.id} and {sample.id} are the same file, {sample.image}. Put their targets "
                "together in one sample."
            )


def _once(
    samples: Iterable[Sample],
    classes: Sequence[str],
    kind: TargetKind,
    name: str,
    places: Sequence[str],
    advice: str = "",
) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Return file (see `locator`) -> sample, in the order of their first entries, and what was put together."""
    real = locator()
    found: dict[str, Sample] = {}
    listed_in: dict[str, str] = {}
    again: list[str] = []
    for sample, place in zip(samples, places, strict=True):
        file = real(sample.image)
        if file not in found:
            found[file], listed_in[file] = sample, place
            continue
        first, earlier = found[file], listed_in[file]
        again.append(first.id)
        if first.target != sample.target:
            target = kind.merged(first.target, sample.target)
            if target is None:
                raise DataError(
                    f"{name}: {sample.image} is there twice with different targets: in {earlier} "
                    f"({kind.words(first.target, classes)}) and in {place} "
                    f"({kind.words(sample.target, classes)}). Keep the right one{advice}."
                )
            found[file] = replace(first, target=target)
    if not again:
        return found, ()
    count = f"{len(again)} entries are of files that are" if len(again) > 1 else "1 entry is of a file that is"
    return found, (f"{name}: {count} there before, e.g. {again[0]}; each file is one sample.",)
