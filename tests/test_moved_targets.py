"""A task whose targets augmentation cannot move is not trained on moved images."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plugin_kit
import pytest
import training_kit
from PIL import Image
from training_kit import CLASSES, FAST

import zoo
import zoo.registry
from zoo.data import Dataset, Sample
from zoo.data.augment import Augment, unmoved
from zoo.errors import ConfigError, ZooError
from zoo.models.adapter import Training
from zoo.models.model import Model
from zoo.models.prepared import evaluation_load
from zoo.registry import registry
from zoo.training.config import Recipe
from zoo.training.phase_sources import training_images
from zoo.training.plan import make_plan
from zoo.training.plans import preset
from zoo.training.rules import assign
from zoo.training.session import Session

own_cache = training_kit.own_cache
PLUGIN = (
    training_kit.TINYNET
    + '''

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from zoo.models.adapter import Adapter
from zoo.layers import Linear
from zoo.registry.spec import AdapterSpec


class Places(nnx.Module):
    def __init__(self, features, rngs):
        self.fc = Linear(features, 1, rngs=rngs)

    def reduce(self, features):
        return {"body": features["body"].reshape(len(features["body"]), -1)}

    def reads(self):
        return {}

    def __call__(self, features):
        return self.fc(features["body"])


class Squares:
    def __init__(self):
        self.found, self.true = [], []

    def update(self, decoded, batch):
        self.found += decoded["x"].tolist()
        self.true += batch["x"].tolist()

    def compute(self):
        rest = np.square(np.subtract(self.found, self.true)).sum()
        return {"r2": float(1 - rest / np.square(self.true - np.mean(self.true)).sum())}


@dataclass(frozen=True)
class Place(Adapter):
    """Where a bright bar is, from 0 on the left to 1 on the right."""

    targets_from = ("place",)
    classes = False
    primary = "r2"

    def taps(self, spec):
        return ("body",)

    def build(self, inputs, *, rngs):
        return Places(int(np.prod(inputs.shapes["body"].shape[1:])), rngs)

    def targets(self, sample, preprocess):
        return {"x": np.array([sample.target], np.float32)}

    def loss_terms(self, forward, batch):
        return {"l2": jnp.mean(jnp.square(forward.outputs - batch["x"]), axis=-1)}

    def decode(self, forward, batch):
        return {"x": forward.outputs}

    def metrics(self):
        return Squares()


@zoo.hookimpl
def zoo_adapters():
    return [AdapterSpec("place", Place)]
'''
)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    plugin_kit.distribution(folder, "placenet", PLUGIN)
    sys.path.insert(0, str(folder))
    zoo.registry.reset()
    yield
    sys.path.remove(str(folder))
    zoo.registry.reset()


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Images of a bar, and where it is."""
    root, samples = tmp_path_factory.mktemp("bars"), []
    for i in range(39):
        pixels = np.full((16, 16, 3), 40, np.uint8)
        pixels[:, i % 13 + 1 : i % 13 + 3] = 220
        Image.fromarray(pixels).save(root / f"{i}.png")
        samples.append(Sample(root / f"{i}.png", (i % 13) / 13, f"{i}.png"))
    data = Dataset(tuple(samples), (), "place", "bars", root)  # type: ignore[arg-type]
    return {"train": data.subset(range(26), "train"), "val": data.subset(range(26, 39), "val")}


def create() -> Model:
    return zoo.create("tinynet", "place", pretrained=False)


def train(bars: dict[str, Dataset], folder: Path, **options: Any) -> zoo.training.Run:
    options = {"plan": "all", "epochs": 1, **FAST, **options}
    return zoo.train(create(), bars, out=folder / "run", **options)


COLOURS = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0.1)


@pytest.mark.parametrize(
    "augment",
    ["auto", Augment(), dataclasses.replace(COLOURS, hflip=True), dataclasses.replace(COLOURS, scale=(0.5, 1))],
)
def test_moved_images_are_refused_for_a_target_that_stays_where_it_was(bars: Any, tmp_path: Path, augment: Any):
    with pytest.raises(ConfigError, match=r'targets x of place.*augment="none".*invariant=\(\'x\',\)'):
        train(bars, tmp_path, augment=augment)
    assert not (tmp_path / "run").exists()


def test_it_learns_from_images_as_they_are(bars: Any, tmp_path: Path):
    run = train(bars, tmp_path, augment="none", epochs=40, lr=1e-2)
    assert run.metrics["r2"] > 0.8


def test_images_that_are_only_coloured_show_what_an_evaluation_shows(bars: Any, tmp_path: Path):
    model = create()
    recipe = Recipe(batch_size=4, augment=COLOURS)
    session = Session(model, bars["train"], bars["val"], make_plan(model, "all", 1, None, None), recipe, tmp_path)
    batch = next(iter(training_images(session, assign(model, preset(model, "all"))).epoch(0)))
    as_evaluated = evaluation_load(model)
    for row, index in enumerate(batch["index"]):
        assert np.array_equal(batch["image"][row], as_evaluated(bars["train"][int(index)])["image"])
    assert train(bars, tmp_path, augment=COLOURS).metrics["epochs"] == 1


def test_a_head_on_a_frozen_backbone_sees_images_as_they_are(bars: Any, tmp_path: Path):
    assert train(bars, tmp_path, plan="head", augment="auto").metrics["epochs"] == 1


def test_what_is_declared_to_be_invariant_is_trusted(bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry().adapter("place").adapter, "training", Training(invariant=("x",)))
    assert train(bars, tmp_path, augment="auto").metrics["epochs"] == 1


@pytest.mark.parametrize(
    ("nature", "said"),
    [("point", "nature of targets 'point'.*points"), ("points", "moves as points and requires x_valid")],
)
def test_what_is_declared_to_move_must_be_able_to(
    bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nature: str, said: str
):
    monkeypatch.setattr(registry().adapter("place").adapter, "training", Training(moves={"x": nature}))
    with pytest.raises(ZooError, match=said):
        train(bars, tmp_path, augment="auto")
    assert not (tmp_path / "run").exists()


def test_mixed_images_need_a_loss_that_mixes(bars: Any, tmp_path: Path):
    with pytest.raises(ConfigError, match="the loss of place does not mix"):
        train(bars, tmp_path, augment=dataclasses.replace(COLOURS, mixup=0.2))


def test_every_first_party_task_declares_what_is_not_moved(tmp_path: Path):
    """Class, boxes, masks and images: names and kinds of the targets that each gives are moved, or declared."""
    found = {name: spec.adapter for name, spec in registry().adapters().items()}
    assert found["classifier"].training == Training(invariant=("label",), mixup=True)
    assert unmoved(["label"]) == ["label"]
    assert unmoved(["boxes", "labels", "box_valid", "crowd", "frame"]) == ["frame"]
    assert unmoved(["labels", "crowd"]) == ["crowd", "labels"], "without boxes nothing moves with them"
    assert unmoved(["mask", "image", "keypoints"]) == ["keypoints"]
    source = training_kit.draw_folder(tmp_path / "data", CLASSES, 3)
    model = zoo.create("tinynet", "classifier", labels=CLASSES, pretrained=False)
    run = zoo.train(model, source, plan="all", epochs=1, out=tmp_path / "run", **{**FAST, "augment": "auto"})
    assert run.metrics["epochs"] == 1
