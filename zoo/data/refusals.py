"""Faults at which reading a dataset stops, because training must not go on. `zoo.check` collects them instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from zoo.errors import DataError
from zoo.targets.faults import Fault

T = TypeVar("T")

_COLLECTED: ContextVar[list[Fault] | None] = ContextVar("collected", default=None)


def refuse(error: str, *faults: Fault) -> None:
    """Raise `DataError`. Within `collecting`, collect the faults and return: the reader then leaves the entry out.

    Args:
        error: the message.
        faults: what to collect; nothing if `zoo.check` sees the fault in the samples that are read.
    """
    collected = _COLLECTED.get()
    if collected is None:
        raise DataError(error)
    collected.extend(faults)


def attempt(image: Path, read: Callable[..., T], *args: Any) -> T | None:
    """Return `read(*args)`, the annotation of an image. Within `collecting`, collect a `DataError`, and return None."""
    try:
        return read(*args)
    except DataError as error:
        collected = _COLLECTED.get()
        if collected is None:
            raise
        collected.append(Fault("unreadable", str(image), None, "", str(error)))
        return None


def remark(text: str) -> tuple[str, ...]:
    """Return a note on what `zoo.check` sees in the samples: the text, or nothing within `collecting`."""
    return (text,) if _COLLECTED.get() is None else ()


@contextmanager
def collecting() -> Iterator[list[Fault]]:
    """Collect faults in the list that is returned, instead of stopping at the first one."""
    faults: list[Fault] = []
    token = _COLLECTED.set(faults)
    try:
        yield faults
    finally:
        _COLLECTED.reset(token)
