"""Images without annotations: any folder of images."""

from __future__ import annotations

from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import describe, has_images, images_below
from zoo.data.pairs import split_folders
from zoo.errors import DataError

NAME = "images"
KINDS = ("images",)
LAYOUT = (
    "any folder of images, perhaps with train/, val/ and test/ (or Training/, dev/, ...); only if named explicitly or "
    "if the task needs images alone"
)
ANY_FOLDER = True


def detect(path: Path) -> bool:
    """Return False: every folder of images would fit, and in most of them the folder names are classes or splits."""
    return False


def read(path: Path) -> dict[str, Dataset]:
    """Read all images at any depth, without targets: split name -> dataset, or one key `all`.

    Raises:
        DataError: `path` is not a folder, or holds no images.
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
        raise DataError(f"{folder} holds no images; it holds {describe(folder)}.")
    return Dataset(samples, (), "images", name, root)
