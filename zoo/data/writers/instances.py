"""Write instance masks: a PNG file for each image, in which each object has its own value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np

from zoo.data.dataset import Dataset, Sample
from zoo.data.writers import classes_of
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
        place = "" if split == "all" else f"{split}/"
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"images/{place}{name}")
            folder.mask(f"masks/{place}{PurePosixPath(name).with_suffix('.png')}", _pixels(sample))
    folder.tolerance = _NEAR
    crowds = sum(sum(sample.target.crowd) for dataset in splits.values() for sample in dataset)
    folder.left_out(crowds, "mark of a crowd or a difficult object is", "marks of crowds or difficult objects are")
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
