"""Which files were decoded without a fault before, by content, so that a dataset is decoded once and not every time."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from zoo import settings
from zoo.data.content import content
from zoo.errors import UnreadableError
from zoo.reading import in_time

VERSION = 1
"""Of the check. Another version of zoo's rules, and of the decoders, checks again."""
MANY = 64
"""New files from which the list is written: checking fewer costs less than that."""
MOST = 1 << 22
"""Files in the list; beyond, it starts anew with the new ones."""


class Sound:
    """Contents of files that were decoded without a fault, in the cache folder. Without one, nothing is remembered."""

    def __init__(self) -> None:
        self._known = frozenset(_read().tolist())
        self._new: dict[int, None] = {}

    def knows(self, file: Path) -> bool:
        """Whether a file of this content was decoded before. Raises `UnreadableError`."""
        return bool(self._known) and _key(file) in self._known

    def add(self, file: Path) -> None:
        """Remember a file that was decoded."""
        with suppress(UnreadableError):  # it was there a moment ago
            self._new[_key(file)] = None

    def write(self) -> None:
        """Write the list, if enough has been added."""
        if len(self._new) < MANY:
            return
        known = _read()  # others may have written since
        keys = np.array(list(self._new), np.uint64)
        known = np.union1d(known, keys) if len(known) + len(keys) <= MOST else keys
        folder = _file().parent
        with suppress(OSError):  # a cache that cannot be written costs time only
            folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
            with os.fdopen(handle, "wb") as stream:
                stream.write(known.tobytes())
            os.replace(part, _file())


def _key(file: Path) -> int:
    return int(in_time(_digest, file), 16)


def _digest(path: str) -> str:
    try:
        return content(path).sha256[:16]
    except OSError as error:
        raise UnreadableError(path, f"cannot be read: {error.strerror or error}.") from error


def _file() -> Path:
    decoders = f"{VERSION} {version('pillow')} {version('simplejpeg')}"
    return settings.cache_dir() / "decoded" / f"{hashlib.sha256(decoders.encode()).hexdigest()[:16]}.bin"


def _read() -> np.ndarray:
    """Return the list; empty if there is none. A damaged entry is one content that is checked again."""
    try:
        data = _file().read_bytes()
    except OSError:
        return np.empty(0, np.uint64)
    return np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
