"""Random views of images whose features are cached: the same each time, with boxes and masks that move along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from training_kit import installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
import zoo.models.model
from zoo.activations.cache import PLAIN, View, cache_key
from zoo.activations.views import CachedViews, open_views
from zoo.adapters.classifier import Classifier
from zoo.data import Dataset, Loader, Sample
from zoo.data.augment import Augment
from zoo.data.masks import IGNORE, Mask, MaskFile, prepare_mask, read_mask
from zoo.models.adapter import option_fields
from zoo.models.model import FEATURES, Model
from zoo.models.prepared import evaluation_load
from zoo.targets.moves import MOVES
from zoo.training.sources import CachedFeatures

SIDE = 64
COUNT = 7
FRAMES = ((48, 64),)
# Zoomed out as well as in; colours stay, so that the bright shape can be told from the rest.
CONFIG = Augment(scale=(0.4, 1.6), ratio=(0.8, 1.25), color=0.0, fill=0)
RANDOM = View(augmentation=CONFIG, seed=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Dark images with one bright rectangle each, square and 4:3 in turn."""
    folder, samples = tmp_path_factory.mktemp("views"), []
    for i in range(COUNT):
        height, width = (64, 64) if i % 2 else (48, 64)
        pixels = np.zeros((height, width), np.uint8)
        y, x, h, w = np.random.default_rng(i).integers([4, 4, 14, 14], [20, 30, 26, 30])
        pixels[y : y + h, x : x + w] = 255
        Image.fromarray(np.repeat(pixels[..., None], 3, 2)).save(folder / f"{i}.png")
        Image.fromarray(pixels // 255).save(folder / f"{i}_mask.png")
        mask = Mask((height, width), MaskFile(folder / f"{i}_mask.png", ((0, 0), (1, 1))))
        samples.append(Sample(folder / f"{i}.png", mask, f"{i}.png"))
    return Dataset(tuple(samples), ("background", "object"), "masks", "views", folder)


@pytest.fixture(scope="module")
def model(tinynet: Path) -> Model:  # noqa: F811
    options: dict[str, Any] = {"image_size": SIDE, "crop_mode": "letterbox", "crop_pct": 1.0, "frames": FRAMES}
    made = zoo.create("tinynet", "classifier", labels=("a", "b"), pretrained=False, head="conv", fill=0, **options)
    made.adapter = Masked(**{name: getattr(made.adapter, name) for name in ("labels", *option_fields(Classifier))})
    return made


class Masked(Classifier):
    """A classifier's head, and targets that are the bright shape: its mask, its box, its middle and its corners."""

    training = replace(Classifier.training, moves={**MOVES, "points": "points"})

    def targets(self, sample: Sample, preprocess: Any) -> dict[str, np.ndarray]:
        mask = prepare_mask(read_mask(sample.target), preprocess)
        y, x = np.nonzero(mask == 1)
        box = [[x.min(), y.min(), x.max() + 1, y.max() + 1], [0, 0, 0, 0]]
        there = np.array([True, False])
        (x1, y1, x2, y2), _ = box
        # The right and lower edges belong to no pixel of the shape, so that a point on them may lie outside the frame.
        points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x1, y1], [x2, y1], [x1, y2], [x2, y2], [0, 0]], np.float32)
        return {
            "mask": mask,
            "boxes": np.array(box, np.float32),
            "box_valid": there,
            "label": np.int32(len(x)),
            "points": points,
            "point_valid": np.arange(6) < 5,
        }

    def truth(self, sample: Sample) -> dict[str, np.ndarray]:
        return {"true": read_mask(sample.target)[:48]}


@pytest.fixture(scope="module")
def views(model: Model, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CachedViews:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return open_views(model, dataset, mirrored=True, further=3, random=RANDOM)


def prepared(model: Model, dataset: Dataset, row: int) -> np.ndarray:
    return zoo.models.predictor.prepare_one(model.card, dataset[row].image)[0]


def seen(model: Model, dataset: Dataset, cache: CachedViews, row: int, view: int) -> np.ndarray:
    """A sample in one of its views, uint8 (h, w, 3)."""
    image = prepared(model, dataset, row)
    if view < 2:
        return image[:, ::-1] if view else image
    number = View(number=view - 1, augmentation=CONFIG, seed=3)
    return np.asarray(number.pixels(image[None], cache.rows_of[[row]]))[0]


def test_features_are_those_of_the_views(model: Model, dataset: Dataset, views: CachedViews):
    for index in (np.array([0, 4, 2, 6]), np.array([5, 1, 3, 1])):
        view = np.array([2, 0, 4, 3])
        (found,) = views.rows(index, view).values()
        for row, i, number in zip(found, index, view, strict=True):
            pixels = jax.numpy.asarray(seen(model, dataset, views, int(i), int(number))[None])
            wanted = model.reduced(model.normalize(pixels))["body"][0]
            np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-5)
    ((one, other),) = views.rows(np.array([0, 0]), np.array([2, 3])).values()
    assert np.abs(one - other).max() > 1e-2  # the views differ


def test_views_are_the_same_again_and_have_caches_of_their_own(model: Model, dataset: Dataset):
    keys = {
        cache_key(model, dataset, view)
        for view in (
            PLAIN,
            View(mirrored=True),
            View(number=1, augmentation=CONFIG, seed=3),
            View(number=2, augmentation=CONFIG, seed=3),
            View(number=1, augmentation=CONFIG, seed=4),
            View(number=1, augmentation=Augment(), seed=3),
        )
    }
    assert len(keys) == 6
    progress: list[tuple[int, int]] = []
    first = open_views(model, dataset, further=2, random=RANDOM, progress=lambda *at: progress.append(at))
    assert progress[-1] == (3 * COUNT, 3 * COUNT) and not first.mirrored
    again = open_views(model, dataset, further=2, random=RANDOM)
    index, view = np.array([0, 2]), np.array([2, 3])
    np.testing.assert_array_equal(*(list(one.rows(index, view).values()) for one in (first, again)))
    assert all(cache.reused for part in again.further for cache in part.values())


def test_targets_move_with_the_pixels(model: Model, dataset: Dataset, views: CachedViews):
    """In every view the bright pixels, the mask and the box tell of the same rectangle, to within a pixel."""
    groups = views.groups
    loader = Loader(dataset, evaluation_load(model), 2, seed=1, shuffle=True, groups=groups)
    moved = points = 0
    for epoch in range(5):
        turns = views.turns(1, epoch)
        for batch in CachedFeatures(loader, views, varied=True).epoch(epoch):
            for i in np.flatnonzero(batch["valid"]):
                row = int(batch["index"][i])
                pixels = seen(model, dataset, views, row, int(turns[row]))[..., 0]
                mask, box = batch["mask"][i], batch["boxes"][i, 0]
                assert mask.dtype == np.uint8 and mask.shape == pixels.shape and set(np.unique(mask)) <= {0, 1, IGNORE}
                sure = (pixels < 20) | (pixels > 235)
                assert ((pixels > 127) == (mask == 1))[sure].all() and sure.mean() > 0.9
                y, x = np.nonzero(mask == 1)
                assert batch["box_valid"][i].tolist() == [len(x) > 0, False] and not batch["boxes"][i, 1].any()
                (middle, *corners), (sure_middle, *known) = batch["points"][i], batch["point_valid"][i]
                assert not sure_middle or mask[int(middle[1]), int(middle[0])] == 1
                for corner, there in zip(corners, known, strict=True):
                    assert there or not corner.any()
                    if there and len(x):
                        ends = [np.array([along.min(), along.max() + 1]) for along in (x, y)]
                        assert all(np.abs(end - at).min() < 1.01 for end, at in zip(ends, corner, strict=True))
                points += int(sum(known[:4]))
                if len(x):
                    np.testing.assert_allclose(box, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.01)
                assert batch["label"][i] == views.targets[row]["label"]  # what has no place stays
                moved += turns[row] > 1
    assert moved == 3 * COUNT  # of five epochs each sample has three in random views
    assert points > 5 * COUNT * 2


def test_each_sample_has_all_its_views_in_turn(views: CachedViews):
    turns = np.array([views.turns(1, epoch) for epoch in range(10)])
    for half in (turns[:5], turns[5:]):
        assert (np.sort(half, axis=0) == np.arange(5)[:, None]).all()
    assert (turns[:5] != turns[5:]).any() and len({tuple(column) for column in turns[:5].T}) > 3
    np.testing.assert_array_equal(turns[7], views.turns(1, 7))
    assert (turns != [views.turns(2, epoch) for epoch in range(10)]).any()


def test_batches_go_on_where_they_stopped(model: Model, dataset: Dataset, views: CachedViews):
    loader = Loader(dataset, evaluation_load(model), 2, seed=1, shuffle=True, groups=views.groups)
    whole = list(CachedFeatures(loader, views, varied=True).epoch(2))
    rest = list(CachedFeatures(loader, views, varied=True).epoch(2, 2))
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    # An evaluation sees images as they are.
    for batch in CachedFeatures(loader, views).epoch(0):
        np.testing.assert_array_equal(batch[FEATURES + "body"], views.rows(batch["index"])[FEATURES + "body"])
        np.testing.assert_array_equal(batch["mask"], [views.targets[i]["mask"] for i in batch["index"]])


def test_truths_are_in_batches_of_evaluations_alone(model: Model, dataset: Dataset, views: CachedViews):
    """Each with its sample, from images and from cached features; what only fills up repeats the last."""
    for load, there in ((evaluation_load(model), False), (evaluation_load(model, truth=True), True)):
        loader = Loader(dataset, load, 2, groups=views.groups)
        cached = CachedFeatures(loader, views, truth=model.adapter.truth if there else None).epoch(0)
        for one, other in zip(loader.epoch(0), cached, strict=True):
            assert ("true" in one) == ("true" in other) == there
            if there:
                rows = one["index"][: one["valid"].sum()].tolist()
                wanted = [read_mask(dataset[i].target)[:48] for i in (rows + rows[-1:])[:2]]
                np.testing.assert_array_equal(one["true"], wanted)
                np.testing.assert_array_equal(other["true"], wanted)
