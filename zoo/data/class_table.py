"""Lists of classes beside masks: names, perhaps with the colour that stands for each, as the usual tools write them."""

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
"""Names of pixels that do not count; tools put underscores around them."""


class Row(NamedTuple):
    """One class.

    Attributes:
        name: None where such pixels do not count.
        colour: red + 256 green + 65536 blue, or None.
    """

    name: str | None
    colour: int | None


def code(red: int, green: int, blue: int) -> int:
    """A colour as one number."""
    return red + 256 * green + 65536 * blue


def find_table(folder: Path) -> Path | None:
    """The list of classes in a folder, if there is one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def listed(folder: Path) -> tuple[str, ...]:
    """The classes that a list in a folder names; nothing without a list, or for one that cannot be read."""
    file = find_table(folder)
    with suppress(DataError):
        return classes_of(read_table(file)) if file else ()
    return ()


def read_table(file: Path) -> list[Row]:
    """The rows of a list: `name`, `name r g b`, `r g b name` (also with commas or tabs), or `name:r,g,b:...`.

    Names of `ignore` or `void` mark pixels that do not count; underscores around a name are dropped.
    Raises `DataError` for an unreadable file, a name or colour that is there twice, or colours for some rows only.
    """
    rows = [_row(line, f"{file}, line {i}") for i, line in enumerate(read_lines(file), 1) if _counts(line)]
    if not rows or all(row.name is None for row in rows):
        raise DataError(f"{file} names no class; write one a line, perhaps with the red, green and blue of its colour.")
    names, colours = Counter(r.name for r in rows if r.name), Counter(r.colour for r in rows if r.colour is not None)
    twice = [value for counts in (names, colours) for value, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{file}: {twice[0]!r} is there twice; each class needs a name and a colour of its own.")
    if len({row.colour is None for row in rows}) > 1:
        raise DataError(f"{file} gives colours for some classes only; give each its red, green and blue.")
    return rows


def _counts(line: str) -> bool:
    """Whether a line is about a class: no comment, no header."""
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
        raise DataError(f"{place} is {line.strip()[:80]!r}; red, green and blue go from 0 to 255.")
    bare = name.strip().strip("_").strip() or name.strip()
    return Row(None if bare.casefold() in _UNKNOWN else bare, code(*colour) if colour else None)


def classes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The names of the classes that count."""
    return tuple(row.name for row in rows if row.name is not None)


def values_of(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """(value, class number or `IGNORE`) where a pixel's value is the number of its class's row, from 0.

    A first row for pixels that do not count is not numbered (labelme gives it -1). 255 is what many tools write there.
    """
    first = 1 if rows[0].name is None and rows[0].colour is None else 0
    return (*_numbered((i, row.name) for i, row in enumerate(rows[first:])), (IGNORE, IGNORE))


def colours_of(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """(colour, class number or `IGNORE`); empty for rows without colours."""
    return tuple(_numbered((row.colour, row.name) for row in rows if row.colour is not None))


def _numbered(pairs: Iterable[tuple[int, str | None]]) -> list[tuple[int, int]]:
    found, number = [], 0
    for value, name in pairs:
        found.append((value, IGNORE if name is None else number))
        number += name is not None
    return found


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of masks that tell one class from the background."""
    return tuple(names) if len(names) > 1 else (BACKGROUND, *names)
