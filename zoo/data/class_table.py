"""Read lists of classes beside masks: names, perhaps with the value or colour of each, as common tools write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.files import load_json, read_lines, subfolders
from zoo.errors import DataError
from zoo.targets.masks import BACKGROUND, IGNORE

FILES = (
    "classes.txt",
    "classes.csv",
    "labelmap.txt",
    "class_dict.csv",
    "class_dict_seg.csv",
    "label_class_dict.csv",
    "_classes.csv",
    "label_colors.txt",
    "label_colours.txt",
    "class_names.txt",
    "label_names.txt",
    "labels.txt",
    "codes.txt",
    "classes.json",
    "id2label.json",
    "obj_class_to_machine_color.json",
)
_HEADERS = frozenset(
    [
        *(("class", "r", "g", "b"), ("pixel", "value", "class"), ("label", "value")),
        *(("id", "name"), ("value", "name"), ("index", "name"), ("id", "class"), ("value", "class"), ("id", "label")),
        *(("name", "id"), ("name", "value"), ("class", "id"), ("class", "value"), ("label", "id"), ("class", "index")),
        *(("name", "red", "green", "blue"), ("class", "red", "green", "blue")),
    ]
)
"""Words of header lines, in lower case."""
_UNKNOWN = ("ignore", "void")
"""Names for ignored pixels; tools put underscores around them."""


class Row(NamedTuple):
    """One class.

    Attributes:
        name: class name, None for ignored pixels.
        colour: red + 256 green + 65536 blue, or None.
        value: value of the pixels of the class, or None if it is the number of the row.
    """

    name: str | None
    colour: int | None
    value: int | None = None


def code(red: int, green: int, blue: int) -> int:
    """Return a colour as one number."""
    return red + 256 * green + 65536 * blue


def find_table(folder: Path) -> Path | None:
    """Return the file with the list of classes in a folder or directly below it, None if there is none.

    Raises:
        DataError: lists in several sub-folders (of splits, say) differ.
    """
    if own := next((folder / name for name in FILES if (folder / name).is_file()), None):
        return own
    below = [inner / name for inner in subfolders(folder) for name in FILES if (inner / name).is_file()]
    for other in below[1:]:
        if other.read_bytes() != below[0].read_bytes():
            raise DataError(f"{below[0]} and {other} differ, but all masks need one list of classes. Keep one of them.")
    return below[0] if below else None


def listed(folder: Path) -> tuple[str, ...]:
    """Return the classes in a folder's list; empty if there is no list. Raise `DataError` if it cannot be read."""
    file = find_table(folder)
    return classes_of(read_table(file)) if file else ()


def read_table(file: Path) -> list[Row]:
    """Read a list of classes.

    A row is `name`, `name r g b`, `r g b name` (also with commas or tabs), or `name:r,g,b:...`. If all rows are pairs
    of a number and a name, the number is the value of the class's pixels. A JSON file holds a list of names, or an
    object from names to values or colours, or from values to names. The names `ignore` and `void` mark ignored
    pixels. Underscores around a name are dropped.

    Raises:
        DataError: the file cannot be read; a name, value or colour occurs twice; or only some rows have colours.
    """
    if file.suffix.lower() == ".json":
        return _unique(_json_rows(load_json(file), file), file)
    lines = [(i, line) for i, line in enumerate(read_lines(file), 1) if _counts(line)]
    rows = _valued([line for _, line in lines]) or [_row(line, f"{file}, line {i}") for i, line in lines]
    return _unique(rows, file)


def rows_of(labels: Any, file: Path) -> list[Row]:
    """Return the rows of a JSON value: a list of names, or an object as in `read_table`. Errors name `file`."""
    return _unique(_json_rows(labels, file), file)


def _unique(rows: list[Row], file: Path) -> list[Row]:
    """Return the rows, in the order of values if these are given.

    Raises:
        DataError: the rows contradict each other, or name no class.
    """
    if not rows or all(row.name is None for row in rows):
        raise DataError(f"{file} names no class; write one per line, perhaps with red, green and blue of its colour.")
    names, colours = Counter(r.name for r in rows if r.name), Counter(r.colour for r in rows if r.colour is not None)
    values = Counter(r.value for r in rows if r.value is not None)
    for counts, show in ((names, repr), (colours, lambda c: f"the colour {_rgb(c)}"), (values, lambda v: f"value {v}")):
        if twice := [entry for entry, count in counts.items() if count > 1]:
            raise DataError(
                f"{file}: {show(twice[0])} occurs twice; each class needs a unique name and a unique colour or value."
            )
    if len({row.colour is None for row in rows}) > 1:
        raise DataError(f"{file} has colours for some classes only; add red, green and blue to each.")
    return sorted(rows, key=lambda row: row.value or 0) if len(values) == len(rows) else rows


def _json_rows(content: Any, file: Path) -> list[Row]:
    """Return the rows of a JSON value; see `read_table`."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [Row(_bare(name), None) for name in content]
    if isinstance(content, dict):
        if all(key.isdecimal() and isinstance(name, str) for key, name in content.items()):
            return [Row(_bare(name), None, int(value)) for value, name in content.items()]
        if all(type(value) is int and value >= 0 for value in content.values()):
            return [Row(_bare(name), None, value) for name, value in content.items()]
        if all(_is_colour(value) for value in content.values()):
            return [Row(_bare(name), code(*value)) for name, value in content.items()]
    raise DataError(
        f"{file} must give the classes as a list of names, or as an object from each name to its value (a whole "
        "number) or its red, green and blue."
    )


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def _valued(lines: Sequence[str]) -> list[Row]:
    """Return rows with values if every line is a number and a name, in either order; else nothing.

    Without a comma, colon or tab between them, only numbers that count the lines from 0 or 1 are values: other numbers
    may belong to names, as in `2 wheeler`.
    """
    for pattern, value, name in ((r"\s*(\d+)(\W+)(\D.*)", 1, 3), (r"(.*\D)(\s*[,;:=\t]\s*)(\d+)\s*", 3, 1)):
        found = [re.fullmatch(pattern, line) for line in lines]
        matches = [match for match in found if match]
        if not matches or len(matches) < len(lines):
            continue
        values = [int(match[value]) for match in matches]
        spaced = any(not match[2].strip() and "\t" not in match[2] for match in matches)
        if not spaced or values in ([*range(len(values))], [*range(1, len(values) + 1)]):
            return [Row(_bare(match[name]), None, v) for match, v in zip(matches, values, strict=True)]
    return []


def _rgb(colour: int | None) -> str:
    """Format a colour for messages: red, green and blue."""
    return "none" if colour is None else f"{colour & 255} {colour >> 8 & 255} {colour >> 16}"


def _counts(line: str) -> bool:
    """Return whether a line describes a class; comments and headers do not."""
    words = tuple(word for word in re.split(r"[\s,;:]+", line.casefold()) if word)
    header = words in _HEADERS or words[:3] in (("name", "r", "g"), ("r", "g", "b"))
    return bool(words) and not line.lstrip().startswith("#") and not header


def _bare(name: str) -> str | None:
    """Return a class name without spaces and underscores around it, None for ignored pixels."""
    bare = name.strip().strip("_").strip() or name.strip()
    return None if bare.casefold() in _UNKNOWN else bare


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
    return Row(_bare(name), code(*colour) if colour else None)


def classes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the class names, without ignored ones."""
    return tuple(row.name for row in rows if row.name is not None)


def values_of(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """Return (value, class number or `IGNORE`) for masks of class numbers.

    The value of a class is given, or it is the number of its row, from 0. A first row for ignored pixels without a
    colour has no number (labelme gives it -1). 255 is ignored unless it is given for a class, since many tools use it
    for ignored pixels.
    """
    first = 1 if rows[0].name is None and rows[0].colour is None and rows[0].value is None else 0
    table = _numbered((i if row.value is None else row.value, row.name) for i, row in enumerate(rows[first:]))
    return (*table, *(((IGNORE, IGNORE),) if all(value != IGNORE for value, _ in table) else ()))


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
