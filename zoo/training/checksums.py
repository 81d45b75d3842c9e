"""`SHA256SUMS`: the hashes of the files of a run directory, as `sha256sum -c SHA256SUMS` checks them.

Checkpoints have manifests of their own, and a saved model carries its hash in its header. This file covers the rest:
the options, the metrics, the plots. It is written when the options are, and again when the run is finished.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from zoo.disk import sha256, write_whole
from zoo.errors import RunError

FILE = "SHA256SUMS"
COMMENT = b"# sha256 of the lines below: "
"""Begins the first line, which `sha256sum` skips."""
ENCODING = ("utf-8", "surrogateescape")


def seal(folder: Path) -> None:
    """Record the hash of every file of a run directory, except those below `checkpoints/`.

    Raises:
        OSError: a file cannot be read, or the record cannot be written.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if _is_recorded(path, folder))
    lines = "".join(f"{sha256(folder / name)}  {name.as_posix()}\n" for name in names).encode(*ENCODING)
    write_whole(folder / FILE, [COMMENT, hashlib.sha256(lines).hexdigest().encode(), b"\n", lines])


def verify(file: Path) -> None:
    """Check a file of a run directory against the record. A run without a record, or a new file, passes.

    Raises:
        RunError: the file, or the record, has changed since zoo wrote it.
    """
    record = file.parent / FILE
    try:
        first, _, lines = record.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{record} cannot be read: {error.strerror or error}.") from error
    if first != COMMENT + hashlib.sha256(lines).hexdigest().encode():
        raise RunError(f"{record} has changed since zoo wrote it. {_remedy(record)}")
    known = {name: digest for digest, name in (line.split("  ", 1) for line in lines.decode(*ENCODING).splitlines())}
    if known.get(file.name, "") not in ("", sha256(file)):
        raise RunError(f"{file} has changed since zoo wrote it: its sha256 is not the one in {FILE}. {_remedy(record)}")


def _is_recorded(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder)
    return path.is_file() and name.parts[0] != "checkpoints" and str(name) != FILE and not path.name.startswith(".")


def _remedy(record: Path) -> str:
    return (
        f"The trained model and the checkpoints are checked on their own and can still be loaded. "
        f"Copy the file again from its origin; if you changed it on purpose, delete {record}."
    )
