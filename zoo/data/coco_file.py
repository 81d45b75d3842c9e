"""Parse a COCO annotation file: its categories, and the ids, sizes and boxes of its entries.

Files come from many tools, and through CSV tables. So an id may be text or a float, and a box text or missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.files import load_json
from zoo.errors import DataError
from zoo.image_header import MAX_PIXELS
from zoo.targets.boxes import Box
from zoo.text import shown

KEYS = ("images", "annotations", "categories")
Id = int | str


def load(file: Path) -> dict[str, Any]:
    """Read a COCO file. Raise `DataError` unless it is a JSON object with lists of objects."""
    content = load_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in KEYS):
        raise DataError(f"{file} must hold a JSON object with the lists {', '.join(KEYS)}.")
    for key in KEYS:
        for number, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise DataError(f"{file}: {key}[{number}] is {shown(entry)}; it must be a JSON object.")
    return content


def id_of(entry: Mapping[str, Any], key: str, place: str) -> Id:
    """Return an id, such that equal ids are equal: 7, 7.0, "7" and "7.0" are 7; other text stays text.

    Raises:
        DataError: it is missing, or no whole number and no text; `place` names the entry.
    """
    value = entry.get(key)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(float(text)) if re.fullmatch(r"(0|-?[1-9]\d{0,14})(\.0+)?", text) else text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"{place}: {key} is {shown(value)}; it must be a whole number or text.")


def written_id(entry: Mapping[str, Any], key: str, place: str) -> Id:
    """Return an id as results have to call it: text stays text, and 7.0 is 7. Raises `DataError` as `id_of`."""
    id, value = id_of(entry, key, place), entry[key]
    return value if isinstance(value, str) else id


def text_of(entry: Mapping[str, Any], key: str, place: str) -> str:
    """Return a name, also one that was written as a number. Raise `DataError` if it is missing or empty."""
    value = entry.get(key)
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: {key} is {shown(value)}; it must be text.")
    return text


def categories(contents: Mapping[Path, Mapping[str, Any]]) -> tuple[dict[Path, dict[Id, str]], str]:
    """Return (file -> category id -> name, sorted by id; a note on a category that is left out, or an empty string).

    Roboflow adds a category with the name of the project, of which all others are sub-categories. It has no
    annotations, and often the name of a class. It is left out.

    Raises:
        DataError: there are no categories, or an id or a name occurs twice.
    """
    roots = {file: _root(content["categories"], file) for file, content in contents.items()}
    left_out = None not in roots.values() and not any(
        number(entry.get("category_id")) == roots[file]
        for file, content in contents.items()
        for entry in content["annotations"]
    )
    by_file, note = {}, ""
    for file, content in contents.items():
        names: dict[Id, str] = {}
        for index, entry in enumerate(content["categories"]):
            place = f"{file}: categories[{index}]"
            id, name = id_of(entry, "id", place), text_of(entry, "name", place)
            if left_out and id == roots[file]:
                note = (
                    f"{file.name}: the category {name!r} (id {id}) has no annotations and only groups the others, as "
                    "Roboflow writes it; it is not a class"
                )
            elif names.get(id) != name:
                if id in names or name in names.values():
                    raise DataError(f"{place}: the id {id} or the name {name!r} occurs twice.")
                names[id] = name
        if not names:
            raise DataError(f"{file} has no categories.")
        by_file[file] = dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))
    return by_file, note


def category_ids(content: Mapping[str, Any], names: Mapping[Id, str]) -> dict[str, Id]:
    """Return category name -> its id as it is written.

    Args:
        content: content of the file.
        names: category id -> name, as `categories` returns them.
    """
    written = {id_of(entry, "id", ""): written_id(entry, "id", "") for entry in content["categories"]}
    return {name: written[id] for id, name in names.items()}


def _root(entries: Sequence[Mapping[str, Any]], file: Path) -> Id | None:
    """Return the id of the category that is the supercategory of all others, None if there is none."""
    if len(entries) < 2:
        return None
    ids = [id_of(entry, "id", f"{file}: categories[{index}]") for index, entry in enumerate(entries)]
    first = min(range(len(ids)), key=lambda index: (isinstance(ids[index], str), ids[index]))
    name, above = entries[first].get("name"), entries[first].get("supercategory")
    others = [entry.get("supercategory") for index, entry in enumerate(entries) if index != first]
    return ids[first] if above in (None, "", "none", "None") and all(other == name for other in others) else None


def number(value: Any) -> Id | None:
    """Return an id as `id_of`, or None if it is none."""
    try:
        return id_of({"id": value}, "id", "")
    except DataError:
        return None


def flag(value: Any) -> bool:
    """Return a mark such as `iscrowd`, which may be written as 0, false, "0" or "false"."""
    return value.strip().lower() not in ("", "0", "0.0", "false", "no") if isinstance(value, str) else bool(value)


def size_of(entry: Mapping[str, Any], place: str) -> tuple[int, int] | None:
    """Return (height, width) as an entry states them; None if it does not.

    Raises:
        DataError: an image of that size would be too large.
    """
    sides = number(entry.get("height")), number(entry.get("width"))
    height, width = (side if isinstance(side, int) and side > 0 else 0 for side in sides)
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{place}: width and height are {shown(entry['width'])} and {shown(entry['height'])}; an image may have at "
            f"most {MAX_PIXELS:,} pixels."
        )
    return (height, width) if height and width else None


def corners(entry: Mapping[str, Any], place: str) -> Box | None:
    """Return an annotation's box as x1, y1, x2, y2; None if it has none.

    Raises:
        DataError: the box is not four numbers.
    """
    given = entry.get("bbox")
    box = _listed(given)
    if box in (None, []):
        return None
    values = [] if box is None else [_float(value) for value in box]
    if len(values) != 4 or None in values:
        raise DataError(f"{place}: bbox is {shown(given)}; it must be four numbers: x, y, width and height.")
    x, y, width, height = (math.nan if value is None else value for value in values)
    return x, y, x + width, y + height


def _listed(value: Any) -> Any:
    """Return a list that may be written as text: `[1, 2]`, `1,2` or `1 2`."""
    if not isinstance(value, str):
        return value if isinstance(value, list) else None if value is None else [None]
    return [word for word in re.split(r"[\s,;]+", value.strip().strip("[]()")) if word]


def _float(value: Any) -> float | None:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def segmentation(entry: Mapping[str, Any]) -> Any:
    """Return the `segmentation` of an annotation, parsed if it is JSON in text."""
    value = entry.get("segmentation")
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value
