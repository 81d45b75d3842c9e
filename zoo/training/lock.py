"""A run directory belongs to one process at a time.

The process holds an operating-system lock on `.lock` and describes itself in `.lock.json`. The system releases the lock
of a process that dies. On network file systems it may not reach other machines, so a record of another machine counts
as long as its time stamp is renewed. This module is imported by the command line and must not import jax.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.disk import write_whole
from zoo.errors import RunError

GUARD, RECORD = ".lock", ".lock.json"
BEAT = 10.0
"""Seconds between two renewals of the record's time stamp."""


def require_usable(folder: Path, *, resume: bool) -> None:
    """Raise `RunError` for a run directory that another process uses, or that is not empty and not to be resumed."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, not a directory: choose another --out.")
    if (folder / RECORD).exists():
        with locked(folder):
            pass
    if not resume and occupied(folder):
        raise RunError(
            f"{folder} exists and is not empty: choose another --out, delete it, or continue the run with --resume."
        )


def occupied(folder: Path) -> bool:
    """Return whether a folder has files other than those of a lock."""
    return folder.is_dir() and any(path.name not in (GUARD, RECORD) for path in folder.iterdir())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a run directory if necessary, and hold its lock. A directory that is still empty is deleted afterwards.

    Raises:
        RunError: another process uses it, or it cannot be written.
    """
    new = not folder.exists()
    guard, guarded = FileLock(folder / GUARD), True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            guard.acquire(timeout=0)
        except NotImplementedError:  # a file system without locks
            guarded = False
        except Timeout:
            raise _refused(folder, _record(folder / RECORD)) from None
        try:
            record = _record(folder / RECORD)
            if record and _lives(record, folder / RECORD, guarded):
                raise _refused(folder, record)
            write_whole(folder / RECORD, [json.dumps(_own()).encode()])
            done = threading.Event()
            threading.Thread(target=_renew, args=(folder / RECORD, done), daemon=True).start()
        except BaseException:
            guard.release()
            raise
    except OSError as error:
        raise RunError(f"the run directory {folder} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        done.set()
        for name in (RECORD, GUARD):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        guard.release()
        if new:
            with suppress(OSError):
                folder.rmdir()


def _own() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "boot": _boot(), "since": now}


def _boot() -> str:
    """Return what identifies the running system, whatever its containers are called; empty if that is not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _record(file: Path) -> dict[str, Any]:
    """Return who holds a lock; empty if that is not known."""
    try:
        record = json.loads(file.read_text("utf-8"))
        known = isinstance(record, dict) and isinstance(record.get("host"), str)
        return record if known else {}
    except (OSError, ValueError):
        return {}


def _lives(record: dict[str, Any], file: Path, guarded: bool) -> bool:
    """Return whether the process of a record may be running although its lock could be taken."""
    own = _own()
    if record.get("host") == own["host"] or record.get("boot") == (own["boot"] or None):
        return not guarded and _is_running(record.get("process"))
    before, until = _stamp(file), time.monotonic() + 3 * BEAT
    while time.monotonic() < until:
        time.sleep(BEAT / 5)
        if _stamp(file) != before:
            return True
    return False


def _is_running(process: Any) -> bool:
    if os.name != "posix" or not isinstance(process, int):
        return True  # not known
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return process != os.getpid()


def _stamp(file: Path) -> int:
    """Return the time stamp of a file. It is opened, because network file systems renew their knowledge only then."""
    try:
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return 0


def _renew(file: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(file)


def _refused(folder: Path, record: dict[str, Any]) -> RunError:
    who = "another process"
    if record:
        who = f"process {record.get('process')} on {record.get('host')}, since {record.get('since')}"
    return RunError(f"{folder} is in use by {who}. Wait until it ends, stop it, or choose another --out.")
