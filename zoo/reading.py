"""Read files without hanging: regular files only, and within a deadline.

A named pipe called `photo.jpg` would block its reader for ever, and so does a file on a network drive that is gone.
Nothing can interrupt such a read, so it runs in a thread that is given up when its time is over. Files on disks of this
machine are read directly: their drivers give up by themselves, and a change of threads costs a tenth of a decoding.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from zoo.errors import LateError, UnreadableError, counted

T = TypeVar("T")

SECONDS = 60.0
"""Time for one file, unless `ZOO_READ_SECONDS` says otherwise."""
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "ntfs3"}
    | {"overlay", "ramfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs"}
)
"""Types of file systems on disks of this machine."""
_folders: dict[str, bool] = {}
"""Folder -> whether it is on a disk of this machine."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_file(path: str | Path, most: int = -1) -> bytes:
    """Return the content of a regular file, or its first bytes.

    Args:
        path: the file.
        most: number of bytes to read; by default all.

    Raises:
        UnreadableError: the file is missing, no regular file, cannot be read or does not fit into memory, or reading
            takes longer than the deadline.
    """
    return in_time(partial(whole, most=most), path)


def read_text(path: str | Path) -> str:
    """Return the content of a text file in UTF-8, without a byte order mark.

    Raises:
        UnreadableError: as for `read_file`.
        UnicodeDecodeError: the file is not UTF-8.
    """
    # As files opened as text have it, so that CSV and YAML see the same line ends on every system.
    return read_file(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def in_time(function: Callable[[str], T], path: str | Path) -> T:
    """Return `function(path)` for a function that reads a file, if it ends within the deadline.

    Raises:
        UnreadableError: the path is missing or no regular file, or reading takes longer than the deadline.
    """
    name = str(path)
    if _is_local(name):
        return function(_regular(name))
    return _reader().run(lambda: function(_regular(name)), name, deadline())


def deadline() -> float:
    """Return the seconds after which reading one file is given up: `$ZOO_READ_SECONDS`, else `SECONDS`."""
    try:
        seconds = float(os.environ.get("ZOO_READ_SECONDS", ""))
    except ValueError:
        return SECONDS
    return seconds if 0 < seconds < threading.TIMEOUT_MAX else SECONDS


def _is_local(path: str) -> bool:
    """Whether a file is on a disk of this machine."""
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in _folders:
        # Following links may hang as well.
        _folders[folder] = _reader().run(lambda: _file_system(os.path.realpath(folder)) in _LOCAL, path, deadline())
    return _folders[folder] and not os.path.islink(path)


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder is on; empty if the operating system does not tell."""
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                mount, _, source = line.partition(" - ")
                place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount.split(" ")[4])
                if len(place) >= len(best) and (folder + "/").startswith(place.rstrip("/") + "/"):
                    best, kind = place, source.split(" ")[0]
    except (OSError, IndexError, ValueError):
        return ""
    return kind


def kind_of(mode: int) -> str:
    """Return what a file is by its `st_mode`, for messages; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else next((name for test, name in _KINDS if test(mode)), "a special file")


def _regular(path: str) -> str:
    """Return the path of a regular file, following links."""
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if kind:
        raise UnreadableError(path, f"cannot be read: it is {kind}, not a regular file.")
    return path


def whole(path: str, most: int = -1) -> bytes:
    """Return what `read_file` does, without a deadline: for functions that `in_time` runs. Raises `UnreadableError`."""
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.read(most)
    except OSError as error:
        raise UnreadableError(path, f"cannot be read: {error.strerror or error}.") from error
    except (MemoryError, OverflowError) as error:
        raise UnreadableError(path, "is too large: it does not fit into memory.") from error


class _Reader:
    """A thread that runs one function at a time. It is a daemon, so that a read that never ends lets Python exit."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[], Any], list[Any], threading.Lock]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="zoo-read").start()

    def run(self, function: Callable[[], T], path: str, seconds: float) -> T:
        outcome: list[Any] = []
        done = threading.Lock()
        done.acquire()
        self._tasks.put((function, outcome, done))
        if not done.acquire(timeout=seconds):
            raise LateError(
                path,
                f"cannot be read: nothing came for {counted(round(seconds), 'second')}, as from a drive that is gone. "
                "Check the drive, or set ZOO_READ_SECONDS to wait longer.",
            )
        value, error = outcome
        if error is not None:
            raise error
        result: T = value
        return result

    def _work(self) -> None:
        while True:
            function, outcome, done = self._tasks.get()
            try:
                outcome.extend((function(), None))
            except BaseException as error:  # raised again in the thread that waits
                outcome.extend((None, error))
            del function
            _idle.append(self)
            done.release()
            del outcome, done


_idle: list[_Reader] = []
"""Threads that have nothing to do. There are as many as files were ever read at the same time."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a forked process has none of the threads


def _reader() -> _Reader:
    try:
        return _idle.pop()
    except IndexError:
        return _Reader()
