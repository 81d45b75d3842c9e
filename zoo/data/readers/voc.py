"""Pascal VOC: one XML file per image, as labelImg, CVAT and Roboflow also write it.

Everingham et al., 2010, and the development kit's documentation (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import files, is_image, read_lines, subfolders
from zoo.data.pairs import ANNOTATIONS, images_by_stem, notes_by_stem, one_image, pairs, split_folders, title, unpaired
from zoo.data.refusals import attempt, refuse
from zoo.data.split_paths import SPLIT_FIELDS
from zoo.data.xml_file import load_xml, starts_with
from zoo.errors import DataError, counted
from zoo.image_header import MAX_PIXELS, size_if_readable
from zoo.labels.spelling import nfc, ordered
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.faults import Fault

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
    """Whether there are images with .xml annotations, in two folders side by side or in the same folder.

    A folder of such annotations without images will do: `read` says that the images are missing.
    """
    if not path.is_dir():
        return False
    places = [notes for _, notes in _folders(path).values()] or unpaired(path, ANNOTATIONS)[0]
    return any(_is_note(file) for notes in places for file in notes_by_stem(notes, ".xml").values())


def read(path: Path) -> dict[str, Dataset]:
    """Read Pascal VOC annotations: split name -> dataset, or one key `all`.

    Splits are the lists in `ImageSets/Main`, in `ImageSets` or beside the folders (`trainval` replaces `train` if
    neither `train` nor `val` exists), or folders. Classes are the names that occur, sorted, numbers as numbers.
    `difficult` objects are marked as crowds. An image without objects needs an .xml file without objects. The image of
    an .xml file has its name; if there is none, it is the one in `<filename>`.

    If all coordinates are whole numbers of at least 1, they are Pascal's: pixels are counted from 1, and the last
    pixel belongs to the object. Otherwise they are taken for corners, counted from 0.

    Raises:
        DataError: a file is broken, missing, or has no image; names the file.
    """
    folders = _folders(path) if path.is_dir() else {}
    if not folders:
        places, others = unpaired(path, ANNOTATIONS) if path.is_dir() else ([], [])
        if any(notes_by_stem(place, ".xml") for place in places):
            beside = f"these are: {', '.join(f'{folder.name}/' for folder in others)}" if others else "there is none"
            raise DataError(
                f"{places[0]} holds .xml files. Exactly one folder of images must lie beside it; {beside}. Put the "
                "images into JPEGImages/ or images/."
            )
        raise DataError(f"{path} is not {LAYOUT}.")
    remarks: list[str] = []
    notes = {split: _notes(*pair, remarks) for split, pair in folders.items()}
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
            tuple(sample(by_name[name]) for name in sorted(by_name)),
            classes,
            "boxes",
            title(path, split),
            path,
            tuple(remarks),
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
    places, others = unpaired(path, ANNOTATIONS)
    if len(places) == 1 and len(others) == 1:
        return {"all": (others[0], places[0])}
    inner = split_folders(path).items()
    return {s: (folder, folder) for s, folder in inner if any(f.suffix.lower() == ".xml" for f in files(folder))}


def _is_note(file: Path) -> bool:
    return starts_with(file, "annotation")


def _notes(images: Path, notes: Path, remarks: list[str]) -> dict[str, _Note]:
    """Return name without suffix -> content of its XML file. Every image must have one."""
    by_stem, xml_files = images_by_stem(images), notes_by_stem(notes, ".xml")
    if strange := [name for name, file in xml_files.items() if name not in by_stem and not _is_note(file)]:
        count = counted(len(strange), ".xml file is", ".xml files are")
        remarks.append(f"{count} no annotation of an image, e.g. {xml_files[strange[0]].name}.")
        xml_files = {name: file for name, file in xml_files.items() if name not in strange}
    named = {name: _named(file, by_stem) for name, file in xml_files.items() if name not in by_stem}
    if renamed := {name: image for name, image in named.items() if image}:
        first = next(iter(renamed))
        remarks.append(
            f"{counted(len(renamed), '.xml file belongs', '.xml files belong')} to an image of another name, given in "
            f"<filename>, e.g. {xml_files[first].name} to {by_stem[renamed[first]][0].name}."
        )
    stems = {name: named.get(name) or name for name in xml_files}
    owner: dict[str, str] = {}
    for name, image in stems.items():
        if owner.setdefault(image, name) != name:
            raise DataError(
                f"{xml_files[owner[image]]} and {xml_files[name]} are both for the image {image}. Keep one."
            )
    missing = sorted(set(by_stem) - set(owner))
    if missing:
        count = counted(len(missing), "image has", "images have")
        refuse(
            f"{count} no annotation in {notes}, e.g. {by_stem[missing[0]][0]}. Move such "
            "images away, or add an .xml file without objects for images that show none."
        )
    images_of = {name: one_image(by_stem, stems[name], file) for name, file in xml_files.items()}
    read_notes = {name: attempt(image, _note, xml_files[name], image) for name, image in images_of.items() if image}
    return {name: note for name, note in read_notes.items() if note}


def _named(file: Path, by_stem: Mapping[str, list[Path]]) -> str:
    """Return the image, as path without suffix, that an XML file names in `<filename>`; empty if there is none."""
    text = (_parsed(file).findtext("filename") or "").strip().replace("\\", "/")
    for name in (text, PurePosixPath(text).name):
        for stem in (name, str(PurePosixPath(name).with_suffix("")) if is_image(PurePosixPath(name).name) else ""):
            if stem in by_stem:
                return stem
    return ""


def _parsed(file: Path) -> ElementTree.Element:
    """Return the root of an XML file. Raise `DataError` unless it is an annotation."""
    root = load_xml(file)
    if root.tag != "annotation":
        raise DataError(f"{file} is not an annotation: its root element is not <annotation>.")
    return root


def _note(file: Path, image: Path) -> _Note:
    """Read one XML file."""
    root = _parsed(file)
    objects = root.findall("object")
    if not objects and root.find(".//bndbox") is not None:
        raise DataError(f"{file}: the objects must be direct children of <annotation>, as in Pascal VOC.")
    sides = [_number(root, f"size/{name}", file, 0) for name in ("height", "width")]
    if not all(map(math.isfinite, sides)) or sides[0] * sides[1] > MAX_PIXELS:
        raise DataError(
            f"{file}: <height> is {sides[0]:g} and <width> is {sides[1]:g}; an image may have at most {MAX_PIXELS:,} "
            "pixels."
        )
    # Tools that do not open the image write 0.
    size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else size_if_readable(image)
    return _Note(
        image,
        tuple(nfc((thing.findtext("name") or "").strip()) for thing in objects),
        tuple(_corners(thing, i, file) for i, thing in enumerate(objects)),
        tuple(_flag(thing.findtext("difficult")) for thing in objects),
        size,
    )


def _corners(thing: ElementTree.Element, index: int, file: Path) -> Box:
    if thing.find("bndbox") is None:
        if points := _polygon(thing, file):
            return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
        raise DataError(f"{file}: object {index} has no <bndbox>.")
    x1, y1, x2, y2 = (_number(thing, f"bndbox/{name}", file) for name in _CORNERS)
    return x1, y1, x2, y2


def _number(element: ElementTree.Element, place: str, file: Path, default: float | None = None) -> float:
    text = element.findtext(place)
    if default is not None and not (text or "").strip():
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.inf
    if math.isinf(value):
        said = text if text is None else text.strip()[:80]
        raise DataError(f"{file}: <{place.split('/')[-1]}> is {said!r}; it must be a number.")
    return value


def _polygon(thing: ElementTree.Element, file: Path) -> list[float]:
    """Return x and y in turn of an object's `<polygon>`: `<x1>`, `<y1>`, ..., or `<pt>` with `<x>` and `<y>`."""
    polygon = thing.find("polygon")
    if polygon is None:
        return []
    count = len(polygon)
    places = [f"{axis}{i}" for i in range(1, count + 1) for axis in "xy" if polygon.find(f"x{i}") is not None]
    places = places or [f"pt[{i}]/{axis}" for i in range(1, len(polygon.findall("pt")) + 1) for axis in "xy"]
    return [_number(polygon, place, file) for place in places]


def _flag(text: str | None) -> bool:
    """Whether a mark such as `<difficult>` is set: `1` or `true`. Others are `0`, `false`, `Unspecified` or none."""
    return (text or "").strip().lower() in ("1", "1.0", "true", "yes")


def _counted_from_one(box: Box) -> bool:
    """Whether all coordinates are whole and at least 1. Those that are no finite numbers say nothing."""
    return all(not math.isfinite(v) or v == math.floor(v) for v in box) and not min(box) < 1


def _image_sets(path: Path, notes: dict[str, _Note]) -> dict[str, dict[str, _Note]]:
    """Divide annotations into splits by lists, e.g. in `ImageSets/Main`. Return nothing if there are none."""
    lists: dict[str, Path] = {}
    for folder in (*_list_folders(path), path):
        by_name = {file.stem.lower(): file for file in files(folder) if file.suffix.lower() == ".txt"}
        for name, split in {"trainval": "trainval", **SPLIT_FIELDS}.items():
            if name not in by_name:
                continue
            if split in lists:
                raise DataError(f"{lists[split]} and {by_name[name]} are both lists of the {split} split. Keep one.")
            lists[split] = by_name[name]
        if lists:
            break
    both = lists.pop("trainval", None)
    if both and not {"train", "val"} & set(lists):
        lists = {"train": both, **lists}
    return {
        split: dict(filter(None, (_listed(line, notes, file) for line in _lines(file))))
        for split, file in lists.items()
    }


def _list_folders(path: Path) -> list[Path]:
    """Return `ImageSets/Main` and `ImageSets`, as far as they exist."""
    sets = [folder for folder in subfolders(path) if folder.name.lower() == "imagesets"]
    return [*(inner for folder in sets for inner in subfolders(folder) if inner.name.lower() == "main"), *sets]


def _lines(file: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(file)]
    if not any(lines):
        raise DataError(f"{file} lists no images; fill it or remove it.")
    return [line for line in lines if line]


def _listed(line: str, notes: dict[str, _Note], file: Path) -> tuple[str, _Note] | None:
    """Return the annotation that a line names, by its name or a path to it or its image. None if it is left out.

    Lists of a class (`cat_train.txt`) have a number after the name.
    """
    for text in (line, line.rsplit(None, 1)[0]):
        place = PurePosixPath(text.replace("\\", "/"))
        bare = place.with_suffix("") if is_image(place.name) or place.suffix.lower() == ".xml" else place
        for name in (text, str(bare), bare.name):
            if name in notes:
                return name, notes[name]
    refuse(f"{file} lists {line!r}, which has no annotation.", Fault("unannotated", line, None, "", file.name))
    return None
