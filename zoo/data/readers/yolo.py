"""YOLO text: one .txt file an image, one line a box: class number, centre and size as shares of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.boxes import UNKNOWN, Box, Boxes
from zoo.data.dataset import Dataset, Sample
from zoo.data.decode import image_size
from zoo.data.files import files, read_lines
from zoo.data.outlines import Outlines, shape_of
from zoo.data.pairs import LABELS, images_by_stem, notes_by_stem, one_image, pairs, split_folders, title
from zoo.errors import DataError

NAME = "yolo"
KINDS = ("boxes",)
LAYOUT = (
    "YOLO: images/ and labels/ with a .txt for each image (lines of class, centre x, centre y, width, height as shares "
    "of the image), perhaps with train/, val/ and test/ above or in them, or all in one folder; names of the classes "
    "in data.yaml or classes.txt"
)
_LISTS = ("classes.txt", "obj.names", "classes.names")


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
    """Images with .txt files of the same names, the first of which reads as boxes."""
    if not path.is_dir():
        return False
    for images, labels in _folders(path).values():
        by_stem = images_by_stem(images)
        for name, file in notes_by_stem(labels, ".txt").items():
            if name in by_stem and file.stat().st_size:
                return _reads(file)
    return False


def read(path: Path) -> dict[str, Dataset]:
    """The splits that folders tell, or `all`.

    Names come from `data.yaml` (`names`, a list or an object; where its paths point is not looked at), or the lines
    of `classes.txt` or `obj.names`, else classes are called by their number. An image without a file, or with an empty
    one, has no boxes. Lines of polygons (class, then x and y in turn) give the box around them, and outlines.

    Raises:
        DataError: names the file and line that is broken.
    """
    folders = _folders(path) if path.is_dir() else {}
    if not folders:
        raise DataError(f"{path} is not {LAYOUT}.")
    names = _names(path, [labels for _, labels in folders.values()])
    read_ = {split: _rows(*pair) for split, pair in folders.items()}
    numbers = [line.number for rows in read_.values() for _, lines in rows for line in lines]
    if not numbers:
        raise DataError(f"{path} has no box in any of its files.")
    classes = names or tuple(str(number) for number in range(max(numbers) + 1))
    return {
        split: Dataset(
            tuple(_sample(*row, len(classes), path) for row in rows), classes, "boxes", title(path, split), path
        )
        for split, rows in read_.items()
    }


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
    try:
        return all(_line(line, "") for line in read_lines(file) if line.strip())
    except DataError:
        return False


def _names(path: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    """Class names, or nothing where none are given."""
    places = list(dict.fromkeys([path, *folders, *(folder.parent for folder in folders)]))
    for file in (place / name for place in places for name in _LISTS):
        if file.is_file():
            return tuple(line.strip() for line in read_lines(file) if line.strip())
    for file in sorted(file for file in files(path) if file.suffix.lower() in (".yaml", ".yml")):
        content = _yaml(file)
        if isinstance(content, dict) and "names" in content:
            return _listed(content["names"], file)
    return ()


def _yaml(file: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(file.read_text("utf-8-sig"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}.") from error


def _listed(names: Any, file: Path) -> tuple[str, ...]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    # YAML reads a class called 1 or no as a number or a truth value.
    if not isinstance(names, list) or not names or any(isinstance(name, list | dict) for name in names):
        raise DataError(f"{file}: names must list the classes, or give each number from 0 its name; it is {names!r}.")
    return tuple(map(str, names))


def _rows(images: Path, labels: Path) -> list[tuple[Path, list[_Line]]]:
    """Each image with its lines."""
    by_stem, notes = images_by_stem(images), notes_by_stem(labels, ".txt")
    notes = {name: file for name, file in notes.items() if name in by_stem or file.name not in _LISTS}
    found = []
    for name, file in notes.items():
        one_image(by_stem, name, file)
    for name, [image, *_] in by_stem.items():
        lines = read_lines(notes[name]) if name in notes else []
        rows = [_line(line, f"{notes[name]}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
        found.append((image, rows))
    return found


def _line(line: str, place: str) -> _Line:
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise DataError(f"{place} is {line.strip()[:80]!r}; only numbers are accepted.") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2) or not number.is_integer():
        raise DataError(
            f"{place} is {line.strip()[:80]!r}; needed are a class number, centre x and y, width and height, or "
            "a class number and the corners of a polygon."
        )
    if len(values) > 4:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        return _Line(int(number), box, tuple(values))
    x, y, width, height = values
    return _Line(int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), ())


def _sample(image: Path, lines: Sequence[_Line], classes: int, root: Path) -> Sample:
    height, width = size = image_size(image)[0]
    boxes = tuple((x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (one.box for one in lines))
    labels = tuple(one.number if 0 <= one.number < classes else UNKNOWN for one in lines)
    shapes = [shape_of([[v * (height if i % 2 else width) for i, v in enumerate(one.ring)]], size) for one in lines]
    outlines = Outlines(tuple(shapes)) if any(shapes) else None
    target = Boxes(boxes, labels, (False,) * len(boxes), size, outlines)
    return Sample(image, target, image.relative_to(root).as_posix())
