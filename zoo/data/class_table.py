"""Read lists of classes beside masks: names, perhaps with the colour of each, as common tools write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from zoo.data.files import read_lines
from zoo.errors import DataError
from zoo.targets.masks import BACKGROUND, IGNORE

FILES = (
    "classes.txt",
    "classes.csv",
    "labelmap.txt",
    "class_dict.csv",
    "label_colors.txt",
    "label_colours.txt",
    "class_names.txt",
    "codes.txt",
)
_UNKNOWN = ("ignore", "void")
"""Names for ignored pixels; tools put underscores around them."""


class Row(NamedTuple):
    """One class.

    Attributes:
        name: class name, None for ignored pixels.
        colour: red + 256 green + 65536 blue, or None.
    """

    name: str | None
    colour: int | None


def code(red: int, green: int, blue: int) -> int:
    """Return a colour as one number."""
    return red + 256 * green + 65536 * blue


def find_table(folder: Path) -> Path | None:
    """Return the file with the list of classes in a folder, None if there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def listed(folder: Path) -> tuple[str, ...]:
    """Return the classes in a folder's list; empty if there is no list or it cannot be read."""
    file = find_table(folder)
    with suppress(DataError):
        return classes_of(read_table(file)) if file else ()
    return ()


def read_table(file: Path) -> list[Row]:
    """Read a list of classes.

    A row is `name`, `name r g b`, `r g b name` (also with commas or tabs), or `name:r,g,b:...`. The names `ignore` and
    `void` mark ignored pixels. Underscores around a name are dropped.

    Raises:
        DataError: the file cannot be read, a name or colour occurs twice, or only some rows have colours.
    """
    rows = [_row(line, f"{file}, line {i}") for i, line in enumerate(read_lines(file), 1) if _counts(line)]
    if not rows or all(row.name is None for row in rows):
        raise DataError(f"{file} names no class; write one per line, perhaps with red, green and blue of its colour.")
    names, colours = Counter(r.name for r in rows if r.name), Counter(r.colour for r in rows if r.colour is not None)
    twice = [value for counts in (names, colours) for value, count in counts.items() if count > 1]
    if twice:
        repeated = twice[0]
        shown = repr(repeated) if isinstance(repeated, str) else f"the colour {_rgb(repeated)}"
        raise DataError(f"{file}: {shown} occurs twice; each class needs a unique name and a unique colour.")
    if len({row.colour is None for row in rows}) > 1:
        raise DataError(f"{file} has colours for some classes only; add red, green and blue to each.")
    return rows


def _rgb(colour: int | None) -> str:
    """Format a colour for messages: red, green and blue."""
    return "none" if colour is None else f"{colour & 255} {colour >> 8 & 255} {colour >> 16}"


def _counts(line: str) -> bool:
    """Return whether a line describes a class; comments and headers do not."""
    words = [word for word in re.split(r"[\s,;]+", line.casefold()) if word]
    return bool(words) and not line.lstrip().startswith("#") and words[:3] not in (["name", "r", "g"], ["r", "g", "b"])


def _row(line: str, place: str) -> Row:
    if match := re.fullmatch(r"\s*([^:]+):(\d+),(\d+),(\d+)(:.*)?", line):
        name, colour = match[1], [int(match[i]) for i in (2, 3, 4)]
    else:
        words = [word for word in re.split(r"\s*[,;\t]\s*|\s+", line.strip()) if word]
        numbers = [word.isdecimal() for word in words]
        if len(words) > 3 and all(numbers[-3:]):
            name, colour = " ".join(words[:-3]), [int(word) for word in words[-3:]]
        elif len(words) > 3 and all(numbers[:3]):
            name, colour = " ".join(words[3:]), [int(word) for word in words[:3]]
        else:
            name, colour = line.strip().rstrip(",;"), []
    if any(value > 255 for value in colour):
        raise DataError(f"{place} is {line.strip()[:80]!r}; red, green and blue must be between 0 and 255.")
    bare = name.strip().strip("_").strip() or name.strip()
    return Row(None if bare.casefold() in _UNKNOWN else bare, code(*colour) if colour else None)


def classes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the class names, without ignored ones."""
    return tuple(row.name for row in rows if row.name is not None)


def values_of(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """Return (value, class number or `IGNORE`) for masks in which a pixel's value is the row of its class, from 0.

    A first row for ignored pixels without a colour has no number (labelme gives it -1). 255 is always ignored, since
    many tools use it for ignored pixels.
    """
    first = 1 if rows[0].name is None and rows[0].colour is None else 0
    return (*_numbered((i, row.name) for i, row in enumerate(rows[first:])), (IGNORE, IGNORE))


def colours_of(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """Return (colour, class number or `IGNORE`); empty for rows without colours."""
    return tuple(_numbered((row.colour, row.name) for row in rows if row.colour is not None))


def _numbered(pairs: Iterable[tuple[int, str | None]]) -> list[tuple[int, int]]:
    """Number the classes in order, skipping ignored rows."""
    table, number = [], 0
    for value, name in pairs:
        table.append((value, IGNORE if name is None else number))
        number += name is not None
    return table


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """Return the class names, with `background` first if there is only one."""
    return tuple(names) if len(names) > 1 else (BACKGROUND, *names)
