"""COCO: one JSON file with images, annotations and categories. Lin et al., 2014; https://cocodataset.org/#format-data"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, load_json, split_name, subfolders
from zoo.data.pairs import below, split_folders, title
from zoo.data.unique import listed
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.outlines import Outlines, Shape, shape_of
from zoo.targets.reasons import counted_otherwise

NAME = "coco"
KINDS = ("boxes",)
LAYOUT = (
    "COCO: a .json file with images, annotations and categories, beside the images, in annotations/ beside folders of "
    "images (train2017/, images/), or in each of train/, val/ and test/"
)
_KEYS = ("images", "annotations", "categories")
_FOLDERS = ("annotations", "labels")
_LEVELS = 4
"""Folders above an image in which its annotation file is looked for."""


def detect(path: Path) -> bool:
    """A file, or a folder with files, that name the three parts and boxes."""
    return any(_is_coco(file) for file in _candidates(path))


def read(path: Path) -> dict[str, Dataset]:
    """The splits that the files' names or their folders tell, or `all`. Annotations called `instances_...` go first.

    Classes are the categories by rising id. `iscrowd` marks crowds. Images without annotations have no boxes.
    Segmentations are the boxes' outlines. The file's width and height are believed until the boxes are checked. What
    it calls images and categories (their `id`) is kept.

    Raises:
        DataError: names the file and entry that is broken, or the image that is missing.
    """
    found = _by_split(path)
    if not found:
        raise DataError(f"{path} is not {LAYOUT}.")
    root = path if path.is_dir() else path.parent.parent if path.parent.name.lower() in _FOLDERS else path.parent
    loaded = {split: (file, _load(file)) for split, file in found.items()}
    first_file, first = next(iter(loaded.values()))
    classes = tuple(_categories(first, first_file).values())
    datasets = {}
    for split, (file, content) in loaded.items():
        categories = _categories(content, file)
        if set(categories.values()) != set(classes):
            other = sorted(set(categories.values()) ^ set(classes))
            raise DataError(f"{file} and {first_file} differ in their categories: {', '.join(other)}.")
        index = {id: classes.index(name) for id, name in categories.items()}
        places = _places(root, file, split)
        samples, entries = _samples(content, file, index, places, root)
        numbers: list[int] = sorted(index, key=index.__getitem__)
        datasets[split] = replace(
            listed(samples, classes, "boxes", title(root, split), root, places=entries), category_ids=tuple(numbers)
        )
    return datasets


def _candidates(path: Path) -> list[Path]:
    """The .json files where a COCO data set keeps its annotations."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    named = [folder for folder in subfolders(path) if folder.name.lower() in _FOLDERS]
    places = [path, *named, *split_folders(path).values()]
    return [file for place in places for file in files(place) if file.suffix.lower() == ".json"]


def _is_coco(file: Path) -> bool:
    """Whether the file names all parts; found by their names, since a large one takes a minute to parse."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(text.find(f'"{key}"'.encode()) >= 0 for key in _KEYS)
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def _by_split(path: Path) -> dict[str, Path]:
    """Split, or `all`, -> annotation file."""
    found: dict[str, Path] = {}
    for file in _annotated(path):
        split = _split_of(file)
        if split in found:
            raise DataError(
                f"{path} holds {found[split].name} and {file.name}, both for {split}. Give one as the data."
            )
        found[split] = file
    if len(found) > 1 and "all" in found:
        raise DataError(f"{path} holds {found['all'].name} beside files of splits. Give the one that is meant.")
    return {split: found[split] for split in ("train", "val", "test", "all") if split in found}


def _split_of(file: Path) -> str:
    """The split that an annotation file or its folder is named for, or `all`."""
    words = re.split(r"[^a-z0-9]+", file.stem.lower())
    return next(filter(None, map(split_name, words)), None) or split_name(file.parent.name) or "all"


def _load(file: Path) -> dict[str, Any]:
    content = load_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise DataError(f"{file} must be an object with the lists {', '.join(_KEYS)}.")
    for key in _KEYS:
        for number, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise DataError(f"{file}: {key}[{number}] is {entry!r}; an object is needed.")
    return content


def _field(entry: Mapping[str, Any], key: str, types: tuple[type, ...], place: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, types) or isinstance(value, bool):
        raise DataError(f"{place}: {key} is {value!r}; needed is {' or '.join(kind.__name__ for kind in types)}.")
    return value


def _categories(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Category id -> name, by rising id."""
    found: dict[int, str] = {}
    for number, entry in enumerate(content["categories"]):
        place = f"{file}: categories[{number}]"
        id, name = _field(entry, "id", (int,), place), _field(entry, "name", (str,), place)
        if id in found or name in found.values():
            raise DataError(f"{place}: the id {id} or the name {name!r} is there twice.")
        found[id] = name
    if not found:
        raise DataError(f"{file} has no categories.")
    return dict(sorted(found.items()))


def _places(root: Path, file: Path, split: str) -> list[Path]:
    """Folders that file names may be relative to, the likeliest first; never one of another split."""
    outer = [file.parent, root, *subfolders(root)]
    inner = [folder for place in subfolders(root) for folder in subfolders(place)]
    fitting = [folder for folder in dict.fromkeys(outer + inner) if split_name(folder.name) in (split, None)]
    return sorted(fitting, key=lambda folder: split_name(folder.name) != split)


def _samples(
    content: Mapping[str, Any], file: Path, index: Mapping[int, int], places: list[Path], root: Path
) -> tuple[list[Sample], list[str]]:
    """The images as they are listed, and where each is."""
    rows: dict[int | str, tuple[list[Box], list[int], list[bool], list[Shape | None]]] = {}
    images: dict[int | str, tuple[Path, tuple[int, int]]] = {}
    used: set[int] = set()
    for number, entry in enumerate(content["images"]):
        place = f"{file}: images[{number}]"
        id = _field(entry, "id", (int, str), place)
        if id in rows:
            raise DataError(f"{place}: the id {id} is there twice.")
        image = _find(_field(entry, "file_name", (str,), place), places, place)
        sides = entry.get("height"), entry.get("width")
        stated = all(isinstance(side, int) and side > 0 for side in sides)
        images[id], rows[id] = (image, (sides[0], sides[1]) if stated else image_size(image)[0]), ([], [], [], [])
    for number, entry in enumerate(content["annotations"]):
        place = f"{file}: annotations[{number}]"
        id = _field(entry, "image_id", (int, str), place)
        if id not in rows:
            raise DataError(f"{place}: there is no image with the id {id!r}.")
        boxes, labels, crowd, shapes = rows[id]
        boxes.append(_corners(entry, place))
        used.add(category := _field(entry, "category_id", (int,), place))
        labels.append(index.get(category, UNKNOWN))
        crowd.append(bool(entry.get("iscrowd", 0)))
        shapes.append(shape_of(entry.get("segmentation"), images[id][1]))
    if said := counted_otherwise(sorted(used), list(index)):
        raise DataError(f"{file}: the category_id of the annotations seem to be {said}. Correct the one or the other.")
    found = []
    for id, (image, size) in images.items():
        boxes, labels, crowd, shapes = rows[id]
        outlines = Outlines(tuple(shapes)) if any(shapes) else None
        target = Boxes(tuple(boxes), tuple(labels), tuple(crowd), size, outlines)
        found.append(Sample(image, target, below(image, root), id))
    return found, [f"{file}: the image with the id {id}" for id in images]


def _find(name: str, places: list[Path], place: str) -> Path:
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
    raise DataError(f"{place}: the image {name!r} is not there (looked in {shown}).")


def _corners(entry: Mapping[str, Any], place: str) -> Box:
    box = _field(entry, "bbox", (list,), place)
    if len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise DataError(f"{place}: bbox is {box!r}; needed are four numbers, x, y, width and height.")
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def numbers_of(images: Sequence[Path]) -> tuple[dict[Path, int | str], dict[str, int]]:
    """What data in COCO's format call image files that belong to them: (file -> id, name of a category -> its id).

    Annotation files are looked for in the images' folders and up to three above, the nearest first. What several files
    call otherwise is left out, and so is everything where none lists an image or can be read.
    """
    given = {image.absolute(): image for image in images if image.is_file()}
    roots = dict.fromkeys(folder for image in given for folder in [*image.parents][:_LEVELS])
    files_, names, left = [], [], set(given)
    for root in sorted(roots, key=lambda root: -len(root.parts)):
        try:
            found = [_numbers(root, file, left) for file in _annotated(root)]
        except (DataError, OSError):  # whatever lies there is not for these images
            continue
        files_ += [listed for listed, _ in found if listed]
        names += [named for listed, named in found if listed]
        left -= {image for listed, _ in found for image in listed}
    return {given[image]: id for image, id in _agreed(files_).items()}, _agreed(names)


def _annotated(folder: Path) -> list[Path]:
    """The annotation files of a folder, `instances_...` before others."""
    fitting = [file for file in _candidates(folder) if _is_coco(file)]
    return [file for file in fitting if file.name.startswith("instances")] or fitting


def _numbers(root: Path, file: Path, wanted: Collection[Path]) -> tuple[dict[Path, int | str], dict[str, int]]:
    split = _split_of(file)
    inner = {image for image in wanted if root in image.parents}
    here = {i for i in inner if {*map(split_name, i.relative_to(root).parts[:-1])} <= {split, None} or split == "all"}
    if not here:
        return {}, {}
    content, places = _load(file), _places(root, file, split)
    found: dict[Path, int | str] = {}
    for number, entry in enumerate(content["images"]):
        place = f"{file}: images[{number}]"
        name = _field(entry, "file_name", (str,), place)
        hit = next((folder / name for folder in places if folder / name in here), None)
        if hit and _find(name, places, place) == hit:
            found[hit] = _field(entry, "id", (int, str), place)
    return found, {name: id for id, name in _categories(content, file).items()}


def _agreed(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The entries of several tables, without keys that have different values."""
    joined: dict[Any, set[Any]] = {}
    for table in tables:
        for key, value in table.items():
            joined.setdefault(key, set()).add(value)
    return {key: next(iter(values)) for key, values in joined.items() if len(values) == 1}
