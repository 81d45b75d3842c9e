"""Write instance masks: a PNG file for each image, in which each object has its own value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.data.dataset import Dataset, Sample
from zoo.data.writers import classes_of, place_of, without_suffix
from zoo.data.writers.masks import write_table
from zoo.data.written import Folder
from zoo.errors import DataError
from zoo.targets.boxes import Boxes, InstanceMasks
from zoo.targets.masks import instance_values
from zoo.targets.outlines import Outlines, inside

NAME = "instances"
KINDS = ("boxes",)
LAYOUT = "images/SPLIT/, masks/SPLIT/ with a .png for each image (1, 2, ... for its objects), and classes.txt"
_NEAR = 1.0
"""Pixels by which the box around an object's pixels may differ from the box that was drawn."""


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write the pixels of each object. Crowd marks and ids are left out, with a note.

    Raises:
        DataError: there are several classes, or an object has no outline or shares pixels with another.
    """
    classes = classes_of(splits)
    if len(classes) > 1:
        raise DataError(f"the format {NAME} holds one class, and the data has {len(classes)}. Write coco.")
    write_table(folder, "classes.txt", classes, NAME)
    names = folder.names(splits, stems=True)
    for split, dataset in splits.items():
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"images/{place_of(split)}{name}")
            folder.mask(f"masks/{place_of(split)}{without_suffix(name)}.png", _pixels(sample))
    folder.tolerance = _NEAR
    folder.without_crowds(splits)
    folder.without_ids(splits)


def _pixels(sample: Sample) -> np.ndarray:
    """Return 1, 2, ... where the objects of an image are, uint16 (height, width)."""
    target: Boxes = sample.target
    values = np.zeros(target.size, np.uint16)
    if isinstance(target.masks, InstanceMasks):
        pixels = instance_values(target.masks.file, target.size)
        shapes = [pixels == value for value in target.masks.values]
    else:
        outlines = target.masks.shapes if isinstance(target.masks, Outlines) else (None,) * len(target)
        if None in outlines:
            raise DataError(f"the format {NAME} holds pixels, and an object in {sample.id} has no outline. Write coco.")
        shapes = [inside(shape, target.size) for shape in outlines if shape is not None]
    for number, shape in enumerate(shapes, 1):
        if values[shape].any() or not shape.any():
            raise DataError(
                f"the format {NAME} holds one object for each pixel, and in {sample.id} objects overlap or have no "
                "pixels. Write coco."
            )
        values[shape] = number
    return values
