"""Write Pascal VOC: an XML file for each image (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from zoo.data.dataset import Dataset, Sample
from zoo.data.writers import classes_of, refuse_names, without_suffix
from zoo.data.written import Folder

NAME = "voc"
KINDS = ("boxes",)
LAYOUT = "Annotations/ with an .xml for each image, JPEGImages/, and ImageSets/Main/SPLIT.txt"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write boxes. Crowds are marked as difficult; outlines are left out, with a note.

    If all coordinates are whole numbers, pixels are counted from 1, and the last pixel belongs to the object, as
    Pascal has it. Otherwise coordinates are corners, counted from 0.
    """
    classes = classes_of(splits)
    unfit = [name for name in classes if name != name.strip() or not name or _NOT_XML.search(name)]
    refuse_names(unfit, NAME, "they are empty, begin or end with a space, or have characters that XML lacks", "coco")
    names = folder.names(splits, together=True, stems=True)
    samples = [(sample, name) for split in splits for sample, name in zip(splits[split], names[split], strict=True)]
    whole = all(value.is_integer() for sample, _ in samples for box in sample.target.boxes for value in box)
    for sample, name in samples:
        folder.image(sample, f"JPEGImages/{name}")
        folder.text(f"Annotations/{without_suffix(name)}.xml", _annotation(sample, name, classes, whole))
    for split in splits:
        if split != "all":
            folder.lines(f"ImageSets/Main/{split}.txt", [without_suffix(name) for name in names[split]])
    folder.without_outlines(splits)
    folder.without_ids(splits)


def _annotation(sample: Sample, name: str, classes: tuple[str, ...], whole: bool) -> str:
    """Return the content of an XML file."""
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: object) -> None:
        ElementTree.SubElement(parent, tag).text = str(text)

    target = sample.target
    add(root, "folder", "JPEGImages")
    add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for tag, value in zip(("height", "width", "depth"), (*target.size, 3), strict=True):
        add(size, tag, value)
    add(root, "segmented", 0)
    for (x1, y1, x2, y2), label, crowd in zip(target.boxes, target.labels, target.crowd, strict=True):
        thing = ElementTree.SubElement(root, "object")
        for tag, text in (
            ("name", classes[label]),
            ("pose", "Unspecified"),
            ("truncated", 0),
            ("difficult", int(crowd)),
        ):
            add(thing, tag, text)
        box = ElementTree.SubElement(thing, "bndbox")
        corners = (int(x1) + 1, int(y1) + 1, int(x2), int(y2)) if whole else (x1, y1, x2, y2)
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            add(box, tag, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode") + "\n"
