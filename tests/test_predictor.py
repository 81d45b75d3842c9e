"""Images to predictions: batches, strategies, and files that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_kit import installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.adapters.classifier import Classifier
from zoo.errors import DataError
from zoo.models.model import Model
from zoo.models.predictor import Predictor, WholeImages


@pytest.fixture(scope="module")
def model(tinynet: Path) -> Model:  # noqa: F811
    return zoo.create("tinynet", "classifier", labels=("a", "b"), pretrained=False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five images, of which the second and the last are none."""
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "4.png").unlink()
    return [tmp_path / f"{i}.png" for i in range(5)]


def test_a_bad_file_is_a_bad_row(model: Model, files: list[Path]) -> None:
    rows = list(Predictor(model, 2).rows(files))
    assert [type(row).__name__ for row in rows] == [
        "Classification", "DataError", "Classification", "Classification", "DataError"
    ]  # fmt: skip
    assert "1.png" in str(rows[1]) and "4.png" in str(rows[4])
    good = [0, 2, 3]
    alone = Predictor(model, 1)([files[i] for i in good])
    for i, one in zip(good, alone, strict=True):
        assert rows[i].file == one.file and rows[i].score == pytest.approx(one.score, rel=1e-5)
    with pytest.raises(DataError, match="1.png"):
        Predictor(model, 2)(files)


class Negative:
    """Looks at the negatives of images."""

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Sequence[Mapping[str, np.ndarray]]:
        return WholeImages()(model, [255 - np.asarray(image) for image in images], batch_size)


class Inverted(Classifier):
    inference: Any = Negative()


def test_a_task_states_how_images_are_looked_at(model: Model) -> None:
    images = list(np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), np.uint8))
    plain = model.predict(images)
    inverted = model.adjusted()
    inverted.adapter = Inverted(labels=("a", "b"))
    assert [one.score for one in inverted.predict([255 - image for image in images])] == [one.score for one in plain]
