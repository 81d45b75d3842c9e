"""Augmentation of boxes on the device: the rectangle that is seen is the rectangle that the box tells."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.augment import Augment, augment, identity
from zoo.errors import ConfigError

SIDE, ROWS, SLOTS = 64, 4, 3
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
FILL = 114
# Three programs in all: compiling is most of the time. `color=0` keeps the colours by which rectangles are found.
ZOOM = Augment(scale=(0.3, 4.0), color=0, min_visible=0.3)
MOSAIC = Augment(scale=(0.3, 1.5), color=0, mosaic=0.6)


def drawn(seed=0):
    """A batch of pictures with 0 to 2 rectangles each, red and green, or blue and green, apart from each other; class
    0 is red, 1 green, 2 blue. The last slot is padding. Each picture has its own grey, by which it is known."""
    rng = np.random.default_rng(seed)
    image = np.broadcast_to((np.arange(ROWS) * 12 + 20)[:, None, None, None], (ROWS, SIDE, SIDE, 3)).astype(np.uint8)
    image = image.copy()
    boxes, labels = np.zeros((ROWS, SLOTS, 4), np.float32), np.zeros((ROWS, SLOTS), np.int32)
    mask = np.zeros((ROWS, SIDE, SIDE), np.int32)
    for row in range(ROWS):
        for slot in range((2, 1, 2, 0)[row]):
            width, height = rng.integers(12, 26, 2)
            x, y = int(rng.integers(0, 30 - width + 1)) + 32 * slot, int(rng.integers(0, SIDE - height))
            label = (0, 1)[slot] if row else (2, 1)[slot]
            image[row, y : y + height, x : x + width] = COLORS[label]
            mask[row, y : y + height, x : x + width] = label + 1
            boxes[row, slot], labels[row, slot] = (x, y, x + width, y + height), label
    valid = boxes[..., 2] > 0
    batch = {"image": image, "boxes": boxes, "labels": labels, "box_valid": valid, "crowd": valid & (labels == 1)}
    return {name: jnp.asarray(value) for name, value in ({**batch, "mask": mask}).items()}


BATCH = drawn()


def seen(image, label):
    """The extent of the pixels of a class's colour, x1 y1 x2 y2, and how many there are."""
    other = np.delete(image, label, axis=-1).max(-1)
    hit = image[..., label] > other + 0.4  # where the rectangle covers about half of the pixel or more
    y, x = np.nonzero(hit)
    return (np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]), len(x)) if len(x) else (None, 0)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(0, 2**31 - 1))
def test_rectangles_and_boxes_move_together(seed):
    """One rectangle of each colour an image at most: its pixels give the box without knowing of it."""
    out = {k: np.asarray(v) for k, v in augment(ZOOM, jax.random.key(seed), BATCH, (48, 80)).items()}
    assert out["boxes"].shape == (ROWS, SLOTS, 4)
    for row in range(ROWS):
        for slot in range(SLOTS):
            box, valid, label = out["boxes"][row, slot], out["box_valid"][row, slot], int(out["labels"][row, slot])
            was = bool(BATCH["box_valid"][row, slot])
            assert not valid or was
            assert valid == bool(box.any())
            found, pixels = seen(out["image"][row], label) if was else (None, 0)
            if not valid or found is None:
                assert not valid or min(box[2] - box[0], box[3] - box[1]) < 1.5
                continue
            np.testing.assert_allclose(box, found, atol=1.01)
            around = 2 * float((box[2:] - box[:2]).sum())
            assert int((out["mask"][row] == label + 1).sum()) == pytest.approx(pixels, abs=around + 4)
    np.testing.assert_array_equal(out["labels"], BATCH["labels"])
    np.testing.assert_array_equal(out["crowd"], BATCH["crowd"])


def test_zooming_out_fills_and_shrinks():
    keys = jax.random.split(jax.random.key(0), 12)
    outs = [jax.tree.map(np.asarray, augment(ZOOM, key, BATCH, (48, 80))) for key in keys]
    shares, sizes = [], []
    for out in outs:
        filled = out["mask"] == 255
        np.testing.assert_allclose(out["image"][filled], FILL / 255, atol=1e-6)
        shares += filled.mean((1, 2)).tolist()
        kept = out["boxes"][1, 0]
        sizes.append(np.prod(kept[2:] - kept[:2]) if out["box_valid"][1, 0] else np.nan)
    # The image takes 1 / share of the frame, uniform in its logarithm from 0.3 to 4: about half are smaller.
    assert 0.35 < np.mean(np.array(shares) > 0.02) < 0.8 and max(shares) < 0.76 and max(shares) > 0.5
    own = np.prod(np.asarray(BATCH["boxes"])[1, 0, 2:] - np.asarray(BATCH["boxes"])[1, 0, :2]) * 48 * 80 / SIDE**2
    assert np.nanmin(sizes) < 0.5 * own and np.nanmax(sizes) > 1.3 * own


def test_boxes_of_which_too_little_is_left_are_no_longer_valid():
    """By the share of the area that is inside the crop, computed anew from all that the same crop shows."""
    lenient = Augment(scale=(0.3, 4.0), color=0)
    dropped = kept = 0
    for seed in range(40):
        few, all_ = (augment(config, jax.random.key(seed), BATCH, (48, 80)) for config in (ZOOM, lenient))
        np.testing.assert_array_equal(few["image"], all_["image"])
        both = np.asarray(few["box_valid"])
        assert not (both & ~np.asarray(all_["box_valid"])).any()
        np.testing.assert_array_equal(np.asarray(few["boxes"])[both], np.asarray(all_["boxes"])[both])
        gone = np.asarray(all_["box_valid"]) & ~both
        kept, dropped = kept + both.sum(), dropped + gone.sum()
        # A box that is cut touches the border.
        for box in np.asarray(all_["boxes"])[gone]:
            assert box[0] == 0 or box[1] == 0 or box[2] == 80 or box[3] == 48
    assert dropped > 10 and kept > 50


def test_the_visible_share_decides():
    whole = {"image": jnp.zeros((1, 8, 8, 3), jnp.uint8), "boxes": jnp.array([[[-6.0, 2, 2, 4], [-5, 2, 3, 4]]])}
    whole["box_valid"] = jnp.ones((1, 2), bool)
    config = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0, min_visible=0.3)
    out = augment(config, jax.random.key(0), whole, 8)  # 2/8 and 3/8 of them are inside
    assert out["box_valid"].tolist() == [[False, True]]
    np.testing.assert_allclose(out["boxes"][0], [[0] * 4, [0, 2, 3, 4]], atol=1e-5)
    without = {name: value for name, value in whole.items() if name != "box_valid"}
    assert "box_valid" not in augment(config, jax.random.key(0), without, 8)


def test_the_centre_alone():
    out = identity(BATCH, 24)
    valid = np.asarray(out["box_valid"])
    assert (valid == np.asarray(out["boxes"]).any(-1)).all() and 0 < valid.sum() < np.asarray(BATCH["box_valid"]).sum()
    np.testing.assert_array_equal(identity(BATCH, SIDE)["box_valid"], BATCH["box_valid"])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 2**31 - 1))
def test_a_mosaic_shows_what_its_boxes_say(seed):
    out = {k: np.asarray(v) for k, v in augment(MOSAIC, jax.random.key(seed), BATCH, SIDE).items()}
    assert out["image"].shape == (ROWS, SIDE, SIDE, 3) and out["boxes"].shape == (ROWS, 4 * SLOTS, 4)
    assert out["labels"].shape == out["box_valid"].shape == out["crowd"].shape == (ROWS, 4 * SLOTS)
    for row in range(ROWS):
        told = np.zeros((SIDE, SIDE), int)
        for box, label, valid, crowd in zip(
            *(out[name][row] for name in ("boxes", "labels", "box_valid", "crowd")), strict=True
        ):
            assert valid == bool(box.any()) and (not valid or crowd == (label == 1))
            if valid:
                x1, y1, x2, y2 = box
                rows, columns = (slice(int(np.ceil(a)) + 1, max(int(b) - 1, 0)) for a, b in ((y1, y2), (x1, x2)))
                inner = out["image"][row, rows, columns]
                np.testing.assert_allclose(inner, np.broadcast_to(COLORS[label] / 255, inner.shape), atol=0.02)
                told[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = 1
        # Nothing colourful is left without a box, and masks say the same.
        colourful = np.ptp(out["image"][row], axis=-1) > 0.5
        assert not (colourful & (told == 0)).any()
        marked = (out["mask"][row] > 0) & (out["mask"][row] < 255)
        assert not (marked & (told == 0)).any()


def test_mosaics_are_as_many_as_asked_and_decided_by_the_key():
    joined, greys = 0, set()
    for seed in range(30):
        out = augment(MOSAIC, jax.random.key(seed), BATCH, SIDE)
        if seed < 3:
            again = augment(MOSAIC, jax.random.key(seed), BATCH, SIDE)
            jax.tree.map(np.testing.assert_array_equal, dict(out), dict(again))
        # The picture of row 3 is but one grey: where another is seen, it is a mosaic.
        levels = np.unique(np.round(np.asarray(out["image"][3, ..., 0]) * 255))
        mine = {level for level in (20, 32, 44) if (levels == level).any()}
        joined += bool(mine) or bool(np.asarray(out["box_valid"])[3].any())
        greys |= mine
    assert greys == {20, 32, 44} and 9 <= joined <= 24  # of 30, at 0.6, less those whose crop shows row 3 alone


def test_batches_without_any_box():
    empty = {**BATCH, "boxes": BATCH["boxes"] * 0, "box_valid": BATCH["box_valid"] & False}
    for config, size in ((MOSAIC, SIDE), (ZOOM, (48, 80))):
        out = augment(config, jax.random.key(0), empty, size)
        assert not out["box_valid"].any() and not out["boxes"].any() and bool(jnp.isfinite(out["image"]).all())


def test_wrong_options():
    for wrong in ({"mosaic": 2}, {"min_visible": -1}, {"fill": 300}, {"fill": ()}, {"fill": (0, -1, 0)}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Augment(**wrong)
    with pytest.raises(ConfigError, match="needs boxes or masks"):
        augment(Augment(mosaic=1.0), jax.random.key(0), {"image": BATCH["image"]}, 8)
    with pytest.raises(ConfigError, match="2 channels, but the images have 3"):
        augment(Augment(fill=(1, 2)), jax.random.key(0), BATCH, 8)
