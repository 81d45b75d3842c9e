"""Boxes and masks lie over the training images, also where these are shown larger, with room for random crops."""

from __future__ import annotations

from pathlib import Path

import boxes_kit
import masks_kit
import numpy as np
import pytest
from boxes_kit import installed, pyramidnet  # noqa: F401  (fixtures)
from PIL import Image
from training_kit import own_cache  # noqa: F401  (fixture)

from zoo.data.masks import IGNORE, read_mask
from zoo.models.prepared import training_load

SIZE = (90, 140)
each = pytest.mark.parametrize(
    ("mode", "crop_pct"), [("center", 0.8), ("squash", 0.8), ("center", 1.0), ("letterbox", 1.0)]
)


@each
def test_masks(mode: str, crop_pct: float, tmp_path: Path) -> None:
    (sample,) = masks_kit.drawn_masks(tmp_path, 1, sizes=(SIZE,))
    mask = read_mask(sample.target)
    Image.fromarray(np.repeat(100 * mask[..., None], 3, -1)).save(sample.image)
    model = masks_kit.create(image_size=64, crop_mode=mode, crop_pct=crop_pct)
    found = training_load(model)(sample)
    side = int(64 / crop_pct)
    assert found["image"].shape == (side, side, 3) and found["mask"].shape == (side, side)
    there = found["mask"] != IGNORE  # a letterbox has a border
    assert set(np.unique(found["mask"][there])) == set(np.unique(mask))
    same = np.round(found["image"][..., 0] / 100) == found["mask"]
    assert same[there].mean() > 0.97


@each
def test_boxes(mode: str, crop_pct: float, tmp_path: Path) -> None:
    (sample,) = boxes_kit.drawn(tmp_path, 1, sizes=(SIZE,))
    (box,) = np.array(sample.target.boxes, int)
    white = np.zeros((*SIZE, 3), np.uint8)
    white[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(white).save(sample.image)
    model = boxes_kit.create(image_size=64, crop_mode=mode, crop_pct=crop_pct)
    found = training_load(model)(sample)
    rows, columns = np.nonzero(found["image"][..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    side = int(64 / crop_pct)
    assert found["image"].shape == (side, side, 3)
    np.testing.assert_allclose(np.clip(found["boxes"][0], 0, side), seen, atol=1)
