"""Masks: a class for every pixel of a sample. Pixels are read only by functions that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import DataError
from zoo.image_header import upright
from zoo.targets.boxes import UNKNOWN, Boxes, InstanceMasks
from zoo.targets.mask_file import mask_values
from zoo.targets.outlines import Outlines, Polygons, Shape, inside

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

IGNORE = 255
"""Class number of ignored pixels. Not negative, because JAX takes negative numbers for indexes from the end."""

MOST_CLASSES = IGNORE
BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask file whose pixel values are classes.

    Attributes:
        file: in PNG or another lossless format. A colour counts as red + 256 green + 65536 blue.
        table: (value, class number or `IGNORE`) for each known value. Other values are faults, and ignored.
        colours: whether to use the colours of a palette, not its indexes; grey values are then colours as well.
    """

    file: Path = field(repr=False)  # fingerprints use the repr, and must not change if the dataset is moved
    table: tuple[tuple[int, int], ...]
    colours: bool = False


@dataclass(frozen=True, slots=True)
class Regions:
    """Outlines that are painted over each other in order; later ones cover earlier ones.

    Attributes:
        shapes: the outlines.
        labels: class number of each outline, or `IGNORE`.
        size: height and width of the image that they were drawn on.
        background: class of all other pixels.
    """

    shapes: tuple[Shape, ...]
    labels: tuple[int, ...]
    size: tuple[int, int]
    background: int = 0


@dataclass(frozen=True, slots=True)
class Mask:
    """A class for every pixel of one image.

    Attributes:
        size: height and width of the upright image.
        source: file or outlines that the classes come from. It is resized if its size is not `size`.
        orientation: EXIF orientation of the image that the source was drawn on, 1 if that was upright.
        pixels: number of pixels of each class, None before the check of masks has counted them.
    """

    size: tuple[int, int]
    source: MaskFile | Regions
    orientation: int = 1
    pixels: tuple[int, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files besides the image that the mask depends on."""
        return (self.source.file,) if isinstance(self.source, MaskFile) else ()

    def classes(self) -> set[int]:
        """Return the class numbers that may occur, without `IGNORE`. Reads no file."""
        if isinstance(self.source, MaskFile):
            numbers = {label for _, label in self.source.table}
        else:
            numbers = {self.source.background, *self.source.labels}
        return numbers - {IGNORE}

    def present(self) -> tuple[int, ...]:
        """Return the class numbers that occur, sorted. Reads the mask if its pixels were not counted yet."""
        counts = self.pixels if self.pixels is not None else count_pixels(read_mask(self))
        return tuple(int(i) for i in np.flatnonzero(counts))

    def mapped(self, mapping: Sequence[int]) -> Mask:
        """Return the mask with class i replaced by `mapping[i]`; ignored pixels stay ignored."""

        def new(label: int) -> int:
            return label if label == IGNORE else mapping[label]

        if isinstance(self.source, MaskFile):
            source: MaskFile | Regions = replace(self.source, table=tuple((v, new(k)) for v, k in self.source.table))
        else:
            labels = tuple(map(new, self.source.labels))
            source = replace(self.source, labels=labels, background=new(self.source.background))
        pixels = None
        if self.pixels is not None:
            counts = [0] * (max(mapping) + 1)
            for old, count in enumerate(self.pixels):
                counts[mapping[old]] += count
            pixels = tuple(counts)
        return replace(self, source=source, pixels=pixels)


def read_mask(mask: Mask, values: np.ndarray | None = None) -> np.ndarray:
    """Read the class number of every pixel of the upright image, uint8 (height, width), `IGNORE` for unknown values.

    Args:
        mask: the mask to read.
        values: the result of `mask_values` for its file, if that was read already.

    Raises:
        DataError: the file cannot be read or is a JPEG; names the file.
    """
    source = mask.source
    if isinstance(source, MaskFile):
        classes = looked_up(mask_values(source.file, source.colours) if values is None else values, source.table)
    else:
        classes = np.full(source.size, source.background, np.uint8)
        for shape, label in zip(source.shapes, source.labels, strict=True):
            classes[inside(shape, source.size)] = label
    return np.ascontiguousarray(_resized(upright(classes, mask.orientation), mask.size))


def instance_values(file: Path, size: tuple[int, int]) -> np.ndarray:
    """Read the values of an instance mask (`InstanceMasks`), integers of `size` (height, width)."""
    return _resized(mask_values(file), size)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return values of `size`, each that under the centre of its pixel."""
    if values.shape == size:
        return values
    rows, columns = (centres(new, old / new) for new, old in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns[None, :]]


def centres(count: int, step: float, shift: float = 0.0) -> np.ndarray:
    """Return the source pixel under the centre of each of `count` pixels, int64 (count,).

    Args:
        count: number of pixels of the result along one axis.
        step: source pixels per pixel of the result.
        shift: added to the position in the result, in its pixels.
    """
    return np.floor((np.arange(count) + 0.5 + shift) * step).astype(np.int64)


def count_pixels(classes: np.ndarray) -> np.ndarray:
    """Return the number of pixels of each class number, int64 (255,), without ignored pixels."""
    return np.bincount(classes.reshape(-1), minlength=IGNORE + 1)[:IGNORE]


def pixel_counts(dataset: Dataset) -> np.ndarray:
    """Return the number of pixels of each class in a dataset with masks, int64 (classes,). May read masks."""
    total = np.zeros(len(dataset.classes), np.int64)
    for sample in dataset:
        mask: Mask = sample.target
        counts = count_pixels(read_mask(mask)) if mask.pixels is None else np.array(mask.pixels, np.int64)
        total += np.resize(np.r_[counts, np.zeros(len(total), np.int64)], len(total))
    return total


def looked_up(values: np.ndarray, table: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the classes of values by a table as in `MaskFile`, uint8; `IGNORE` for values that are not in it.

    Values of 8 or 16 bits index an array of all possible values. Colours have too many, so they are found by binary
    search.
    """
    if values.dtype in (np.uint8, np.uint16):
        class_of = np.full(np.iinfo(values.dtype).max + 1, IGNORE, np.uint8)
        for value, label in table:
            if value < len(class_of):
                class_of[value] = label
        return class_of[values]
    rows = sorted(table)
    keys, labels = np.array([v for v, _ in rows], np.int64), np.array([k for _, k in rows], np.uint8)
    place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[place] == values, labels[place], np.uint8(IGNORE))


def painted(dataset: Dataset) -> Dataset:
    """Convert a dataset of boxes with masks or outlines to one of kind `masks`.

    Each object is painted with its class over class 0, `background`. Pixels in the box of an object without an outline
    are ignored.

    Raises:
        DataError: no box has a mask or an outline.
    """
    if not any(map(_outlined, (sample.target for sample in dataset))):
        raise DataError(
            f"{dataset.name} has boxes without masks, from which segmentation cannot be learned. Add masks, or "
            "polygons in COCO's format."
        )
    names = [name for name in dataset.classes if name != BACKGROUND]
    index = [0 if name == BACKGROUND else names.index(name) + 1 for name in dataset.classes]
    samples = tuple(replace(sample, target=_painted(sample.target, index)) for sample in dataset)
    classes = (BACKGROUND, *names)
    known = dict(zip(dataset.classes, dataset.category_ids, strict=False))
    ids = tuple(map(known.get, classes)) if known else ()
    return replace(dataset, samples=samples, classes=classes, kind="masks", category_ids=ids)


def _outlined(target: Boxes) -> bool:
    """Whether any object has more than a box."""
    if isinstance(target.masks, Outlines):
        return any(target.masks.shapes)
    return target.masks is not None


def _painted(target: Boxes, index: Sequence[int]) -> Mask:
    """Return the boxes of one image as a mask in which the class of label i is `index[i]`."""
    labels = tuple(IGNORE if label == UNKNOWN else index[label] for label in target.labels)
    if isinstance(target.masks, InstanceMasks):
        return Mask(target.size, MaskFile(target.masks.file, ((0, 0), *zip(target.masks.values, labels, strict=True))))
    shapes: list[Shape] = []
    known = target.masks.shapes if target.masks else (None,) * len(labels)
    for shape, (x1, y1, x2, y2) in zip(known, target.boxes, strict=True):
        shapes.append(shape or Polygons(((x1, y1, x2, y1, x2, y2, x1, y2),)))
    painted = [label if shape else IGNORE for shape, label in zip(known, labels, strict=True)]
    # Boxes without outlines are painted first, as ignored pixels, so that outlines of other objects cover them.
    order = sorted(range(len(painted)), key=lambda i: known[i] is not None)
    return Mask(target.size, Regions(tuple(shapes[i] for i in order), tuple(painted[i] for i in order), target.size))
