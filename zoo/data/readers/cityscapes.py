"""Cityscapes: images in leftImg8bit/ and masks of class numbers in gtFine/ or gtCoarse/. Cordts et al., 2016.

Numbers and names are those of https://github.com/mcordts/cityscapesScripts (`helpers/labels.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

from zoo.data.class_table import classes_of, find_table, read_table, values_of
from zoo.data.dataset import Dataset
from zoo.data.files import images_below, subfolders
from zoo.data.pairs import split_folders, stem, title
from zoo.data.readers.masks import sample
from zoo.errors import DataError, counted
from zoo.targets.mask_file import values_if_readable
from zoo.targets.masks import IGNORE, MaskFile, looked_up

NAME = "cityscapes"
KINDS = ("masks",)
NEEDS = "leftImg8bit/ and gtFine/ with *_labelIds.png"
LAYOUT = (
    "Cityscapes: leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png (or "
    "labelTrainIds), likewise val/ and test/; classes.txt if the classes are not the 19 of the benchmark"
)
CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Value of each class in files of `labelIds`."""
_VALUES = 34
_IMAGES, _MASKS = "leftImg8bit", ("gtFine", "gtCoarse")
_MASK = re.compile(r"(.+)_gt(?:Fine|Coarse)_label(Train)?Ids")
_LOOKED_AT = 3
"""Number of masks that tell whether a split is annotated: those of the test set hold only ignored pixels."""


def detect(path: Path) -> bool:
    """Whether there are leftImg8bit/ and gtFine/ or gtCoarse/."""
    return path.is_dir() and _folders(path) is not None


def read(path: Path) -> dict[str, Dataset]:
    """Read Cityscapes: split name -> dataset, or one key `all`.

    `labelTrainIds` are read if every image has such a file, else `labelIds`, of which the classes that the benchmark
    does not evaluate are ignored. Splits whose masks hold only ignored pixels are left out with a note.

    Raises:
        DataError: the folders hold no pairs, or an image has no mask; names the file.
    """
    both = _folders(path) if path.is_dir() else None
    if both is None:
        if path.is_dir() and (there := [name for name in (_IMAGES, *_MASKS) if _place(path, name)]):
            lacking = _MASKS[0] if there == [_IMAGES] else _IMAGES
            raise DataError(f"{path} has {there[0]}/ as Cityscapes, but not {lacking}/.")
        raise DataError(f"{path} is not {LAYOUT}.")
    images, masks = both
    inner = split_folders(images), split_folders(masks)
    by_split = {split: (inner[0][split], inner[1][split]) for split in inner[0] if split in inner[1]} or {"all": both}
    datasets: dict[str, Dataset] = {}
    notes: list[str] = []
    for split, pair in by_split.items():
        name = title(path, split)
        found, trained, remarks = _pairs(*pair, name)
        classes, table = _classes(path, trained)
        values = [values_if_readable(mask) for _, mask in found[:_LOOKED_AT]]
        if all(one.size and (looked_up(one, table) == IGNORE).all() for one in values):
            notes.append(f"{name}: the masks hold only ignored pixels, as those of the test set: there is no {split}.")
            continue
        samples = tuple(sample(image, MaskFile(mask, table), path) for image, mask in found)
        datasets[split] = Dataset(samples, classes, "masks", name, path, tuple(remarks))
    if not datasets:
        raise DataError(" ".join(notes))
    return {
        split: Dataset(d.samples, d.classes, d.kind, d.name, d.root, (*d.notes, *notes))
        for split, d in datasets.items()
    }


def _folders(path: Path) -> tuple[Path, Path] | None:
    """Return (image folder, mask folder) if both exist, perhaps in the folders of the downloads."""
    images, *masks = (_place(path, name) for name in (_IMAGES, *_MASKS))
    fitting = [folder for folder in masks if folder]
    return (images, fitting[0]) if images and fitting else None


def _place(path: Path, name: str) -> Path | None:
    """Return a folder: `gtFine/`, or `gtFine_trainvaltest/gtFine/` as the downloads are unpacked."""
    places = [path / name, *(folder / name for folder in subfolders(path) if folder.name.startswith(f"{name}_"))]
    return next((place for place in places if place.is_dir()), None)


def _pairs(images: Path, masks: Path, name: str) -> tuple[list[tuple[Path, Path]], bool, list[str]]:
    """Return (image and mask of each image, whether the masks are `labelTrainIds`, notes)."""
    image_of = {stem(image, images).removesuffix(f"_{_IMAGES}"): image for image in images_below(images)}
    kinds: dict[bool, dict[str, Path]] = {True: {}, False: {}}
    for mask in images_below(masks):
        if match := _MASK.fullmatch(stem(mask, masks)):
            kinds[bool(match[2])][match[1]] = mask
    trained = bool(image_of) and image_of.keys() <= kinds[True].keys()
    mask_of = kinds[trained]
    missing, extra = sorted(image_of.keys() - mask_of.keys()), sorted(mask_of.keys() - image_of.keys())
    if missing or not image_of:
        example = f", e.g. {image_of[missing[0]]}" if missing else ""
        raise DataError(
            f"{name}: {len(missing)} of {counted(len(image_of), 'image')} in {images} have no *_labelIds.png in "
            f"{masks}{example}. Add the masks, or move such images away."
        )
    notes = [f"{name}: {counted(len(extra), 'mask')} without an image left out, e.g. {extra[0]}."] if extra else []
    return [(image_of[key], mask_of[key]) for key in sorted(image_of)], trained, notes


def _classes(path: Path, trained: bool) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Return (class names, table of values)."""
    if file := find_table(path):
        rows = read_table(file)
        return classes_of(rows), values_of(rows)
    if trained:
        return CLASSES, (*((i, i) for i in range(len(CLASSES))), (IGNORE, IGNORE))
    numbers = {value: label for label, value in enumerate(_IDS)}
    return CLASSES, (*((value, numbers.get(value, IGNORE)) for value in range(_VALUES)), (IGNORE, IGNORE))
