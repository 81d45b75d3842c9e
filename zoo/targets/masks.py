"""Masks: a class for every pixel of a sample, and its array of fixed shape. Pixels are read only where it is said."""

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
"""The class number of pixels that do not count. Not a negative one: JAX takes that for an index from the end."""

MOST_CLASSES = IGNORE
BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class MaskFile:
    """An image file whose pixel values stand for classes.

    Attributes:
        file: PNG or another format without loss. Colours count as red + 256 green + 65536 blue.
        table: (value, class number or `IGNORE`) for each value. All others are faults, and ignored.
        colours: whether a palette's colours are meant, and not its indexes; grey values are then colours, too.
    """

    file: Path = field(repr=False)  # a data set is the same one in another place
    table: tuple[tuple[int, int], ...]
    colours: bool = False


@dataclass(frozen=True, slots=True)
class Regions:
    """Outlines that are painted one over the other.

    Attributes:
        shapes, labels: each outline and its class number or `IGNORE`, the lowest first.
        size: height and width of the image that they were drawn on. background: the class of all other pixels.
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
        source: where the classes come from. Where it is of another size, it is enlarged or reduced to `size`.
        orientation: the EXIF orientation of the picture that it was drawn on, where that was not upright.
        pixels: how many pixels each class has, where they were counted: the check of masks does.
    """

    size: tuple[int, int]
    source: MaskFile | Regions
    orientation: int = 1
    pixels: tuple[int, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files beside the image's that it depends on."""
        return (self.source.file,) if isinstance(self.source, MaskFile) else ()

    def classes(self) -> set[int]:
        """The class numbers that it may have, without `IGNORE`."""
        if isinstance(self.source, MaskFile):
            found = {label for _, label in self.source.table}
        else:
            found = {self.source.background, *self.source.labels}
        return found - {IGNORE}

    def present(self) -> tuple[int, ...]:
        """The class numbers that it has, rising. Read from the file where they were not counted."""
        counts = self.pixels if self.pixels is not None else count_pixels(read_mask(self))
        return tuple(int(i) for i in np.flatnonzero(counts))

    def mapped(self, mapping: Sequence[int]) -> Mask:
        """The same mask with class i as `mapping[i]`; what is ignored stays so."""

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
    """The class number of every pixel of the upright image, uint8 (height, width); `IGNORE` where nothing is known.

    Args:
        values: what `mask_values` gives for its file, where that was read already.

    Raises `DataError`, naming the file, when it cannot be read or was compressed with loss.
    """
    source = mask.source
    if isinstance(source, MaskFile):
        classes = looked_up(mask_values(source.file, source.colours) if values is None else values, source.table)
    else:
        classes = np.full(source.size, source.background, np.uint8)
        for shape, label in zip(source.shapes, source.labels, strict=True):
            classes[inside(shape, source.size)] = label
    classes = upright(classes, mask.orientation)
    if classes.shape != mask.size:
        places = [centres(new, old / new) for new, old in zip(mask.size, classes.shape, strict=True)]
        classes = classes[places[0][:, None], places[1][None, :]]
    return np.ascontiguousarray(classes)


def centres(count: int, step: float, shift: float = 0.0) -> np.ndarray:
    """In which pixel of the original the centres of `count` pixels lie, int64 (count,)."""
    return np.floor((np.arange(count) + 0.5 + shift) * step).astype(np.int64)


def count_pixels(classes: np.ndarray) -> np.ndarray:
    """How many pixels each class number has, int64 (255,); what is ignored is left out."""
    return np.bincount(classes.reshape(-1), minlength=IGNORE + 1)[:IGNORE]


def pixel_counts(dataset: Dataset) -> np.ndarray:
    """How many pixels of a data set of masks each class has, int64 (classes,)."""
    total = np.zeros(len(dataset.classes), np.int64)
    for sample in dataset:
        mask: Mask = sample.target
        counts = count_pixels(read_mask(mask)) if mask.pixels is None else np.array(mask.pixels, np.int64)
        total += np.resize(np.r_[counts, np.zeros(len(total), np.int64)], len(total))
    return total


def looked_up(values: np.ndarray, table: Sequence[tuple[int, int]]) -> np.ndarray:
    """The classes of values, uint8; `IGNORE` for those that are not in the table."""
    if values.dtype in (np.uint8, np.uint16):
        quick = np.full(np.iinfo(values.dtype).max + 1, IGNORE, np.uint8)
        for value, label in table:
            if value < len(quick):
                quick[value] = label
        return quick[values]
    rows = sorted(table)
    keys, labels = np.array([v for v, _ in rows], np.int64), np.array([k for _, k in rows], np.uint8)
    place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[place] == values, labels[place], np.uint8(IGNORE))


def painted(dataset: Dataset) -> Dataset:
    """A data set of kind `masks` from one of boxes whose objects have masks or outlines: each object is painted with
    its class, over class 0, `background`. Of an object with a mere box, the box is ignored.

    Raises `DataError` for boxes without any masks.
    """
    if not any(map(_outlined, (sample.target for sample in dataset))):
        raise DataError(
            f"{dataset.name} has boxes and no masks: a class for every pixel cannot be learned from it. Give masks, "
            "or polygons in COCO's format."
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
    labels = tuple(IGNORE if label == UNKNOWN else index[label] for label in target.labels)
    if isinstance(target.masks, InstanceMasks):
        return Mask(target.size, MaskFile(target.masks.file, ((0, 0), *zip(target.masks.values, labels, strict=True))))
    shapes: list[Shape] = []
    known = target.masks.shapes if target.masks else (None,) * len(labels)
    for shape, (x1, y1, x2, y2) in zip(known, target.boxes, strict=True):
        shapes.append(shape or Polygons(((x1, y1, x2, y1, x2, y2, x1, y2),)))
    painted = [label if shape else IGNORE for shape, label in zip(known, labels, strict=True)]
    # Boxes first: what is known of other objects there is not lost.
    order = sorted(range(len(painted)), key=lambda i: known[i] is not None)
    return Mask(target.size, Regions(tuple(shapes[i] for i in order), tuple(painted[i] for i in order), target.size))
