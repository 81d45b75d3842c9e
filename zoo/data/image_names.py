"""Names for the images of a prediction: paths that say which image is meant, and that no two images share."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo import settings
from zoo.data.dataset import Dataset, Sample


def names_of(files: Sequence[Path], given: Iterable[str | Path] = ()) -> list[str]:
    """Return a name for each image, with `/`. Two different files never have the same name.

    An image that was found in a given folder has its path below that folder, any other its file name. If two files
    would have the same name, all names are the paths below the folder that all files have in common.

    Args:
        files: the images.
        given: what the user named: folders, patterns or files.
    """
    folders = [folder for folder in map(_folder, given) if folder is not None]
    names = [_below(file, next((folder for folder in folders if file.is_relative_to(folder)), None)) for file in files]
    if len(set(names)) == len(set(files)):
        return names
    paths = [Path(os.path.abspath(file)) for file in files]
    common = os.path.commonpath([path.parent for path in paths])
    return [_below(path, Path(common)) for path in paths]


def as_images(files: Sequence[Path], given: Iterable[str | Path] = ()) -> Dataset:
    """Return the images as a dataset without targets, in which an image's id is its name; see `names_of`."""
    named = dict(zip(names_of(files, given), files, strict=True))
    return Dataset(tuple(Sample(file, None, name) for name, file in named.items()), (), "images", "images", Path())


def _folder(given: str | Path) -> Path | None:
    """Return a given folder, or the fixed part of a pattern; None for a file."""
    path = settings.expanded(given)
    if path.is_dir():
        return path
    if path.is_file() or not glob.has_magic(str(path)):
        return None
    fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:fixed])


def _below(file: Path, folder: Path | None) -> str:
    return file.relative_to(folder).as_posix() if folder is not None else file.name
