"""Formats that a dataset can be written in.

A format is a part of the extension point `data.writer`: a module or another object with these members.

Attributes:
    NAME: of the format. The reader of the same name reads it back.
    KINDS: kinds of target that it holds.
    LAYOUT: one line that says which files are written.
    write: function of the splits (name -> `Dataset`) and a `zoo.data.written.Folder`. It writes images by
        `Folder.image`, and adds a note for everything that the format cannot hold.

Each of zoo's formats is one file in this folder. What was written is read back and compared (`zoo.data.convert`), so
that a format never loses anything in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from zoo.data.dataset import Dataset
from zoo.errors import DataError
from zoo.labels import shown
from zoo.registry.parts import Point

WRITERS: Point[Any] = Point("data.writer", "format to write")
"""The formats that can be written, zoo's and those of other plugins."""


def classes_of(splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Return the class names, which are the same in all splits."""
    return next(iter(splits.values())).classes


def place_of(split: str) -> str:
    """Return the folder of a split, with a slash; empty for data without splits."""
    return "" if split == "all" else f"{split}/"


def without_suffix(name: str) -> str:
    """Return the relative path of an image without its suffix: its annotation has the same one."""
    return PurePosixPath(name).with_suffix("").as_posix()


def quoted(names: Sequence[str]) -> str:
    """Return the first names in quotation marks, and the number of those left out."""
    return shown([*map(repr, names)])


def refuse_names(names: list[str], format: str, reason: str, other: str) -> None:
    """Raise `DataError` if a format cannot hold some class names.

    Args:
        names: those class names.
        format: its name.
        reason: why it cannot.
        other: a format that can.
    """
    if names:
        raise DataError(
            f"the format {format} cannot hold the class names {quoted(names)}: {reason}. Rename the "
            f"classes, or write {other}."
        )
