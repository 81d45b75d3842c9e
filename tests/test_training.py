"""`zoo.train` on drawn data: what the run folder holds, and that every option does what it says."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_kit import draw_folder, draw_splits, installed, own_cache, picture, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.data import read, split
from zoo.errors import ConfigError, DataError, RunError, WeightsError
from zoo.model import Model
from zoo.rules import assign, preset
from zoo.training import Augment, Phase, Run
from zoo.training.session import Session
from zoo.training.step import install, optimizer, start

CLASSES = ("disc", "frame", "stripe")
FAST: dict[str, Any] = {
    "figures": False,
    "augment": "none",
    "batch_size": 8,
    "show": lambda session: lambda event: None,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_splits(tmp_path_factory.mktemp("drawn"), CLASSES, train=8, val=4, test=3)


def create(labels: tuple[str, ...] = CLASSES, **options: Any) -> Model:
    return zoo.create("tinynet", "classifier", labels=labels, pretrained=False, **options)


def values(model: nnx.Module, kind: Any = (nnx.Param, nnx.BatchStat)) -> dict[tuple, np.ndarray]:
    return {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(nnx.state(model, kind))}


def same(one: nnx.Module, other: nnx.Module) -> bool:
    a, b = values(one), values(other)
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


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
    assert names >= {"config.json", "metrics.jsonl", "metrics.json", "model.safetensors", "tensorboard", "figures"}
    config = json.loads((run.folder / "config.json").read_text())
    assert config["asked"]["model"]["card"]["backbone"] == "tinynet"
    assert [phase["name"] for phase in config["asked"]["plan"]] == ["head", "all"]
    assert {"jax", "flax", "optax"} <= config["versions"].keys() and config["started"]
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics.keys() >= {"accuracy", "macro_f1", "best_epoch", "epochs", "seconds", "loss", "confusion", "test"}
    assert (metrics["train_images"], metrics["val_images"], metrics["epochs"]) == (24, 12, 5)
    assert metrics["figures"] == ["figures/curves.png", "figures/confusion.png", "figures/worst.png"]
    assert all((run.folder / name).stat().st_size > 1000 for name in metrics["figures"])


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
        ({"plan": [Phase("x", (("*", 1.0),), 0, 0.1)]}, "phase x has 0 epochs"),
        ({"rules": [("head.*", 1.0)]}, "no rule covers"),
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
    with pytest.raises(ConfigError, match=words):
        zoo.train(create(labels), source, out=tmp_path / "run", **{**FAST, **options})
    assert not (tmp_path / "run").exists()


# Options ---------------------------------------------------------------------------------------------------------


def test_accumulated_batches_equal_a_large_one(data: Path, tmp_path: Path):
    """Statistics are frozen, nothing is random: the averaged gradient is the large batch's."""
    common = {**FAST, "plan": "all", "epochs": 2, "batch_norm": "frozen", "clip": 0.01}
    small = zoo.train(create(), data, out=tmp_path / "a", **{**common, "batch_size": 4, "accumulate": 3})
    large = zoo.train(create(), data, out=tmp_path / "b", **{**common, "batch_size": 12})
    assert [row["step"] for row in small.history] == [6, 12] and [row["step"] for row in large.history] == [2, 4]
    for one, other in zip(small.history, large.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.02)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
        assert one["rate"] == pytest.approx(other["rate"])


def sgd_steps(model: Model, *, ema: float = 0.0, accumulate: int = 1, clip: float | None = None, steps: int = 4):
    """The states after each step on equal batches, and the metrics."""
    assignment = assign(model, preset(model, "head"))
    transform = optimizer(0.01, weight_decay=0.0, clip=clip, accumulate=accumulate, assignment=assignment)
    state, program = start(
        model, assignment, transform, augmentation=None, ema=ema, norm_statistics=False, accumulate=accumulate
    )
    images = np.stack([np.asarray(picture(CLASSES[i % 3], i, 16)) for i in range(6)])
    batch = {"image": images, "label": np.arange(6, dtype=np.int32) % 3, "valid": np.ones(6, bool)}
    states = [jax.tree.map(jnp.copy, state)]
    for _ in range(steps):
        state, metrics = program.run(state, program.frozen, batch, jax.random.key(0))
        states.append(jax.tree.map(jnp.copy, state))
    return states, metrics


def kernel(state: nnx.State) -> np.ndarray:
    return np.asarray(dict(nnx.to_flat_state(state))["head", "fc", "kernel"].get_value())


def test_the_moving_average(tmp_path: Path):
    model = create()
    states, _ = sgd_steps(model, ema=0.25)
    average = kernel(states[0].params)
    for number, state in enumerate(states[1:], 1):
        keep = min(0.25, number / (9 + number))
        average = keep * average + (1 - keep) * kernel(state.params)
        np.testing.assert_allclose(kernel(state.ema), average, rtol=1e-5, atol=1e-7)
    install(model, states[-1])
    np.testing.assert_array_equal(np.asarray(model.head.fc.kernel[...]), kernel(states[-1].ema))


def test_the_moving_average_starts_where_training_starts(data: Path, tmp_path: Path):
    """A new head is first scaled to the features it reads: its average must not remember how it was drawn."""
    common = {**FAST, "plan": "head", "epochs": 1, "lr": 1e-30}
    plain = zoo.train(create(), data, out=tmp_path / "plain", **common)
    averaged = zoo.train(create(), data, out=tmp_path / "ema", ema=0.9, **common)
    one, other = values(plain.model, nnx.Param), values(averaged.model, nnx.Param)
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=1e-5, atol=1e-7)


def test_the_moving_average_moves_with_the_updates():
    states, _ = sgd_steps(create(), ema=0.25, accumulate=2)
    averages, params = [kernel(s.ema) for s in states], [kernel(s.params) for s in states]
    assert np.array_equal(averages[1], averages[0]) and np.array_equal(params[1], params[0])
    np.testing.assert_allclose(averages[2], 0.1 * params[0] + 0.9 * params[2], rtol=1e-5, atol=1e-7)
    assert np.array_equal(averages[3], averages[2]) and not np.array_equal(averages[4], averages[3])


def test_ema_is_what_a_run_evaluates_and_keeps(data: Path, tmp_path: Path):
    run = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "run", ema=0.9, **FAST)
    found = zoo.evaluate(run, data, split="val").metrics
    assert found["loss"] == pytest.approx(min(row["val_loss"] for row in run.history), rel=1e-4)
    plain = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "plain", **FAST)
    assert not same(run.model, plain.model)


def test_the_clip_bounds_the_trained_gradients(tmp_path: Path):
    """AdamW divides by the gradient's size, so the first moment tells what went in."""
    limits = []
    for clip in (None, 1e-3):
        states, metrics = sgd_steps(create(), clip=clip, steps=1)
        moments = [leaf for leaf in jax.tree.leaves(states[1].opt_state) if leaf.ndim == 2]
        limits.append(max(float(jnp.abs(m).max()) for m in moments))
        assert float(metrics["grad_norm"]) > 1e-2  # what is reported is before the clip
    assert limits[1] < 1e-4 < limits[0]


def test_patience_ends_a_phase(data: Path, tmp_path: Path):
    """At a rate that changes nothing no epoch is better than the first."""
    run = zoo.train(create(), data, plan="head", epochs=6, lr=1e-30, patience=2, out=tmp_path / "run", **FAST)
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.metrics["best_epoch"] == 1


def test_bfloat16(data: Path, tmp_path: Path):
    run = zoo.train(create(dtype="bfloat16"), data, plan="all", epochs=2, out=tmp_path / "run", **FAST)
    assert run.model.card.dtype == "bfloat16"
    assert {v.dtype for v in values(run.model).values()} == {np.dtype(np.float32)}
    features = run.model.features(jnp.zeros((1, 16, 16, 3)), ["body"])["body"]
    assert features.dtype == jnp.bfloat16
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_options_of_the_task(data: Path, tmp_path: Path):
    """Balanced weights come from the training data, and travel with the model like every other option."""
    source = draw_folder(tmp_path / "uneven" / "train", ("disc",), 9)
    draw_folder(source, ("frame",), 3)
    draw_folder(tmp_path / "uneven" / "val", ("disc", "frame"), 2, 50)
    model = create(("disc", "frame"), class_weights="balanced", label_smoothing=0.1, dropout=0.2, pool="avgmax")
    run = zoo.train(model, tmp_path / "uneven", plan="head", epochs=1, out=tmp_path / "run", **FAST)
    adapter = zoo.load(run.folder).adapter
    assert adapter.class_weights == pytest.approx((12 / 18, 12 / 6))
    assert (adapter.label_smoothing, adapter.dropout, adapter.pool) == (0.1, 0.2, "avgmax")


def test_several_labels_from_a_csv(tmp_path: Path):
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "labels", "split"))
        for i in range(18):
            kind = CLASSES[i % 3]
            picture(kind, i).save(tmp_path / f"{i}.png")
            writer.writerow((f"{i}.png", kind if i % 2 else f"{kind}|any", "train" if i < 12 else "val"))
    (labels,) = {part.classes for part in read(tmp_path / "data.csv").values()}
    run = zoo.train(create(labels), tmp_path / "data.csv", plan="head", epochs=2, out=tmp_path / "run", **FAST)
    assert run.model.adapter.multi_label and set(labels) == {*CLASSES, "any"}
    assert run.metrics.keys() >= {"accuracy", "label_accuracy", "macro_f1"}
    found = zoo.load(run.folder).predict(tmp_path / "0.png")
    assert found.labels is not None and set(found.labels) <= set(labels)


def test_mixed_images(data: Path, tmp_path: Path):
    augment = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0, mixup=0.4)
    run = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "run", **{**FAST, "augment": augment})
    plain = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "plain", **FAST)
    assert not same(run.model, plain.model)
    assert json.loads((run.folder / "config.json").read_text())["asked"]["recipe"]["augmentation"]["mixup"] == 0.4


def test_a_loss_that_is_no_longer_finite(data: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"loss is (nan|inf).*lower learning rate \(lr is 1e\+30\)"):
        zoo.train(create(), data, plan="all", epochs=3, lr=1e30, out=tmp_path / "run", checkpoint_seconds=0, **FAST)
    # What is broken was never written over what was good.
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/manifest.json"):
        assert all(map(math.isfinite, json.loads(manifest.read_text())["position"]["at"]["losses"]))


# Data ------------------------------------------------------------------------------------------------------------


def test_without_a_split_a_stratified_share_is_validated_on(tmp_path: Path):
    source = draw_folder(tmp_path / "data", CLASSES, 10)
    run = zoo.train(create(), source, plan="head", epochs=1, out=tmp_path / "run", seed=5, **FAST)
    assert (run.metrics["train_images"], run.metrics["val_images"]) == (24, 6)
    (pool,) = read(source).values()
    train, val = split(pool, 0.2, 5)
    assert val.counts() == {"disc": 2, "frame": 2, "stripe": 2}
    asked = json.loads((run.folder / "config.json").read_text())["asked"]["data"]
    assert (asked["train"], asked["val"]) == (train.fingerprint(), val.fingerprint())


def test_labels_in_another_order_mean_the_same(data: Path, tmp_path: Path):
    order = ("stripe", "disc", "frame")
    run = zoo.train(create(order), data, plan="all", lr=1e-2, epochs=4, out=tmp_path / "run", **FAST)
    assert run.model.labels == order and run.metrics["accuracy"] > 0.6
    assert zoo.evaluate(run, data, split="val").metrics["accuracy"] == run.metrics["accuracy"]
    right = [run.model.predict(data / "val" / kind / "8.png").label == kind for kind in CLASSES]
    assert sum(right) >= 2


def test_labels_of_other_words_are_taken_by_position(data: Path, tmp_path: Path):
    """A folder `discs` for the label `disc`: the model knows from then on what the data calls its classes."""
    run = zoo.train(create(("a", "b", "c")), data, plan="head", epochs=1, out=tmp_path / "run", **FAST)
    assert run.model.labels == ("a", "b", "c")
    assert zoo.evaluate(run.folder, data, split="val").metrics["accuracy"] == run.metrics["accuracy"]
    with pytest.raises(DataError, match="'wedge'"):
        zoo.evaluate(run, draw_folder(tmp_path / "other", ("disc", "frame", "wedge"), 2))


def test_numbered_labels_take_the_names_of_the_data(data: Path, tmp_path: Path):
    model = zoo.create("tinynet", "classifier", num_classes=3, pretrained=False)
    run = zoo.train(model, data, plan="head", epochs=1, out=tmp_path / "run", **FAST)
    assert zoo.load(run.folder).labels == CLASSES


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("disc", "frame"), r"the model has 2 classes \(disc, frame\) and .* has 3 \(disc, frame, stripe\)"),
        (("frame", "wedge", "disc"), "'stripe'"),  # some agree: the rest cannot be guessed
    ],
)
def test_labels_that_do_not_fit(data: Path, tmp_path: Path, labels: tuple[str, ...], words: str):
    with pytest.raises(DataError, match=words):
        zoo.train(create(labels), data, out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plan", ["head", "all"])
def test_an_image_that_cannot_be_read(tmp_path: Path, plan: str):
    source = draw_folder(tmp_path / "data", CLASSES, 6)
    bad = source / "frame" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DataError, match=r"frame/3\.png"):
        zoo.train(create(), source, plan=plan, epochs=1, out=tmp_path / "run", **FAST)
    if plan == "head":  # nothing was trained: the folder is free for the next attempt
        assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_not_empty(data: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty: choose another --out"):
        zoo.train(create(), data, out=tmp_path / "run", **FAST)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_without_out_runs_are_numbered(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folders = [zoo.train(create(), data, plan="head", epochs=1, **FAST).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == [f"runs/{data.name}-tinynet-{i}" for i in (1, 2)]


# What is shown ---------------------------------------------------------------------------------------------------


def test_plain_lines_when_there_is_no_terminal(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    zoo.train(create(), data, epochs=2, out=tmp_path / "run", **{k: v for k, v in FAST.items() if k != "show"})
    captured = capsys.readouterr()
    assert captured.out == "" and "\x1b" not in captured.err
    lines = captured.err.splitlines()
    assert "phase head: 1 epochs of 3 steps, 51 of 1,467 parameters train (3.5%), on cached features" in lines
    assert sum(line.startswith("epoch ") for line in lines) == 2


def test_events_in_order(data: Path, tmp_path: Path):
    kinds: list[str] = []

    def show(session: Session):
        return lambda event: kinds.append(event[1]["kind"])

    zoo.train(create(), data, epochs=2, out=tmp_path / "run", **{**FAST, "show": show})
    assert kinds == ["phase", "step", "step", "step", "epoch"] * 2


# Features and citations ------------------------------------------------------------------------------------------


def test_features(data: Path):
    model = create()
    photos = sorted((data / "val" / "disc").iterdir())
    found = zoo.features(model, photos, at=["stem", "body"])
    assert {name: array.shape for name, array in found.items()} == {"stem": (4, 8, 8, 8), "body": (4, 4, 4, 16)}
    x = model.normalize(jnp.asarray(model.prepare(photos)))
    bare = zoo.features(model.backbone, x, at=["body"])
    np.testing.assert_allclose(bare["body"], found["body"], rtol=1e-4, atol=1e-5)
    assert list(zoo.features(model, photos[0])) == ["body"]  # the last stage, when none is named
    with pytest.raises(ConfigError, match="bare backbone knows no preprocessing"):
        zoo.features(model.backbone, photos)
    with pytest.raises(
        zoo.UnknownNameError if hasattr(zoo, "UnknownNameError") else LookupError, match="stem, body|body"
    ):
        zoo.features(model, photos, at=["layer9"])


def test_cite():
    assert "@misc{tinynet}" in zoo.cite(create())
    assert zoo.cite("tinynet") == "@misc{tinynet}"
    assert "Deep Residual Learning" in zoo.cite("resnet18.a1_in1k")


def test_a_file_that_is_no_model_of_zoos(tmp_path: Path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="weights, not a model saved by zoo"):
        zoo.load(tmp_path)
