"""Masks as images are prepared. What a mask is, `zoo.targets.masks` says; its names can be had from here as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.data.transform import frame_of
from zoo.registry.spec import Preprocess
from zoo.targets import converted
from zoo.targets.masks import (
    BACKGROUND,
    IGNORE,
    MOST_CLASSES,
    Mask,
    MaskFile,
    Regions,
    centres,
    count_pixels,
    looked_up,
    pixel_counts,
    read_mask,
)

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "MOST_CLASSES",
    "Mask",
    "MaskFile",
    "Regions",
    "as_masks",
    "count_pixels",
    "looked_up",
    "pixel_counts",
    "prepare_mask",
    "read_mask",
]


def prepare_mask(classes: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Class numbers of an image in the frame that `zoo.data.prepare` shows the image in: uint8
    (h, w) = `preprocess.frame(size)`, of each pixel the value under its centre, `IGNORE` beside the image.

    Args:
        classes: uint8 (height, width), as `read_mask` gives them.
    """
    frame = frame_of((classes.shape[0], classes.shape[1]), preprocess)
    sides = preprocess.frame((classes.shape[0], classes.shape[1]))
    y = centres(sides[0], 1 / frame.scale_y, -frame.top)
    x = centres(sides[1], 1 / frame.scale_x, -frame.left)
    seen = classes[np.clip(y, 0, frame.height - 1)[:, None], np.clip(x, 0, frame.width - 1)[None, :]]
    there = ((y >= 0) & (y < frame.height))[:, None] & ((x >= 0) & (x < frame.width))[None, :]
    return np.where(there, seen, np.uint8(IGNORE))


def as_masks(dataset: Dataset) -> Dataset:
    """A data set of kind `masks`, made from boxes whose objects have masks or outlines (`zoo.targets.masks.painted`).

    Raises `DataError` for other data, and for boxes without any masks.
    """
    return converted(dataset, "masks")
