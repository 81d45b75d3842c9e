"""YOLO text: one .txt file an image, one line a box: class number, centre and size as shares of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from zoo.data.data_yaml import DataYaml, describes_boxes, find_yaml, label_file, listed_splits, read_yaml, strays
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, read_lines
from zoo.data.pairs import LABELS, below, images_by_stem, notes_by_stem, one_image, pairs, split_folders, title
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.outlines import Outlines, shape_of
from zoo.targets.reasons import counted_otherwise

NAME = "yolo"
KINDS = ("boxes",)
LAYOUT = (
    "YOLO: images/ and labels/ with a .txt for each image (lines of class, centre x, centre y, width, height as shares "
    "of the image), perhaps with train/, val/ and test/ above or in them, or all in one folder; names of the classes "
    "in data.yaml or classes.txt, and where data.yaml says it (train, val, test), the images of each split"
)
_LISTS = ("classes.txt", "obj.names", "classes.names")
_SURE = 2
"""Lines that must look like key points before they are taken for such."""

Files = dict[str, list[tuple[Path, Path | None]]]
"""Split -> each image and the .txt file that belongs to it."""


class _Line(NamedTuple):
    """One object.

    Attributes:
        number: of its class. box, ring: x1, y1, x2, y2 and the corners of its polygon, x and y in turn, or nothing; as
            shares of the image.
    """

    number: int
    box: Box
    ring: tuple[float, ...]


def detect(path: Path) -> bool:
    """Images with .txt files of the same names, the first of which reads as boxes, or a `data.yaml` that says where the
    images are."""
    if path.is_file():
        return find_yaml(path) is not None
    if describes_boxes(path):
        return True
    for images, labels in _folders(path).values():
        by_stem = images_by_stem(images)
        for name, file in notes_by_stem(labels, ".txt").items():
            if name in by_stem and file.stat().st_size:
                return _reads(file)
    return False


def read(path: Path) -> dict[str, Dataset]:
    """The splits that `data.yaml` or folders tell, or `all`.

    Splits are those of `data.yaml` (see `zoo.data.data_yaml`), of the lists `train.txt`, `val.txt` and `test.txt`, or
    of the folders. Names come from `data.yaml` or the lines of `classes.txt` or `obj.names`, else classes are called by
    their number. An image without a file, or with an empty one, has no boxes. Lines of polygons (class, then x and y in
    turn) give the box around them, and outlines; of lines with key points (`kpt_shape`) the box is read.

    Raises:
        DataError: names the file and line that is broken, or the field of `data.yaml` that cannot be followed.
    """
    described = find_yaml(path)
    said = read_yaml(described) if described else DataYaml(path)
    root = path if path.is_dir() else path.parent
    if not said.splits and path.is_dir():
        splits, notes = listed_splits(path)
        said = replace(said, splits=splits, notes=(*said.notes, *notes))
    found = _listed(said) if said.splits else _beside(root)
    if not found:
        raise DataError(f"{path} is not {LAYOUT}.")
    names = _names(root, found, said)
    rows = {
        split: [(image, _lines(label, said.key_points) if label else []) for image, label in both]
        for split, both in found.items()
    }
    lines = [line for both in rows.values() for _, one in both for line in one]
    if not lines:
        raise DataError(f"{path} has no box in any of its files.")
    if not said.polygons and (points := _as_key_points([line for line in lines if line.ring])):
        raise DataError(
            f"{path}: all lines of more than a box look like a box and {points} points in it: key points, and no "
            f"polygons. Write 'kpt_shape: [{points}, 2]' (or 3 values each) into data.yaml to have the boxes read, or "
            "'task: segment' where they are polygons."
        )
    numbers = sorted({line.number for line in lines})
    known = {number for number, name in enumerate(names) if name is not None} or set(range(max(numbers) + 1))
    if other := counted_otherwise(numbers, sorted(known)):
        raise DataError(f"{path}: the class numbers seem to be {other}. Correct the numbers, or the list of names.")
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
            (*said.notes, *_bare(found[split], title(root, split))),
        )
        for split, both in rows.items()
    }


def _bare(both: Sequence[tuple[Path, Path | None]], name: str) -> list[str]:
    """A note on images without a file."""
    bare = [image for image, label in both if label is None]
    if not bare:
        return []
    return [
        f"{name}: {len(bare)} of {len(both)} images have no .txt file and count as images without objects, e.g. "
        f"{bare[0].name}."
    ]


def _listed(said: DataYaml) -> Files:
    """The images that `data.yaml` names, with their files."""
    found = {split: [(image, label_file(image)) for image in images] for split, images in said.splits.items()}
    owners: dict[Path, Path] = {}
    for image, label in (row for both in found.values() for row in both):
        if label and owners.setdefault(label, image) != image:
            raise DataError(f"{label} is about one of {owners[label].name}, {image.name}. Keep one of them.")
    if over := strays(said.folders, [image for images in said.splits.values() for image in images], _LISTS):
        raise DataError(f"{over[0]} has no image, as {len(over) - 1} others. Add them or remove the files.")
    return found


def _beside(path: Path) -> Files:
    """The images that folders tell, with their files."""
    return {split: _rows(*pair) for split, pair in _folders(path).items()}


def _folders(path: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> (folder of images, folder of .txt files)."""
    found = pairs(path, LABELS)
    if found:
        return found
    if _holds_both(path):
        return {"all": (path, path)}
    return {split: (folder, folder) for split, folder in split_folders(path).items() if _holds_both(folder)}


def _holds_both(folder: Path) -> bool:
    """Whether an image lies directly beside its .txt file."""
    texts = {file.stem for file in files(folder) if file.suffix.lower() == ".txt"}
    return any(file.stem in texts and file.suffix.lower() != ".txt" for file in files(folder))


def _reads(file: Path) -> bool:
    """Whether the lines are class numbers and at least four values each; what is wrong with them `read` says."""
    try:
        rows = [[float(word) for word in line.split()] for line in read_lines(file) if line.strip()]
    except (DataError, ValueError):
        return False
    return all(len(row) > 4 and row[0].is_integer() for row in rows)


def _names(path: Path, found: Files, said: DataYaml) -> tuple[str | None, ...]:
    """Class names by number, or nothing where none are given."""
    folders = {label.parent for both in found.values() for _, label in both if label}
    places = list(dict.fromkeys([path, *sorted(folders), *sorted(folder.parent for folder in folders)]))
    for file in (place / name for place in places for name in _LISTS):
        if not file.is_file():
            continue
        names = tuple(line.strip() for line in read_lines(file) if line.strip())
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{file}: two classes are called {twice!r}; each needs a name of its own.")
        if said.names and said.names != names:
            raise DataError(f"{file} and {said.file} name the classes otherwise: {names} and {said.names}. Keep one.")
        return names
    return said.names


def _rows(images: Path, labels: Path) -> list[tuple[Path, Path | None]]:
    """Each image with its file."""
    by_stem, notes = images_by_stem(images), notes_by_stem(labels, ".txt")
    notes = {name: file for name, file in notes.items() if name in by_stem or file.name not in _LISTS}
    for name, file in notes.items():
        one_image(by_stem, name, file)
    return [(image, notes.get(name)) for name, [image, *_] in by_stem.items()]


def _lines(file: Path, key_points: tuple[int, int] | None) -> list[_Line]:
    lines = enumerate(read_lines(file), 1)
    return [_line(line, f"{file}, line {i}", key_points) for i, line in lines if line.strip()]


def _line(line: str, place: str, key_points: tuple[int, int] | None = None) -> _Line:
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise DataError(f"{place} is {line.strip()[:80]!r}; only numbers are accepted.") from None
    if key_points:
        fits, due = len(values) in (4, 4 + key_points[0] * key_points[1]), f"perhaps {key_points[0]} key points"
    else:
        fits = len(values) == 4 or len(values) >= 6 and len(values) % 2 == 0
        due = "or a class number and the corners of a polygon (for key points, data.yaml must have kpt_shape)"
    if not fits or not number.is_integer():
        raise DataError(
            f"{place} is {line.strip()[:80]!r}; needed are a class number, centre x and y, width and height, {due}."
        )
    if len(values) > 4 and not key_points:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        return _Line(int(number), box, tuple(values))
    x, y, width, height = values[:4]
    return _Line(int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), ())


def _as_key_points(lines: Sequence[_Line]) -> int:
    """How many key points each line has, where all look like a box and as many points in it; else 0."""
    counts = {len(line.ring) for line in lines}
    if len(lines) < _SURE or len(counts) > 1:
        return 0
    count = counts.pop() - 4
    for size in (2, 3):
        if count >= 2 * size and count % size == 0 and all(_points_inside(line.ring, size) for line in lines):
            return count // size
    return 0


def _points_inside(values: Sequence[float], size: int) -> bool:
    """Whether values are a centre, a size, and points of `size` values in that box; points that are not seen are 0."""
    x, y, width, height = values[:4]
    points = [values[i : i + size] for i in range(4, len(values), size)]
    seen = [point for point in points if any(point[:2])]
    if size == 3 and any(point[2] not in (0, 1, 2) for point in points):
        return False
    return bool(seen) and all(abs(p[0] - x) <= 0.55 * width and abs(p[1] - y) <= 0.55 * height for p in seen)


def _sample(image: Path, lines: Sequence[_Line], known: set[int], root: Path) -> Sample:
    height, width = size = image_size(image)[0]
    boxes = tuple((x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (one.box for one in lines))
    labels = tuple(one.number if one.number in known else UNKNOWN for one in lines)
    shapes = [shape_of([[v * (height if i % 2 else width) for i, v in enumerate(one.ring)]], size) for one in lines]
    outlines = Outlines(tuple(shapes)) if any(shapes) else None
    target = Boxes(boxes, labels, (False,) * len(boxes), size, outlines)
    return Sample(image, target, below(image, root))
