"""Prepare masks in the same way as images. Masks are defined in `zoo.targets.masks`, and re-exported here."""

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
    """Resize and crop a mask exactly as `zoo.data.prepare` does with its image.

    The image is resized with an antialiasing kernel, but class numbers cannot be averaged. So each pixel of the result
    takes the value under its centre in the original mask. Pixels outside the image (letterbox) are `IGNORE`.

    Args:
        classes: class numbers, uint8 (height, width), from `read_mask`.
        preprocess: preparation of the image.

    Returns:
        uint8 (h, w) = `preprocess.frame(size of the image)`.
    """
    frame = frame_of((classes.shape[0], classes.shape[1]), preprocess)
    sides = preprocess.frame((classes.shape[0], classes.shape[1]))
    y = centres(sides[0], 1 / frame.scale_y, -frame.top)
    x = centres(sides[1], 1 / frame.scale_x, -frame.left)
    nearest = classes[np.clip(y, 0, frame.height - 1)[:, None], np.clip(x, 0, frame.width - 1)[None, :]]
    inside = ((y >= 0) & (y < frame.height))[:, None] & ((x >= 0) & (x < frame.width))[None, :]
    return np.where(inside, nearest, np.uint8(IGNORE))


def as_masks(dataset: Dataset) -> Dataset:
    """Convert a dataset of boxes with masks or outlines to one of kind `masks`; see `zoo.targets.masks.painted`.

    Raises:
        DataError: the dataset has other targets, or boxes without any masks.
    """
    return converted(dataset, "masks")
