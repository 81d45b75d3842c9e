"""Folders of instance masks: a mask file for each image, in which every value except 0 is one object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.class_table import find_table, listed
from zoo.data.dataset import Dataset, Sample
from zoo.data.mask_names import matched, unmatched
from zoo.data.pairs import MASKS, pairs, title
from zoo.data.readers.masks import black_and_white
from zoo.data.readers.masks import folders as folders_of_masks
from zoo.errors import DataError
from zoo.image_header import size_if_readable
from zoo.targets.boxes import Boxes, InstanceMasks
from zoo.targets.mask_file import mask_values, values_if_readable

NAME = "instances"
KINDS = ("boxes",)
NEEDS = "images/ and masks/ with the same file names"
LAYOUT = (
    "instance masks: a folder of images (images/, PNGImages/) and one of masks (masks/, PedMasks/) with the same file "
    "names, or with _mask appended, in which each value except 0 is one object (not only 0 and 255); perhaps "
    "classes.txt with the name of the single class"
)


def detect(path: Path) -> bool:
    """Whether images and masks have the same names, and the values of the masks are objects, not classes.

    Values are classes if a list names several classes, or if the masks are black and white only.
    """
    folders = pairs(path, MASKS) if path.is_dir() else {}
    if not folders or not all(matched(*pair) for pair in folders.values()):
        return False
    try:
        return len(listed(path)) < 2 and not black_and_white(path)
    except DataError:  # the list of classes is broken, which the format `masks` reports
        return False


def read(path: Path) -> dict[str, Dataset]:
    """Read the box around each object, all of one class: split name -> dataset, or one key `all`.

    Splits are named by folders. The class is named by `classes.txt`, or `object`. An image without a mask has no
    objects. All masks are decoded, which takes some milliseconds each.

    Raises:
        DataError: a mask cannot be read or is a JPEG; names the file.
    """
    folders = pairs(path, MASKS) or folders_of_masks(path) if path.is_dir() else {}
    if not folders:
        raise DataError(f"{path} is not {LAYOUT}.")
    classes = listed(path) or ("object",)
    if len(classes) > 1:
        raise DataError(f"{find_table(path)} names {len(classes)} classes; the objects in masks must be of one class.")
    datasets = {}
    for split, (images, masks) in folders.items():
        both = matched(images, masks)
        if not both:
            raise DataError(f"no mask in {masks} has the same name as an image in {images}.")
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
                f"{name}: the value 255 counts as an object in {bordered} masks; if it marks a border or ignored "
                "pixels, replace it by 0."
            )
        datasets[split] = Dataset(samples, classes, "boxes", name, path, tuple(notes))
    if not any(len(sample.target) for dataset in datasets.values() for sample in dataset):
        for masks in (sample.target.masks for dataset in datasets.values() for sample in dataset):
            if masks is not None:
                mask_values(masks.file)  # if it cannot be read, this is the reason
        raise DataError(f"{path} has no object in any mask: all values are 0.")
    return datasets


def _sample(image: Path, mask: Path | None, root: Path) -> Sample:
    id = image.relative_to(root).as_posix()
    if mask is None:
        return Sample(image, Boxes((), (), (), size_if_readable(image)), id)
    pixels = values_if_readable(mask)
    values, boxes = object_boxes(pixels)
    size = (pixels.shape[0], pixels.shape[1])
    target = Boxes(boxes, (0,) * len(boxes), (False,) * len(boxes), size, InstanceMasks(mask, values))
    return Sample(image, target, id)


def object_boxes(pixels: np.ndarray) -> tuple[tuple[int, ...], tuple[tuple[float, float, float, float], ...]]:
    """Return (values, boxes) of the objects in a mask (height, width), sorted by value.

    The pixels are sorted by value, so that each object is one run of them. The smallest and largest coordinates of all
    runs are then reduced in one pass, which does not depend on the number of objects.
    """
    y, x = np.nonzero(pixels)
    order = np.argsort(pixels[y, x], kind="stable")
    values, starts = np.unique(pixels[y, x][order], return_index=True)
    if not len(values):
        return (), ()
    ends = [reduce.reduceat(axis[order], starts) for reduce in (np.minimum, np.maximum) for axis in (x, y)]
    boxes = tuple((float(a), float(b), float(c) + 1, float(d) + 1) for a, b, c, d in zip(*ends, strict=True))
    return tuple(values.tolist()), boxes
