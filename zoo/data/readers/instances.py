"""Folders of instance masks: an image file beside each photo, in which every value but 0 is one object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.class_table import find_table, listed
from zoo.data.dataset import Dataset, Sample
from zoo.data.pairs import MASKS, matched, pairs, title, unmatched
from zoo.data.readers.masks import black_and_white
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.boxes import Boxes, InstanceMasks
from zoo.targets.mask_file import mask_values

NAME = "instances"
KINDS = ("boxes",)
LAYOUT = (
    "instance masks: a folder of images (images/, PNGImages/) and one of masks (masks/, PedMasks/) called the same, or "
    "with _mask appended, in which each value but 0 is one object (not all of them 255); perhaps classes.txt with the "
    "name of their one class"
)


def detect(path: Path) -> bool:
    """Images and masks with the same names, no list of several classes, which the values would stand for, and more
    than black and white."""
    if not path.is_dir() or len(listed(path)) > 1:
        return False
    found = pairs(path, MASKS)
    return bool(found) and all(matched(*pair) for pair in found.values()) and not black_and_white(path)


def read(path: Path) -> dict[str, Dataset]:
    """The splits that folders tell, or `all`: the box around each object, all of one class.

    The class is named by `classes.txt`, or `object`. An image without a mask has no objects. Masks are decoded, some
    milliseconds each.

    Raises:
        DataError: names the mask that cannot be read or was compressed with loss.
    """
    found = pairs(path, MASKS) if path.is_dir() else {}
    if not found:
        raise DataError(f"{path} is not {LAYOUT}.")
    classes = listed(path) or ("object",)
    if len(classes) > 1:
        raise DataError(f"{find_table(path)} names {len(classes)} classes; objects in masks are of one class.")
    datasets = {}
    for split, (images, masks) in found.items():
        both = matched(images, masks)
        if not both:
            raise DataError(f"no mask in {masks} is called like an image in {images}.")
        samples = tuple(_sample(image, mask, path) for image, mask in both)
        name, bare = title(path, split), [image for image, mask in both if mask is None]
        notes = unmatched(images, masks, name)
        if bare:
            notes.append(
                f"{name}: {len(bare)} of {len(both)} images have no mask and count as images without objects, e.g. "
                f"{bare[0].name}."
            )
        values = [sample.target.masks.values for sample in samples if sample.target.masks]
        if bordered := sum(255 in one and 254 not in one and len(one) > 1 for one in values):
            notes.append(
                f"{name}: the value 255 counts as an object in {bordered} masks; where it is a border or does not "
                "count, write 0 for it."
            )
        datasets[split] = Dataset(samples, classes, "boxes", name, path, tuple(notes))
    if not any(len(sample.target) for dataset in datasets.values() for sample in dataset):
        raise DataError(f"{path} has no object in any mask: all their values are 0.")
    return datasets


def _sample(image: Path, mask: Path | None, root: Path) -> Sample:
    id = image.relative_to(root).as_posix()
    if mask is None:
        return Sample(image, Boxes((), (), (), image_size(image)[0]), id)
    pixels = mask_values(mask)
    values, boxes = object_boxes(pixels)
    size = (pixels.shape[0], pixels.shape[1])
    target = Boxes(boxes, (0,) * len(boxes), (False,) * len(boxes), size, InstanceMasks(mask, values))
    return Sample(image, target, id)


def object_boxes(pixels: np.ndarray) -> tuple[tuple[int, ...], tuple[tuple[float, float, float, float], ...]]:
    """(values, boxes) of the objects in a mask (height, width), by rising value."""
    y, x = np.nonzero(pixels)
    order = np.argsort(pixels[y, x], kind="stable")
    values, starts = np.unique(pixels[y, x][order], return_index=True)
    if not len(values):
        return (), ()
    ends = [reduce.reduceat(part[order], starts) for reduce in (np.minimum, np.maximum) for part in (x, y)]
    boxes = tuple((float(a), float(b), float(c) + 1, float(d) + 1) for a, b, c, d in zip(*ends, strict=True))
    return tuple(values.tolist()), boxes
