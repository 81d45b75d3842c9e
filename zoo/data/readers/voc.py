"""Pascal VOC: one XML file per image, as labelImg, CVAT and Roboflow also write it.

Everingham et al., 2010, and the development kit's documentation (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, read_lines
from zoo.data.pairs import ANNOTATIONS, images_by_stem, notes_by_stem, one_image, pairs, split_folders, title
from zoo.errors import DataError, counted
from zoo.image_header import image_size
from zoo.labels.spelling import nfc, ordered
from zoo.targets.boxes import UNKNOWN, Box, Boxes

NAME = "voc"
KINDS = ("boxes",)
NEEDS = "JPEGImages/ and Annotations/ with an .xml for each image"
LAYOUT = (
    "Pascal VOC: Annotations/ with an .xml for each image and JPEGImages/ (or images/), perhaps "
    "ImageSets/Main/train.txt, val.txt and test.txt; or .xml files beside the images, perhaps in train/, val/ and test/"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Note:
    """Content of one XML file.

    Attributes:
        image: path of the image file.
        names: class of each object; empty if the file gives none.
        corners: x1, y1, x2, y2 of each object, as in the file.
        difficult: whether each object is marked as difficult.
        size: height and width of the image.
    """

    image: Path
    names: tuple[str, ...]
    corners: tuple[Box, ...]
    difficult: tuple[bool, ...]
    size: tuple[int, int]


def detect(path: Path) -> bool:
    """Whether there are images with .xml annotations, in two folders side by side or in the same folder."""
    if not path.is_dir():
        return False
    return any(_is_note(file) for _, notes in _folders(path).values() for file in notes_by_stem(notes, ".xml").values())


def read(path: Path) -> dict[str, Dataset]:
    """Read Pascal VOC annotations: split name -> dataset, or one key `all`.

    Splits are the lists in `ImageSets/Main` (`trainval` replaces `train` if neither `train` nor `val` exists), or
    folders. Classes are the names that occur, sorted, numbers as numbers. `difficult` objects are marked as crowds. An
    image without objects needs an .xml file without objects.

    If all coordinates are whole numbers of at least 1, they are Pascal's: pixels are counted from 1, and the last
    pixel belongs to the object. Otherwise they are taken for corners, counted from 0.

    Raises:
        DataError: a file is broken, missing, or has no image; names the file.
    """
    folders = _folders(path) if path.is_dir() else {}
    if not folders:
        raise DataError(f"{path} is not {LAYOUT}.")
    notes = {split: _notes(*pair) for split, pair in folders.items()}
    if set(notes) == {"all"}:
        notes = _image_sets(path, notes["all"]) or notes
    every = [note for by_name in notes.values() for note in by_name.values()]
    classes = tuple(ordered({name for note in every for name in note.names if name}))
    if not classes:
        raise DataError(f"{path} has {len(every)} annotated images, but none of them has an object.")
    # Pixels 1 to 5, both included, are the interval from 0 to 5 in pixel edges: only the first corner is shifted.
    first = 1.0 if all(_counted_from_one(box) for note in every for box in note.corners) else 0.0
    index = {name: i for i, name in enumerate(classes)}

    def sample(note: _Note) -> Sample:
        boxes = tuple((x1 - first, y1 - first, x2, y2) for x1, y1, x2, y2 in note.corners)
        labels = tuple(index.get(name, UNKNOWN) for name in note.names)
        target = Boxes(boxes, labels, note.difficult, note.size)
        return Sample(note.image, target, note.image.relative_to(path).as_posix())

    return {
        split: Dataset(
            tuple(sample(by_name[name]) for name in sorted(by_name)), classes, "boxes", title(path, split), path
        )
        for split, by_name in notes.items()
    }


def _folders(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return split name (or `all`) -> (image folder, folder of XML files)."""
    by_split = pairs(path, ANNOTATIONS)
    if by_split:
        return by_split
    if any(file.suffix.lower() == ".xml" for file in files(path)):
        return {"all": (path, path)}
    inner = split_folders(path).items()
    return {s: (folder, folder) for s, folder in inner if any(f.suffix.lower() == ".xml" for f in files(folder))}


def _is_note(file: Path) -> bool:
    """Whether an XML file starts like an annotation. Only its first 512 bytes are read."""
    with file.open("rb") as stream:
        return re.search(rb"<annotation[\s>]", stream.read(512).replace(b"\0", b"")) is not None


def _notes(images: Path, notes: Path) -> dict[str, _Note]:
    """Return name without suffix -> content of its XML file. Every image must have one."""
    by_stem, xml_files = images_by_stem(images), notes_by_stem(notes, ".xml")
    missing = sorted(set(by_stem) - set(xml_files))
    if missing:
        count = counted(len(missing), "image has", "images have")
        raise DataError(
            f"{count} no annotation in {notes}, e.g. {by_stem[missing[0]][0]}. Move such "
            " images away, or add an .xml file without objects for images that show none."
        )
    return {name: _note(file, one_image(by_stem, name, file)) for name, file in xml_files.items()}


class _Tree(ElementTree.TreeBuilder):
    """Tree builder that refuses a document type, whose entities could grow without bound or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it declares a document type, which annotations do not need")


def _note(file: Path, image: Path) -> _Note:
    """Read one XML file."""
    try:
        root = ElementTree.parse(file, ElementTree.XMLParser(target=_Tree())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise DataError(f"{file} cannot be read as XML: {error}.") from error
    if root is None or root.tag != "annotation":
        raise DataError(f"{file} is not an annotation: its root element is not <annotation>.")
    objects = root.findall("object")
    if not objects and root.find(".//bndbox") is not None:
        raise DataError(f"{file}: the objects must be direct children of <annotation>, as in Pascal VOC.")
    sides = [_number(root, f"size/{name}", file, 0) for name in ("height", "width")]
    # Tools that do not open the image write 0.
    size = (int(sides[0]), int(sides[1])) if min(sides) > 0 else image_size(image)[0]
    return _Note(
        image,
        tuple(nfc((thing.findtext("name") or "").strip()) for thing in objects),
        tuple(_corners(thing, i, file) for i, thing in enumerate(objects)),
        tuple(_number(thing, "difficult", file, 0) > 0 for thing in objects),
        size,
    )


def _corners(thing: ElementTree.Element, index: int, file: Path) -> Box:
    if thing.find("bndbox") is None:
        raise DataError(f"{file}: object {index} has no <bndbox>.")
    x1, y1, x2, y2 = (_number(thing, f"bndbox/{name}", file) for name in _CORNERS)
    return x1, y1, x2, y2


def _number(element: ElementTree.Element, place: str, file: Path, default: float | None = None) -> float:
    text = element.findtext(place)
    if default is not None and not (text or "").strip():
        return default
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{file}: <{place.split('/')[-1]}> is {text!r}; it must be a number.") from None


def _counted_from_one(box: Box) -> bool:
    """Whether all coordinates are whole and at least 1. Those that are no finite numbers say nothing."""
    return all(not math.isfinite(v) or v == math.floor(v) for v in box) and not min(box) < 1


def _image_sets(path: Path, notes: dict[str, _Note]) -> dict[str, dict[str, _Note]]:
    """Divide annotations into splits by the lists in `ImageSets/Main`. Return nothing if there are none."""
    folder = path / "ImageSets" / "Main"
    lists = {name: folder / f"{name}.txt" for name in ("train", "val", "test", "trainval")}
    lists = {name: file for name, file in lists.items() if file.is_file()}
    both = lists.pop("trainval", None)
    if both and not {"train", "val"} & set(lists):
        lists = {"train": both, **lists}
    return {split: dict(_listed(line, notes, file) for line in _lines(file)) for split, file in lists.items()}


def _lines(file: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(file)]
    if not any(lines):
        raise DataError(f"{file} lists no images; fill it or remove it.")
    return [line for line in lines if line]


def _listed(line: str, notes: dict[str, _Note], file: Path) -> tuple[str, _Note]:
    """Return the annotation that a line names. Lists of a class (`cat_train.txt`) have a number after the name."""
    for name in (line, line.rsplit(None, 1)[0]):
        if name in notes:
            return name, notes[name]
    raise DataError(f"{file} lists {line!r}, which has no annotation.")
