"""Read YOLO's `data.yaml`: the images of each split, the class names, and the shape of key points.

The fields are those of Ultralytics (https://docs.ultralytics.com/datasets/detect/). Each field is used or refused,
except those in `_IDLE`, which do not affect reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from zoo.data.files import files
from zoo.data.split_paths import SPLIT_FIELDS, Places
from zoo.data.yaml_file import load_yaml
from zoo.errors import DataError
from zoo.text import shown

SUFFIXES = (".yaml", ".yml")
_READ = (*SPLIT_FIELDS, "path", "names", "nc", "kpt_shape", "task", "channels")
_IDLE = frozenset(
    {
        *("download", "roboflow", "flip_idx", "kpt_names", "skeleton", "description", "info", "license", "licence"),
        *("author", "authors", "contributor", "url", "version", "date", "date_created", "year", "docs", "citation"),
    }
)
"""Fields that do not affect what is read."""
_TASKS = ("detect", "segment", "pose", "obb")
MOST_CLASSES = 10_000
"""Class numbers must be smaller than this."""


@dataclass(frozen=True)
class DataYaml:
    """Content of a `data.yaml`.

    Attributes:
        file: the file itself.
        names: class names by number, None for numbers without a name; empty if none are given.
        splits: split -> its images; empty if none are given.
        folders: folders of which all images are used.
        key_points: number of key points and of values per key point, or None.
        polygons: whether the task says that lines with more than a box are polygons.
        notes: remarks for the user on fields that are ignored and paths that were found elsewhere.
    """

    file: Path
    names: tuple[str | None, ...] = ()
    splits: dict[str, list[Path]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    key_points: tuple[int, int] | None = None
    polygons: bool = False
    notes: tuple[str, ...] = ()


def find_yaml(path: Path) -> Path | None:
    """Return the YAML file that describes the dataset, given itself or in a folder; None if there is none.

    Raises:
        DataError: a folder has several such files, or only one that cannot be read.
    """
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES and _describes(path) else None
    found, broken = [], None
    for file in (file for file in files(path) if file.suffix.lower() in SUFFIXES):
        try:
            found += [file] if _describes(file) else []
        except DataError as error:  # of no interest if another file describes the data
            broken = broken or error
    if broken and not found:
        raise broken
    named = [file for file in found if file.stem.lower() in ("data", "dataset")]
    if len(found) > 1 and len(named) != 1:
        raise DataError(
            f"{path} holds {found[0].name} and {found[1].name}, which both describe the data. Give the path of the "
            "right file, or keep only one."
        )
    return next(iter(named if len(found) > 1 else found), None)


def describes_boxes(path: Path) -> bool:
    """Return whether a folder has a `data.yaml` that lists images, at least one of them with a .txt file.

    One that names splits, but has a fault, counts as well: reading the dataset will report it.
    """
    with suppress(DataError):
        file = find_yaml(path)
        if file is None or not SPLIT_FIELDS.keys() & load_yaml(file).keys():
            return False
        try:
            splits = read_yaml(file).splits
        except DataError:
            return True
        return any(label_file(image) for images in splits.values() for image in images)
    return False


def _describes(file: Path) -> bool:
    content = load_yaml(file)
    return isinstance(content, dict) and ("names" in content or ("nc" in content and "train" in content))


def read_yaml(file: Path) -> DataYaml:
    """Read a `data.yaml`.

    Class names are a list, or a mapping from number to name, which may leave numbers out. Paths are relative to `path`
    or to the folder of the file. If they come from another machine, their last components are looked up there. A split
    is a folder, an image, a .txt file with one image per line, or a list of these.

    Raises:
        DataError: an unknown field looks like a misspelt known one, fields contradict each other, or a path does not
            exist.
    """
    content = load_yaml(file)
    notes: list[str] = []
    unknown = [str(key) for key in content if key not in _READ and key not in _IDLE]
    for key in unknown:
        if near := get_close_matches(key.lower(), _READ, 1, 0.75):
            raise DataError(f"{file}: the field {key} is unknown; did you mean {near[0]}? Correct it or remove it.")
    if unknown:
        notes.append(f"{file.name}: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not used.")
    task = content.get("task")
    if task is not None and task not in _TASKS:
        raise DataError(f"{file}: task is {shown(task)}; accepted: {', '.join(_TASKS)}.")
    if content.get("channels") not in (None, 1, 3):
        raise DataError(f"{file}: channels is {shown(content['channels'])}; accepted: 1, 3.")
    places = Places(file, content.get("path"), notes)
    splits, folders = places.splits({key: content[key] for key in SPLIT_FIELDS if content.get(key)})
    key_points = _key_points(content.get("kpt_shape"), file)
    if key_points:
        notes.append(f"{file.name}: the {key_points[0]} key points of each object are ignored; only boxes are read.")
    elif task == "pose":
        raise DataError(
            f"{file}: task is pose, but kpt_shape (number of key points, and 2 or 3 values each) is missing. Add it."
        )
    return DataYaml(
        file,
        _names(content.get("names"), content.get("nc"), file, notes),
        splits,
        folders,
        key_points,
        task == "segment" or task == "obb",
        tuple(notes),
    )


def _names(names: Any, count: Any, file: Path, notes: list[str]) -> tuple[str | None, ...]:
    """Return the class names by number. If only the number of classes is given, names are the numbers."""
    if count is not None and (type(count) is not int or not 0 < count < MOST_CLASSES):
        raise DataError(f"{file}: nc is {shown(count)}; it must be the number of classes.")
    if names is None:
        return tuple(map(str, range(count or 0)))
    by_number = names
    if isinstance(names, list):
        by_number = dict(enumerate(names))
    if isinstance(by_number, dict):
        by_number = {int(k) if isinstance(k, str) and k.isdecimal() else k: name for k, name in by_number.items()}
    fine = isinstance(by_number, dict) and by_number
    if not fine or any(type(k) is not int or not 0 <= k < MOST_CLASSES for k in by_number):
        raise DataError(
            f"{file}: names is {shown(names)}; it must be a list of the classes, or map numbers from 0 to names, as in "
            "'names: {0: cat, 1: dog}'."
        )
    if any(name is None or isinstance(name, list | dict) or not str(name).strip() for name in by_number.values()):
        raise DataError(f"{file}: names is {shown(names)}; each class must have a name that is text.")
    # YAML reads a class called 1 or no as a number or a boolean, hence str().
    found = tuple(None if k not in by_number else str(by_number[k]).strip() for k in range(max(by_number) + 1))
    called = [name for name in found if name is not None]
    if twice := next((name for name, times in Counter(called).items() if times > 1), None):
        raise DataError(f"{file}: two classes are called {twice!r}; each class needs a unique name.")
    if count is not None and count not in (len(called), len(found)):
        raise DataError(
            f"{file}: nc is {count}, but names has {len(called)} classes, from {min(by_number)} to {max(by_number)}. "
            "Correct the wrong one."
        )
    if gaps := [str(number) for number, name in enumerate(found) if name is None]:
        some = ", ".join(gaps[:5]) + ", ..." * (len(gaps) > 5)
        notes.append(
            f"{file.name}: names leaves out {some}; these classes are called 'unused', and numbers stay unchanged."
        )
    return found


def _key_points(shape: Any, file: Path) -> tuple[int, int] | None:
    if shape is None:
        return None
    fine = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not fine or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(
            f"{file}: kpt_shape is {shown(shape)}; it must be the number of key points per object, and 2 (x, y) or "
            "3 (x, y, visible), e.g. [17, 3]."
        )
    return shape[0], shape[1]


def label_file(image: Path) -> Path | None:
    """Return the .txt file of an image: in `labels` instead of `images`, or beside the image; None without one."""
    parts = image.with_suffix(".txt").parts
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    swapped = [Path(*parts[: places[-1]], name, *parts[places[-1] + 1 :]) for name in ("labels", "Labels") if places]
    return next((file for file in (*swapped, image.with_suffix(".txt")) if file.is_file()), None)


def strays(folders: Sequence[Path], images: Sequence[Path], is_label: Callable[[Path], bool]) -> list[Path]:
    """Return the .txt files in the label folders that belong to no image.

    Args:
        folders: image folders; `labels` instead of `images` in the path gives the label folder.
        images: the images that were found.
        is_label: whether a .txt file holds boxes, and is no README or list of classes.
    """
    stray_files: list[Path] = []
    taken = {label_file(image) for image in images}
    for folder in folders:
        places = [i for i, part in enumerate(folder.parts) if part.lower() == "images"]
        if places:
            parts = folder.parts
            other = Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :])
            texts = sorted(other.rglob("*.txt"))
            stray_files += [file for file in texts if file not in taken and is_label(file)]
    return stray_files
