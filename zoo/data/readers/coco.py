"""COCO: a JSON file with images, annotations and categories. Lin et al., 2014; https://cocodataset.org/#format-data"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.coco_file import (
    KEYS,
    Id,
    categories,
    category_ids,
    corners,
    flag,
    id_of,
    load,
    segmentation,
    size_of,
    text_of,
    written_id,
)
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, holds_key, split_name, subfolders
from zoo.data.listed_images import find_listed, loose, places_of
from zoo.data.pairs import below, split_folders, title
from zoo.data.unique import listed
from zoo.errors import DataError, counted
from zoo.image_header import size_if_readable
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.faults import Fault
from zoo.targets.outlines import Outlines, Shape, box_of, shape_of
from zoo.targets.reasons import counted_otherwise

NAME = "coco"
KINDS = ("boxes",)
NEEDS = "a .json file with images, annotations and categories"
LAYOUT = (
    "COCO: a .json file with images, annotations and categories, beside the images, in annotations/ beside folders of "
    "images (train2017/, images/), or in each of train/, val/ and test/"
)
_FOLDERS = ("annotations", "labels")
_LEVELS = 4
"""Number of folders in which to search for an image's annotation file: the image's folder and three above."""


def detect(path: Path) -> bool:
    """Whether `path` is a COCO annotation file, or a folder with one. `read` says what is wrong with a damaged one."""
    return bool(_annotated(path))


def read(path: Path) -> dict[str, Dataset]:
    """Read a COCO dataset: split name -> dataset, or one key `all`.

    Splits are named by the annotation files or their folders. Files called `instances_...` are preferred to others.
    Classes are the categories, sorted by id; other splits than the first may lack some. `iscrowd` marks crowds. Images
    without annotations have no boxes. Segmentations become the outlines of the boxes, and the box of an annotation that
    has none. Width and height are taken from the file; the check of the annotations compares them with the images. The
    ids of images and categories are kept in the dataset. Images that do not exist and annotations of images that are
    not listed are left out; the check reports them (`Dataset.faults`).

    Raises:
        DataError: an entry is broken, or no image or no annotation has its partner; names the file and the entry.
    """
    files_by_split = _by_split(path)
    if not files_by_split:
        for file in _candidates(path):
            lacks = ", ".join(key for key in KEYS if not holds_key(file, key))
            raise DataError(f"{file} lacks {lacks}; a COCO file has the lists {', '.join(KEYS)}.")
        raise DataError(f"{path} is not {LAYOUT}.")
    root = path if path.is_dir() else path.parent.parent if path.parent.name.lower() in _FOLDERS else path.parent
    contents = {file: load(file) for file in files_by_split.values()}
    names, group = categories(contents)
    first_file = next(iter(contents))
    classes = tuple(names[first_file].values())
    datasets = {}
    for split, file in files_by_split.items():
        if not set(names[file].values()) <= set(classes):
            other = sorted(set(names[file].values()) ^ set(classes))
            raise DataError(f"{file} and {first_file} differ in their categories: {', '.join(other)}.")
        index = {id: classes.index(name) for id, name in names[file].items()}
        rows = _rows(contents[file], file, index, places_of(root, file, split), root, split)
        name = title(root, split)
        notes = tuple(f"{name}: {note}." for note in (group, *rows.notes) if note)
        dataset = listed(rows.samples(root), classes, "boxes", name, root, places=rows.entries(file), notes=notes)
        ids = category_ids(contents[file], names[file])
        datasets[split] = replace(dataset, category_ids=tuple(map(ids.get, classes)), faults=tuple(rows.faults))
    return datasets


def _candidates(path: Path) -> list[Path]:
    """Return the .json files in the folders where COCO datasets have their annotations."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    named = [folder for folder in subfolders(path) if folder.name.lower() in _FOLDERS]
    places = [path, *named, *split_folders(path).values()]
    return [file for place in places for file in files(place) if file.suffix.lower() == ".json"]


def _likeness(file: Path) -> float:
    """Return 1 for a file with all keys of COCO or a usual name, 0.5 for one that lacks one key, else 0."""
    if file.name.lower().startswith("instances_") or file.name.lower().endswith(".coco.json"):
        return 1
    count = sum(holds_key(file, key) for key in KEYS)
    return 1 if count == len(KEYS) else 0.5 * (count == len(KEYS) - 1)


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


@dataclass
class _Image:
    """A listed image and its annotations.

    Attributes:
        file: the image file.
        number: its id, as written.
        size: height and width.
    """

    file: Path
    number: Id
    size: tuple[int, int]
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    shapes: list[Shape | None] = field(default_factory=list)


@dataclass
class _Rows:
    """The content of an annotation file: id -> image, entries that are left out, and notes."""

    images: dict[Id, _Image]
    faults: list[Fault]
    notes: list[str]

    def samples(self, root: Path) -> list[Sample]:
        samples = []
        for one in self.images.values():
            outlines = Outlines(tuple(one.shapes)) if any(one.shapes) else None
            target = Boxes(tuple(one.boxes), tuple(one.labels), tuple(one.crowd), one.size, outlines)
            samples.append(Sample(one.file, target, below(one.file, root), one.number))
        return samples

    def entries(self, file: Path) -> list[str]:
        """Return a description of each image's entry, for errors."""
        return [f"{file}: the image with the id {one.number}" for one in self.images.values()]


def _rows(
    content: Mapping[str, Any], file: Path, index: Mapping[Id, int], places: list[Path], root: Path, split: str
) -> _Rows:
    """Read the images and annotations of a file; `index` maps category ids to classes."""
    images, missing, note = _listed_images(content["images"], file, places, root, split)
    lost: Counter[Id] = Counter()
    stray: list[Fault] = []
    used: set[Id] = set()
    outlined = 0
    for number, entry in enumerate(content["annotations"]):
        place = f"{file}: annotations[{number}]"
        id = id_of(entry, "image_id", place)
        used.add(category := id_of(entry, "category_id", place))
        if id in missing:
            lost[id] += 1
            continue
        if id not in images:
            stray.append(Fault("stray", f"annotations[{number}] of {file.name}", None, "", f"image_id {id!r}"))
            continue
        image = images[id]
        shape = shape_of(segmentation(entry), image.size)
        box = corners(entry, place)
        if shape and (box is None or box[0] == box[2] or box[1] == box[3]):
            box = box_of(shape, image.size)
            outlined += 1
        if box is None:
            raise DataError(
                f"{place}: bbox is {entry.get('bbox')!r}, and there is no outline to take it from; it must be four "
                "numbers: x, y, width and height."
            )
        image.boxes.append(box)
        image.labels.append(index.get(category, UNKNOWN))
        image.crowd.append(flag(entry.get("iscrowd", 0)))
        image.shapes.append(shape)
    if stray and len(stray) == len(content["annotations"]):
        raise DataError(
            f"{file}: annotations[0]: there is no image with the id {content['annotations'][0]['image_id']!r}, nor is "
            "there one for any other annotation. The images and annotations belong to different files."
        )
    numbers = [[id for id in ids if isinstance(id, int)] for ids in (sorted(used, key=str), index)]
    if mismatch := counted_otherwise(sorted(numbers[0]), numbers[1]):
        raise DataError(
            f"{file}: the category_id values of the annotations seem to be {mismatch}. Correct the annotations or the "
            "categories."
        )
    gone = [replace(one, detail=f"{one.detail}, {counted(lost[id], 'annotation')}") for id, one in missing.items()]
    notes = [note]
    if outlined:
        notes.append(f"{counted(outlined, 'annotation has', 'annotations have')} no box, but that of the outline")
    return _Rows(images, [*gone, *stray], [f"{file.name}: {note}" for note in notes if note])


def _listed_images(
    entries: Sequence[Mapping[str, Any]], file: Path, places: list[Path], root: Path, split: str
) -> tuple[dict[Id, _Image], dict[Id, Fault], str]:
    """Return (id -> image, id -> fault of an image that does not exist, a note)."""

    def place(number: int) -> str:
        return f"{file}: images[{number}]"

    ids = [id_of(entry, "id", place(number)) for number, entry in enumerate(entries)]
    names = [text_of(entry, "file_name", place(number)) for number, entry in enumerate(entries)]
    seen: set[Id] = set()
    for number, id in enumerate(ids):
        if id in seen:
            raise DataError(f"{place(number)}: the id {id} occurs twice.")
        seen.add(id)
    found, note = find_listed(names, places, root, split, place)
    if names and not any(found):
        shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
        raise DataError(f"{place(0)}: the image {names[0]!r} does not exist (looked in {shown}).")
    images: dict[Id, _Image] = {}
    missing: dict[Id, Fault] = {}
    for number, (id, name, image) in enumerate(zip(ids, names, found, strict=True)):
        if image is None:
            missing[id] = Fault("missing", name, None, "", f"images[{number}] of {file.name}")
        else:
            size = size_of(entries[number], place(number)) or size_if_readable(image)
            images[id] = _Image(image, written_id(entries[number], "id", place(number)), size)
    return images, missing, note


def numbers_of(images: Sequence[Path]) -> tuple[dict[Path, Id], dict[str, Id]]:
    """Look up the ids of images and categories in COCO annotation files near the images.

    The files are searched for in each image's folder and up to three folders above, the nearest first. An image or
    category to which several files give different ids is left out. Files that cannot be read are ignored.

    Returns:
        (image file -> id, category name -> id); both empty if no annotation file lists an image.
    """
    given = {image.absolute(): image for image in images if image.is_file()}
    roots = dict.fromkeys(folder for image in given for folder in [*image.parents][:_LEVELS])
    by_image, by_name, left = [], [], set(given)
    # Deepest folders first: an image takes its id from the annotation file that is nearest to it.
    for root in sorted(roots, key=lambda root: -len(root.parts)):
        try:
            tables = [_numbers(root, file, left) for file in _annotated(root)]
        except (DataError, OSError):  # a broken file here does not belong to these images
            continue
        by_image += [images for images, _ in tables if images]
        by_name += [names for images, names in tables if images]
        left -= {image for images, _ in tables for image in images}
    return {given[image]: id for image, id in _agreed(by_image).items()}, _agreed(by_name)


def _annotated(folder: Path) -> list[Path]:
    """Return the annotation files of a folder: only `instances_...` if there are any, whole ones before others."""
    likeness = {file: _likeness(file) for file in _candidates(folder)}
    fitting = [file for file, value in likeness.items() if value and value == max(likeness.values())]
    return [file for file in fitting if file.name.startswith("instances")] or fitting


def _numbers(root: Path, file: Path, images: Collection[Path]) -> tuple[dict[Path, Id], dict[str, Id]]:
    """Return (image -> id, category name -> id) of one annotation file, for those of `images` that it lists."""
    split = _split_of(file)
    inner = {image for image in images if root in image.parents}
    # An image in a folder of another split (val/a.jpg) cannot belong to this file (instances_train.json).
    here = {i for i in inner if {*map(split_name, i.relative_to(root).parts[:-1])} <= {split, None} or split == "all"}
    if not here:
        return {}, {}
    content, places = load(file), places_of(root, file, split)
    # Most entries name other images. Only those whose names are similar to one of these are looked up.
    similar = {loose(image.name) for image in here}
    rows = [
        (number, name, entry)
        for number, entry in enumerate(content["images"])
        if loose(name := text_of(entry, "file_name", f"{file}: images[{number}]")) in similar
    ]
    found, _ = find_listed(
        [name for _, name, _ in rows], places, root, split, lambda i: f"{file}: images[{rows[i][0]}]"
    )
    ids: dict[Path, Id] = {}
    for (number, _, entry), image in zip(rows, found, strict=True):
        if image in here:
            ids[image] = written_id(entry, "id", f"{file}: images[{number}]")
    return ids, category_ids(content, categories({file: content})[0][file])


def _agreed(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Merge several tables, leaving out keys with different values."""
    joined: dict[Any, set[Any]] = {}
    for table in tables:
        for key, value in table.items():
            joined.setdefault(key, set()).add(value)
    return {key: next(iter(values)) for key, values in joined.items() if len(values) == 1}
