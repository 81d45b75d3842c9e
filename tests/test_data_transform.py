"""Preprocessing equals timm's and torchvision's, pixel for pixel."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import decode, prepare, with_room
from zoo.data.transform import frame_of
from zoo.errors import DataError
from zoo.registry.spec import Preprocess

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "tests" / "golden" / "preprocess.json").read_text())["cases"]
_spec = importlib.util.spec_from_file_location("golden_preprocess", ROOT / "tools" / "golden_preprocess.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


@pytest.mark.parametrize("number", range(len(golden.CASES)))
def test_equals_timm(number):
    height, width, size, crop_pct, interpolation, crop_mode = golden.CASES[number]
    preprocess = Preprocess(size=size, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)
    found = golden.summary(prepare(golden.golden_image(height, width), preprocess))
    assert found["shape"] == GOLDEN[number]["shape"]
    assert found["pixels"] == GOLDEN[number]["pixels"]
    assert found["sha256"] == GOLDEN[number]["sha256"]


def test_the_goldens_tell_settings_apart():
    assert len({case["sha256"] for case in GOLDEN}) == len(GOLDEN)
    image = golden.golden_image(375, 500)
    right = prepare(image, Preprocess())
    for wrong in (Preprocess(interpolation="bicubic"), Preprocess(crop_pct=0.9), Preprocess(crop_mode="squash")):
        assert not np.array_equal(prepare(image, wrong), right)


def by_hand(image, size, resized, kernel):
    """The centre of the image resized to shorter side `resized`, with Pillow alone."""
    height, width = image.shape[:2]
    scale = resized / min(height, width)
    new = (resized, int(resized * width / height)) if height <= width else (int(resized * height / width), resized)
    assert abs(new[0] - height * scale) < 1 and abs(new[1] - width * scale) < 1
    top, left = int(round((new[0] - size) / 2.0)), int(round((new[1] - size) / 2.0))
    picture = Image.fromarray(image).resize((new[1], new[0]), kernel)
    return np.asarray(picture)[top : top + size, left : left + size]


@pytest.mark.parametrize("seed", range(8))
def test_equals_pillow_by_hand(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 300, 2))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    preprocess = Preprocess(size=(64, 64), crop_pct=0.875, interpolation="bicubic")
    np.testing.assert_array_equal(prepare(image, preprocess), by_hand(image, 64, 73, Image.Resampling.BICUBIC))


def test_real_photos_equal_pillow(assets):
    for path in sorted((assets / "datasets" / "hymenoptera" / "val" / "bees").iterdir())[:8]:
        image = np.asarray(Image.open(path).convert("RGB"))
        ours = prepare(decode(path), Preprocess())
        np.testing.assert_array_equal(ours, by_hand(image, 224, 256, Image.Resampling.BILINEAR))


def test_channels():
    image = golden.golden_image(90, 120)
    size = {"size": (32, 32)}
    rgb = prepare(image, Preprocess(**size))
    bgr = prepare(image, Preprocess(**size, channels="BGR"))
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    one = {"mean": (0.5,), "std": (0.5,), "channels": "L"}
    np.testing.assert_array_equal(prepare(image, Preprocess(**size, **one)), prepare(grey, Preprocess(**size, **one)))
    for channels in (1, 2, 4, 7):
        bands = np.concatenate([image] * 3, -1)[..., :channels]
        done = prepare(bands, Preprocess(**size))
        np.testing.assert_array_equal(done, np.concatenate([rgb] * 3, -1)[..., :channels])


def test_training_images_keep_room_around_the_same_centre():
    image = golden.golden_image(300, 400)
    preprocess = Preprocess(size=(224, 224), crop_pct=0.875)
    train, evaluated = prepare(image, with_room(preprocess)), prepare(image, preprocess)
    assert train.shape == (256, 256, 3)
    np.testing.assert_array_equal(train[16:240, 16:240], evaluated)
    assert prepare(image, with_room(Preprocess(size=(96, 128), crop_pct=1.0))).shape == (96, 128, 3)
    whole = prepare(image, with_room(Preprocess(size=(64, 64), crop_mode="squash", crop_pct=1.0)))
    np.testing.assert_array_equal(whole, np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (2, 3000)])
def test_thin_images_cost_no_memory(size):
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (*size, 3), np.uint8), 1, 0), 1, 1)
    done = prepare(image, Preprocess())
    assert done.shape == (224, 224, 3)
    if size == (2, 3000):
        full = by_hand(image[:, 1400:1600], 224, 256, Image.Resampling.BILINEAR)
        assert np.abs(full.astype(int) - done).max() <= 1


def test_other_arrays_are_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError, match="an image must be uint8"):
            prepare(wrong, Preprocess())


# Frames ----------------------------------------------------------------------------------------------------------

LETTERBOX = {"crop_mode": "letterbox", "crop_pct": 1.0, "size": (96, 96)}
FRAMED = [
    Preprocess(**LETTERBOX),
    Preprocess(**LETTERBOX, frames=((72, 96), (96, 72))),
    Preprocess(size=(64, 64), crop_pct=0.875),
    Preprocess(size=(48, 80), crop_pct=0.9),
    Preprocess(size=(64, 64), crop_mode="squash", crop_pct=1.0),
]


@pytest.mark.parametrize("preprocess", FRAMED, ids=lambda p: f"{p.crop_mode} {p.size} {len(p.frames)}")
@pytest.mark.parametrize("size", [(96, 96), (120, 160), (200, 90), (60, 60), (75, 333), (333, 75)], ids=str)
def test_a_frame_tells_where_a_mark_is_seen(size, preprocess):
    """A white rectangle on black is found in the prepared image where the frame says that it is."""
    height, width = size
    top, left, bottom, right = height // 3, width // 3, 2 * height // 3, 2 * width // 3
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    frame = frame_of(size, preprocess)
    assert (frame.height, frame.width) == size
    seen = prepare(image, preprocess)[..., 0]
    if preprocess.crop_mode == "letterbox":
        seen = np.where(seen == prepare(np.zeros_like(image), preprocess)[..., 0], 0, seen)
    rows, columns = (np.flatnonzero((seen > 127).any(axis)) for axis in (1, 0))
    sides = [(rows, frame.scale_y, frame.top, (top, bottom), seen.shape[0])]
    sides += [(columns, frame.scale_x, frame.left, (left, right), seen.shape[1])]
    for found, scale, shift, edges, side in sides:
        wanted = np.clip(np.array(edges) * scale + shift, 0, side)
        np.testing.assert_allclose([found[0], found[-1] + 1], wanted, atol=1.01)


def test_a_letterbox_is_filled_at_the_right_and_below():
    wide = np.full((50, 100, 3), 200, np.uint8)
    done = prepare(wide, Preprocess(**LETTERBOX, fill=7))
    assert done.shape == (96, 96, 3) and (done[:48] == 200).all() and (done[48:] == 7).all()
    tall = prepare(wide.transpose(1, 0, 2), Preprocess(**LETTERBOX, fill=7))
    assert (tall[:, :48] == 200).all() and (tall[:, 48:] == 7).all()
    mean = prepare(wide, Preprocess(**LETTERBOX, mean=(0.5, 0.25, 0.0), std=(1, 1, 1)))
    assert mean[95, 95].tolist() == [128, 64, 0]
    np.testing.assert_array_equal(
        prepare(wide, with_room(Preprocess(**LETTERBOX))), prepare(wide, Preprocess(**LETTERBOX))
    )


@pytest.mark.parametrize(
    ("size", "frame"),
    [
        ((480, 640), (72, 96)),
        ((640, 480), (96, 72)),
        ((500, 500), (96, 96)),
        ((100, 1000), (72, 96)),
        ((1000, 100), (96, 72)),
        ((90, 100), (96, 96)),
    ],
)
def test_an_image_gets_the_frame_that_it_fills_best(size, frame):
    preprocess = Preprocess(**LETTERBOX, frames=((72, 96), (96, 72)))
    assert preprocess.frame(size) == frame
    assert prepare(np.zeros((*size, 3), np.uint8), preprocess).shape == (*frame, 3)
    assert Preprocess(**LETTERBOX).frame(size) == (96, 96)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 5000)])
def test_thin_images_in_a_letterbox(size):
    preprocess = Preprocess(**LETTERBOX)
    frame = frame_of(size, preprocess)
    assert prepare(np.zeros((*size, 3), np.uint8), preprocess).shape == (96, 96, 3)
    assert 1 <= round(frame.scale_y * size[0]) <= 96 and 1 <= round(frame.scale_x * size[1]) <= 96


@pytest.mark.parametrize("size", [(480, 640), (375, 500), (427, 640), (640, 427), (33, 77)])
def test_the_whole_image_just_fits(size):
    """Rounding never makes an image larger than its frame, nor loses the last pixel of a side that just fits."""
    for side in (32, 96, 416, 640):
        frame = frame_of(size, Preprocess(**{**LETTERBOX, "size": (side, side)}))
        seen = (frame.scale_y * size[0], frame.scale_x * size[1])
        assert max(seen) == pytest.approx(side) and min(seen) <= side
