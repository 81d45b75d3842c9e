"""The activation cache: computed once, kept, resumed, verified, and never mistaken for another one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from training_kit import draw_folder, draw_splits, installed, own_cache, picture, tinynet  # noqa: F401  (fixtures)

import zoo
import zoo.models.predictor
from zoo import settings
from zoo.activations.cache import BLOCK, View, cache_key, open_cache
from zoo.activations.views import open_views
from zoo.data import Dataset, Loader, Sample, read
from zoo.errors import DataError, RunError
from zoo.models.card import Provider
from zoo.models.model import FEATURES, Model
from zoo.models.prepared import frame_numbers
from zoo.training import Augment
from zoo.training.sources import CachedFeatures, mirrored_targets

COUNT = 75
FAST: dict[str, Any] = {"plots": False, "augment": "none", "show": lambda session: lambda event: None}


class Decoded(list):
    """The files that were decoded, in any order."""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    seen, decode = Decoded(), zoo.models.predictor.decode

    def counting(path: Path, *args: Any, **kwargs: Any) -> np.ndarray:
        seen.append(path)
        return decode(path, *args, **kwargs)

    monkeypatch.setattr(zoo.models.predictor, "decode", counting)
    return seen


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """150 images: two whole blocks of the cache and a part of a third."""
    return read(draw_folder(tmp_path_factory.mktemp("many"), count=COUNT))["all"]


@pytest.fixture(scope="module")
def model(tinynet: Path) -> Model:  # noqa: F811
    return create()


def create(**options: Any) -> Model:
    return zoo.create("tinynet", "classifier", labels=("disc", "frame"), pretrained=False, **options)


def direct(model: Model, dataset: Dataset, rows: list[int]) -> np.ndarray:
    """What the head reads, computed without a cache."""
    pixels = model.prepare([dataset[i].image for i in rows])
    return np.asarray(model.reduced(model.normalize(jax.numpy.asarray(pixels)))["body"])


def test_features_are_computed_once(model: Model, dataset: Dataset, decoded: Decoded):
    progress: list[tuple[int, int]] = []
    first = open_cache(model, dataset, progress=lambda *at: progress.append(at))
    assert sorted(decoded) == sorted(sample.image for sample in dataset)
    assert progress[-1] == (150, 150) and first.reused == 0
    decoded.clear()
    second = open_cache(model, dataset)
    assert decoded == [] and second.reused == 150
    np.testing.assert_array_equal(second.arrays["body"], first.arrays["body"])


def test_rows_are_those_of_the_images(model: Model, dataset: Dataset):
    cache = open_cache(model, dataset)
    index = np.array([149, 0, 64, 63, 0])
    (rows,) = cache.rows(index).values()
    assert list(cache.rows(index)) == [FEATURES + "body"] and rows.shape == (5, 16)
    np.testing.assert_allclose(rows, direct(model, dataset, list(index)), rtol=1e-4, atol=1e-5)


def test_memory_stays_flat(model: Model, dataset: Dataset):
    """The arrays are files that the system maps, however large: only what is asked for is copied."""
    cache = open_cache(model, dataset)
    assert all(isinstance(array, np.memmap) for array in cache.arrays.values())
    (rows,) = cache.rows(np.arange(4)).values()
    assert not isinstance(rows, np.memmap)


def interrupted(model: Model, dataset: Dataset, at: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(model, dataset, progress=stop)


def test_an_interrupted_computation_goes_on(model: Model, dataset: Dataset, decoded: Decoded):
    interrupted(model, dataset, 96)
    decoded.clear()
    cache = open_cache(model, dataset)
    assert cache.reused == BLOCK  # whole blocks only
    # A set: the reading threads of the interrupted computation may just have been a few images ahead.
    assert set(decoded) == {sample.image for sample in list(dataset)[BLOCK:]}
    np.testing.assert_allclose(cache.arrays["body"], direct(model, dataset, list(range(150))), rtol=1e-4, atol=1e-5)


def files(model: Model, dataset: Dataset) -> tuple[Path, Path]:
    folder = settings.cache_dir() / "activations" / cache_key(model, dataset)[:32]
    return folder / "body.npy", folder / "progress.json"


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(("row", "kept"), [(0, 0), (70, 64), (149, 128)])
def test_a_flipped_bit_is_computed_anew(model: Model, dataset: Dataset, row: int, kept: int):
    good = np.array(open_cache(model, dataset).arrays["body"])
    array, _ = files(model, dataset)
    flip(array, -(150 - row) * 16 * 4)
    cache = open_cache(model, dataset)
    assert cache.reused == kept  # from the damaged block on
    np.testing.assert_array_equal(cache.arrays["body"], good)


def emptied(array: Path, progress: Path) -> None:
    array.write_bytes(b"")


def removed(array: Path, progress: Path) -> None:
    array.unlink()


def no_progress(array: Path, progress: Path) -> None:
    progress.write_text('{"blocks": [')


def other_shape(array: Path, progress: Path) -> None:
    np.save(array, np.zeros((150, 15), np.float32))


def other_dtype(array: Path, progress: Path) -> None:
    np.save(array, np.zeros((150, 16), np.float64))


def flipped_header(array: Path, progress: Path) -> None:
    content = bytearray(array.read_bytes())
    content[content.index(b"), }")] ^= 1 << 3  # a bracket that does not close: NumPy lets tokenize.TokenError out
    array.write_bytes(content)


def test_a_truncated_file_keeps_what_is_whole(model: Model, dataset: Dataset):
    good = np.array(open_cache(model, dataset).arrays["body"])
    array, _ = files(model, dataset)
    array.write_bytes(array.read_bytes()[:-100])
    cache = open_cache(model, dataset)
    assert cache.reused == 128
    np.testing.assert_array_equal(cache.arrays["body"], good)


@pytest.mark.parametrize("damage", [emptied, removed, no_progress, other_shape, other_dtype, flipped_header])
def test_a_broken_cache_is_computed_anew(model: Model, dataset: Dataset, damage: Any):
    good = np.array(open_cache(model, dataset).arrays["body"])
    damage(*files(model, dataset))
    cache = open_cache(model, dataset)
    assert cache.reused == 0
    np.testing.assert_array_equal(cache.arrays["body"], good)


def _of_another_plugin(model: Model) -> Model:
    model.card = replace(model.card, plugins={"backbone": Provider("other", "1.0")})
    return model


def test_everything_it_depends_on_is_in_its_name(model: Model, dataset: Dataset, tmp_path: Path):
    keys = {"itself": cache_key(model, dataset)}
    assert cache_key(create(), dataset) == keys["itself"]
    # What only the head does with the features is not.
    assert cache_key(create(dropout=0.5, label_smoothing=0.1), dataset) == keys["itself"]
    for name, other in {
        "weights": create(seed=1),
        "size": create(image_size=24),
        "mean": create(mean=[0.4, 0.4, 0.4]),
        "interpolation": create(interpolation="bicubic"),
        "crop": create(crop_pct=0.9),
        "dtype": create(dtype="bfloat16"),
        "reduction": create(pool="max"),
        "stages": create(head="conv"),
        "plugin": _of_another_plugin(create()),
    }.items():
        keys[name] = cache_key(other, dataset)
    statistics = create()
    statistics.backbone.bn1.mean[...] = statistics.backbone.bn1.mean[...] + 1e-6
    keys["statistics"] = cache_key(statistics, dataset)
    keys["fewer images"] = cache_key(model, dataset.subset(range(149), dataset.name))
    keys["another order"] = cache_key(model, dataset.subset(range(149, -1, -1), dataset.name))
    copy = read(draw_folder(tmp_path / "copy", count=2))["all"]
    keys["copy"] = cache_key(model, copy)
    picture("disc", 99).save(copy[0].image)
    keys["changed image"] = cache_key(model, copy)
    assert len(set(keys.values())) == len(keys), keys


def test_a_full_disk_is_said_before_anything_is_written(
    model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    class Usage:
        free = 1000

    monkeypatch.setattr("zoo.activations.cache.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(RunError, match=r"needs 0\.0 GB .*ZOO_CACHE.*--no-cache"):
        open_cache(model, dataset)
    assert not files(model, dataset)[0].exists()


def test_an_unreadable_image_is_named_and_the_rest_kept(
    model: Model, tmp_path: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
):
    data = read(draw_folder(tmp_path / "data", count=COUNT))["all"]
    bad, decode = data[140].image, zoo.models.predictor.decode

    def failing(path: Path, *args: Any, **kwargs: Any) -> np.ndarray:
        if path == bad:
            raise DataError(f"{path} cannot be read for a moment.")
        return decode(path, *args, **kwargs)

    monkeypatch.setattr(zoo.models.predictor, "decode", failing)
    with pytest.raises(DataError, match=bad.name):
        open_cache(model, data)
    monkeypatch.setattr(zoo.models.predictor, "decode", decode)
    assert open_cache(model, data).reused == BLOCK


def test_copies_share_a_cache_whatever_their_names(model: Model, tmp_path: Path):
    """The features depend on pixels alone: not on the place, time stamps, names of files or targets."""
    data = read(draw_folder(tmp_path / "data", count=3))["all"]
    shutil.copytree(data.root, tmp_path / "copy")  # with new time stamps
    (tmp_path / "copy" / "disc").rename(tmp_path / "copy" / "circle")
    copy = read(tmp_path / "copy")["all"]
    assert copy.classes != data.classes and cache_key(model, copy) == cache_key(model, data)
    picture("disc", 99).save(copy[0].image)
    assert cache_key(model, copy) != cache_key(model, data)


# In training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_splits(tmp_path_factory.mktemp("splits"), train=10, val=5)


@pytest.mark.parametrize("options", [{}, {"head": "conv"}, {"head": "mlp", "pool": "avgmax"}], ids=str)
def test_training_from_it_equals_training_from_images(splits: Path, tmp_path: Path, options: dict):
    runs = [
        zoo.train(
            create(**options),
            splits,
            plan="head",
            epochs=3,
            out=tmp_path / str(cache),
            cache=cache,
            batch_size=8,
            **FAST,
        )
        for cache in (True, False)
    ]
    for cached, plain in zip(*(run.history for run in runs), strict=True):
        for name in ("train_loss", "val_loss", "accuracy", "macro_f1", "calibration_error"):
            assert cached[name] == pytest.approx(plain[name], abs=1e-5), (cached["epoch"], name)
    kernels = [np.asarray(jax.tree.leaves(nnx.state(run.model.head, nnx.Param))[-1]) for run in runs]
    np.testing.assert_allclose(*kernels, atol=1e-5)


def test_a_second_run_decodes_nothing(splits: Path, tmp_path: Path, decoded: Decoded):
    common = {"plan": "head", "epochs": 2, **FAST}
    zoo.train(create(), splits, out=tmp_path / "first", **common)
    assert len(decoded) == len(set(decoded)) == 30
    decoded.clear()
    zoo.train(create(dropout=0.3), splits, out=tmp_path / "second", **common)
    assert decoded == []


def test_random_augmentation_is_not_cached(splits: Path, tmp_path: Path):
    """A phase on cached features sees every image as it is; the phase that trains the backbone augments it anew."""
    strong = Augment(scale=(0.1, 0.2), color=0.9)
    common = {"epochs": 2, "batch_size": 8}
    plain = zoo.train(create(), splits, plan="head", out=tmp_path / "a", **common, **FAST)
    augmented = zoo.train(create(), splits, plan="head", out=tmp_path / "b", **common, **{**FAST, "augment": strong})
    assert [r["train_loss"] for r in plain.history] == [r["train_loss"] for r in augmented.history]


def test_without_a_cache_nothing_is_written(splits: Path, tmp_path: Path):
    zoo.train(create(), splits, plan="head", epochs=1, out=tmp_path / "run", cache=False, **FAST)
    zoo.train(create(), splits, plan="all", epochs=1, out=tmp_path / "all", **FAST)
    assert not (settings.cache_dir() / "activations").exists()


# By frame, and of mirror images ----------------------------------------------------------------------------------

FRAMES = ((12, 16), (16, 12))
SIZES = ((20, 20), (15, 20), (20, 15))
"""Of images, one for each frame."""


def framed_model() -> Model:
    """One whose features are maps, so that where they lie can be seen."""
    return create(head="conv", crop_mode="letterbox", crop_pct=1.0, frames=FRAMES)


@pytest.fixture
def framed(tmp_path: Path) -> Dataset:
    """Images of three shapes in turn."""
    samples = []
    for i in range(11):
        file = tmp_path / f"{i}.png"
        picture("disc" if i % 2 else "frame", i).crop((0, 0, *SIZES[i % 3][::-1])).save(file)
        samples.append(Sample(file, i % 2, file.name))
    return Dataset(tuple(samples), ("frame", "disc"), "class", "framed", tmp_path)


def reduced(model: Model, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model.reduced(model.normalize(jax.numpy.asarray(pixels)))["body"])


def prepared(model: Model, dataset: Dataset, row: int) -> np.ndarray:
    return zoo.models.predictor.prepare_one(model.card, dataset[row].image)[0][None]


def test_features_of_each_frame_are_those_of_the_images(framed: Dataset):
    model = framed_model()
    views = open_views(model, framed)
    assert frame_numbers(framed, model.card.preprocess).tolist() == [i % 3 for i in range(11)]
    assert not views.mirrored and sorted(views.plain) == [0, 1, 2]
    for group, frame in enumerate(((16, 16), *FRAMES)):
        index = np.arange(group, 11, 3)[::-1]
        (rows,) = views.rows(index).values()
        assert views.width(index) == frame[1] and rows.shape == (len(index), frame[0] // 4, frame[1] // 4, 16)
        for row, i in zip(rows, index, strict=True):
            np.testing.assert_allclose(row, reduced(model, prepared(model, framed, i))[0], rtol=1e-4, atol=1e-5)


def test_mirrored_features_are_those_of_mirror_images(framed: Dataset):
    """Not the features mirrored: a convolution of stride 2 sees other pixels from the other side."""
    model, progress = framed_model(), []
    views = open_views(model, framed, mirrored=True, progress=lambda *at: progress.append(at))
    assert progress[-1] == (22, 22) and [done for done, _ in progress] == sorted(done for done, _ in progress)
    index = np.arange(2, 11, 3)
    turned = np.array([True, False, True])
    (plain,), (mixed,) = (views.rows(index, mirror).values() for mirror in (None, turned))
    for i, row in enumerate(index):
        pixels = prepared(model, framed, row)
        wanted = reduced(model, pixels[:, :, ::-1] if turned[i] else pixels)[0]
        np.testing.assert_allclose(mixed[i], wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(plain[0][:, ::-1] - mixed[0]).max() > 1e-3
    again = views.rows(index)
    np.testing.assert_array_equal(again[FEATURES + "body"], plain)  # what is kept was not written into


def test_mirror_images_have_a_cache_of_their_own(framed: Dataset, decoded: Decoded):
    model = framed_model()
    assert cache_key(model, framed) != cache_key(model, framed, View(mirrored=True))
    open_views(model, framed)
    decoded.clear()
    open_views(model, framed, mirrored=True)
    assert len(decoded) == 11  # for the mirror images alone
    decoded.clear()
    open_views(model, framed, mirrored=True)
    assert decoded == []


def test_a_model_of_one_frame_needs_no_sizes(framed: Dataset):
    plain = create(crop_mode="letterbox", crop_pct=1.0)
    assert frame_numbers(framed, plain.card.preprocess) is None
    views = open_views(plain, framed)
    assert list(views.plain) == [0] and views.rows_of.tolist() == list(range(11))


@pytest.mark.parametrize("mirror", [False, True])
def test_half_of_the_images_of_an_epoch_are_mirrored_with_their_targets(framed: Dataset, mirror: bool):
    model = framed_model()
    views = open_views(model, framed, mirrored=True)
    groups = frame_numbers(framed, model.card.preprocess)
    loader = Loader(framed, lambda sample: {}, 2, seed=5, shuffle=True, groups=groups)
    targets = [{"boxes": np.array([[1.0, 2.0, 4.0, 6.0], [0, 0, 0, 0]], np.float32)}] * 11
    source = CachedFeatures(loader, replace(views, targets=targets), varied=mirror)
    turned = 0
    for epoch in range(6):
        batches = list(source.epoch(epoch))
        again = list(source.epoch(epoch, 2))
        assert len(batches) == len(loader)
        for batch, other in zip(batches[2:], again, strict=True):
            assert all(np.array_equal(batch[name], other[name]) for name in batch)
        for batch in batches:
            width = views.width(batch["index"])
            flipped = batch["boxes"][:, 0, 0] != 1
            turned += int(flipped.sum())
            assert (batch["boxes"][flipped, 0] == np.array([width - 4, 2, width - 1, 6])).all()
            assert not batch["boxes"][:, 1].any()  # what fills up stays zero
            np.testing.assert_array_equal(
                batch[FEATURES + "body"], views.rows(batch["index"], flipped)[FEATURES + "body"]
            )
    assert (20 < turned < 60) if mirror else turned == 0  # of 84


def test_mirrored_targets_fit_the_mirrored_image():
    """A rectangle is where the box says, before and after; masks turn with the pixels."""
    width, rng = 16, np.random.default_rng(0)
    boxes = np.zeros((4, 3, 4), np.float32)
    image = np.zeros((4, 8, width), np.uint8)
    for row in range(4):
        x1, y1 = rng.integers(0, 7, 2) * (1, 0.5)
        x2, y2 = x1 + rng.integers(1, 8), int(y1) + rng.integers(1, 4)
        boxes[row, 1] = x1, int(y1), x2, y2
        image[row, int(y1) : y2, int(x1) : int(x2)] = row + 1
    turned = np.array([True, False, True, False])
    labels = np.arange(12).reshape(4, 3)
    found = mirrored_targets({"boxes": boxes, "mask": image, "labels": labels}, turned, width)
    for row in range(4):
        pixels = image[row][:, ::-1] if turned[row] else image[row]
        np.testing.assert_array_equal(found["mask"][row], pixels)
        x1, y1, x2, y2 = found["boxes"][row, 1].astype(int)
        assert (pixels[y1:y2, x1:x2] == row + 1).all() and (pixels > 0).sum() == (y2 - y1) * (x2 - x1)
    assert not found["boxes"][:, [0, 2]].any() and found["labels"] is labels
    twice = mirrored_targets(found, turned, width)
    np.testing.assert_array_equal(twice["boxes"], boxes)
    assert mirrored_targets({"label": labels}, turned, width) == {"label": labels}
