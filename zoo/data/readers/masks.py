"""Folders of masks: an image file beside each photo, in which every value or colour is a class."""

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
    listed,
    read_table,
    values_of,
    with_background,
)
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import has_images, subfolders
from zoo.data.pairs import MASKS, SEGMENTED, Pair, matched, pairs, split_folders, title, unmatched
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.mask_file import mask_values
from zoo.targets.masks import Mask, MaskFile

NAME = "masks"
KINDS = ("masks",)
LAYOUT = (
    "masks of classes: a folder of images (images/) and one of masks (masks/, labels/, annotations/) called the same, "
    "or train/ beside train_labels/, and the names of at least two classes in classes.txt (one a line; a pixel's value "
    "is the number of its class's line, from 0), perhaps each with red, green and blue (classes.csv, class_dict.csv, "
    "labelmap.txt), where the masks are coloured; or masks of only black and white (0 and 255), perhaps with the name "
    "of the white class"
)
_SIBLING = re.compile(r"[_-]?(labels?|masks?|annot|annotations?|gt)", re.IGNORECASE)
_WHITE = code(255, 255, 255)
_LOOKED_AT = 16


def detect(path: Path) -> bool:
    """Images and masks with the same names, and a list of several classes, or masks of black and white alone."""
    if not path.is_dir():
        return False
    found = [matched(*pair) for pair in folders(path).values()]
    if not found or not all(found):
        return False
    return len(listed(path)) > 1 or black_and_white(path)


def read(path: Path) -> dict[str, Dataset]:
    """The splits that folders tell, or `all`.

    Values that are not in the list of classes are ignored, and so is 255 where it is not the white of a mask of two
    classes. Pixels of a class called `void` or `ignore` do not count. Without a list, black is `background` and white
    is `object`. Whether palettes and greys are indexes or colours is told by which of them the list has.

    Raises:
        DataError: names the mask that cannot be read, or the image without one.
    """
    found = folders(path) if path.is_dir() else {}
    if not found:
        raise DataError(f"{path} is not {LAYOUT}.")
    table = find_table(path)
    rows = read_table(table) if table else []
    samples = {split: _files(*pair) for split, pair in found.items()}
    masks = [mask for rows_ in samples.values() for _, mask in rows_]
    classes, values, colours = _coding(rows, masks, path)

    def dataset(split: str) -> Dataset:
        made = (
            Sample(
                image, Mask(image_size(mask)[0], MaskFile(mask, values, colours)), image.relative_to(path).as_posix()
            )
            for image, mask in samples[split]
        )
        name = title(path, split)
        return Dataset(tuple(made), classes, "masks", name, path, tuple(unmatched(*found[split], name)))

    return {split: dataset(split) for split in samples}


def folders(path: Path) -> dict[str, Pair]:
    """Split -> (folder of images, folder of masks)."""
    found = pairs(path, MASKS) or pairs(path, SEGMENTED)
    if found:
        return found
    names = {folder.name: folder for folder in subfolders(path)}
    for split, images in split_folders(path).items():
        fitting = [names[n] for n in names if n != images.name and n.startswith(images.name)]
        fitting = [f for f in fitting if _SIBLING.fullmatch(f.name.removeprefix(images.name)) and has_images(f)]
        if len(fitting) == 1:
            found[split] = (images, fitting[0])
    return found


def black_and_white(path: Path) -> bool:
    """Whether masks hold nothing but 0 and 255, as far as a few of them tell, and not 0 alone."""
    seen: set[int] = set()
    masks = (mask for pair in folders(path).values() for _, mask in matched(*pair) if mask)
    try:
        for mask in islice(masks, _LOOKED_AT):
            seen |= _values(mask)
            if not seen <= {0, 255}:
                return False
    except DataError:
        return False
    return 255 in seen


def _values(mask: Path) -> set[int]:
    """The values in a mask; white in colour is 255."""
    return {255 if value == _WHITE else value for value in np.unique(mask_values(mask)).tolist()}


def _files(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask."""
    found = matched(images, masks)
    if not found:
        raise DataError(f"masks in {masks} are not called like the images in {images}: each needs exactly one image.")
    bare = [image for image, mask in found if mask is None]
    if bare:
        raise DataError(
            f"{len(bare)} images have no mask in {masks}, e.g. {bare[0]}. Move them away, or give a mask of background "
            "for images that show nothing."
        )
    return [(image, mask) for image, mask in found if mask]


def _coding(
    rows: Sequence[Row], masks: Sequence[Path], path: Path
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...], bool]:
    """(classes, table of values, whether these are colours)."""
    names, colours = classes_of(rows) or ("object",), colours_of(rows)
    if len(names) <= 2 and not colours:
        seen = set().union(*map(_values, masks))
        if 255 in seen and 1 not in seen:
            return with_background(names), ((0, 0), (255, 1), (_WHITE, 1)), False
        if len(names) < 2:
            if not seen <= {0, 1, 255}:
                raise DataError(
                    f"the masks of {path} hold values other than 0, 1 and 255, e.g. {max(seen)}, and no list names "
                    f"the classes: write {FILES[0]} with one a line; or where each value is one object, name the "
                    "format instances."
                )
            return with_background(names), ((0, 0), (1, 1), (255, 255)), False
    if len(names) == 1:  # on black, where that is not its own colour
        return with_background(names), ((0, 0), *((value, label + 1) for value, label in colours if value)), True
    if colours and coloured(masks, colours, values_of(rows)):
        return names, colours, True
    return names, values_of(rows), False


def coloured(masks: Iterable[Path], colours: Sequence[tuple[int, int]], values: Sequence[tuple[int, int]]) -> bool:
    """Whether masks hold the colours of a table, rather than its numbers: which of them has more of the pixels."""
    known = [np.array([value for value, _ in table], np.int64) for table in (values, colours)]
    hits = [0, 0]
    for mask in islice(masks, _LOOKED_AT):
        for which in (0, 1):
            hits[which] += int(np.isin(mask_values(mask, colours=bool(which)), known[which]).sum())
    return hits[1] >= hits[0]
