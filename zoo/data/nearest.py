"""Say what a dataset lacks to be of the nearest known formats, when no format fits.

A format is near if its reader gets beyond its own layout: it finds its folders or files, and then fails with an error
that names what is missing. That error is the most useful answer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.files import describe, is_image, subfolders
from zoo.data.layouts import looks_like
from zoo.errors import DataError

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_COMMON = ("csv", "coco", "yolo", "masks", "voc")
"""The most common formats, which are named first if all are equally far."""
_SHOWN = 2
_WIDTH = 100
"""Number of characters of a layout's description, for formats without a short one. Errors are never cut."""


class Near(NamedTuple):
    """What a format says of a path that it does not recognise.

    Attributes:
        format: the format.
        lacks: the reader's error, or the format's layout; empty if the reader accepts the path.
        found: whether the reader got beyond its layout.
    """

    format: Any
    lacks: str
    found: bool


def explained(
    path: Path, formats: Sequence[Any], kinds: Collection[str] = (), fitting: Sequence[Any] = ()
) -> list[str]:
    """Return the lines of the error for a path that no format fits, at most five.

    Args:
        path: a folder or a file.
        formats: the known formats.
        kinds: accepted kinds of target; formats of other kinds are named last.
        fitting: formats that fit, but not the kinds.
    """
    if path.is_file() and path.suffix.lower() in _ARCHIVES:
        return [f"{path} is an archive, which is no known data layout: unpack it, and give the folder."]
    if path.is_file() and is_image(path.name):
        return [f"{path} is an image, which is no known data layout: give the folder or the list of a dataset."]
    content = f"{path} holds {describe(path)}" if path.is_dir() else f"{path} is a single file"
    # Every folder of images is one of the format for images alone.
    said = [_tried(format, path) for format in formats if set(format.KINDS) != {"images"} or "images" in kinds]
    lines = [f"{content}, which is no known data layout" + (f" for {' or '.join(kinds)}." if fitting else ".")]
    nearest = sorted(filter(lambda one: one.lacks, said), key=lambda one: _distance(one, kinds))[:_SHOWN]
    for word, one in zip(("Nearest is", "Then"), nearest, strict=False):
        lines.append(f"{word} {one.format.NAME}: {one.lacks}")
    if hint := _hint(path, formats, fitting):
        lines.append(hint)
    lines.append("`zoo list formats` describes all formats. If you know the right one, name it with --format.")
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _tried(format: Any, path: Path) -> Near:
    try:
        format.read(path)
    except DataError as error:
        found = format.LAYOUT not in str(error)
        needs = getattr(format, "NEEDS", "") or textwrap.shorten(format.LAYOUT, _WIDTH, placeholder=" ...")
        return Near(format, str(error) if found else f"it needs {needs}.", found)
    except Exception as error:  # a reader of a plugin
        return Near(format, f"its reader fails with {type(error).__name__}: {error}", False)
    return Near(format, "", True)


def _distance(one: Near, kinds: Collection[str]) -> tuple[bool, int, int]:
    """Return a key to sort by. Class folders come late: any folder is one that lacks something."""
    other_kind = bool(kinds) and not set(kinds) & set(one.format.KINDS)
    any_folder = getattr(one.format, "ANY_FOLDER", False)
    common = _COMMON.index(one.format.NAME) if one.format.NAME in _COMMON else len(_COMMON)
    return other_kind, 1 if any_folder else 0 if one.found else 2, common


def _hint(path: Path, formats: Iterable[Any], fitting: Sequence[Any]) -> str:
    """Return a line on evidence of boxes or masks, on a single folder inside of a known format, or on other targets."""
    if not path.is_dir():
        return ""
    inner = subfolders(path)
    if len(inner) == 1 and (deeper := [format.NAME for format in formats if _fits(format, inner[0])]):
        return f"{inner[0]} is of the format {' or '.join(deeper)}: give that path."
    if evidence := looks_like(path):
        return (
            f"It looks like boxes or masks: {evidence}. So its folders are not taken for classes. If they are "
            "classes, name the format: folder."
        )
    if fitting:
        kinds = " or ".join(dict.fromkeys(kind for format in fitting for kind in format.KINDS))
        names = " and ".join(format.NAME for format in fitting)
        return f"It fits the format {names}, of {kinds} targets: choose a task that learns from these."
    return ""


def _fits(format: Any, path: Path) -> bool:
    try:
        return bool(format.detect(path))
    except Exception:  # a broken file or a plugin's reader; this is only a hint
        return False
