"""One-channel models on grey images of any depth, from files to features and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_kit import FAST, installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.data import Dataset, Sample
from zoo.models.predictor import prepare_one


def radiograph(file: Path, bright: bool, depth: int) -> Path:
    """A disc on a gradient, in the 12 bits of most devices, or the same picture in 8."""
    y, x = np.mgrid[:24, :32]
    values = 900 + 20 * x + 1500.0 * bright * ((x - 15) ** 2 + (y - 11) ** 2 < 36)
    values = (values - values.min()) / (values.max() - values.min())
    pixels = (200 + 3600 * values).astype(np.uint16) if depth == 16 else np.rint(255 * values).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_grey_model_sees_what_a_file_of_16_bits_shows(tmp_path: Path, suffix: str):
    model = zoo.create("tinynet", "classifier", labels=("a", "b"), pretrained=False, in_channels=1)
    assert model.card.preprocess.channels == "L"
    deep, flat = (prepare_one(model.card, radiograph(tmp_path / f"{d}{suffix}", True, d))[0] for d in (16, 8))
    assert deep.shape == (16, 16, 1) and np.ptp(deep) > 150
    assert np.abs(deep.astype(int) - flat).max() <= 1


@pytest.mark.parametrize("plan", ["head", "all"])
def test_a_grey_model_learns_from_16_bits(tmp_path: Path, plan: str):
    """From cached features, and from augmented images."""
    samples = [Sample(radiograph(tmp_path / f"{i}.png", i % 2 == 1, 16), i % 2, f"{i}.png") for i in range(8)]
    data = Dataset(tuple(samples), ("none", "disc"), "class", "grey", tmp_path)
    model = zoo.create("tinynet", "classifier", labels=data.classes, pretrained=False, in_channels=1)
    options: dict[str, Any] = {**FAST, "augment": "auto", "plan": plan, "lr": 1e-2, "epochs": 12}
    run = zoo.train(model, {"train": data, "val": data}, out=tmp_path / "run", **options)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert run.metrics["accuracy"] > 0.8
