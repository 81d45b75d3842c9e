"""Images to predictions: batches, strategies, and files that cannot be read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from training_kit import installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.adapters.classifier import Classifier
from zoo.errors import ConfigError, DataError, ZooError
from zoo.models.model import Model
from zoo.models.predictor import Predictor, WholeImages, as_list, prepare_one


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
        "Classification", "UnreadableError", "Classification", "Classification", "UnreadableError"
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


def test_a_task_may_refuse_one_image_of_a_batch(model: Model) -> None:
    """The task computes whole batches, or single images; then no image is computed twice."""

    class AtOnce:
        calls: list[int] = []

        def __call__(self, model: Model, images: Sequence[Any], batch_size: int) -> Any:
            self.calls.append(batch_size)
            if too_dark := [image for image in images if image.max() < 10]:
                raise ConfigError(f"too dark: {too_dark[0][0, 0, 0]}")
            return WholeImages()(model, images, batch_size)

    class InTurn(AtOnce):
        calls = []

        def __call__(self, model: Model, images: Sequence[Any], batch_size: int) -> Any:
            for image in images:
                yield from AtOnce.__call__(self, model, [image], batch_size)

    images = [np.full((20, 20, 3), value, np.uint8) for value in (50, 60, 1, 80, 2)]
    good = model.predict([images[i] for i in (0, 1, 3)])
    for inference in (AtOnce(), InTurn()):
        picky = model.adjusted()
        picky.adapter = type("Picky", (Classifier,), {"inference": inference})(labels=("a", "b"))
        rows = list(picky.predict_each(iter(images), batch_size=3))
        assert [str(row) for row in (rows[2], rows[4])] == ["too dark: 1", "too dark: 2"]
        assert [rows[i].score for i in (0, 1, 3)] == pytest.approx([one.score for one in good], rel=1e-5)
        assert set(inference.calls) == {3}  # one size, so one compiled program
        if isinstance(inference, InTurn):
            assert len(inference.calls) == len(images) + 2  # what failed in a batch is tried once more, alone
        with pytest.raises(ConfigError, match="too dark: 1"):  # the same for all: no fault of an image
            list(picky.predict_each([images[2]] * 3))


BACKGROUNDS = {"white": (255, 255, 255), "grey": (90, 90, 90), "drop": ()}


def test_images_in_any_form_give_the_prediction_of_their_file(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    colour, grey = rng.integers(0, 256, (20, 24, 3), np.uint8), rng.integers(0, 256, (20, 24), np.uint8)
    alpha = np.concatenate([colour, rng.integers(0, 256, (20, 24, 1), np.uint8)], -1)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, pixels in {"colour": colour, "grey": grey, "alpha": alpha}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(colour).save(tmp_path / "turned.png", exif=turned)
    file = {name: tmp_path / f"{name}.png" for name in ("colour", "grey", "alpha", "turned")}
    want = {name: model.predict(path).top for name, path in file.items()}
    assert len({one[0][1] for one in want.values()}) == 4  # what is transparent lies on white
    with file["colour"].open("rb") as opened:
        forms: list[tuple[str, Any]] = [
            ("colour", str(file["colour"])), ("colour", colour), ("colour", jnp.asarray(colour)), ("colour", opened),
            ("colour", file["colour"].read_bytes()), ("colour", bytearray(file["colour"].read_bytes())),
            ("colour", io.BytesIO(file["colour"].read_bytes())), ("colour", Image.open(file["colour"])),
            ("colour", colour.astype(np.float32) / 255), ("colour", jnp.asarray(colour, jnp.float32) / 255),
            ("colour", colour / 255.0), ("grey", grey), ("grey", grey[..., None]), ("grey", Image.fromarray(grey)),
            ("grey", jnp.asarray(grey)), ("alpha", alpha), ("alpha", Image.fromarray(alpha)),
            ("turned", Image.open(file["turned"])),
        ]  # fmt: skip
        found = [model.predict(form) for _, form in forms]
    for (name, form), one in zip(forms, found, strict=True):
        assert [score for _, score in one.top] == pytest.approx([s for _, s in want[name]], abs=1e-6), (name, form)
    assert [one.file for one in found[:5]] == [
        str(file["colour"]), "image 0", "image 0", str(file["colour"]), "image 0"
    ]  # fmt: skip
    backgrounds = {name: replace(model.card.preprocess, background=rgb) for name, rgb in BACKGROUNDS.items()}
    for name, preprocess in backgrounds.items():
        card = replace(model.card, preprocess=preprocess)
        pixels = [
            prepare_one(card, image)[0] for image in as_list([file["alpha"], alpha, Image.fromarray(alpha)], card)
        ]
        share = (alpha[..., 3:] if preprocess.background else np.full((20, 24, 1), 255)) / 255
        exact = colour * share + np.array(preprocess.background or (0, 0, 0)) * (1 - share)
        expected = prepare_one(card, np.rint(exact).astype(np.uint8))[0]
        assert all(np.abs(one.astype(int) - expected).max() <= 1 for one in pixels), name
    many = model.predict(one for one in [colour, [file["grey"], alpha], np.stack([colour, colour])])
    assert [one.file for one in many] == ["image 0", str(file["grey"]), "image 2", "image 3", "image 4"]
    assert (
        len(model.predict(np.array([str(file["grey"])] * 2))) == 2 == len(model.predict(str(tmp_path / "*r*y.png")) * 2)
    )
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((3, 20, 24), np.uint8), r"image 0 .*channels must come last.*transpose\(1, 2, 0\)"),
        (np.full((20, 24, 3), 200.0), "from 200 to 200; accepted: uint8, or floats from 0 to 1"),
        (np.full((20, 24, 3), np.nan, np.float32), "from nan"),
        (np.zeros((20, 24, 3), np.int64), r"array of int64.*astype\('uint8'\)"),
        (np.zeros((20, 24, 7), np.uint8), "7 channels, and the model takes 3"),
        (np.zeros((2, 3, 4, 5, 6), np.uint8), "shape"),
        (np.zeros((0, 24, 3), np.uint8), "shape"),
        (b"<html>", "image 0 is not an image of a known format"),
        (io.BytesIO(b""), "image 0 is empty"),
        (io.StringIO("text"), "opened as text"),
        ("https://example.org/cat.jpg", "is an address; download"),
        ([7], "7 is a int, no image. Accepted: paths"),
        ({"a.jpg": 1}, "is a dict, no image"),
        (None, "None is a NoneType, no image"),
    ],
)
def test_what_is_no_image_is_said(model: Model, given: Any, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        model.predict(given)
