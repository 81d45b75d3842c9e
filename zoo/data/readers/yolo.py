"""YOLO: a .txt file per image, a line per box: class number, centre and size as shares of the image.

Ultralytics describes the data in `data.yaml`, Darknet (and CVAT's "YOLO 1.1") in `obj.data`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from zoo.data.darknet import find_data, read_data, read_names
from zoo.data.data_yaml import (
    MOST_CLASSES,
    DataYaml,
    describes_boxes,
    find_yaml,
    label_file,
    read_yaml,
    strays,
)
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, read_lines, split_name, subfolders
from zoo.data.left_out import TEXTS
from zoo.data.pairs import (
    LABELS,
    below,
    images_by_stem,
    notes_by_stem,
    one_image,
    pairs,
    split_folders,
    title,
    unpaired,
)
from zoo.data.refusals import attempt
from zoo.data.split_paths import listed_splits
from zoo.errors import DataError, counted
from zoo.image_header import size_if_readable
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.outlines import Outlines, shape_of
from zoo.targets.reasons import counted_otherwise

NAME = "yolo"
KINDS = ("boxes",)
NEEDS = "images/ and labels/ with a .txt for each image"
LAYOUT = (
    "YOLO: images/ and labels/ with a .txt for each image (lines of class, centre x, centre y, width, height as shares "
    "of the image), perhaps with train/, val/ and test/ above or in them, or all in one folder; class names in "
    "data.yaml or classes.txt; perhaps the images of each split in data.yaml (train, val, test) or obj.data"
)
READS = TEXTS | {".labels"}
_LISTS = ("classes.txt", "obj.names", "classes.names", "_darknet.labels")
_DARKNET = re.compile(r"obj_(.+)_data")
"""Name of CVAT's folder of images and .txt files of a split."""
_SURE = 2
"""Smallest number of lines that must look like key points before all lines are taken for such."""

Files = dict[str, list[tuple[Path, Path | None]]]
"""Split -> images, each with its .txt file or None."""


class _Line(NamedTuple):
    """One object.

    Attributes:
        number: class number.
        box: x1, y1, x2, y2 as shares of the image.
        ring: corners of the polygon, x and y in turn, as shares of the image; empty for a plain box.
        scored: whether a sixth value follows the box.
    """

    number: int
    box: Box
    ring: tuple[float, ...]
    scored: bool = False


def detect(path: Path) -> bool:
    """Whether images have .txt files of the same names in a folder of labels, or beside them with boxes in the first.

    A `data.yaml` that lists images with .txt files will do as well, or an `obj.data`.
    """
    if path.is_file():
        return find_yaml(path) is not None or find_data(path) is not None
    if describes_boxes(path) or find_data(path):
        return True
    for images, labels in _folders(path).values():
        by_stem = images_by_stem(images)
        for name, file in notes_by_stem(labels, ".txt").items():
            if name in by_stem and file.stat().st_size:
                # In a folder called labels, a file that cannot be read is a fault, which `read` reports.
                return images != labels or _reads(file)
    return not _folders(path) and _alone(path) is not None


def read(path: Path) -> dict[str, Dataset]:
    """Read a YOLO dataset: split name -> dataset, or one key `all`.

    Splits come from `data.yaml` (see `zoo.data.data_yaml`), from `obj.data`, from the lists `train.txt`, `val.txt` and
    `test.txt`, or from folders. Class names come from `data.yaml` or the lines of `classes.txt` or `obj.names`; without
    them, they are the class numbers. An image with an empty .txt file or none has no boxes. A line with a polygon
    (class, then x and y in turn) gives the box around it, and an outline. Of a line with key points (`kpt_shape`) only
    the box is read. A sixth value, such as a confidence, is not used.

    Raises:
        DataError: a line or a field of `data.yaml` is broken; names the file and the line or field.
    """
    described = _described(path)
    root = path if path.is_dir() else path.parent
    if not described.splits and (path.is_dir() or described.file == path):
        splits, notes = listed_splits(root)
        described = replace(described, splits=splits, notes=(*described.notes, *notes))
    by_split = _listed(described) if described.splits else _beside(root)
    if not by_split:
        if path.is_dir() and (labels := _alone(path)):
            others = ", ".join(f"{folder.name}/" for folder in unpaired(path, LABELS)[1]) or "none"
            raise DataError(
                f"{labels} holds .txt files with boxes. Exactly one folder of images must lie beside it; there is: "
                f"{others}. Put the images into images/."
            )
        raise DataError(f"{path} is not {LAYOUT}.")
    names = _names(root, by_split, described)
    rows = {
        split: [
            (image, lines)
            for image, label in both
            if (lines := attempt(image, _lines, label, described.key_points) if label else []) is not None
        ]
        for split, both in by_split.items()
    }
    lines = [line for both in rows.values() for _, one in both for line in one]
    if not lines:
        raise DataError(f"{path} has no boxes in any of its files.")
    if not described.polygons and (points := _as_key_points([line for line in lines if line.ring])):
        raise DataError(
            f"{path}: all lines with more than a box seem to be a box and {points} key points in it, not polygons. "
            f"Write 'kpt_shape: [{points}, 2]' (or 3 values each) into data.yaml to read the boxes, or "
            "'task: segment' if they are polygons."
        )
    numbers = sorted({line.number for line in lines})
    known = {number for number, name in enumerate(names) if name is not None} or set(range(max(numbers) + 1))
    if mismatch := counted_otherwise(numbers, sorted(known)):
        raise DataError(f"{path}: the class numbers seem to be {mismatch}. Correct the numbers or the list of names.")
    classes = tuple(name or f"unused {number}" for number, name in enumerate(names)) or tuple(
        str(number) for number in range(max(numbers) + 1)
    )
    return {
        split: Dataset(
            tuple(_sample(*row, known, root) for row in both),
            classes,
            "boxes",
            title(root, split),
            root,
            (*described.notes, *_unannotated(by_split[split], title(root, split)), *_scored(both, title(root, split))),
        )
        for split, both in rows.items()
    }


def _described(path: Path) -> DataYaml:
    """Return what `data.yaml` or `obj.data` says; nothing without one."""
    if yaml_file := find_yaml(path):
        return read_yaml(yaml_file)
    if data_file := find_data(path):
        return read_data(data_file)
    return DataYaml(path if path.is_dir() else Path())


def _scored(rows: Sequence[tuple[Path, Sequence[_Line]]], name: str) -> list[str]:
    """Return a note on lines with a sixth value, if there are any."""
    count = sum(line.scored for _, lines in rows for line in lines)
    return [f"{name}: {counted(count, 'line has', 'lines have')} a sixth value, which is not used."] if count else []


def _unannotated(both: Sequence[tuple[Path, Path | None]], name: str) -> list[str]:
    """Return a note on images without a .txt file, if there are any."""
    missing = [image for image, label in both if label is None]
    if not missing:
        return []
    return [
        f"{name}: {len(missing)} of {len(both)} images have no .txt file and count as images without objects, e.g. "
        f"{missing[0].name}."
    ]


def _listed(described: DataYaml) -> Files:
    """Return the images that `data.yaml` lists, with their .txt files."""
    by_split = {split: [(image, label_file(image)) for image in images] for split, images in described.splits.items()}
    owners: dict[Path, Path] = {}
    for image, label in (row for both in by_split.values() for row in both):
        if label and owners.setdefault(label, image) != image:
            raise DataError(f"{label} could belong to {owners[label].name} or {image.name}. Keep one of these images.")
    if over := strays(
        described.folders, [image for images in described.splits.values() for image in images], _is_stray
    ):
        raise DataError(
            f"{len(over)} .txt file{'s have no image' if len(over) > 1 else ' has no image'}, e.g. {over[0]}. Add the "
            "images or remove the files."
        )
    return by_split


def _beside(path: Path) -> Files:
    """Return the images that lie in folders, with their .txt files."""
    return {split: _rows(*pair) for split, pair in _folders(path).items()}


def _folders(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return split name (or `all`) -> (image folder, folder of .txt files)."""
    by_split = pairs(path, LABELS)
    if by_split:
        return by_split
    if _holds_both(path):
        return {"all": (path, path)}
    darknet = {folder: match[1] for folder in subfolders(path) if (match := _DARKNET.fullmatch(folder.name.lower()))}
    if darknet:
        splits = {split_name(name) or "train": folder for folder, name in darknet.items()}
        return {split: (folder, folder) for split, folder in splits.items()}
    places, others = unpaired(path, LABELS)
    if len(places) == 1 and len(others) == 1 and notes_by_stem(places[0], ".txt"):
        return {"all": (others[0], places[0])}
    return {split: (folder, folder) for split, folder in split_folders(path).items() if _holds_both(folder)}


def _alone(path: Path) -> Path | None:
    """Return a folder of labels with boxes; None if there is none."""
    texts = ((folder, file) for folder in unpaired(path, LABELS)[0] for file in notes_by_stem(folder, ".txt").values())
    return next((folder for folder, file in texts if file.stat().st_size and _is_stray(file)), None)


def _holds_both(folder: Path) -> bool:
    """Whether an image lies directly beside its .txt file."""
    texts = {file.stem for file in files(folder) if file.suffix.lower() == ".txt"}
    return any(file.stem in texts and file.suffix.lower() != ".txt" for file in files(folder))


def _reads(file: Path) -> bool:
    """Whether each line is a class number and at least four values. `read` checks the values in detail."""
    try:
        rows = [_values(line) for line in read_lines(file) if line.strip()]
    except (DataError, ValueError):
        return False
    return all(len(row) > 4 and row[0].is_integer() for row in rows)


def _names(path: Path, by_split: Files, described: DataYaml) -> tuple[str | None, ...]:
    """Return the class names by number; empty if none are given."""
    folders = {label.parent for both in by_split.values() for _, label in both if label}
    places = list(dict.fromkeys([path, *sorted(folders), *sorted(folder.parent for folder in folders)]))
    given = {file: read_names(file) for place in places for name in _LISTS if (file := place / name).is_file()}
    if described.names:
        given[described.file] = described.names
    for file, names in given.items():
        first = next(iter(given))
        if names != given[first]:
            raise DataError(
                f"{first} and {file} disagree on the class names: {given[first]} and {names}. Keep one of the files."
            )
    return next(iter(given.values()), ())


def _rows(images: Path, labels: Path) -> list[tuple[Path, Path | None]]:
    """Return each image with its .txt file or None. Raise `DataError` for a .txt file of boxes without an image."""
    by_stem, notes = images_by_stem(images), notes_by_stem(labels, ".txt")
    notes = {name: file for name, file in notes.items() if name in by_stem or _is_stray(file)}
    for name, file in notes.items():
        one_image(by_stem, name, file)
    return [(image, notes.get(name)) for name, [image, *_] in by_stem.items()]


def _is_stray(file: Path) -> bool:
    """Whether a .txt file without an image holds boxes. A README, a list of classes or of images does not."""
    return file.name not in _LISTS and _reads(file)


def _lines(file: Path, key_points: tuple[int, int] | None) -> list[_Line]:
    lines = enumerate(read_lines(file), 1)
    return [_line(line, f"{file}, line {i}", key_points) for i, line in lines if line.strip()]


def _values(line: str) -> list[float]:
    """Return the numbers in a line, separated by spaces, tabs, commas or semicolons.

    Raises:
        ValueError: a word is no number, or commas seem to be decimal points.
    """
    words = line.split()
    if "," in line or ";" in line:
        # "0,5 0,25" could be two numbers or four. So commas must end all words, or all stand without spaces.
        mark = ";" if ";" in line else ","
        if len(words) > 1 and not all(word.endswith(mark) for word in words[:-1]):
            raise ValueError(line)
        words = line.strip().strip(mark).split(mark)
    return [float(word) for word in words]


def _line(line: str, place: str, key_points: tuple[int, int] | None = None) -> _Line:
    try:
        number, *values = _values(line)
    except ValueError:
        raise DataError(
            f"{place} is {line.strip()[:80]!r}; only numbers are accepted, with decimal points and separated by spaces."
        ) from None
    scored = len(values) == 5 and not key_points and math.isfinite(values[4])
    if key_points:
        fits, more = len(values) in (4, 4 + key_points[0] * key_points[1]), f"perhaps {key_points[0]} key points"
    else:
        fits = len(values) == 4 or scored or len(values) >= 6 and len(values) % 2 == 0
        more = "or a class number and the corners of a polygon (for key points, data.yaml must have kpt_shape)"
    if not fits or not number.is_integer():
        raise DataError(
            f"{place} is {line.strip()[:80]!r}; it must be a class number, centre x and y, width and height, {more}."
        )
    if number >= MOST_CLASSES:
        raise DataError(f"{place}: the class number is {number:.0f}; it must be smaller than {MOST_CLASSES:,}.")
    if len(values) > 5 and not key_points:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        return _Line(int(number), box, tuple(values))
    x, y, width, height = values[:4]
    return _Line(int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), (), scored)


def _as_key_points(lines: Sequence[_Line]) -> int:
    """Return the number of key points per line if all lines look like a box and points inside it; else 0.

    Key points and polygons cannot be told apart by the number of values. Key points are recognised by equally long
    lines whose first four values are a box around the rest, which is next to impossible for polygons.
    """
    counts = {len(line.ring) for line in lines}
    if len(lines) < _SURE or len(counts) > 1:
        return 0
    count = counts.pop() - 4
    for size in (2, 3):
        if count >= 2 * size and count % size == 0 and all(_points_inside(line.ring, size) for line in lines):
            return count // size
    return 0


def _points_inside(values: Sequence[float], size: int) -> bool:
    """Whether values are the centre and size of a box, then points of `size` values in it; unlabelled points are 0."""
    x, y, width, height = values[:4]
    points = [values[i : i + size] for i in range(4, len(values), size)]
    labelled = [point for point in points if any(point[:2])]
    if size == 3 and any(point[2] not in (0, 1, 2) for point in points):
        return False
    # Half the size reaches to the border; the rest allows for rounding and points slightly outside.
    return bool(labelled) and all(abs(p[0] - x) <= 0.55 * width and abs(p[1] - y) <= 0.55 * height for p in labelled)


def _sample(image: Path, lines: Sequence[_Line], known: set[int], root: Path) -> Sample:
    height, width = size = size_if_readable(image)
    boxes = tuple((x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (one.box for one in lines))
    labels = tuple(one.number if one.number in known else UNKNOWN for one in lines)
    shapes = [shape_of([[v * (height if i % 2 else width) for i, v in enumerate(one.ring)]], size) for one in lines]
    outlines = Outlines(tuple(shapes)) if any(shapes) else None
    target = Boxes(boxes, labels, (False,) * len(boxes), size, outlines)
    return Sample(image, target, below(image, root))
