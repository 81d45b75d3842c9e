"""Real weights on real photos, by the command line: from a folder of ants and bees to an exported model.

The weights and photos lie beside the repository; see the fixture `assets`.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
import zoo.cli
from zoo.models.model import Model
from zoo.models.predictor import decode_pixels


def command(*args: object) -> str:
    """Runs `zoo` in this process and gives what it printed."""
    before, printed = sys.argv, io.StringIO()
    sys.argv = ["zoo", *map(str, args)]
    try:
        with redirect_stdout(printed):
            zoo.cli.main()
    except SystemExit as stop:
        assert not stop.code, (args, stop.code)
    finally:
        sys.argv = before
    return printed.getvalue()


@dataclass
class Case:
    """A net, its real weights, and what its head must reach on ants and bees."""

    name: str
    weights: str
    accuracy: float
    layouts: tuple[str, ...]
    every: int
    """All images, or every second one."""


MOBILENET = "mobilenetv2_100", "mobilenet_v2_imagenet.safetensors"
CASES = (
    Case(*MOBILENET, 0.92, ("timm", "torchvision"), every=2),
    Case(*MOBILENET, 0.94, ("timm", "torchvision"), every=1),
    Case("squeezenet1_0", "squeezenet1_0_imagenet.safetensors", 0.93, ("torchvision",), every=1),
)


@dataclass
class Trained:
    case: Case
    folder: Path
    data: Path
    metrics: dict[str, Any]
    model: Model


# One of them by default; the others take the same way.
PARAMS = [
    pytest.param(case, id=case.name + "-half" * (case.every > 1), marks=[pytest.mark.exhaustive] * bool(i))
    for i, case in enumerate(CASES)
]


def some_photos(assets: Path, folder: Path, every: int) -> Path:
    """Ants and bees: links to every `every`-th photo of each class."""
    source = assets / "datasets" / "hymenoptera"
    for part in source.glob("*/*"):
        there = folder / part.relative_to(source)
        there.mkdir(parents=True)
        for photo in sorted(part.iterdir())[::every]:
            (there / photo.name).symlink_to(photo)
    return folder


@pytest.fixture(scope="module", params=PARAMS)
def trained(
    request: pytest.FixtureRequest, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    case, folder = request.param, tmp_path_factory.mktemp("real") / "run"
    data = some_photos(assets, folder.parent / "data", case.every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder.parent / "cache"))
        weights = assets / "weights" / case.weights
        options = ("--plan", "head", "--epochs", 10, "--out", folder, "--json")
        metrics = json.loads(command("train", data, "--backbone", case.name, "--weights", weights, *options))
        yield Trained(case, folder, data, metrics, zoo.load(folder))


def test_ants_and_bees(trained: Trained):
    metrics = trained.metrics
    assert metrics["accuracy"] >= trained.case.accuracy, metrics
    assert metrics["macro_f1"] >= trained.case.accuracy - 0.01
    assert (metrics["train_images"], metrics["val_images"]) == {1: (243, 152), 2: (122, 77)}[trained.case.every]
    assert trained.model.labels == ("ants", "bees")


def test_the_run_evaluated_again(trained: Trained):
    again = json.loads(command("evaluate", trained.folder, trained.data, "--json"))
    # On pixels now, not on cached features; the validation photos are the data's `val`.
    assert again["accuracy"] == trained.metrics["accuracy"]
    assert again["confusion"] == trained.metrics["confusion"]
    assert again["loss"] == pytest.approx(trained.metrics["loss"], rel=1e-3)


def test_single_photos(trained: Trained):
    photos = [next(iter(sorted((trained.data / "val" / kind).iterdir()))) for kind in ("ants", "bees")]
    found = [json.loads(command("predict", trained.folder, photo, "--json"))[0] for photo in photos]
    assert [row["label"] for row in found] == ["ants", "bees"]
    assert [row["file"] for row in found] == list(map(str, photos)) and all(row["score"] > 0.5 for row in found)


def test_the_exported_model_gives_the_same_logits(trained: Trained, tmp_path: Path):
    photos = [path for kind in ("ants", "bees") for path in sorted((trained.data / "val" / kind).iterdir())[:3]]

    def logits(model: Model) -> np.ndarray:
        return np.concatenate([decode_pixels(model, model.prepare([photo]))["logits"] for photo in photos])

    expected = logits(trained.model)
    assert np.ptp(expected) > 1  # they say something
    for layout in trained.case.layouts:
        folder = Path(command("export", trained.folder, "--format", layout, "--out", tmp_path / layout).strip())
        back = zoo.create(trained.case.name, "classifier", weights=str(folder))
        assert back.labels == trained.model.labels
        assert back.card.preprocess == trained.model.card.preprocess and back.card.options == trained.model.card.options
        back.card = trained.model.card  # equal in what it computes: no second program is compiled
        np.testing.assert_allclose(logits(back), expected, atol=1e-4)


@pytest.mark.exhaustive
def test_the_default_plan_on_small_photos(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """First the head, then everything, on a net that is quick enough: frogs from ships with the real ResNet-20."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    for part, source in (("train", "train"), ("val", "test")):
        for kind in ("frog", "ship"):
            shutil.copytree(assets / "datasets" / "cifar10_subset" / source / kind, tmp_path / "data" / part / kind)
    weights = assets / "weights" / "resnet20_cifar10.safetensors"
    options = ("--weights", weights, "--epochs", 10, "--out", tmp_path / "run", "--augment", "none", "--json")
    metrics = json.loads(command("train", tmp_path / "data", "--backbone", "resnet20", *options))
    assert metrics["accuracy"] >= 0.95
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["head"] * 4 + ["all"] * 6
    assert rows[-1]["train_loss"] < rows[3]["train_loss"]
    start = zoo.create("resnet20", "classifier", num_classes=2, weights=str(weights)).backbone.conv1.kernel[...]
    best = zoo.load(tmp_path / "run").backbone.conv1.kernel[...]
    assert bool((start == best).all()) == (metrics["best_epoch"] <= 4)
