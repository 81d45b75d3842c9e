"""Every option of `zoo.train` does what it says."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_kit
from flax import nnx
from training_kit import CLASSES, FAST, create, draw_folder, picture, same, values

import zoo
from zoo.data import read
from zoo.errors import RunError
from zoo.models.model import Model
from zoo.training import Augment, TrainConfig
from zoo.training.plans import preset
from zoo.training.points import OPTIMIZERS, SCHEDULES
from zoo.training.rules import assign
from zoo.training.schedules import schedule
from zoo.training.step import install, lenient, optimizer, start

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet
data = training_kit.data


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


def test_weight_decay_shrinks_kernels_and_neither_norms_nor_biases():
    model = create()
    params = nnx.state(model, nnx.Param)
    assignment = assign(model, preset(model, "all"))
    transform = optimizer(0.1, weight_decay=0.5, clip=None, accumulate=1, assignment=assignment)
    with lenient():
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = transform.update(nothing, transform.init(params), params)
    before, after = (dict(nnx.to_flat_state(state)) for state in (params, updates))
    assert {path[-1] for path in before} == {"kernel", "bias", "scale"}
    for path, variable in before.items():
        wanted = -0.05 * variable.get_value() if path[-1] == "kernel" else jnp.zeros_like(variable.get_value())
        np.testing.assert_allclose(after[path].get_value(), wanted, atol=1e-7)


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


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The state after two epochs of training with the defaults."""
    return zoo.train(create(), data, plan="all", epochs=2, out=tmp_path_factory.mktemp("plain") / "run", **FAST).model


def test_ema_is_what_a_run_evaluates_and_keeps(data: Path, plain: Model, tmp_path: Path):
    run = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "run", ema=0.9, **FAST)
    found = zoo.evaluate(run, data, split="val").metrics
    assert found["loss"] == pytest.approx(min(row["val_loss"] for row in run.history), rel=1e-4)
    assert not same(run.model, plain)


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


def test_mixed_images(data: Path, plain: Model, tmp_path: Path):
    augment = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0, mixup=0.4)
    run = zoo.train(create(), data, plan="all", epochs=2, out=tmp_path / "run", **{**FAST, "augment": augment})
    assert not same(run.model, plain)
    assert json.loads((run.folder / "config.json").read_text())["asked"]["recipe"]["augment"]["mixup"] == 0.4


def test_a_loss_that_is_no_longer_finite(data: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"loss is (nan|inf).*lower learning rate \(lr is 1e\+30\)"):
        zoo.train(create(), data, plan="all", epochs=3, lr=1e30, out=tmp_path / "run", checkpoint_seconds=0, **FAST)
    # What is broken was never written over what was good.
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/manifest.json"):
        assert all(map(math.isfinite, json.loads(manifest.read_text())["position"]["at"]["losses"]))


def test_what_is_not_given_is_the_tasks_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = {"plan": "head", "epochs": 2, "batch_size": 4, "lr": 2e-3, "weight_decay": 0.5, "ema": 0.5}
    model = create()
    training = replace(model.adapter.training, recipe=own)
    monkeypatch.setattr(type(model.adapter), "training", training)
    asked = []
    for name, given in (("own", {}), ("given", {"epochs": 1, "lr": 1e-3})):
        run = zoo.train(model, data, out=tmp_path / name, plots=False, **given)
        asked.append(json.loads((run.folder / "config.json").read_text())["asked"])
    assert [[phase["name"], phase["epochs"], phase["rate"]] for a in asked for phase in a["plan"]] == [
        ["head", 2, 2e-3],
        ["head", 1, 1e-3],
    ]
    assert [[a["recipe"][k] for k in ("batch_size", "weight_decay", "ema")] for a in asked] == [[4, 0.5, 0.5]] * 2


# Optimizers and schedules ----------------------------------------------------------------------------------------


def test_the_default_is_optax_adamw_to_the_bit():
    """Of the same state as well, so that checkpoints fit."""
    model = create()
    params = nnx.state(model, nnx.Param)
    assignment = assign(model, preset(model, "all"))
    rate = optax.cosine_decay_schedule(1e-2, 10)
    mine = optimizer(rate, weight_decay=0.1, clip=1.0, accumulate=1, assignment=assignment)
    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.1, mask=decayed))
    theirs = assignment.transform(chain)
    with lenient():
        states = [transform.init(params) for transform in (mine, theirs)]
        for step in range(3):
            gradients = jax.tree.map(lambda leaf: jnp.sin(leaf * (step + 1)), params)  # noqa: B023
            found = [t.update(gradients, s, params) for t, s in zip((mine, theirs), states, strict=True)]
            states = [state for _, state in found]
            for one, other in zip(*map(jax.tree.leaves, found), strict=True):
                np.testing.assert_array_equal(one, other)


def test_the_default_schedule_warms_up_and_falls_along_a_cosine():
    rate = schedule("cosine", 1e-2, 10, 7)
    wanted = optax.warmup_cosine_decay_schedule(5e-4, 1e-2, 7, 70, 1e-4)
    assert [float(rate(i)) for i in range(72)] == [float(wanted(i)) for i in range(72)]
    assert float(schedule("cosine", 1e-2, 1, 1)(0)) == pytest.approx(1e-2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_rise_and_end(name: str):
    rate = schedule(name, 1e-2, 10, 7)
    start, peak, end = (float(rate(step)) for step in (0, 7, 70))
    assert peak == pytest.approx(1e-2)
    assert (start, end) == pytest.approx((1e-2, 1e-2) if name == "constant" else (5e-4, 1e-4))
    assert float(schedule(name, 1e-2, 1, 1)(0)) == pytest.approx(1e-2), "without a warm-up"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_of_every_row_spares_norms_and_biases(name: str):
    model = create()
    params = nnx.state(model, nnx.Param)
    assignment = assign(model, preset(model, "all"))
    transform = optimizer(0.1, weight_decay=0.5, clip=None, accumulate=1, assignment=assignment, row=name)
    with lenient():
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = transform.update(nothing, transform.init(params), params)
    for path, variable in nnx.to_flat_state(updates):
        moved = bool(jnp.any(variable.get_value() != 0))
        assert moved == (path[-1] == "kernel")


def test_an_optimizer_and_a_schedule_by_name(data: Path, tmp_path: Path):
    common = {**FAST, "plan": "all", "epochs": 2, "lr": 1e-3}
    run = zoo.train(create(), data, out=tmp_path / "named", optimizer="lion", schedule="constant", **common)
    assert [row["rate"] for row in run.history] == pytest.approx([1e-3, 1e-3])
    recipe = json.loads((run.folder / "config.json").read_text())["asked"]["recipe"]
    assert (recipe["optimizer"], recipe["schedule"]) == ("lion", "constant")
    with pytest.raises(RunError, match="recipe.optimizer was 'lion' and is now 'adamw'"):
        zoo.train(create(), data, out=tmp_path / "named", schedule="constant", resume=True, **common)


def test_an_optimizer_and_a_schedule_as_objects(data: Path, tmp_path: Path):
    """A run with optax's own is that of the row of the same make."""
    common = {**FAST, "plan": "head", "epochs": 2, "lr": 1e-3}
    config = TrainConfig(optimizer=optax.lion, schedule=lambda peak, updates, warm: optax.constant_schedule(peak))
    own = zoo.train(create(), data, config, out=tmp_path / "own", **common)
    options = {"optimizer": "lion", "schedule": "constant", "weight_decay": 1e-3}  # optax.lion's own decay
    named = zoo.train(create(), data, out=tmp_path / "named", **options, **common)
    assert [row["rate"] for row in own.history] == pytest.approx([1e-3, 1e-3])
    one, other = values(own.model, nnx.Param), values(named.model, nnx.Param)
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=1e-3, atol=1e-4)
