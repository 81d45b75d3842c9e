"""Helpers for tests of segmenters: drawn scenes with masks, for the small net with a pyramid of `boxes_kit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from boxes_kit import SIDE
from PIL import Image, ImageDraw

import zoo
from zoo.data import Dataset, Sample
from zoo.data.masks import IGNORE, Mask, MaskFile
from zoo.models.model import Model

LABELS = ("background", "disc", "bar")
COLOURS = {"disc": (225, 40, 40), "bar": (50, 80, 230)}


def scene(number: int, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Draw an image of `size` (height, width) with a disc and a bar, and its mask. The same for equal arguments."""
    rng, (height, width) = np.random.default_rng([11, number]), size
    photo = Image.fromarray(rng.integers(90, 130, (height, width, 3), dtype=np.uint8))
    mask = Image.fromarray(np.zeros((height, width), np.uint8))
    side = min(height, width)
    for label in (2, 1):
        extent = int(rng.integers(side // 3, side // 2))
        x, y = int(rng.integers(0, width - extent)), int(rng.integers(0, height - extent))
        box = [x, y, x + extent, y + (extent if label == 1 else extent // 2)]
        for image, fill in ((photo, COLOURS[LABELS[label]]), (mask, label)):
            brush = ImageDraw.Draw(image)
            (brush.ellipse if label == 1 else brush.rectangle)(box, fill=fill)
    return photo, mask


def drawn_masks(
    folder: Path, count: int, *, sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE),), ignored: bool = False
) -> Dataset:
    """Write scenes of these sizes in turn to `images` and `masks`; `ignored` marks a corner of each mask as 255."""
    samples = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        size = sizes[i % len(sizes)]
        photo, mask = scene(i, size)
        if ignored:
            ImageDraw.Draw(mask).rectangle([0, 0, size[1] // 4, size[0] // 4], fill=IGNORE)
        photo.save(folder / "images" / f"{i}.png")
        mask.save(folder / "masks" / f"{i}.png")
        table = ((0, 0), (1, 1), (2, 2), (IGNORE, IGNORE))
        target = Mask(size, MaskFile(folder / "masks" / f"{i}.png", table))
        samples.append(Sample(folder / "images" / f"{i}.png", target, f"images/{i}.png"))
    return Dataset(tuple(samples), LABELS, "masks", "drawn", folder)


def create(decoder: str = "unet", **options: Any) -> Model:
    """Return a small segmenter with random weights."""
    given = {"labels": LABELS, "image_size": SIDE, "frames": (), "width": 32, **options}
    return zoo.create("pyramidnet", "segmenter", pretrained=False, decoder=decoder, **given)
