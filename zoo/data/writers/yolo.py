"""Write YOLO: a .txt file for each image, and `data.yaml` (https://docs.ultralytics.com/datasets/detect/)."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of, place_of, refuse_names, without_suffix
from zoo.data.written import Folder
from zoo.targets.boxes import Boxes
from zoo.targets.outlines import Outlines, Polygons

NAME = "yolo"
KINDS = ("boxes",)
LAYOUT = "images/SPLIT/, labels/SPLIT/ with a .txt for each image, and data.yaml with the class names"
_NEAR = 1.0
"""Pixels by which the box around a polygon may differ from the box of its object."""


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write boxes, or polygons if every object has one outline that is a single polygon.

    A line is either; training programs do not accept both in one dataset. The box of a polygon is read from it, and
    may so differ by up to a pixel. Other outlines, crowd marks and ids are left out, with a note.
    """
    import yaml

    unfit = [name for name in classes_of(splits) if name != name.strip() or not name]
    refuse_names(unfit, NAME, "they are empty, or begin or end with a space", "coco")
    targets = [sample.target for dataset in splits.values() for sample in dataset]
    polygons = any(map(len, targets)) and all(map(_is_polygon, targets))
    names = folder.names(splits, stems=True)
    for split, dataset in splits.items():
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"images/{place_of(split)}{name}")
            folder.lines(f"labels/{place_of(split)}{without_suffix(name)}.txt", _lines(sample.target, polygons))
    described = {split: f"images/{split}" for split in splits if split != "all"}
    described |= {"task": "segment"} if polygons else {}
    names_of_classes = dict(enumerate(classes_of(splits)))
    text = yaml.safe_dump({**described, "names": names_of_classes}, allow_unicode=True, sort_keys=False, width=1000)
    folder.text("data.yaml", text)
    if "all" in splits:
        folder.notes.append("the data has no splits, so data.yaml has no `train` and `val`, which other programs need.")
    if polygons:
        folder.tolerance = _NEAR
    else:
        folder.without_outlines(splits)
    folder.without_crowds(splits)
    folder.without_ids(splits)


def _is_polygon(target: Boxes) -> bool:
    """Whether each object has one polygon, and its box is that of the polygon up to rounding."""
    if not len(target):
        return True
    if not isinstance(target.masks, Outlines):
        return False
    for shape, box in zip(target.masks.shapes, target.boxes, strict=True):
        if not isinstance(shape, Polygons) or len(shape.rings) != 1:
            return False
        x, y = shape.rings[0][::2], shape.rings[0][1::2]
        around = (min(x), min(y), max(x), max(y))
        if max(abs(a - b) for a, b in zip(around, box, strict=True)) > _NEAR:
            return False
    return True


def _lines(target: Boxes, polygons: bool) -> list[str]:
    height, width = target.size
    lines = []
    for i, (x1, y1, x2, y2) in enumerate(target.boxes):
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if polygons and isinstance(target.masks, Outlines):
            shape = target.masks.shapes[i]
            assert isinstance(shape, Polygons)
            values = [value / (height if place % 2 else width) for place, value in enumerate(shape.rings[0])]
        lines.append(" ".join([str(target.labels[i]), *(f"{value:.10g}" for value in values)]))
    return lines
