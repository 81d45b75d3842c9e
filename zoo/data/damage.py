"""Files that cannot be read: found before a training, all at once, and named or left out.

The header of every file is read. Files are decoded as well, strictly, if all of them together are small. Those of a
larger dataset are decoded while they are used; `Later` decodes some of them ahead of that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from zoo.data.dataset import Dataset, Sample
from zoo.data.decode import check_pixels
from zoo.data.files import is_image
from zoo.data.sound import Sound
from zoo.errors import ConfigError, DataError, LateError, UnreadableError, counted
from zoo.image_header import image_size
from zoo.reading import in_time

OnCorrupt = Literal["error", "skip"]
POLICIES: tuple[OnCorrupt, ...] = ("error", "skip")
MOST = 0.1
"""Largest share of a split that the policy `skip` leaves out: more are no single accidents."""
WHOLE = 512 << 20
"""Bytes up to which the files of a dataset are decoded before a training: a few seconds on one core."""
LISTED = 20
"""Files whose fault an error states; of others it has the names."""
_ADVICE = "Replace or remove them, or leave them out: --on-corrupt skip (on_corrupt='skip')."
LATE = 8
"""Files that are waited for in vain. Then the drive is gone, and the others are not tried."""
_THREADS = min(4, os.cpu_count() or 1)
_CHUNK = 16
"""Files that a thread takes at a time."""


@dataclass(frozen=True)
class Readable:
    """The splits of a dataset, with all their files readable as far as that was checked.

    Attributes:
        splits: by name.
        notes: a remark for each split that has lost samples.
        left_out: split name -> ids of the samples that were left out.
        whole: whether all files were decoded, and not only their headers read.
    """

    splits: dict[str, Dataset]
    notes: tuple[str, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)
    whole: bool = True


def readable(
    splits: Mapping[str, Dataset],
    on_corrupt: OnCorrupt = "error",
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> Readable:
    """Check the files of all splits: the images, and masks where there are any.

    Args:
        splits: by name.
        on_corrupt: `error` names all files that cannot be read, of all splits. `skip` decodes every file, however many
            there are, and leaves out the samples of those that cannot be read.
        left_out: split name -> ids that a resumed run has left out before; they are left out again.

    Raises:
        DataError: files cannot be read. With `skip`: those of more than a tenth of a split, or of all samples of a
            class.
        ConfigError: `on_corrupt` is not accepted.
    """
    if on_corrupt not in POLICIES:
        raise ConfigError(f"on_corrupt is {on_corrupt!r}; accepted: {', '.join(POLICIES)}.")
    before = {name: list(ids) for name, ids in (left_out or {}).items() if ids}
    parts = {name: _without(dataset, set(before.get(name, ()))) for name, dataset in splits.items()}
    files = [file for dataset in parts.values() for file in files_of(dataset)]
    whole = on_corrupt == "skip" or _bytes(files) <= WHOLE
    problems = unreadable(files, whole=whole)
    bad = {name: _faulty(dataset, problems) for name, dataset in parts.items()}
    if on_corrupt == "error":
        if problems:
            raise DataError(*_named([(dataset, bad[name]) for name, dataset in parts.items()], problems), _ADVICE)
        return Readable(parts, tuple(_remarks(splits, before)), before, whole)
    for name, dataset in parts.items():
        _check_loss(dataset, bad[name], problems)
    ids = {name: [*before.get(name, ()), *(sample.id for sample in samples)] for name, samples in bad.items()}
    kept = {name: _without(dataset, {sample.id for sample in bad[name]}) for name, dataset in parts.items()}
    lost = {name: one for name, one in ids.items() if one}
    return Readable(kept, tuple(_remarks(splits, lost)), lost, whole)


def unreadable(
    files: Iterable[Path], *, whole: bool = True, stop: Callable[[], bool] = lambda: False
) -> dict[Path, str]:
    """Return the files that cannot be read, and what is wrong with each, without its name.

    Args:
        files: images, masks and other files; of other files only the existence is checked.
        whole: decode the images, strictly; otherwise their headers are read.
        stop: asked before each file; whether to leave out the rest.
    """
    sound, wanted, late = Sound(), list(dict.fromkeys(files)), list[Path]()

    def problem(file: Path) -> str:
        if stop() or len(late) > LATE:
            return ""
        try:
            return _problem(file, whole, sound)
        except LateError as error:
            late.append(file)
            return error.problem

    def problems(start: int) -> list[tuple[Path, str]]:
        return [(file, problem(file)) for file in wanted[start : start + _CHUNK]]

    with ThreadPoolExecutor(_THREADS) as pool:
        found = [one for chunk in pool.map(problems, range(0, len(wanted), _CHUNK)) for one in chunk]
    sound.write()
    return {file: problem for file, problem in found if problem}


def files_of(dataset: Dataset) -> list[Path]:
    """Return the files of a dataset: images, and those that targets are read from."""
    kind = dataset.targets
    return [file for sample in dataset for file in (sample.image, *kind.read_from(sample.target))]


@contextmanager
def naming_all(splits: Iterable[Dataset]) -> Iterator[None]:
    """Turn the error for one unreadable file into one that names all of them, see `all_named`.

    For data that are too large to be decoded beforehand, or have changed since.
    """
    try:
        yield
    except UnreadableError as error:
        raise all_named(error, splits) from error


def all_named(error: UnreadableError, splits: Iterable[Dataset], seconds: float = 60.0) -> DataError:
    """Return the error for all files of a dataset that cannot be read, after one of them was met.

    Args:
        error: the first one.
        splits: the splits of the dataset.
        seconds: time for finding the others.
    """
    parts, end = list(splits), time.monotonic() + seconds
    files = [file for dataset in parts for file in files_of(dataset)]
    problems = unreadable(files, stop=lambda: time.monotonic() > end)
    if Path(error.path) not in problems:  # a style image, for example, or a file that was repaired meanwhile
        return error
    lines = _named([(dataset, _faulty(dataset, problems)) for dataset in parts], problems)
    late = "" if time.monotonic() <= end else f" More may follow: not all were checked within {seconds:g} seconds."
    return DataError(*lines, _ADVICE + late)


class Later:
    """Decodes the files of splits in a thread of its own, while a training does not need them yet.

    Args:
        splits: the splits, in the order in which they are needed.
    """

    def __init__(self, splits: Sequence[Dataset]) -> None:
        self._splits, self._stop = splits, threading.Event()
        self._problems: dict[Path, str] = {}
        self._thread = threading.Thread(target=self._work, daemon=True, name="zoo-decode")
        self._thread.start()

    def _work(self) -> None:
        sound = Sound()
        for file in (file for dataset in self._splits for file in files_of(dataset)):
            if self._stop.is_set():
                return
            try:
                if problem := _problem(file, True, sound):
                    self._problems[file] = problem
            except LateError as error:
                self._problems[file] = error.problem
                return
        sound.write()

    def wait(self, stop: Callable[[], Any] = lambda: False) -> None:
        """Wait for the end, or until `stop` says so. Raises `DataError`, with all files that cannot be read."""
        while self._thread.is_alive() and not stop():
            self._thread.join(0.2)
        self.check()

    def check(self) -> None:
        """Raise `DataError` if all files were decoded and some cannot be read. Costs nothing."""
        if self._problems and not self._thread.is_alive():
            parts = [(one, _faulty(one, self._problems)) for one in self._splits]
            raise DataError(*_named(parts, self._problems), _ADVICE)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()


def _problem(file: Path, whole: bool, sound: Sound) -> str:
    """Return what is wrong with a file; empty if nothing is. Raises `LateError`."""
    try:
        if not is_image(file.name):  # the file of a third-party kind of target; or an image with an unusual name
            in_time(lambda path: None, file)
        elif not whole:
            image_size(file)
        elif not sound.knows(file):
            check_pixels(file)
            sound.add(file)
    except LateError:
        raise
    except UnreadableError as error:
        return error.problem
    return ""


def _bytes(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        try:
            total += os.stat(file).st_size
        except (OSError, ValueError):
            continue  # reported by the check
    return total


def _faulty(dataset: Dataset, problems: Mapping[Path, str]) -> list[Sample]:
    """Return the samples with a file that cannot be read."""
    if not problems:
        return []
    kind = dataset.targets
    return [s for s in dataset if s.image in problems or any(f in problems for f in kind.read_from(s.target))]


def _without(dataset: Dataset, ids: set[str]) -> Dataset:
    if not ids:
        return dataset
    return replace(dataset, samples=tuple(sample for sample in dataset if sample.id not in ids))


def _check_loss(dataset: Dataset, bad: Sequence[Sample], problems: Mapping[Path, str]) -> None:
    """Raise `DataError` if leaving out samples would lose too much."""
    if len(bad) > MOST * len(dataset):
        raise DataError(
            *_named([(dataset, bad)], problems),
            f"This is more than a tenth of {dataset.name}, so nothing is left out: replace or remove these files.",
        )
    used = dataset.targets.used(dataset)
    gone = (used or set()) - (dataset.targets.used(_without(dataset, {one.id for one in bad})) or set())
    if bad and gone:
        names = ", ".join(repr(dataset.classes[index]) for index in sorted(gone) if index < len(dataset.classes))
        raise DataError(
            *_named([(dataset, bad)], problems),
            f"Without them {dataset.name} has no image of {names}, so nothing is left out: replace these files.",
        )


def _named(parts: Sequence[tuple[Dataset, Sequence[Sample]]], problems: Mapping[Path, str]) -> list[str]:
    """Return lines that name all files that cannot be read."""
    counts = [f"{len(bad)} of {counted(len(dataset), 'image')} of {dataset.name}" for dataset, bad in parts if bad]
    files = {
        file: problems[file]
        for dataset, bad in parts
        for sample in bad
        for file in (sample.image, *dataset.targets.read_from(sample.target))
        if file in problems
    }
    listed = list(files.items())
    lines = [f"  {file} {problem}" for file, problem in listed[:LISTED]]
    if more := listed[LISTED:]:
        lines.append(f"  and {counted(len(more), 'more file')}: {', '.join(str(file) for file, _ in more)}")
    return [f"{' and '.join(counts)} cannot be used, because files cannot be read:", *lines]


def _remarks(splits: Mapping[str, Dataset], lost: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for name, dataset in splits.items():
        if ids := lost.get(name):
            yield (
                f"{dataset.name}: {len(ids)} of {counted(len(dataset), 'image')} left out, because files cannot be "
                f"read: {', '.join(ids)}."
            )
