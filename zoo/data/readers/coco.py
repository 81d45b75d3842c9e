"""COCO: a JSON file with images, annotations and categories. Lin et al., 2014; https://cocodataset.org/#format-data"""

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
"""Number of folders in which to search for an image's annotation file: the image's folder and three above."""


def detect(path: Path) -> bool:
    """Whether `path` is a COCO annotation file, or a folder with one."""
    return any(_is_coco(file) for file in _candidates(path))


def read(path: Path) -> dict[str, Dataset]:
    """Read a COCO dataset: split name -> dataset, or one key `all`.

    Splits are named by the annotation files or their folders. Files called `instances_...` are preferred to others.
    Classes are the categories, sorted by id. `iscrowd` marks crowds. Images without annotations have no boxes.
    Segmentations become the outlines of the boxes. Width and height are taken from the file; the check of the
    annotations compares them with the images. The ids of images and categories are kept in the dataset.

    Raises:
        DataError: an entry is broken or an image is missing; names the file and the entry.
    """
    files_by_split = _by_split(path)
    if not files_by_split:
        raise DataError(f"{path} is not {LAYOUT}.")
    root = path if path.is_dir() else path.parent.parent if path.parent.name.lower() in _FOLDERS else path.parent
    loaded = {split: (file, _load(file)) for split, file in files_by_split.items()}
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
    """Return the .json files in the folders where COCO datasets have their annotations."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    named = [folder for folder in subfolders(path) if folder.name.lower() in _FOLDERS]
    places = [path, *named, *split_folders(path).values()]
    return [file for place in places for file in files(place) if file.suffix.lower() == ".json"]


def _is_coco(file: Path) -> bool:
    """Whether a file contains all keys of COCO. It is searched as text, since parsing a large file takes a minute."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(text.find(f'"{key}"'.encode()) >= 0 for key in _KEYS)
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def _by_split(path: Path) -> dict[str, Path]:
    """Return split name (or `all`) -> annotation file."""
    by_split: dict[str, Path] = {}
    for file in _annotated(path):
        split = _split_of(file)
        if split in by_split:
            raise DataError(
                f"{path} holds {by_split[split].name} and {file.name}, both for {split}. Give the path of one of them."
            )
        by_split[split] = file
    if len(by_split) > 1 and "all" in by_split:
        raise DataError(f"{path} holds {by_split['all'].name} beside files of splits. Give the path of the right file.")
    return {split: by_split[split] for split in ("train", "val", "test", "all") if split in by_split}


def _split_of(file: Path) -> str:
    """Return the split that an annotation file or its folder is named after, or `all`."""
    words = re.split(r"[^a-z0-9]+", file.stem.lower())
    return next(filter(None, map(split_name, words)), None) or split_name(file.parent.name) or "all"


def _load(file: Path) -> dict[str, Any]:
    content = load_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise DataError(f"{file} must hold a JSON object with the lists {', '.join(_KEYS)}.")
    for key in _KEYS:
        for number, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise DataError(f"{file}: {key}[{number}] is {entry!r}; it must be a JSON object.")
    return content


def _field(entry: Mapping[str, Any], key: str, types: tuple[type, ...], place: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, types) or isinstance(value, bool):
        raise DataError(f"{place}: {key} is {value!r}; it must be {' or '.join(kind.__name__ for kind in types)}.")
    return value


def _categories(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Return category id -> name, sorted by id."""
    names: dict[int, str] = {}
    for number, entry in enumerate(content["categories"]):
        place = f"{file}: categories[{number}]"
        id, name = _field(entry, "id", (int,), place), _field(entry, "name", (str,), place)
        if id in names or name in names.values():
            raise DataError(f"{place}: the id {id} or the name {name!r} occurs twice.")
        names[id] = name
    if not names:
        raise DataError(f"{file} has no categories.")
    return dict(sorted(names.items()))


def _places(root: Path, file: Path, split: str) -> list[Path]:
    """Return the folders that file names may be relative to, the most likely first; none of another split."""
    outer = [file.parent, root, *subfolders(root)]
    inner = [folder for place in subfolders(root) for folder in subfolders(place)]
    fitting = [folder for folder in dict.fromkeys(outer + inner) if split_name(folder.name) in (split, None)]
    return sorted(fitting, key=lambda folder: split_name(folder.name) != split)


def _samples(
    content: Mapping[str, Any], file: Path, index: Mapping[int, int], places: list[Path], root: Path
) -> tuple[list[Sample], list[str]]:
    """Return the listed images as samples, and for each a description of its entry for errors."""
    # Image id -> its boxes, labels, crowd marks and outlines.
    rows: dict[int | str, tuple[list[Box], list[int], list[bool], list[Shape | None]]] = {}
    images: dict[int | str, tuple[Path, tuple[int, int]]] = {}
    used: set[int] = set()
    for number, entry in enumerate(content["images"]):
        place = f"{file}: images[{number}]"
        id = _field(entry, "id", (int, str), place)
        if id in rows:
            raise DataError(f"{place}: the id {id} occurs twice.")
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
    if mismatch := counted_otherwise(sorted(used), list(index)):
        raise DataError(
            f"{file}: the category_id values of the annotations seem to be {mismatch}. Correct the annotations or the "
            "categories."
        )
    samples = []
    for id, (image, size) in images.items():
        boxes, labels, crowd, shapes = rows[id]
        outlines = Outlines(tuple(shapes)) if any(shapes) else None
        target = Boxes(tuple(boxes), tuple(labels), tuple(crowd), size, outlines)
        samples.append(Sample(image, target, below(image, root), id))
    return samples, [f"{file}: the image with the id {id}" for id in images]


def _find(name: str, places: list[Path], place: str) -> Path:
    """Return the first file called `name` in the folders `places`; `place` is the entry, for the error."""
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
    raise DataError(f"{place}: the image {name!r} does not exist (looked in {shown}).")


def _corners(entry: Mapping[str, Any], place: str) -> Box:
    """Return an annotation's box as x1, y1, x2, y2."""
    box = _field(entry, "bbox", (list,), place)
    if len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise DataError(f"{place}: bbox is {box!r}; it must be four numbers: x, y, width and height.")
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def numbers_of(images: Sequence[Path]) -> tuple[dict[Path, int | str], dict[str, int]]:
    """Look up the ids of images and categories in COCO annotation files near the images.

    The files are searched for in each image's folder and up to three folders above, the nearest first. An image or
    category to which several files give different ids is left out. Files that cannot be read are ignored.

    Returns:
        (image file -> id, category name -> id); both empty if no annotation file lists an image.
    """
    given = {image.absolute(): image for image in images if image.is_file()}
    roots = dict.fromkeys(folder for image in given for folder in [*image.parents][:_LEVELS])
    image_ids, category_ids, left = [], [], set(given)
    # Deepest folders first: an image takes its id from the annotation file that is nearest to it.
    for root in sorted(roots, key=lambda root: -len(root.parts)):
        try:
            tables = [_numbers(root, file, left) for file in _annotated(root)]
        except (DataError, OSError):  # a broken file here does not belong to these images
            continue
        image_ids += [by_image for by_image, _ in tables if by_image]
        category_ids += [by_name for by_image, by_name in tables if by_image]
        left -= {image for by_image, _ in tables for image in by_image}
    return {given[image]: id for image, id in _agreed(image_ids).items()}, _agreed(category_ids)


def _annotated(folder: Path) -> list[Path]:
    """Return the annotation files of a folder; only `instances_...` if there are any."""
    fitting = [file for file in _candidates(folder) if _is_coco(file)]
    return [file for file in fitting if file.name.startswith("instances")] or fitting


def _numbers(root: Path, file: Path, images: Collection[Path]) -> tuple[dict[Path, int | str], dict[str, int]]:
    """Return (image -> id, category name -> id) of one annotation file, for those of `images` that it lists."""
    split = _split_of(file)
    inner = {image for image in images if root in image.parents}
    # An image in a folder of another split (val/a.jpg) cannot belong to this file (instances_train.json).
    here = {i for i in inner if {*map(split_name, i.relative_to(root).parts[:-1])} <= {split, None} or split == "all"}
    if not here:
        return {}, {}
    content, places = _load(file), _places(root, file, split)
    ids: dict[Path, int | str] = {}
    for number, entry in enumerate(content["images"]):
        place = f"{file}: images[{number}]"
        name = _field(entry, "file_name", (str,), place)
        image = next((folder / name for folder in places if folder / name in here), None)
        # The entry is this image only if the reader would resolve the file name to it as well.
        if image and _find(name, places, place) == image:
            ids[image] = _field(entry, "id", (int, str), place)
    return ids, {name: id for id, name in _categories(content, file).items()}


def _agreed(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Merge several tables, leaving out keys with different values."""
    joined: dict[Any, set[Any]] = {}
    for table in tables:
        for key, value in table.items():
            joined.setdefault(key, set()).add(value)
    return {key: next(iter(values)) for key, values in joined.items() if len(values) == 1}
