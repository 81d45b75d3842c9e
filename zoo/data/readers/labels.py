"""A folder of images with `labels.json` (file name -> class index) and optionally `class_names.json` (a list)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import describe, load_json
from zoo.data.refusals import refuse
from zoo.data.unique import listed
from zoo.errors import DataError
from zoo.targets.faults import Fault

NAME = "labels"
KINDS = ("class",)
NEEDS = "labels.json (file name -> class index) beside the images"
_MOST_CLASSES = 100_000
LAYOUT = "labels.json (file name -> class index) beside the images or an images/ folder, optionally class_names.json"


def detect(path: Path) -> bool:
    """Whether `path` is a folder with `labels.json`."""
    return path.is_dir() and (path / "labels.json").is_file()


def read(path: Path) -> dict[str, Dataset]:
    """Read the images that `labels.json` lists, as the single key `all`, sorted by name.

    Without `class_names.json`, class names are the indexes.

    Raises:
        DataError: a listed image does not exist, an index is invalid, or a file has two different ones.
    """
    if not detect(path):
        raise DataError(f"{path} has no labels.json; the format 'labels' needs {LAYOUT}.")
    file = path / "labels.json"
    labels = load_json(file, pairs=_once(file))
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{file} must hold a JSON object that maps each file name to its class index.")
    for name, index in labels.items():
        if type(index) is not int or index < 0:
            raise DataError(f"{file}: {name!r} has {index!r}; a class index must be an integer, 0 or larger.")
        if index >= _MOST_CLASSES:
            raise DataError(
                f"{file}: {name!r} has {str(index)[:20]}; a class index must be smaller than {_MOST_CLASSES:,}."
            )
    samples = [Sample(image, labels[name], name) for name in sorted(labels) if (image := _find(path, name))]
    return {"all": listed(samples, _classes(path, max(labels.values())), "class", path.name, path)}


def _once(file: Path) -> Any:
    """Return a hook for `json.loads` that refuses a key with two values, of which Python would keep the last."""

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if values.setdefault(name, value) != value:
                both = f"{json.dumps(values[name])} and {json.dumps(value)}"
                error = f"{file} lists {name!r} twice, with {both}. Keep the right one."
                refuse(error, Fault("contradicting", name, None, "", both))
        return values

    return hook


def _find(path: Path, name: str) -> Path | None:
    for file in (path / name, path / "images" / name):
        if os.path.isfile(file):  # `Path.is_file` raises for names that are too long
            return file
    refuse(
        f"{path / 'labels.json'} lists {name!r}, which is neither in {path} nor in its images/ folder "
        f"({path.name} holds {describe(path)}).",
        Fault("missing", name, None, "", "labels.json"),
    )
    return None


def _classes(path: Path, highest: int) -> tuple[str, ...]:
    file = path / "class_names.json"
    if not file.is_file():
        return tuple(str(index) for index in range(highest + 1))
    names = load_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} must hold a JSON list of class names.")
    if highest >= len(names):
        raise DataError(f"{file} has {len(names)} names, but labels.json goes up to class {highest}.")
    return tuple(names)
