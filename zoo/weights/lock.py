"""`zoo.lock`: the commit and hash of every file at its first download, so that later downloads give the same file.

The user's lock file (`zoo.settings.cache_dir() / "zoo.lock"`, TOML) holds one pin for each source, revision and file
that was fetched. To accept the current content of a source, forget its pins and fetch again:

    python -m zoo.weights.lock forget hf://org/repo
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import tomli_w
from filelock import FileLock, Timeout

from zoo import settings
from zoo.disk import write_whole
from zoo.errors import FetchError
from zoo.text import printable

HEADER = (
    "# Written by zoo: the commit and sha256 of each file at its first download. Forget the pins of a source with\n"
)
COMMAND = "python -m zoo.weights.lock forget"


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """The commit and hash of a file at its first download.

    Attributes:
        source: e.g. `hf://org/repo`.
        revision: branch, tag or commit that was asked for; empty outside the Hub.
        file: name at the source.
        commit: commit of the revision at that time; empty outside the Hub.
        sha256: of the file; empty if the commit has no such file.
    """

    source: str
    revision: str
    file: str
    commit: str
    sha256: str


def path() -> Path:
    """Return the path of the lock file."""
    return settings.cache_dir() / "zoo.lock"


def pins() -> list[Pin]:
    """Return every pin.

    Raises:
        FetchError: if the lock file cannot be read.
    """
    advice = "Repair it, or delete it to start again"
    try:
        content = tomllib.loads(path().read_text(encoding="utf-8"))
        recorded = [Pin(**row) for row in content.pop("pin", [])]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise FetchError(f"{path()} cannot be read ({error}). {advice}.") from None
    if not all(isinstance(value, str) for pin in recorded for value in asdict(pin).values()):
        raise FetchError(f"{path()} cannot be read: the fields of a pin must be text. {advice}.")
    checksum = content.pop("checksum", "")  # files of earlier versions have none
    if content:
        raise FetchError(f"{path()} cannot be read: unknown key {next(iter(content))!r}. {advice}.")
    if checksum and checksum != _checksum(recorded):
        raise FetchError(
            f"{path()} has changed since zoo wrote it: its pins do not match its checksum. {advice}. If you edited it "
            "on purpose, delete its line checksum."
        )
    return recorded


def find(source: str, revision: str, file: str) -> Pin | None:
    """Return the pin of a file, or None."""
    return next((pin for pin in pins() if (pin.source, pin.revision, pin.file) == (source, revision, file)), None)


def commit_of(source: str, revision: str) -> str:
    """Return the commit that a revision is pinned to, or an empty string.

    All files of a repository come from the same commit.
    """
    return next((pin.commit for pin in pins() if (pin.source, pin.revision) == (source, revision)), "")


def record(pin: Pin) -> None:
    """Add a pin, replacing an older one.

    Pins of the same revision to another commit are dropped, because files of different commits may not match.
    """

    def stays(other: Pin) -> bool:
        if (other.source, other.revision) != (pin.source, pin.revision):
            return True
        return other.commit == pin.commit and other.file != pin.file

    with _writing():
        _write([other for other in pins() if stays(other)] + [pin])


def forget(source: str) -> int:
    """Drop every pin of a source and return their number."""
    with _writing():
        known = pins()
        others = [pin for pin in known if pin.source != source]
        if len(others) < len(known):
            _write(others)
    return len(known) - len(others)


@contextmanager
def exclusive(name: str, seconds: float) -> Iterator[None]:
    """Hold a lock between processes. The operating system releases it if the process dies.

    Args:
        name: of the lock.
        seconds: longest wait.
    Raises:
        FetchError: if the lock is not free within `seconds`, or the cache directory cannot be written.
    """
    place = settings.cache_dir() / "locks" / f"{name}.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=seconds)
        lock.acquire()
    except Timeout:
        raise FetchError(f"another process has held {place} for {seconds:.0f} s. Wait for it, or stop it.") from None
    except OSError as error:
        raise FetchError(
            f"the cache directory {settings.cache_dir()} cannot be written ({error.strerror or error}). "
            "Set ZOO_CACHE to a directory you can write to."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing() -> Iterator[None]:
    with exclusive("zoo", seconds=30):
        try:
            yield
        except FetchError:
            raise
        except OSError as error:
            raise FetchError(f"{path()} cannot be written ({error.strerror or error}).") from error


def _checksum(rows: Iterable[Pin]) -> str:
    """Return the sha256 of pins, whatever their order and the spelling of the file."""
    return hashlib.sha256(json.dumps(sorted(map(astuple, rows))).encode()).hexdigest()


def _write(rows: list[Pin]) -> None:
    content = {"checksum": _checksum(rows), "pin": [asdict(pin) for pin in sorted(rows)]}
    text = f"{HEADER}#     {COMMAND} SOURCE\n\n" + tomli_w.dumps(content)
    write_whole(path(), [text.encode()])


def main(arguments: list[str]) -> int:
    """Run `python -m zoo.weights.lock forget SOURCE` and return the exit code."""
    if len(arguments) != 2 or arguments[0] != "forget":
        print(f"usage: {COMMAND} SOURCE, e.g. {COMMAND} hf://org/repo", file=sys.stderr)
        return 2
    try:
        count = forget(arguments[1])
    except FetchError as error:
        print(error, file=sys.stderr)
        return 2
    print(printable(f"{count} pins of {arguments[1]} forgotten in {path()}"))
    return 0 if count else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
