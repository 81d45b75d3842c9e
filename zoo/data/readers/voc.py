"""Pascal VOC: one XML file an image, as labelImg, CVAT and Roboflow write it too.

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
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.labels.spelling import nfc, ordered
from zoo.targets.boxes import UNKNOWN, Box, Boxes

NAME = "voc"
KINDS = ("boxes",)
LAYOUT = (
    "Pascal VOC: Annotations/ with an .xml for each image and JPEGImages/ (or images/), perhaps "
    "ImageSets/Main/train.txt, val.txt and test.txt; or .xml files beside the images, perhaps in train/, val/ and test/"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Note:
    """What one XML file says."""

    image: Path
    names: tuple[str, ...]
    corners: tuple[Box, ...]
    difficult: tuple[bool, ...]
    size: tuple[int, int]


def detect(path: Path) -> bool:
    """Images with .xml files of annotations, in folders beside each other or in the same."""
    if not path.is_dir():
        return False
    return any(_is_note(file) for _, notes in _folders(path).values() for file in notes_by_stem(notes, ".xml").values())


def read(path: Path) -> dict[str, Dataset]:
    """The splits of `ImageSets/Main` (`trainval` for a missing `train`) or of the folders, or `all`.

    Classes are the names that occur, sorted, numbers as numbers. `difficult` objects are marked as crowds. Coordinates
    that are all whole and never below 1 are Pascal's: pixels are counted from 1 and the last one belongs to the object.
    Others are corners.
    An image without objects needs a file that says so.

    Raises:
        DataError: names the file that is broken, has no image, or is missing.
    """
    folders = _folders(path) if path.is_dir() else {}
    if not folders:
        raise DataError(f"{path} is not {LAYOUT}.")
    notes = {split: _notes(*pair) for split, pair in folders.items()}
    if set(notes) == {"all"}:
        notes = _image_sets(path, notes["all"]) or notes
    every = [note for found in notes.values() for note in found.values()]
    classes = tuple(ordered({name for note in every for name in note.names if name}))
    if not classes:
        raise DataError(f"{path} has {len(every)} annotated images, but no object in any.")
    first = 1.0 if all(_counted_from_one(box) for note in every for box in note.corners) else 0.0
    index = {name: i for i, name in enumerate(classes)}

    def sample(note: _Note) -> Sample:
        boxes = tuple((x1 - first, y1 - first, x2, y2) for x1, y1, x2, y2 in note.corners)
        labels = tuple(index.get(name, UNKNOWN) for name in note.names)
        target = Boxes(boxes, labels, note.difficult, note.size)
        return Sample(note.image, target, note.image.relative_to(path).as_posix())

    return {
        split: Dataset(tuple(sample(found[name]) for name in sorted(found)), classes, "boxes", title(path, split), path)
        for split, found in notes.items()
    }


def _folders(path: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> (folder of images, folder of XML files)."""
    found = pairs(path, ANNOTATIONS)
    if found:
        return found
    if any(file.suffix.lower() == ".xml" for file in files(path)):
        return {"all": (path, path)}
    inner = split_folders(path).items()
    return {s: (folder, folder) for s, folder in inner if any(f.suffix.lower() == ".xml" for f in files(folder))}


def _is_note(file: Path) -> bool:
    """Whether an XML file starts as an annotation does; the rest is not looked at."""
    with file.open("rb") as stream:
        return re.search(rb"<annotation[\s>]", stream.read(512).replace(b"\0", b"")) is not None


def _notes(images: Path, notes: Path) -> dict[str, _Note]:
    """Name without suffix -> what its file says. Every image has one."""
    by_stem, found = images_by_stem(images), notes_by_stem(notes, ".xml")
    bare = sorted(set(by_stem) - set(found))
    if bare:
        raise DataError(
            f"{len(bare)} images have no annotation in {notes}, e.g. {by_stem[bare[0]][0]}. Move them away, or write "
            "an .xml without objects for images that show none."
        )
    return {name: _note(file, one_image(by_stem, name, file)) for name, file in found.items()}


class _Tree(ElementTree.TreeBuilder):
    """Refuses a document type: entities that it declares could grow without bound, or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it declares a document type, which an annotation has no use for")


def _note(file: Path, image: Path) -> _Note:
    try:
        root = ElementTree.parse(file, ElementTree.XMLParser(target=_Tree())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise DataError(f"{file} cannot be read as XML: {error}.") from error
    if root is None or root.tag != "annotation":
        raise DataError(f"{file} is no annotation: its outermost element is not <annotation>.")
    objects = root.findall("object")
    if not objects and root.find(".//bndbox") is not None:
        raise DataError(f"{file}: its objects are not directly in <annotation>, as Pascal VOC has them.")
    sides = [_number(root, f"size/{name}", file, 0) for name in ("height", "width")]
    # Tools that do not look at the image write 0.
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
        raise DataError(f"{file}: <{place.split('/')[-1]}> is {text!r}; a number is needed.") from None


def _counted_from_one(box: Box) -> bool:
    return all(not math.isfinite(v) or v == math.floor(v) for v in box) and not min(box) < 1


def _image_sets(path: Path, notes: dict[str, _Note]) -> dict[str, dict[str, _Note]]:
    """The notes by split, as the lists in `ImageSets/Main` say; empty without such lists."""
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
        raise DataError(f"{file} lists no image; fill it or remove it.")
    return [line for line in lines if line]


def _listed(line: str, notes: dict[str, _Note], file: Path) -> tuple[str, _Note]:
    """The annotation that a line names; a number may follow, which tells whether a class occurs."""
    for name in (line, line.rsplit(None, 1)[0]):
        if name in notes:
            return name, notes[name]
    raise DataError(f"{file} lists {line!r}, which has no annotation.")
