"""Copies that fill up a last batch change no statistic, no parameter and no figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_kit
from flax import nnx
from training_kit import CLASSES, create, draw_folder

from zoo.data import Dataset, Loader, read
from zoo.errors import ConfigError
from zoo.layers import BatchNorm, statistics_of
from zoo.models.model import Model
from zoo.models.prepared import evaluation_load
from zoo.training.config import Recipe
from zoo.training.data import relabelled
from zoo.training.evaluation import evaluate_batches
from zoo.training.phase_sources import training_images
from zoo.training.plan import make_plan
from zoo.training.plans import preset
from zoo.training.rules import assign
from zoo.training.session import Session
from zoo.training.step import install, start

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five images of three classes."""
    (pool,) = read(draw_folder(tmp_path_factory.mktemp("five"), CLASSES, 2)).values()
    return pool.subset(range(5), "five")


def loader(model: Model, dataset: Dataset, size: int) -> Loader:
    return Loader(relabelled(dataset, model), evaluation_load(model), size, threads=0)


def trained(model: Model, batches: list[dict[str, Any]], remat: bool = False) -> dict[tuple, np.ndarray]:
    """Parameters and statistics after a step for each batch, at a rate that moves both."""
    assignment = assign(model, preset(model, "all"))
    transform = assignment.transform(optax.sgd(0.1))
    state, program = start(model, assignment, transform, augmentation=None, ema=0, norm_statistics=True, remat=remat)
    for batch in batches:
        batch = {name: value for name, value in batch.items() if name != "index"}
        state, _ = program.run(state, program.frozen, batch, jax.random.key(0))
    install(model, state)
    return training_kit.values(model)


@pytest.mark.parametrize("remat", [False, True])
def test_statistics_and_parameters_are_those_without_copies(five: Dataset, remat: bool):
    full = list(loader(create(), five, 4).epoch(0))
    assert [batch["valid"].tolist() for batch in full] == [[True] * 4, [True, False, False, False]]
    cut = [{name: value[batch["valid"]] for name, value in batch.items()} for batch in full]
    found, wanted = trained(create(), full, remat), trained(create(), cut)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_allclose(found[path], value, rtol=2e-4, atol=2e-5, err_msg=str(path))


def test_a_norm_takes_the_valid_rows_alone():
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 2, 3, 5)), jnp.float32)
    valid = jnp.array([True, False, True, True])

    def seen(x: jax.Array, valid: jax.Array) -> tuple[np.ndarray, ...]:
        norm = BatchNorm(5, rngs=nnx.Rngs(0))
        with statistics_of(valid):
            y = norm(x)
        return np.asarray(y), np.asarray(norm.mean[...]), np.asarray(norm.var[...])

    found, wanted = seen(x, valid), seen(x[valid], jnp.ones(3, bool))
    np.testing.assert_allclose(found[0][np.asarray(valid)], wanted[0], atol=1e-5)
    for one, other in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    kept = np.asarray(x)[np.asarray(valid)]
    np.testing.assert_allclose(found[1], 0.1 * kept.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[2], 0.9 + 0.1 * kept.var((0, 1, 2), ddof=1), rtol=1e-5)
    alone = seen(x[:1, :1, :1], jnp.ones(1, bool))
    assert all(np.isfinite(one).all() for one in alone)


class Greedy:
    """Figures of a task that counts whatever rows it is given."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        assert len(decoded["probabilities"]) == len(batch["label"]) == len(batch["valid"])
        self.labels += batch["label"].tolist()

    def compute(self) -> dict[str, Any]:
        return {"images": len(self.labels)}


def test_figures_are_those_without_copies(five: Dataset, monkeypatch: pytest.MonkeyPatch):
    model = create()
    whole, padded = (evaluate_batches(model, five, loader(model, five, size).epoch(0)) for size in (5, 4))
    assert padded.metrics["images"] == 5 and padded.metrics["confusion"] == whole.metrics["confusion"]
    assert padded.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)
    assert [file for file, *_ in padded.worst(9)] == [file for file, *_ in whole.worst(9)]
    monkeypatch.setattr(type(model.adapter), "metrics", lambda self: Greedy())
    found = evaluate_batches(model, five, loader(model, five, 4).epoch(0))
    assert found.accumulated.labels == [sample.target for sample in five]  # type: ignore[union-attr]


def test_a_data_set_smaller_than_a_batch_has_no_copies(five: Dataset, tmp_path: Path):
    model = create()
    session = Session(model, five, five, make_plan(model, "all", 1, None, None), Recipe(batch_size=32), tmp_path)
    (batch,) = training_images(session, assign(model, preset(model, "all"))).epoch(0)
    assert batch["valid"].tolist() == [True] * 5


def test_batches_are_full_for_a_layer_that_cannot_tell_copies(five: Dataset, tmp_path: Path):
    """flax's own norm knows nothing of the mask: the incomplete batch is left out, another one in each epoch."""
    model = create()
    model.backbone.bn2 = nnx.BatchNorm(16, rngs=nnx.Rngs(0))  # type: ignore[attr-defined]

    def batches(plan: str, statistics: bool, size: int = 4) -> Loader:
        recipe = Recipe(batch_size=size, batch_norm="batch" if statistics else "frozen")
        session = Session(model, five, five, make_plan(model, plan, 1, None, None), recipe, tmp_path)
        return training_images(session, assign(model, preset(model, plan))).loader

    full = batches("all", True)
    assert len(full) == 1 and all(batch["valid"].all() for batch in full.epoch(0))
    seen = {int(row) for epoch in range(9) for index, _ in full.batches(epoch) for row in index}
    assert seen == set(range(5)), "no image is left out for ever"
    assert len(batches("all", False)) == len(batches("head", True)) == 2, "where the layer keeps its statistics"


def test_a_batch_too_large_for_a_frame_is_refused(five: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = create()
    model.backbone.bn2 = nnx.BatchNorm(16, rngs=nnx.Rngs(0))  # type: ignore[attr-defined]
    monkeypatch.setattr("zoo.training.phase_sources.frame_numbers", lambda *_: np.array([0, 0, 0, 1, 1]))
    recipe = Recipe(batch_size=3, batch_norm="batch")
    session = Session(model, five, five, make_plan(model, "all", 1, None, None), recipe, tmp_path)
    with pytest.raises(ConfigError, match="backbone.bn2 .*batch_size of at most 2"):
        training_images(session, assign(model, preset(model, "all")))
