"""CVAT's own export, "CVAT for images 1.1": one XML file with boxes, polygons and masks.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from zoo.data.dataset import Dataset
from zoo.data.files import SPLITS, files, split_name
from zoo.data.listed_boxes import Entry, Object, checked_size, datasets_of, only_file, root_of, turned
from zoo.data.xml_file import load_xml, starts_with
from zoo.errors import DataError, counted
from zoo.labels.spelling import nfc, ordered
from zoo.targets.outlines import Polygons, Runs, Shape, box_of, shape_of

NAME = "cvat"
KINDS = ("boxes",)
LAYOUT = "CVAT for images: annotations.xml with <image> elements, beside the images or folders of them (images/)"
_READ = ("box", "polygon", "mask")
_TYPES = ("", "any", "rectangle", "bbox", "polygon", "mask")
"""Types of labels that may belong to a box, a polygon or a mask."""
_OTHER = ("polyline", "points", "ellipse", "cuboid", "skeleton", "tag")


def detect(path: Path) -> bool:
    """Whether `path` is CVAT's XML file, or a folder with one."""
    return bool(_annotation_files(path))


def read(path: Path) -> dict[str, Dataset]:
    """Read CVAT's XML file: split name -> dataset, or one key `all`.

    Splits are the subsets that images belong to, if these are named after splits. Classes are the labels of the task,
    in its order. A polygon gives the box around it and an outline, and so does a turned box or a mask.

    Raises:
        DataError: an element is broken, or no image exists; names the file and the element.
    """
    file = only_file(_annotation_files(path), path, LAYOUT)
    root = load_xml(file)
    if root.tag != "annotations":
        raise DataError(f"{file} is not of CVAT: its root element is not <annotations>.")
    if root.find("track") is not None:
        raise DataError(f'{file} is CVAT\'s format for video. Export the task as "CVAT for images 1.1" or COCO.')
    left_out: Counter[str] = Counter()
    by_subset: dict[str, list[Entry]] = {}
    for index, image in enumerate(root.findall("image")):
        left_out.update(child.tag for child in image if child.tag in _OTHER)
        by_subset.setdefault(image.get("subset") or "", []).append(_entry(image, f"{file}: image {index}"))
    used = ordered({one.label for entries in by_subset.values() for entry in entries for one in entry.objects})
    classes = tuple(dict.fromkeys([*_labels(root), *used]))
    notes = [
        f"{counted(count, f'<{tag}> is', f'<{tag}> are')} no box or polygon, and not read"
        for tag, count in left_out.items()
    ]
    return datasets_of(_by_split(by_subset, file), classes, file, root_of(path, file), notes)


def _annotation_files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else files(path)
    return [file for file in found if file.suffix.lower() == ".xml" and starts_with(file, "annotations")]


def _labels(root: ElementTree.Element) -> list[str]:
    """Return the labels of the task or project that have a shape of their own, in its order."""
    names = [
        (label.findtext("name") or "").strip()
        for label in root.findall("meta//labels/label")
        if label.find("parent") is None and (label.findtext("type") or "").strip() in _TYPES
    ]
    return [nfc(name) for name in names if name]


def _by_split(by_subset: Mapping[str, list[Entry]], file: Path) -> dict[str, list[Entry]]:
    """Return split -> images, or all of them if no subset is named after a split."""
    splits = {subset: split_name(subset) for subset in by_subset}
    if not any(splits.values()):
        return {"all": [entry for entries in by_subset.values() for entry in entries]}
    by_split: dict[str, list[Entry]] = {}
    for subset, entries in by_subset.items():
        split = splits[subset]
        if split is None:
            raise DataError(
                f"{file}: {counted(len(entries), 'image is', 'images are')} in the subset {subset!r}, others in "
                "subsets named after splits. Name all subsets train, val or test."
            )
        by_split.setdefault(split, []).extend(entries)
    return {split: by_split[split] for split in SPLITS if split in by_split}


def _entry(image: ElementTree.Element, place: str) -> Entry:
    name = image.get("name")
    if not name:
        raise DataError(f"{place} has no name.")
    place = f"{place} ({name})"
    size = checked_size(_number(image, "height", place, 0.0), _number(image, "width", place, 0.0), place)
    objects = tuple(_object(child, size, place) for child in image if child.tag in _READ)
    return Entry(place, name, size, objects)


def _object(element: ElementTree.Element, size: tuple[int, int] | None, place: str) -> Object:
    label, place = nfc((element.get("label") or "").strip()), f"{place}, <{element.tag}>"
    shape: Shape | None
    if element.tag == "box":
        x1, y1, x2, y2 = (_number(element, side, place) for side in ("xtl", "ytl", "xbr", "ybr"))
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        return Object(label, *turned((x1, y1, x2, y2), _number(element, "rotation", place, 0.0), centre))
    if element.tag == "polygon":
        shape = _polygon(element.get("points") or "")
    else:
        shape = _mask(element, size, place)
    box = box_of(shape, size or (0, 0)) if shape else None
    if box is None:
        raise DataError(f"{place}: its points or runs are no outline of at least three points or one pixel.")
    return Object(label, box, shape)


def _polygon(text: str) -> Polygons | None:
    """Return the polygon in a text such as `1.5,2;3,4;5,6`."""
    try:
        points = [[float(value) for value in point.split(",")] for point in text.split(";") if point.strip()]
    except ValueError:
        return None
    shape = shape_of([points], (0, 0))
    return shape if isinstance(shape, Polygons) else None


def _mask(element: ElementTree.Element, size: tuple[int, int] | None, place: str) -> Runs | None:
    """Return a mask. CVAT counts runs row by row in the mask's own box; `Runs` counts column by column in the image."""
    left, top, width, height = (int(_number(element, key, place)) for key in ("left", "top", "width", "height"))
    try:
        runs = [int(run) for run in (element.get("rle") or "").split(",")]
    except ValueError:
        return None
    fits = size and min(left, top, *runs) >= 0 and left + width <= size[1] and top + height <= size[0]
    if not fits or size is None or sum(runs) != width * height:
        return None
    pixels = np.zeros(size, bool)
    inner = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    pixels[top : top + height, left : left + width] = inner
    flat = pixels.ravel("F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return Runs(tuple([0, *counts] if flat[0] else counts))


def _number(element: ElementTree.Element, key: str, place: str, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise DataError(f"{place}: {key} is {text and text[:80]!r}; it must be a number.")
    return value
