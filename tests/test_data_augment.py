"""Augmentation on the device: decided by the key, and true to boxes and masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.augment import Augment, augment, identity
from zoo.errors import ConfigError

SIZE = 24
# Few settings and shapes in all: each costs seconds of compilation where the cache is cold.
ALL = Augment(hue=0.05, erasing=0.5)
PLAIN = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0)


def images(count=6, side=32, channels=3, seed=0):
    """Smooth random pictures, uint8 (count, side, side, channels)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 4, 4, channels))
    return jnp.asarray(np.kron(coarse, np.ones((1, side // 4, side // 4, 1))).astype(np.uint8))


def test_decided_by_the_key():
    config, batch = ALL, {"image": images()}
    first, again, other = (augment(config, jax.random.key(k), batch, SIZE)["image"] for k in (0, 0, 1))
    assert first.shape == (6, SIZE, SIZE, 3) and first.dtype == jnp.float32
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).mean((1, 2, 3)) > 1e-3).all()


def test_a_row_depends_on_its_key_and_place_alone():
    config, key = ALL, jax.random.key(3)
    batch = images()
    whole = augment(config, key, {"image": batch}, SIZE)["image"]
    changed = augment(config, key, {"image": batch.at[1:].set(0)}, SIZE)["image"]
    np.testing.assert_array_equal(whole[0], changed[0])
    part = augment(config, key, {"image": batch[:2]}, SIZE)["image"]
    np.testing.assert_allclose(whole[:2], part, atol=1e-6)
    same = augment(config, key, {"image": jnp.stack([batch[0]] * 6)}, SIZE)["image"]
    assert all(float(jnp.abs(same[0] - row).mean()) > 1e-3 for row in same[1:])


def test_everything_off_is_a_resize():
    batch = images()
    full = augment(PLAIN, jax.random.key(0), {"image": batch}, 32)["image"]
    pixels = batch.astype(jnp.float32) / 255
    np.testing.assert_allclose(full, pixels, atol=1e-5)
    smaller = augment(PLAIN, jax.random.key(0), {"image": batch}, 16)["image"]
    expected = jax.image.resize(pixels, (6, 16, 16, 3), "linear")
    np.testing.assert_allclose(smaller, expected, atol=1e-5)


def test_flips_half_of_the_images():
    batch = jnp.stack([images(1)[0]] * 64)
    flipped = augment(Augment(scale=(1, 1), ratio=(1, 1), color=0), jax.random.key(0), {"image": batch}, 32)["image"]
    straight = batch.astype(jnp.float32) / 255
    same = np.abs(flipped - straight).max((1, 2, 3)) < 1e-4
    mirrored = np.abs(flipped - straight[:, :, ::-1]).max((1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all() and 16 < mirrored.sum() < 48


def test_crops_stay_within_their_range():
    """On an image of coordinates, a crop's corners show which part of the image it took."""
    y, x = np.mgrid[0:64, 0:64]
    ramp = jnp.asarray(np.stack([y * 4, x * 4, y * 0], -1)[None].repeat(64, 0).astype(np.uint8))
    config = Augment(hflip=False, scale=(0.25, 0.5), color=0)
    out = augment(config, jax.random.key(1), {"image": ramp}, 64)["image"] * 255 / 4
    tall = (out[:, -2, 32, 0] - out[:, 1, 32, 0]) / 61
    wide = (out[:, 32, -2, 1] - out[:, 32, 1, 1]) / 61
    area = tall * wide
    assert float(area.min()) > 0.23 and float(area.max()) < 0.53 and float(area.std()) > 0.03
    assert float((wide / tall).min()) > 0.72 and float((wide / tall).max()) < 1.39
    assert float(jnp.std(out[:, 0, 0, 0])) > 2


def rectangles(count=16, side=64):
    """A bright rectangle in each image, its box, and its mask."""
    rng = np.random.default_rng(0)
    image, mask = np.zeros((count, side, side, 3), np.uint8), np.zeros((count, side, side), np.int32)
    boxes = np.zeros((count, 3, 4), np.float32)
    for i in range(count):
        (x1, y1), (w, h) = rng.integers(8, 30, 2), rng.integers(16, 26, 2)
        image[i, y1 : y1 + h, x1 : x1 + w] = 255
        mask[i, y1 : y1 + h, x1 : x1 + w] = 7
        boxes[i, 0] = x1, y1, x1 + w, y1 + h
    boxes[:, 1] = 0, 0, 0, 0  # padding
    boxes[:, 2] = 0, 0, 1, 1  # in a corner that hardly any crop keeps
    return {"image": jnp.asarray(image), "mask": jnp.asarray(mask), "boxes": jnp.asarray(boxes)}


def assert_pixels_fit(out, least):
    """The bright pixels, the mask and the first box tell of the same rectangle, to within a pixel."""
    checked = 0
    for image, mask, boxes in zip(*(np.asarray(out[k]) for k in ("image", "mask", "boxes")), strict=True):
        assert set(np.unique(mask)) <= {0, 7} and not boxes[1].any()
        bright = image[..., 0] > 0.5
        assert (bright != (mask == 7)).mean() < 0.05
        if not bright.any():
            continue
        ys, xs = np.nonzero(bright)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(boxes[0], found, atol=1.01)
        checked += 1
    assert checked >= least


def test_boxes_and_masks_move_with_the_pixels():
    batch = rectangles()
    size = (40, 72)
    for seed in (0, 1):
        out = augment(Augment(scale=(0.3, 0.9), color=0), jax.random.key(seed), batch, size)
        assert out["image"].shape[1:3] == out["mask"].shape[1:] == size and out["mask"].dtype == jnp.int32
        assert float(out["boxes"][..., [0, 2]].max()) <= size[1] and float(out["boxes"].min()) >= 0
        assert_pixels_fit(out, least=14)
        corner = out["boxes"][:, 2]
        gone = (corner == 0).all(1)
        assert gone.sum() >= 10 and (corner[~gone][:, 2:] > corner[~gone][:, :2]).all()
    assert_pixels_fit(identity(batch, (48, 52)), least=16)


def test_colors_change_by_no_more_than_asked():
    grey = jnp.full((64, 8, 8, 3), 128, jnp.uint8)
    only = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0.2)
    factor = augment(only, jax.random.key(0), {"image": grey}, 8)["image"][:, 0, 0] / (128 / 255)
    assert float(factor.min()) > 0.79 and float(factor.max()) < 1.21 and float(factor[:, 0].std()) > 0.05
    np.testing.assert_allclose(factor[:, 0], factor[:, 2], atol=1e-5)


def test_hue_turns_colors_but_keeps_grey_and_luma():
    turn = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0, hue=0.1)
    grey = jnp.full((16, 8, 8, 3), 90, jnp.uint8)
    np.testing.assert_allclose(augment(turn, jax.random.key(0), {"image": grey}, 8)["image"], 90 / 255, atol=1e-5)
    dull = jnp.asarray(np.array([120, 100, 110], np.uint8) + np.zeros((16, 8, 8, 3), np.uint8))
    out = np.asarray(augment(turn, jax.random.key(0), {"image": dull}, 8)["image"])[:, 0, 0]
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(out @ luma, np.array([120, 100, 110]) / 255 @ luma, atol=1e-4)
    assert np.abs(out - np.array([120, 100, 110]) / 255).max() > 0.01


def test_other_channel_counts():
    channels = 4
    batch = {"image": images(channels=channels), "label": jnp.arange(6)}
    out = augment(Augment(hue=0.1), jax.random.key(0), batch, SIZE)
    assert out["image"].shape == (6, SIZE, SIZE, channels)
    np.testing.assert_array_equal(out["label"], np.arange(6))


def test_erasing_replaces_one_rectangle():
    black = {"image": jnp.zeros((64, 32, 32, 3), jnp.uint8)}
    out = augment(Augment(hflip=False, scale=(1, 1), color=0, erasing=0.5), jax.random.key(0), black, 32)["image"]
    hit = [image for image in np.asarray(out) if image.any()]
    assert 16 < len(hit) < 48
    for image in hit:
        ys, xs = np.nonzero(image.sum(-1))
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        assert len(ys) == height * width and 0.01 < len(ys) / 1024 < 0.4
        assert image[image > 0].std() > 0.15


def test_mixing_says_what_it_mixed():
    """With one grey level an image, its mean tells the shares it is made of."""
    level = jnp.arange(16, dtype=jnp.float32) * 16
    batch = {"image": jnp.broadcast_to(level.astype(jnp.uint8)[:, None, None, None], (16, 20, 20, 3))}
    out = augment(Augment(color=0, mixup=0.4, cutmix=1.0), jax.random.key(0), batch, 20)
    partner, weight = out["mix"]
    assert partner.dtype == jnp.int32 and sorted(partner.tolist()) == list(range(16))
    assert float(weight.min()) >= 0 and float(weight.max()) <= 1 and float(weight.std()) > 0.05
    expected = (weight * level + (1 - weight) * level[partner]) / 255
    np.testing.assert_allclose(out["image"].mean((1, 2, 3)), expected, atol=1e-4)
    mixed = np.asarray(partner) != np.arange(16)
    flat = np.asarray(out["image"].std((1, 2, 3)))[mixed] < 1e-4
    assert flat.any() and not flat.all()  # some were blended, some were cut


def test_mixing_weights_follow_the_beta_distribution():
    level = jnp.arange(2048, dtype=jnp.float32) % 256
    image = level.astype(jnp.uint8)[:, None, None, None]
    out = augment(Augment(hflip=False, color=0, mixup=0.4), jax.random.key(0), {"image": image}, 1)
    partner, weight = (np.asarray(part) for part in out["mix"])
    expected = weight * level + (1 - weight) * level[partner]
    np.testing.assert_allclose(out["image"].ravel() * 255, expected, atol=1e-2)
    # Variance of Beta(a, a): 1 / (4 * (2 * a + 1)).
    assert abs(weight.mean() - 0.5) < 0.03 and abs(weight.var() - 1 / (4 * 1.8)) < 0.01


def test_identity():
    batch = {"image": images(side=32), "label": jnp.arange(6)}
    same = identity(batch, 32)
    np.testing.assert_allclose(same["image"], np.asarray(batch["image"]) / np.float32(255), atol=1e-6)
    assert same["image"].dtype == jnp.float32 and same["label"] is batch["label"]
    np.testing.assert_array_equal(identity(batch, 24)["image"], same["image"][:, 4:28, 4:28])
    with pytest.raises(ConfigError, match="smaller"):
        identity(batch, 33)


def test_wrong_options():
    for wrong in (
        {"scale": (0.5, 0.2)},
        {"scale": (0, 1)},
        {"ratio": (0, 1)},
        {"color": 2},
        {"hue": 1},
        {"erasing": -0.1},
        {"mixup": -1},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Augment(**wrong)
    with pytest.raises(ConfigError, match="boxes or masks"):
        augment(Augment(mixup=0.2), jax.random.key(0), rectangles(), SIZE)
