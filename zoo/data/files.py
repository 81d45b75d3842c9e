"""Image files on disk: which names count as images, how folders are walked, how a folder is described to people."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.data.decode import suffixes
from zoo.errors import DataError

SPLITS = ("train", "val", "test")
_SYSTEM = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled", "lost+found"),
        *("system volume information", "__pycache__", "thumbs.db", "desktop.ini", "@tmp", "@recycle", "@__thumb"),
    }
)
"""What operating systems, storage devices and editors leave in folders; in lower case."""

_SPLIT = re.compile(
    r"(?:(?:data|dataset|images?|imgs?|photos?|seg)[ _-]?)?"
    r"(train(?:ing)?|trn|val(?:id|idation)?|dev(?:el|elopment)?|eval(?:uation)?|test(?:ing)?|tst)"
    r"(?:[ _-]?(?:set|data|dataset|split|images?|imgs?|photos?|part|list|files))?[ _-]?[0-9]*"
)
_CALLED = {"tr": "train", "va": "val", "de": "val", "ev": "val", "te": "test", "ts": "test"}


def split_name(name: str) -> str | None:
    """Return what zoo calls the split that a folder, a file or a cell is named for; None for other names.

    `Training`, `training_set` and `train2017` are `train`, `valid`, `dev` and `eval` are `val`, `Testing` is `test`.
    """
    found = _SPLIT.fullmatch(name.strip().lower())
    return _CALLED[found[1][:2]] if found else None


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Return what zoo calls the splits that names stand for: name -> split, for those that do.

    `eval` is `val`, but `test` where another name is for `val`.
    """
    found = {name: split for name in names if (split := split_name(name))}
    late = [name for name in found if "eval" in name.lower()]
    if "test" not in found.values() and any(found[name] == "val" for name in found.keys() - set(late)):
        found |= dict.fromkeys(late, "test")
    return found


def hidden(name: str) -> bool:
    """Return whether a name is hidden or a system's own (`.DS_Store`, `._photo.jpg`, `@eaDir`): never data."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image(name: str) -> bool:
    """Return whether a file of that name counts as an image: it is not hidden, and `decode` reads its suffix."""
    return not hidden(name) and os.path.splitext(name)[1].lower() in suffixes()


def subfolders(folder: Path) -> list[Path]:
    """The visible folders directly below, sorted by name; no link back to a folder above."""
    above = (os.path.realpath(folder),)
    folders = (entry for entry in _entries(folder) if entry.is_dir() and not hidden(entry.name))
    return [folder / entry.name for entry in folders if not entry.is_symlink() or not _leads_back(entry.path, above)]


def files(folder: Path) -> list[Path]:
    """The visible files directly below, sorted by name."""
    return [folder / entry.name for entry in _entries(folder) if entry.is_file() and not hidden(entry.name)]


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, at any depth, in sorted order.

    Links to folders are followed, but not back to a folder above, where they would go round in circles.
    Raises `DataError` for a folder that cannot be read.
    """
    return map(Path, walk_text(folder))


def walk_text(folder: Path) -> Iterator[str]:
    """The same as text, which is several times as fast."""
    return _walk(str(folder), (os.path.realpath(folder),))


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    folders = []
    for entry in _entries(folder):
        if hidden(entry.name):
            continue
        if entry.is_dir():
            folders.append(entry)
        else:
            yield entry.path
    for entry in folders:
        link = entry.is_symlink()
        if not link or not _leads_back(entry.path, above):
            real = os.path.realpath(entry.path) if link else os.path.join(above[-1], entry.name)
            yield from _walk(entry.path, (*above, real))


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. Change its rights, or move it away.") from error


def _leads_back(link: str, above: Iterable[str]) -> bool:
    """Whether a link leads to one of the folders above it, or still higher."""
    target = os.path.realpath(link)
    return any(place == target or place.startswith(target.rstrip(os.sep) + os.sep) for place in above)


def images_below(folder: Path) -> Iterator[Path]:
    """Every visible image below `folder`, at any depth, in sorted order."""
    return (Path(file) for file in walk_text(folder) if is_image(os.path.basename(file)))


def has_images(folder: Path) -> bool:
    """Whether any image lies below `folder`."""
    return next(images_below(folder), None) is not None


def load_json(file: Path, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a JSON file holds; `pairs` makes its objects (`json.loads`). Raises `DataError` when it cannot be read."""
    try:
        return json.loads(file.read_text("utf-8-sig"), object_pairs_hook=pairs)
    except DataError:
        raise
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
            known = " ".join(sorted(suffixes()))
            raise DataError(f"{path} holds no image; it holds {describe(path)}. Suffixes of images: {known}.")
        return found
    if not glob.has_magic(str(path)):
        raise DataError(f"{path} does not exist. Give an image file, a folder of images or a pattern like 'dir/*.jpg'.")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    found = [match for match in matches if match.is_file() and is_image(match.name)]
    if not found:
        raise DataError(f"the pattern {path} matches no image. Give an image file, a folder or another pattern.")
    return found
