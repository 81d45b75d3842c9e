"""Photos of which nothing is known: any folder of images, sorted or not."""

from __future__ import annotations

from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import describe, has_images, images_below
from zoo.data.pairs import split_folders
from zoo.errors import DataError

NAME = "images"
KINDS = ("images",)
LAYOUT = (
    "any folder of images, perhaps with train/, val/ and test/ (or Training/, dev/, ...); only where it is asked for"
)


def detect(path: Path) -> bool:
    """Never: every folder of images would fit, and in most of them the folders' names mean something."""
    return False


def read(path: Path) -> dict[str, Dataset]:
    """The splits found, or `all`: every image at any depth, without targets.

    Raises `DataError` for what is no folder, or a folder without images.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; the format 'images' needs {LAYOUT}.")
    splits = {split: folder for split, folder in split_folders(path).items() if has_images(folder)}
    if "train" not in splits:
        return {"all": _dataset(path, path, path.name)}
    return {split: _dataset(folder, path, f"{path.name}/{split}") for split, folder in splits.items()}


def _dataset(folder: Path, root: Path, name: str) -> Dataset:
    samples = tuple(Sample(image, None, image.relative_to(root).as_posix()) for image in images_below(folder))
    if not samples:
        raise DataError(f"{folder} holds no image; it holds {describe(folder)}.")
    return Dataset(samples, (), "images", name, root)
