"""Pixels as a net sees them, by other libraries' configurations, against those libraries' steps in NumPy and Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from weights_kit import NAME, SPEC, create, saved, tensors

from zoo.data import prepare
from zoo.errors import WeightsError
from zoo.models.origin import origin_of
from zoo.registry.spec import Preprocess
from zoo.weights.foreign import of_processor, of_timm, of_torchvision

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTO = np.random.default_rng(0).integers(0, 256, (50, 72, 3), dtype=np.uint8)
BASE = Preprocess(size=(64, 64), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="lanczos")
FILTERS = {0: Image.Resampling.NEAREST, 1: Image.Resampling.LANCZOS, 2: Image.Resampling.BILINEAR, 3: Image.BICUBIC}


def seen(preprocess: Preprocess) -> np.ndarray:
    """What a net gets of the photo: what `prepare` and `Model.normalize` compute."""
    pixels = prepare(PHOTO, preprocess) / 255
    return (pixels - np.array(preprocess.mean)) / np.array(preprocess.std)


def resized(size: tuple[int, int], resample: int = 2) -> np.ndarray:
    return np.asarray(Image.fromarray(PHOTO).resize(size[::-1], FILTERS[resample]))


def shorter(edge: int, resample: int = 2) -> np.ndarray:
    return resized((edge, int(edge * 72 / 50)), resample)


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    top, left = (round((have - side) / 2) for have in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


PLAIN: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 32, "width": 40},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}
SQUASHED = resized((32, 40)).astype(float)
IN_BYTES = {"image_mean": [123.0, 116.0, 103.0], "image_std": [58.0, 57.0, 56.0]}

# What a processor says besides, and what transformers' code makes of the photo then.
VALUES: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "plain": ({}, (SQUASHED / 255 - MEAN) / STD),
    "no normalisation": ({"do_normalize": False}, SQUASHED / 255),
    "null is off": ({"do_normalize": None}, SQUASHED / 255),
    "no rescaling": (
        {"do_rescale": False, **IN_BYTES},
        (SQUASHED - IN_BYTES["image_mean"]) / IN_BYTES["image_std"],
    ),
    "neither": ({"do_rescale": False, "do_normalize": False}, SQUASHED),
    "factor": ({"rescale_factor": 1 / 127.5}, (SQUASHED / 127.5 - MEAN) / STD),
    "factor and offset": (
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        SQUASHED / 127.5 - 1,
    ),
    "offset and statistics": (
        {"rescale_factor": 1 / 127.5, "offset": True},
        (SQUASHED / 127.5 - 1 - MEAN) / STD,
    ),
    "offset without rescaling": ({"do_rescale": False, "offset": True, "do_normalize": False}, SQUASHED),
    "divided once more": ({"include_top": True}, (SQUASHED / 255 - MEAN) / STD / STD),
    "divided alone": ({"include_top": True, "do_normalize": False}, SQUASHED / 255 / STD),
    "one number for all channels": ({"image_mean": 0.5, "image_std": [0.25]}, (SQUASHED / 255 - 0.5) / 0.25),
    "blue first": ({"do_flip_channel_order": True, "do_normalize": False}, SQUASHED[..., ::-1] / 255),
    "blue first, normalised": ({"do_flip_channel_order": True}, ((SQUASHED / 255 - MEAN) / STD)[..., ::-1]),
    "nearest": ({"resample": 0}, (resized((32, 40), 0) / 255 - MEAN) / STD),
    "lanczos": ({"resample": 1}, (resized((32, 40), 1) / 255 - MEAN) / STD),
    "bicubic": ({"resample": 3}, (resized((32, 40), 3) / 255 - MEAN) / STD),
    "a list of sides": ({"size": [32, 40]}, (SQUASHED / 255 - MEAN) / STD),
    "both sides and a crop": (
        {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        (centre(resized((40, 40)), 32) / 255 - MEAN) / STD,
    ),
    "a crop that is off": (
        {"size": {"height": 40, "width": 40}, "do_center_crop": False, "crop_size": 32},
        (resized((40, 40)) / 255 - MEAN) / STD,
    ),
    "shorter side and crop": (
        {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32},
        (centre(shorter(36), 32) / 255 - MEAN) / STD,
    ),
    "one number and crop": (
        {"size": 36, "do_center_crop": True, "crop_size": 32},
        (centre(shorter(36), 32) / 255 - MEAN) / STD,
    ),
    "one number that means both sides": (
        {"size": 36, "default_to_square": True, "do_center_crop": True, "crop_size": 32},
        (centre(resized((36, 36)), 32) / 255 - MEAN) / STD,
    ),
    "one number of such a processor": (
        {"size": 36, "feature_extractor_type": "DeiTFeatureExtractor", "do_center_crop": True, "crop_size": 32},
        (centre(resized((36, 36)), 32) / 255 - MEAN) / STD,
    ),
    "share": ({"size": {"shortest_edge": 32}, "crop_pct": 0.8}, (centre(shorter(40), 32) / 255 - MEAN) / STD),
    "share and crop": (
        {"size": {"shortest_edge": 32}, "crop_pct": 0.9, "do_center_crop": True, "crop_size": 28},
        (centre(shorter(35), 28) / 255 - MEAN) / STD,
    ),
    "a share that is null": (
        {"size": {"shortest_edge": 28}, "crop_pct": None, "image_processor_type": "ConvNextImageProcessor"},
        (centre(shorter(32), 28) / 255 - MEAN) / STD,
    ),
    "a larger shorter side": (
        {"size": {"shortest_edge": 28}, "image_processor_type": "LevitImageProcessor", "do_center_crop": True}
        | {"crop_size": 28},
        (centre(shorter(32), 28) / 255 - MEAN) / STD,
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_switch_of_an_image_processor_changes_the_pixels_as_there(kind: str) -> None:
    said, wanted = VALUES[kind]
    got = seen(of_processor({**PLAIN, **said}, BASE, "preprocessor_config.json")[0])
    # A crop of an odd rest may lie one pixel aside; none of these has one.
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())


def test_a_processor_that_never_normalises_has_no_statistics() -> None:
    said = {"do_resize": True, "size": {"height": 32, "width": 40}, "do_flip_channel_order": True, "resample": 2}
    assert np.allclose(seen(of_processor(said, BASE, "f")[0]), SQUASHED[..., ::-1] / 255, atol=1e-6)


REFUSED = [
    ({"do_resize": False}, "do_resize=False"),
    ({"do_pad": True, "pad_size": {"height": 64, "width": 64}}, "do_pad=True"),
    ({"do_thumbnail": True}, "do_thumbnail=True"),
    ({"size_divisor": 32}, "size_divisor=32"),
    ({"keep_aspect_ratio": True}, "keep_aspect_ratio=True"),
    ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size="),
    ({"size": {"longest_edge": 32}}, "size="),
    ({"size": {"shortest_edge": 32}}, "do_center_crop=None"),
    ({"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": 40}, "crop_size=40"),
    ({"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": [24, 20]}, "crop_size="),
    ({"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": [32, 20]}, "crop_size="),
    ({"crop_size": 20}, "crop_size=20"),
    ({"do_center_crop": True, "crop_size": 20, "image_processor_type": "PerceiverImageProcessor"}, "do_center_crop="),
    ({"resample": 4}, "resample=4"),
    ({"resample": 5}, "resample=5"),
    ({"rescale_factor": 0}, "rescale_factor=0"),
    ({"rescale_factor": "1/255"}, "rescale_factor='1/255'"),
    ({"image_std": [0, 1, 1]}, "image_std="),
    ({"image_mean": [0.5, 0.5]}, "image_mean="),
    ({"image_mean": None}, "image_mean=None"),
    ({"crop_pct": 1.5, "size": {"shortest_edge": 32}}, "crop_pct=1.5"),
]


@pytest.mark.parametrize(("said", "words"), REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused_by_its_name(said: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError) as error:
        of_processor({**PLAIN, **said}, BASE, "preprocessor_config.json")
    assert f"the preprocessor_config.json beside the weights has {words}" in str(error.value)


def test_what_nothing_here_knows_is_said(tmp_path: Path) -> None:
    source = saved(tmp_path, tensors(), {"model_type": "resnet"})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PLAIN, "sharpen": 2, "processor_class": "X"}))
    notes = create(source).card.notes
    assert any("sharpen" in note and "processor_class" not in note for note in notes)


def test_the_models_own_arithmetic_is_that_of_the_processor(tmp_path: Path) -> None:
    """Through `zoo.create`, without a config.json beside it: the pixels that the model gives its backbone."""
    said = {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "do_flip_channel_order": True}
    source = saved(tmp_path, tensors())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PLAIN, **said, "size": 32}))
    model = create(source, image_size=32)
    got = np.asarray(model.normalize(model.prepare([PHOTO])))[0]
    assert np.allclose(got, resized((32, 32))[..., ::-1] / 127.5 - 1, atol=1e-5)
    assert np.allclose(np.asarray(model.pixels(got[None])), resized((32, 32)) / 255, atol=1e-5)


# timm and torchvision ----------------------------------------------------------------------------------------------

TIMM = {"input_size": [3, 32, 32], "mean": MEAN, "std": STD, "crop_pct": 0.8, "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, (centre(shorter(40), 32) / 255 - MEAN) / STD),
        ({"crop_mode": "squash"}, (centre(resized((40, 40)), 32) / 255 - MEAN) / STD),
        ({"mean": [0.5], "std": [0.25]}, (centre(shorter(40), 32) / 255 - 0.5) / 0.25),
        (
            {"crop_pct": None, "fixed_input_size": True, "test_crop_pct": 1.0},
            (centre(shorter(36), 32) / 255 - MEAN) / STD,
        ),
    ],
    ids=["center", "squash", "one number", "not of pixels"],
)
def test_the_fields_of_timm_change_the_pixels_as_there(said: dict[str, Any], wanted: np.ndarray) -> None:
    assert np.abs(seen(of_timm({**TIMM, **said}, BASE, "config.json")) - wanted).max() < 1e-5


def test_timms_grey_nets_see_grey() -> None:
    found = of_timm({**TIMM, "input_size": [1, 32, 32], "mean": [0.5], "std": [0.25]}, BASE, "config.json")
    grey = np.asarray(Image.fromarray(PHOTO).convert("L").resize((57, 40), Image.Resampling.BILINEAR))
    assert np.abs(seen(found) - (centre(grey, 32)[..., None] / 255 - 0.5) / 0.25).max() < 1e-5


@pytest.mark.parametrize(
    ("inner", "outer", "words"),
    [
        ({"crop_mode": "border"}, {}, "crop_mode='border'"),
        ({"interpolation": "hamming"}, {}, "interpolation='hamming'"),
        ({"mean": [0.5, 0.5]}, {}, "mean="),
        ({"input_size": [32, 32]}, {}, "input_size="),
        ({"label_offset": 1}, {}, "label_offset=1"),
        ({}, {"global_pool": "max"}, "global_pool='max'"),
        ({}, {"model_args": {"act_layer": "gelu"}}, "act_layer='gelu'"),
        ({}, {"model_args": [1]}, "model_args="),
    ],
)
def test_what_timm_does_and_zoo_does_not_is_refused(inner: dict[str, Any], outer: dict[str, Any], words: str) -> None:
    config = {"architecture": NAME, "pretrained_cfg": {**TIMM, **inner}, **outer}
    with pytest.raises(WeightsError) as error:
        origin_of(SPEC, None, config, None, {})
    assert f"the config.json beside the weights has {words}" in str(error.value)
    assert origin_of(SPEC, None, {**config, "pretrained_cfg": TIMM, "global_pool": "avg", "model_args": {}}, None, {})


TORCHVISION = {"crop_size": 32, "resize_size": 36, "mean": MEAN, "std": STD, "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, (centre(shorter(36), 32) / 255 - MEAN) / STD),
        ({"crop_size": [32], "resize_size": [36]}, (centre(shorter(36), 32) / 255 - MEAN) / STD),
        ({"interpolation": "InterpolationMode.BICUBIC"}, (centre(shorter(36, 3), 32) / 255 - MEAN) / STD),
        ({"resize_size": [36, 36]}, (centre(resized((36, 36)), 32) / 255 - MEAN) / STD),
    ],
)
def test_the_arguments_of_torchvisions_transforms_are_honoured(said: dict[str, Any], wanted: np.ndarray) -> None:
    found = origin_of(SPEC, None, {**TORCHVISION, **said}, None, {})
    assert np.abs(seen(found.preprocess) - wanted).max() < 1e-5
    assert "torchvision" in found.notes[0]


@pytest.mark.parametrize("said", [{"antialias": False}, {"interpolation": "box"}, {"max_size": 99}, {"crop_size": 40}])
def test_what_torchvision_does_and_zoo_does_not_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=f"has {next(iter(said))}="):
        of_torchvision({**TORCHVISION, **said}, BASE, "config.json")
