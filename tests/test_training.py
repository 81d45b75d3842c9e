"""`zoo.train` on drawn data: what the run folder holds, and what each plan trains."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import training_kit
from flax import nnx
from training_kit import CLASSES, FAST, create, draw_folder, same, values

import zoo
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.training import Phase, Run
from zoo.training.plans import preset

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet
data = training_kit.data


def timeless(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


# One run, looked at from all sides -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "default"
    patch = pytest.MonkeyPatch()
    patch.setenv("ZOO_CACHE", str(out.parent / "cache"))
    try:
        return zoo.train(create(), data, epochs=5, out=out, batch_size=8)
    finally:
        patch.undo()


def test_the_run_folder(run: Run):
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "metrics.json", "model.safetensors", "tensorboard", "plots"}
    config = json.loads((run.folder / "config.json").read_text())
    assert config["asked"]["model"]["card"]["backbone"] == "tinynet"
    assert [phase["name"] for phase in config["asked"]["plan"]] == ["head", "all"]
    assert {"jax", "flax", "optax"} <= config["versions"].keys() and config["started"]
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics.keys() >= {"accuracy", "macro_f1", "best_epoch", "epochs", "seconds", "loss", "confusion", "test"}
    assert (metrics["train_images"], metrics["val_images"], metrics["epochs"]) == (24, 12, 5)
    assert metrics["plots"] == ["plots/curves.png", "plots/confusion.png", "plots/worst.png"]
    assert all((run.folder / name).stat().st_size > 1000 for name in metrics["plots"])


def test_the_history(run: Run):
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == run.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [3, 6, 9, 12, 15]  # 24 images in batches of 8
    assert [row["phase"] for row in rows] == ["head", "head", "all", "all", "all"]
    assert all(math.isfinite(row[k]) for row in rows for k in ("train_loss", "val_loss", "grad_norm", "accuracy"))


def test_tensorboard_has_every_epoch(run: Run):
    from tensorboardX.proto.event_pb2 import Event

    (file,) = (run.folder / "tensorboard").glob("events.*")
    data, found = file.read_bytes(), {}
    while data:  # length (8), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    for name in ("train_loss", "val_loss", "accuracy"):
        assert found[name] == pytest.approx({row["step"]: row[name] for row in run.history})


def test_the_model_is_the_best_epochs(run: Run, data: Path):
    best = max(run.history, key=lambda row: (row["accuracy"], -row["val_loss"]))
    assert run.metrics["best_epoch"] == best["epoch"]
    assert run.metrics["accuracy"] == best["accuracy"]
    assert run.metrics["loss"] == pytest.approx(best["val_loss"], rel=1e-4)
    again = zoo.evaluate(run, data, split="val").metrics
    assert (again["accuracy"], again["macro_f1"]) == (run.metrics["accuracy"], run.metrics["macro_f1"])
    assert again["loss"] == pytest.approx(run.metrics["loss"], rel=1e-4)


def test_evaluate_takes_a_run_a_model_and_a_folder(run: Run, data: Path):
    found = [zoo.evaluate(source, data).metrics for source in (run, run.model, run.folder, str(run.folder))]
    assert all(metrics == found[0] for metrics in found)
    # Without a split named, the test data.
    assert found[0]["confusion"] == run.metrics["test"]["confusion"] and found[0]["images"] == 9
    assert found[0]["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-5)
    assert zoo.evaluate(run, data / "val").metrics["images"] == 12
    with pytest.raises(DataError, match="no split 'dev'; it has"):
        zoo.evaluate(run, data, split="dev")


def test_the_saved_model_predicts_the_same(run: Run, data: Path):
    loaded = zoo.load(run.folder)
    assert same(loaded, run.model) and loaded.labels == CLASSES
    photos = sorted((data / "test" / "disc").iterdir())
    assert loaded.predict(photos) == run.model.predict(photos)
    assert loaded.predict(photos[0]).file == str(photos[0])
    assert Run.open(run.folder).metrics == run.metrics


def test_the_worst_mistakes_are_the_largest_losses(run: Run, data: Path):
    found = zoo.evaluate(run, data, split="val")
    losses = [loss for loss, *_ in found.mistakes]
    assert losses == sorted(losses, reverse=True) and len(losses) == 12
    assert np.mean(losses) == pytest.approx(found.metrics["loss"], rel=1e-5)
    for file, decoded, targets in found.worst(3):
        assert file.parent.name == CLASSES[int(targets["label"])]
        assert run.model.predict(file).score == pytest.approx(float(decoded["probabilities"].max()), rel=1e-4)


# Plans -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(data: Path, tmp_path: Path):
    first, second, other = (
        zoo.train(create(), data, epochs=2, out=tmp_path / str(i), seed=seed, **{**FAST, "augment": "auto"})
        for i, seed in enumerate((3, 3, 4))
    )
    assert timeless(first.history) == timeless(second.history)
    assert same(first.model, second.model) and not same(first.model, other.model)


def test_scratch_training_updates_statistics_and_frozen_ones_stay(data: Path, tmp_path: Path):
    def moved(batch_norm: str) -> bool:
        model = create()
        before = values(model, nnx.BatchStat)
        zoo.train(model, data, plan="all", epochs=1, out=tmp_path / batch_norm, batch_norm=batch_norm, **FAST)
        after = values(model, nnx.BatchStat)
        assert len({np.array_equal(before[path], after[path]) for path in before}) == 1
        return not all(np.array_equal(before[path], after[path]) for path in before)

    assert moved("batch") and moved("auto") and not moved("frozen")


def test_rules_in_place_of_a_plan(data: Path, tmp_path: Path):
    model = create()
    before = values(model, nnx.Param)
    rules = [("backbone.conv2.*", 0.5), ("head.*", 1.0), ("*", None)]
    run = zoo.train(model, data, rules=rules, epochs=1, out=tmp_path / "run", **FAST)
    after = values(run.model, nnx.Param)
    moved = {".".join(map(str, path)) for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"backbone.conv2.kernel", "head.fc.kernel", "head.fc.bias"}


def test_a_part_of_the_head(data: Path, tmp_path: Path):
    """On a frozen backbone, where the head's map is trained on standardised features, but not without its kernel."""
    for name in ("kernel", "bias"):
        model = create()
        before = values(model, nnx.Param)
        rules = [(f"head.fc.{name}", 1.0), ("*", None)]
        after = values(zoo.train(model, data, rules=rules, epochs=1, out=tmp_path / name, **FAST).model, nnx.Param)
        assert [path for path in before if not np.array_equal(before[path], after[path])] == [("head", "fc", name)]


def test_phases_of_ones_own(data: Path, tmp_path: Path):
    """Features are cached for the backbone as it is in each phase: also after another phase has trained it."""
    model = create()
    phases = [
        Phase("one", preset(model, "head"), 1, 1e-2),
        Phase("two", preset(model, "all"), 1, 1e-2),
        Phase("one", preset(model, "head"), 2, 1e-2),
    ]
    runs = [
        zoo.train(create(), data, plan=phases, out=tmp_path / str(cache), cache=cache, batch_norm="batch", **FAST)
        for cache in (True, False)
    ]
    for cached, plain in zip(*(run.history for run in runs), strict=True):
        assert cached["val_loss"] == pytest.approx(plain["val_loss"], abs=1e-5), cached["epoch"]
    assert runs[0].metrics["loss"] == pytest.approx(runs[1].metrics["loss"], abs=1e-5)


def test_a_best_epoch_before_the_backbone_moved_is_evaluated_as_it_was(data: Path, tmp_path: Path):
    """The second phase ruins the model: the first one's epoch is kept, with its own features."""
    model = create()
    phases = [Phase("a", preset(model, "head"), 1, 1e-2), Phase("a", preset(model, "all"), 1, 10.0)]
    phases.append(Phase("a", preset(model, "head"), 1, 1e-6))
    run = zoo.train(create(), data, plan=phases, out=tmp_path / "run", **FAST)
    assert run.metrics["best_epoch"] == 1
    assert run.metrics["loss"] == pytest.approx(run.history[0]["val_loss"], rel=1e-4)
    assert zoo.evaluate(run, data, split="val").metrics["loss"] == pytest.approx(run.metrics["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1}, "2 phases and needs at least as many epochs"),
        ({"plan": "heads"}, "unknown plan 'heads'"),
        ({"plan": []}, "no phases"),
        ({"plan": [Phase("x", (("*", 1.0),), 0, 0.1)]}, "epochs of phase x is 0"),
        ({"rules": [("head.*", 1.0)]}, "no rule matches"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": 4, "plan": "head", "epochs": 1}, "phase head has only 3 batches"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"patience": 0}, "patience is 0"),
        ({"augment": "strong"}, "augment is 'strong'"),
        ({"batch_norm": "eval"}, "batch_norm is 'eval'"),
        ({"val_fraction": 2.0, "data": "unsplit"}, "2.0"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(data: Path, tmp_path: Path, options: dict, words: str):
    options = dict(options)
    source = draw_folder(tmp_path / "unsplit", count=4) if options.pop("data", None) else data
    labels = CLASSES if source is data else ("disc", "frame")
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        zoo.train(create(labels), source, out=tmp_path / "run", **{**FAST, **options})
    assert not (tmp_path / "run").exists()
