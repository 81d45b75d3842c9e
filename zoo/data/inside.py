"""Keep a dataset in its folder: annotation files must not lead to files elsewhere.

An annotation file from somebody else could name any image on this machine, whose content would then be in the plots,
the predictions and the model. So a file is accepted if it lies below the folder that the user named. If the user named
a file, its own statement of the dataset's folder counts as well (`path` in a `data.yaml`). Links count by their place:
no annotation file makes one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from zoo import settings
from zoo.data.dataset import Dataset
from zoo.errors import DataError, counted

VARIABLE = "ZOO_DATA_FOLDERS"


def require_inside(path: Path, datasets: Iterable[Dataset]) -> None:
    """Raise `DataError` if a file of the datasets lies outside of their folders.

    Further folders are accepted by the environment variable `ZOO_DATA_FOLDERS`.

    Args:
        path: the folder or file that the user named.
        datasets: what was read from it.
    """
    own = path if path.is_dir() else path.parent
    further = [settings.expanded(one) for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one]
    for dataset in datasets:
        stated = () if path.is_dir() else (dataset.root,)
        folders = tuple(_prefix(folder) for folder in (own, *stated, *further))
        real = tuple(_prefix(os.path.realpath(folder)) for folder in folders)
        files = (file for sample in dataset for file in (sample.image, *dataset.targets.files(sample.target)))
        if outside := [file for file in files if not _inside(file, folders, real)]:
            first = outside[0]
            raise DataError(
                f"{dataset.name}: {counted(len(outside), 'file')} outside of the data's folder {own}, e.g. {first}. "
                "An annotation file that names files elsewhere may have been made to read yours. Move them below the "
                f"folder, or accept theirs: {VARIABLE}={os.path.dirname(os.path.normpath(first))}."
            )


def _prefix(folder: str | Path) -> str:
    return os.path.join(os.path.abspath(folder), "")


def _inside(file: Path, folders: tuple[str, ...], real: tuple[str, ...]) -> bool:
    # `abspath` also removes `..`, without following links. If that fails, the folder may have been named by another
    # path than the file.
    return os.path.abspath(file).startswith(folders) or os.path.realpath(file).startswith(real)
