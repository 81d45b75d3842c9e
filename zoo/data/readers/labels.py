"""A folder of images with `labels.json` (file name -> class index) and optionally `class_names.json` (a list)."""

from __future__ import annotations

from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import describe, load_json
from zoo.errors import DataError

NAME = "labels"
KINDS = ("class",)
LAYOUT = "labels.json (file name -> class index) beside the images or an images/ folder, optionally class_names.json"


def detect(path: Path) -> bool:
    """A folder with `labels.json`."""
    return path.is_dir() and (path / "labels.json").is_file()


def read(path: Path) -> dict[str, Dataset]:
    """The images that `labels.json` lists, as `all`, sorted by name.

    Without `class_names.json` the classes are called by their index. Raises `DataError` for a listed image that is
    not there, or an index that is not one.
    """
    if not detect(path):
        raise DataError(f"{path} has no labels.json; the format 'labels' needs {LAYOUT}.")
    labels = load_json(path / "labels.json")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{path / 'labels.json'} must be an object that gives each file name its class index.")
    for name, index in labels.items():
        if type(index) is not int or index < 0:
            raise DataError(f"{path / 'labels.json'}: {name!r} has {index!r}; a class index is an integer from 0.")
    samples = tuple(Sample(_find(path, name), labels[name], name) for name in sorted(labels))
    return {"all": Dataset(samples, _classes(path, max(labels.values())), "class", path.name, path)}


def _find(path: Path, name: str) -> Path:
    for file in (path / name, path / "images" / name):
        if file.is_file():
            return file
    raise DataError(
        f"{path / 'labels.json'} lists {name!r}, which is neither in {path} nor in its images/ folder "
        f"(there is {describe(path)})."
    )


def _classes(path: Path, highest: int) -> tuple[str, ...]:
    file = path / "class_names.json"
    if not file.is_file():
        return tuple(str(index) for index in range(highest + 1))
    names = load_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} must be a list of class names.")
    if highest >= len(names):
        raise DataError(f"{file} has {len(names)} names, but labels.json goes up to class {highest}.")
    return tuple(names)
