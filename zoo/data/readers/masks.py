"""Folders of semantic masks: a mask file for each image, in which every value or colour is a class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from zoo.data.class_table import (
    FILES,
    Row,
    classes_of,
    code,
    colours_of,
    find_table,
    read_table,
    values_of,
    with_background,
)
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import SPLITS, has_images, split_names, subfolders
from zoo.data.layouts import paired
from zoo.data.mask_names import matched, mixed, unmatched
from zoo.data.pairs import MASKS, SEGMENTED, Pair, below, pairs, split_folders, title
from zoo.data.split_lists import listed_splits
from zoo.errors import DataError, counted
from zoo.image_header import size_if_readable
from zoo.targets.mask_file import values_if_readable
from zoo.targets.masks import IGNORE, Mask, MaskFile

NAME = "masks"
KINDS = ("masks",)
NEEDS = "images/ and masks/ with the same file names, and classes.txt"
LAYOUT = (
    "semantic masks: a folder of images (images/) and one of masks (masks/, labels/, annotations/), train/ beside "
    "train_labels/, or all in one folder; a mask has its image's name, perhaps with _mask, _gt or the like before or "
    "after it; and the names of at least two classes in classes.txt (one per line; a pixel's value is the number of "
    "its class's line, from 0), with red, green and blue for each if the masks are coloured (classes.csv, "
    "class_dict.csv, labelmap.txt); or masks of black and white only (0 and 255), perhaps with the name of the white "
    "class"
)
_SIBLING = re.compile(r"[_-]?(labels?|masks?|annot|annotations?|gt)", re.IGNORECASE)
_WHITE = code(255, 255, 255)
_SAMPLED = 16
"""Number of masks that are read to recognise how all of them are encoded."""


def detect(path: Path) -> bool:
    """Whether masks have the names of images, and several classes are listed or masks are black and white."""
    if not path.is_dir():
        return False
    splits = [matched(*pair) for pair in folders(path).values()]
    if not splits or not all(splits):
        return False
    table = find_table(path)
    return bool(table and _several(table)) or black_and_white(path)


def _several(table: Path) -> bool:
    """Whether a list names several classes. Also if it is broken: `read` then says how."""
    try:
        return len(classes_of(read_table(table))) > 1
    except DataError:
        return True


def read(path: Path) -> dict[str, Dataset]:
    """Read semantic masks: split name -> dataset, or one key `all`.

    Splits are named by folders, or by lists beside these (`train.txt`). Values that are not in the list of classes
    are ignored. So is 255, unless it is the white of a two-class mask. Pixels of a class called `void` or `ignore`
    are ignored as well. Without a list of classes, black is `background` and white is `object`. Palette indexes and
    grey values may be class numbers or colours; they are what most pixels agree with in the list.

    Raises:
        DataError: a mask cannot be read, or an image has no mask; names the file.
    """
    by_split = folders(path) if path.is_dir() else {}
    if not by_split:
        raise DataError(f"{path} is not {LAYOUT}.")
    table = find_table(path)
    rows = read_table(table) if table else []
    samples = {split: _files(*pair) for split, pair in by_split.items()}
    masks = [mask for rows_ in samples.values() for _, mask in rows_]
    classes, values, colours = coded(rows, masks, path)

    def dataset(split: str) -> Dataset:
        read_samples = (sample(image, MaskFile(mask, values, colours), path) for image, mask in samples[split])
        name = title(path, split)
        return Dataset(tuple(read_samples), classes, "masks", name, path, tuple(unmatched(*by_split[split], name)))

    read_splits = {split: dataset(split) for split in samples}
    if list(read_splits) != ["all"]:
        return read_splits
    return _by_image_folder(read_splits["all"], by_split["all"][0]) or listed_splits(read_splits["all"], short=True)


def sample(image: Path, source: MaskFile, root: Path) -> Sample:
    """Return the sample of an image and its mask file."""
    return Sample(image, Mask(size_if_readable(source.file), source), below(image, root))


def folders(path: Path) -> dict[str, Pair]:
    """Return split name (or `all`) -> (image folder, mask folder); equal if both kinds of file are in one folder."""
    return pairs(path, MASKS) or pairs(path, SEGMENTED) or _siblings(path) or _mixed(path) or _by_content(path)


def _siblings(path: Path) -> dict[str, Pair]:
    """Return the pairs of CamVid's layout: train/ beside train_labels/, trainannot/ or the like."""
    by_split: dict[str, Pair] = {}
    inner = subfolders(path)
    splits = split_names(folder.name for folder in inner)
    for images in inner:
        fitting = [f for f in inner if f != images and f.name.startswith(images.name)]
        fitting = [f for f in fitting if _SIBLING.fullmatch(f.name.removeprefix(images.name)) and has_images(f)]
        if len(fitting) == 1 and has_images(images):
            by_split[splits.get(images.name, "all")] = (images, fitting[0])
    named = {split: by_split[split] for split in SPLITS if split in by_split}
    return named or by_split


def _mixed(path: Path) -> dict[str, Pair]:
    """Return the folders that hold images as well as their masks."""
    by_split = {split: (folder, folder) for split, folder in split_folders(path).items() if mixed(folder)}
    return by_split or ({"all": (path, path)} if mixed(path) else {})


def _by_content(path: Path) -> dict[str, Pair]:
    """Return the folders of which one seems to hold the masks of the other, whatever their names."""
    found = {split: paired(folder) for split, folder in (split_folders(path) or {"all": path}).items()}
    return {split: pair for split, pair in found.items() if pair}


def _by_image_folder(dataset: Dataset, images: Path) -> dict[str, Dataset]:
    """Divide a dataset by the folders of splits that hold its images, if its masks have none; else return nothing."""
    folders = split_folders(images)
    rows = {
        split: [row for row, sample in enumerate(dataset) if folder in sample.image.parents]
        for split, folder in folders.items()
    }
    rows = {split: rows[split] for split in rows if rows[split]}
    if sum(map(len, rows.values())) < len(dataset):
        return {}
    return {split: dataset.subset(rows[split], f"{dataset.name}/{split}") for split in rows}


def black_and_white(path: Path) -> bool:
    """Whether masks hold only 0 and 255, with at least one 255. The first `_SAMPLED` masks are read."""
    values: set[int] = set()
    masks = (mask for pair in folders(path).values() for _, mask in matched(*pair) if mask)
    try:
        for mask in islice(masks, _SAMPLED):
            values |= _values(mask)
            if not values <= {0, 255}:
                return False
    except DataError:
        return False
    return 255 in values


def _values(mask: Path) -> set[int]:
    """Return the values in a mask; white in colour counts as 255."""
    return {255 if value == _WHITE else value for value in np.unique(values_if_readable(mask)).tolist()}


def _files(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Return each image with its mask."""
    both = matched(images, masks)
    if not both:
        raise DataError(
            f"the masks in {masks} do not have the names of the images in {images}: each mask needs exactly one image."
        )
    missing = [image for image, mask in both if mask is None]
    if missing:
        raise DataError(
            f"{counted(len(missing), 'image has', 'images have')} no mask in {masks}, e.g. {missing[0]}. Move such "
            "images away, or add masks of only background for images without objects."
        )
    return [(image, mask) for image, mask in both if mask]


def coded(
    rows: Sequence[Row], masks: Sequence[Path], path: Path
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...], bool]:
    """Return (classes, table of values, whether the values are colours).

    The encodings are tried in this order: two classes as black and white (255 occurs, 1 does not), one class as 0
    and 1, one coloured class on black, several classes by colour, and several classes by number.
    """
    names, colours = classes_of(rows) or ("object",), colours_of(rows)
    given = [row.value for row in rows if row.name is not None and row.value is not None]
    if len(given) == 1 and given != [1]:
        return with_background(names), ((0, 0), (given[0], 1), *(((IGNORE, IGNORE),) * (given[0] < IGNORE))), False
    if given and given != [0, 1]:
        return names, values_of(rows), False
    if len(names) <= 2 and not colours:
        values: set[int] = set()
        for mask in masks:
            values |= _values(mask)
            if len(names) < 2 and 1 in values and not values <= {0, 1, 255}:
                break  # it is an error, whatever the other masks hold
        if 255 in values and 1 not in values:
            return with_background(names), ((0, 0), (255, 1), (_WHITE, 1)), False
        if len(names) < 2:
            if not values <= {0, 1, 255}:
                raise DataError(
                    f"the masks of {path} hold values besides 0, 1 and 255, e.g. {max(values - {0, 1, 255})}, and no "
                    f"list names several classes: write {FILES[0]} with one per line. If each value is one object, "
                    "name the format: instances."
                )
            return with_background(names), ((0, 0), (1, 1), (255, 255)), False
    if len(names) == 1:  # black is the background, unless it is the colour of the class itself
        return with_background(names), ((0, 0), *((value, label + 1) for value, label in colours if value)), True
    if colours and coloured(masks, colours, values_of(rows)):
        return names, colours, True
    return names, values_of(rows), False


def coloured(masks: Iterable[Path], colours: Sequence[tuple[int, int]], values: Sequence[tuple[int, int]]) -> bool:
    """Whether masks hold the colours of a table rather than its class numbers.

    A grey value or palette index may be either. Count the pixels that each reading explains in the first `_SAMPLED`
    masks, and take the one that explains more; colours win a tie.
    """
    known = [np.array([value for value, _ in table], np.int64) for table in (values, colours)]
    hits = [0, 0]
    for mask in islice(masks, _SAMPLED):
        for which in (0, 1):
            hits[which] += int(np.isin(values_if_readable(mask, colours=bool(which)), known[which]).sum())
    return hits[1] >= hits[0]
