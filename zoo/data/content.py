"""Identity of files and datasets by content: size and sha256, never time stamps or absolute paths.

A dataset that was copied, unzipped or moved to another machine is the same dataset. A file is read once per process:
its hash is kept for as long as the file system reports the same size, times and inode.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError
from zoo.reading import kind_of

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

_THREADS = min(8, os.cpu_count() or 1)
"""More threads than cores make small files slower: they wait for each other after every call of the system."""
_CHUNK = 64
"""Files that a thread hashes in turn, because handing over single small files costs more than hashing them."""
_SETTLED_NS = 50_000_000
"""Age of a file from which its times tell whether it has changed: they are as coarse as the system's clock tick."""


@dataclass(frozen=True, slots=True)
class Content:
    """Size and hash of a file, which identify its content.

    Attributes:
        size: in bytes.
        sha256: in hexadecimal.
    """

    size: int
    sha256: str


_known: dict[str, tuple[tuple[int, ...], Content]] = {}


def content(path: str | os.PathLike[str]) -> Content:
    """Return the size and sha256 of a file, read once per process as long as the file does not change.

    Raises:
        OSError: the file cannot be read.
    """
    place = os.path.abspath(path)
    status = os.stat(place)
    if kind := kind_of(status.st_mode):
        raise OSError(f"it is {kind}, not a regular file")
    before = _state(status)
    if (found := _known.get(place)) and found[0] == before:
        return found[1]
    with open(place, "rb") as stream:
        state = _state(os.fstat(stream.fileno()))
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        unchanged = _state(os.fstat(stream.fileno())) == state
        value = Content(stream.tell(), digest)
    if unchanged and time.time_ns() - max(state[3:]) > _SETTLED_NS:
        _known[place] = state, value
    return value


def contents(paths: Sequence[Path]) -> list[Content]:
    """Return the content of many files, read by several threads.

    Raises:
        DataError: a file cannot be read; names the first one.
    """

    def hashed(start: int) -> list[Content | OSError]:
        values: list[Content | OSError] = []
        for path in paths[start : start + _CHUNK]:
            try:
                values.append(content(path))
            except OSError as error:
                values.append(error)
        return values

    with ThreadPoolExecutor(_THREADS) as pool:
        values = [value for chunk in pool.map(hashed, range(0, len(paths), _CHUNK)) for value in chunk]
    for path, value in zip(paths, values, strict=True):
        if isinstance(value, OSError):
            raise DataError(f"{path} cannot be read ({value.strerror or value}).") from value
    return [value for value in values if isinstance(value, Content)]


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of a manifest.

    Attributes:
        id: id of the sample.
        files: content of its files, the image first: 32 digits of the sha256 of each.
        target: 16 digits of the sha256 of its target.
    """

    id: str
    files: tuple[str, ...]
    target: str


def rows(dataset: Dataset) -> tuple[Row, ...]:
    """Return what identifies each sample of a dataset, in its order.

    Raises:
        DataError: a file cannot be read.
    """
    kind = dataset.targets
    files = [(sample.image, *kind.files(sample.target)) for sample in dataset]
    try:
        hashes = iter(contents([file for several in files for file in several]))
    except DataError as error:
        raise DataError(f"{dataset.name}: {error}") from error
    return tuple(
        Row(sample.id, tuple(next(hashes).sha256[:32] for _ in several), _digest(repr(sample.target))[:16])
        for sample, several in zip(dataset, files, strict=True)
    )


def fingerprint(kind: str, classes: Sequence[str], samples: Sequence[Row]) -> str:
    """Return a hex digest of a dataset: its kind of target, class names, and samples in their order."""
    digest = hashlib.sha256(_bytes(repr((kind, tuple(classes)))))
    for row in samples:
        digest.update(_bytes(repr((row.id, row.files, row.target))))
    return digest.hexdigest()


def images(dataset: Dataset) -> str:
    """Return a hex digest of the images of a dataset, in their order, whatever their names and targets."""
    return _digest("".join(one.sha256 for one in contents([sample.image for sample in dataset])))


def _state(status: os.stat_result) -> tuple[int, ...]:
    # The time of change (ctime) as well: unlike the time of modification, programs cannot set it back.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
