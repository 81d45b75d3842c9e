"""Files on disk: recognise images and splits by name, walk folders, describe a folder in messages."""

from __future__ import annotations

import glob
import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.data.decode import suffixes
from zoo.errors import DataError, UnreadableError, counted
from zoo.reading import kind_of, read_text

SPLITS = ("train", "val", "test")
_SYSTEM = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled", "lost+found"),
        *("system volume information", "__pycache__", "thumbs.db", "desktop.ini", "@tmp", "@recycle", "@__thumb"),
    }
)
"""Names of files and folders that operating systems, storage devices and editors create, in lower case."""
_COMMON = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Suffixes of images that errors name; `suffixes` returns all."""

_SPLIT = re.compile(
    r"(?:(?:data|dataset|images?|imgs?|photos?|seg)[ _-]?)?"
    r"(train(?:ing)?|trn|val(?:id|idation)?|dev(?:el|elopment)?|eval(?:uation)?|test(?:ing)?|tst)"
    r"(?:[ _-]?(?:set|data|dataset|split|images?|imgs?|photos?|part|list|files))?[ _-]?[0-9]*"
)
_CALLED = {"tr": "train", "va": "val", "de": "val", "ev": "val", "te": "test", "ts": "test"}


def split_name(name: str) -> str | None:
    """Return the split (`train`, `val` or `test`) that a name stands for, None for other names.

    `Training`, `training_set` and `train2017` are `train`, `valid`, `dev` and `eval` are `val`, `Testing` is `test`.
    """
    match = _SPLIT.fullmatch(name.strip().lower())
    return _CALLED[match[1][:2]] if match else None


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Return name -> split, for the names that stand for a split.

    `eval` is `val`, or `test` if another name stands for `val` and none for `test`.
    """
    by_name = {name: split for name in names if (split := split_name(name))}
    late = [name for name in by_name if "eval" in name.lower()]
    if "test" not in by_name.values() and any(by_name[name] == "val" for name in by_name.keys() - set(late)):
        by_name |= dict.fromkeys(late, "test")
    return by_name


def hidden(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to the system (`.DS_Store`, `._cat.jpg`, `@eaDir`): never data."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image(name: str) -> bool:
    """Whether a file of that name counts as an image: it is not hidden, and `decode` reads its suffix."""
    return not hidden(name) and os.path.splitext(name)[1].lower() in suffixes()


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly in `folder`, sorted by name, without links to a folder above."""
    above = (os.path.realpath(folder),)
    folders = (entry for entry in _entries(folder) if entry.is_dir() and not hidden(entry.name))
    return [folder / entry.name for entry in folders if not entry.is_symlink() or not _leads_back(entry.path, above)]


def files(folder: Path) -> list[Path]:
    """Return the visible files directly in `folder`, sorted by name."""
    return [folder / entry.name for entry in _entries(folder) if entry.is_file() and not hidden(entry.name)]


def walk(folder: Path) -> Iterator[Path]:
    """Yield every visible file in `folder`, at any depth, in sorted order.

    Links to folders are followed, except those to a folder above, which would never end.

    Raises:
        DataError: a folder cannot be read.
    """
    return map(Path, walk_text(folder))


def walk_text(folder: Path) -> Iterator[str]:
    """Yield the same files as strings, which is several times faster than paths."""
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
    """Return the entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}. Change its permissions, or move it away."
        ) from error


def _leads_back(link: str, above: Iterable[str]) -> bool:
    """Whether a link leads to one of the folders above it, or to a folder that holds these."""
    target = os.path.realpath(link)
    return any(place == target or place.startswith(target.rstrip(os.sep) + os.sep) for place in above)


def images_below(folder: Path) -> Iterator[Path]:
    """Yield every visible image in `folder`, at any depth, in sorted order."""
    return (Path(file) for file in walk_text(folder) if is_image(os.path.basename(file)))


def has_images(folder: Path) -> bool:
    """Whether there is any image in `folder`, at any depth."""
    return next(images_below(folder), None) is not None


def load_json(file: Path, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file; `pairs` is the `object_pairs_hook` of `json.loads`. Raise `DataError` if it cannot be read."""
    try:
        return json.loads(read_text(file), object_pairs_hook=pairs)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}.") from error


def holds_key(file: Path, key: str) -> bool:
    """Whether a JSON file contains a key. It is searched as text, since parsing a large file takes a minute."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(f'"{key}"'.encode()) >= 0
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file. Raise `DataError` if it cannot be read."""
    try:
        return read_text(file).splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read as text in UTF-8: {error}.") from error


def describe(path: Path, names: int = 5) -> str:
    """Describe the content of a folder for messages, e.g. `2 folders (ants, bees), 12 files (12 .jpg)`."""
    folders, loose = subfolders(path), files(path)
    phrases = []
    if folders:
        shown = ", ".join(folder.name for folder in folders[:names]) + (", ..." if len(folders) > names else "")
        phrases.append(f"{counted(len(folders), 'folder')} ({shown})")
    if loose:
        kinds = Counter(file.suffix.lower() or "without a suffix" for file in loose).most_common(names)
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds)
        phrases.append(f"{counted(len(loose), 'file')} ({shown})")
    return ", ".join(phrases) or "nothing"


def list_images(paths: str | Path | Iterable[str | Path], *, strict: bool = True) -> list[Path]:
    """Return the image files for prediction, in the order given.

    Args:
        paths: files, folders (searched at any depth) or glob patterns. A single file is accepted with any suffix.
        strict: whether a path that does not exist, or is no regular file, is an error; otherwise it is returned like
            a file, and whoever reads it reports it.

    Raises:
        DataError: a path does not exist, or a folder or pattern gives no images.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return [image for entry in given for image in _expand(settings.expanded(entry), strict)]


def _expand(path: Path, strict: bool) -> list[Path]:
    if os.path.isfile(path):  # `Path.is_file` raises for names that are too long
        return [path]
    if os.path.isdir(path):
        images = list(images_below(path))
        if not images:
            known = f"{', '.join(_COMMON)} and {len(suffixes() - set(_COMMON))} others"
            raise DataError(f"{path} holds no images; it holds {describe(path)}. Suffixes of images: {known}.")
        return images
    exists = os.path.exists(path)
    if exists or not glob.has_magic(str(path)):
        if not strict:
            return [path]
        if exists:
            raise UnreadableError(str(path), f"cannot be read: it is {kind_of(path.stat().st_mode)}, not an image.")
        raise DataError(f"{path} does not exist. Give an image file, a folder of images or a pattern like 'dir/*.jpg'.")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    images = [match for match in matches if match.is_file() and is_image(match.name)]
    if not images:
        raise DataError(f"the pattern {path} matches no images. Give an image file, a folder or another pattern.")
    return images
