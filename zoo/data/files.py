"""Image files on disk: which names count as images, how folders are walked, how a folder is described to people."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}  # compared in lower case
)
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of ready splits as people write them, in lower case, and what zoo calls them."""


def hidden(name: str) -> bool:
    """Files that tools leave behind (`.DS_Store`, `._photo.jpg`, `__MACOSX`): never data."""
    return name.startswith((".", "__MACOSX"))


def is_image(name: str) -> bool:
    """Whether a file of that name counts as an image."""
    return not hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    """The visible folders directly below, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not hidden(entry.name))


def files(folder: Path) -> list[Path]:
    """The visible files directly below, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and not hidden(entry.name))


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, at any depth, in sorted order; links to folders are followed."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not hidden(name))
        yield from (Path(parent, name) for name in sorted(names) if not hidden(name))


def images_below(folder: Path) -> Iterator[Path]:
    """Every visible image below `folder`, at any depth, in sorted order."""
    return (path for path in walk(folder) if is_image(path.name))


def has_images(folder: Path) -> bool:
    """Whether any image lies below `folder`."""
    return next(images_below(folder), None) is not None


def load_json(file: Path) -> Any:
    """What a JSON file holds. Raises `DataError` when it cannot be read."""
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}.") from error


def read_lines(file: Path) -> list[str]:
    """The lines of a text file. Raises `DataError` when it cannot be read."""
    try:
        return file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text in UTF-8: {error}.") from error


def describe(path: Path, names: int = 5) -> str:
    """What is directly in a folder, for an error message, e.g. `2 folders (ants, bees), 12 files (12 .jpg)`."""
    folders, loose = subfolders(path), files(path)
    said = []
    if folders:
        shown = ", ".join(folder.name for folder in folders[:names]) + (", ..." if len(folders) > names else "")
        said.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} ({shown})")
    if loose:
        kinds = Counter(file.suffix.lower() or "without suffix" for file in loose).most_common(names)
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds)
        said.append(f"{len(loose)} file{'s' * (len(loose) > 1)} ({shown})")
    return ", ".join(said) or "nothing"


def list_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Image files to predict on, from files, folders (searched at any depth) and glob patterns, in the order given.

    A file that is named outright is taken whatever its suffix. Raises `DataError` for a path that does not exist,
    a folder without images, or a pattern that matches none.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return [image for entry in given for image in _expand(Path(entry).expanduser())]


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(images_below(path))
        if not found:
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{path} holds no image; it holds {describe(path)}. Suffixes of images: {known}.")
        return found
    if not glob.has_magic(str(path)):
        raise DataError(f"{path} does not exist. Give an image file, a folder of images or a pattern like 'dir/*.jpg'.")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    found = [match for match in matches if match.is_file() and is_image(match.name)]
    if not found:
        raise DataError(f"the pattern {path} matches no image. Give an image file, a folder or another pattern.")
    return found
