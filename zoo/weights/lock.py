"""`zoo.lock`: which commit and which bytes a source gave the first time, so that it gives the same ever after.

The user's file (`zoo.settings.cache_dir() / "zoo.lock"`, TOML) holds one pin for each source, revision and file that
was fetched. To accept what a source holds now, forget its pins and fetch again:

    python -m zoo.weights.lock forget hf://org/repo
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli_w
from filelock import FileLock, Timeout

from zoo import settings
from zoo.errors import FetchError
from zoo.weights.disk import write_whole

HEADER = "# Written by zoo: what each source gave when it was first used. Forget a pin with\n"
COMMAND = "python -m zoo.weights.lock forget"


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """What a source gave.

    Attributes:
        source: e.g. `hf://org/repo`. revision: as asked for, a branch, a tag or a commit; empty outside the hub.
        file: its name at the source. commit: that the revision stood for; empty outside the hub.
        sha256: of the file; empty when the commit is known to have no such file.
    """

    source: str
    revision: str
    file: str
    commit: str
    sha256: str


def path() -> Path:
    """Where the lock lies."""
    return settings.cache_dir() / "zoo.lock"


def pins() -> list[Pin]:
    """Every pin. Raises `FetchError` when the file cannot be understood."""
    try:
        rows = tomllib.loads(path().read_text(encoding="utf-8")).get("pin", [])
        found = [Pin(**row) for row in rows]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError) as error:
        raise FetchError(f"{path()} cannot be read ({error}). Repair it, or delete it to start anew.") from None
    if not all(isinstance(value, str) for pin in found for value in asdict(pin).values()):
        raise FetchError(f"{path()} cannot be read: a pin holds text only. Repair it, or delete it to start anew.")
    return found


def find(source: str, revision: str, file: str) -> Pin | None:
    """The pin of one file, if there is one."""
    return next((pin for pin in pins() if (pin.source, pin.revision, pin.file) == (source, revision, file)), None)


def commit_of(source: str, revision: str) -> str:
    """The commit that a revision was pinned to, so that all files of a repository come from one; empty if none."""
    return next((pin.commit for pin in pins() if (pin.source, pin.revision) == (source, revision)), "")


def record(pin: Pin) -> None:
    """Add a pin in place of an older one. Pins of the same revision to another commit go: they would not fit."""

    def stays(other: Pin) -> bool:
        if (other.source, other.revision) != (pin.source, pin.revision):
            return True
        return other.commit == pin.commit and other.file != pin.file

    with _writing():
        _write([other for other in pins() if stays(other)] + [pin])


def forget(source: str) -> int:
    """Drop every pin of a source; returns how many there were."""
    with _writing():
        known = pins()
        kept = [pin for pin in known if pin.source != source]
        if len(kept) < len(known):
            _write(kept)
    return len(known) - len(kept)


@contextmanager
def exclusive(name: str, seconds: float) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies.

    Raises:
        FetchError: when it is not had within `seconds`, or the cache folder cannot be written.
    """
    place = settings.cache_dir() / "locks" / f"{name}.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=seconds)
        lock.acquire()
    except Timeout:
        raise FetchError(f"another process has held {place} for {seconds:.0f} s. Wait for it or end it.") from None
    except OSError as error:
        raise FetchError(
            f"the cache folder {settings.cache_dir()} cannot be written ({error.strerror or error}). "
            "Set ZOO_CACHE to a folder that can."
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


def _write(rows: list[Pin]) -> None:
    text = f"{HEADER}#     {COMMAND} SOURCE\n\n" + tomli_w.dumps({"pin": [asdict(pin) for pin in sorted(rows)]})
    write_whole(path(), [text.encode()])


def main(arguments: list[str]) -> int:
    """`python -m zoo.weights.lock forget SOURCE`; returns the exit code."""
    if len(arguments) != 2 or arguments[0] != "forget":
        print(f"usage: {COMMAND} SOURCE, e.g. {COMMAND} hf://org/repo", file=sys.stderr)
        return 2
    try:
        count = forget(arguments[1])
    except FetchError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{count} pins of {arguments[1]} forgotten in {path()}")
    return 0 if count else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
