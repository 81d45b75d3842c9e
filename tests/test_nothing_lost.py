"""Whatever fails in a training, what was good stays on disk, and `--resume` repeats nothing that was done."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_kit
from training_kit import create, draw_splits, picture, same

import zoo
from zoo.errors import DataError, RunError
from zoo.models.model import Model
from zoo.training import Run

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet

CLASSES = ("disc", "frame")
OPTIONS: dict[str, Any] = {"plan": "head", "epochs": 3, "batch_size": 8, "plots": False, "augment": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_splits(tmp_path_factory.mktemp("drawn"), CLASSES, train=8, val=4, test=2)


def train(data: Path, out: Path, events: list[tuple[int, dict]] | None = None, **options: Any) -> Run:
    keep = [] if events is None else events
    return zoo.train(create(CLASSES), data, out=out, **{**OPTIONS, "show": lambda session: keep.append, **options})


def texts(events: list[tuple[int, dict]]) -> str:
    return "\n".join(event["text"] for _, event in events if event["kind"] == "note")


def steps(events: list[tuple[int, dict]]) -> list[int]:
    return [step for step, event in events if event["kind"] == "step"]


def results(run: Run) -> tuple[list[dict], dict]:
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in run.history]
    return rows, {k: v for k, v in run.metrics.items() if k != "seconds"}


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, after: int = 0) -> Iterator[None]:
    """Let files of this name fail to be written, after some that succeed."""
    from zoo import disk

    written = 0

    def write_whole(path: Path, parts: Any) -> None:
        nonlocal written
        if path.match(name):
            written += 1
            if written > after:
                raise OSError(errno.ENOSPC, "No space left on device")
        disk.write_whole(path, parts)

    with monkeypatch.context() as patch:
        for module in ("zoo.training.run", "zoo.training.checkpoint", "zoo.weights.file"):
            patch.setattr(f"{module}.write_whole", write_whole)
        yield


def test_a_full_disk_loses_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the log, the best model, a checkpoint, the final metrics: one error each, and the same end to the last bit."""
    whole = train(data, tmp_path / "whole")
    out, resumed = tmp_path / "run", False
    for name, after in (
        ("metrics.jsonl", 1),
        ("model.safetensors", 0),
        ("manifest.json", 1),
        ("trained.json", 0),
        ("events.*", 0),
        ("metrics.json", 0),
    ):
        with full_disk(monkeypatch, name, after), pytest.raises(RunError, match=r"No space left.*--resume") as error:
            train(data, out, resume=resumed, checkpoint_seconds=0)
        assert "Traceback" not in str(error.value)
        resumed = True
        assert zoo.load(out).labels == CLASSES

    def no_space(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError, match="plots could not be written .*No space left"):
        patch.setattr("zoo.report.curves", no_space)
        train(data, out, resume=True, plots=True)
    assert zoo.evaluate(out, data, split="val").metrics["accuracy"] == whole.metrics["accuracy"]
    events: list[tuple[int, dict]] = []
    run = train(data, out, events, resume=True)
    assert steps(events) == [] and "training has ended" in texts(events)
    assert same(run.model, whole.model) and results(run) == results(whole)
    assert not (out / "trained.json").exists() and Run.open(out).metrics == run.metrics


def test_a_damaged_test_image_costs_the_test_metrics_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from zoo.training import api

    photo, source = sorted((data / "test" / "disc").iterdir())[0], api.evaluation_source

    def damaged(model: Model, dataset: Any, *rest: Any) -> Any:
        if dataset.name.endswith("test"):  # after all checks, as on a disk that fails meanwhile
            photo.write_bytes(good[:100])
        return source(model, dataset, *rest)

    good = photo.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(api, "evaluation_source", damaged)
        train(data, tmp_path / "run")
    assert str(photo) in str(error.value) and "Training has ended" in str(error.value)
    assert zoo.load(tmp_path / "run").labels == CLASSES
    photo.unlink()
    events: list[tuple[int, dict]] = []
    run = train(data, tmp_path / "run", events, resume=True)
    photo.write_bytes(good)
    assert steps(events) == [] and run.metrics["test"]["images"] == 3
    assert f"1 sample of test is missing (test/disc/{photo.name}). The test metrics are those of" in texts(events)


def test_a_preview_that_fails_is_a_remark(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def preview(*args: object) -> None:
        raise ValueError("no canvas")

    monkeypatch.setattr(type(create(CLASSES).adapter), "preview", preview)
    events: list[tuple[int, dict]] = []
    run = train(data, tmp_path / "run", events, epochs=1)
    assert "preview of epoch 1 could not be drawn: no canvas" in texts(events) and len(run.history) == 1


# A loss that is not finite -----------------------------------------------------------------------------------------


def fragile(rate: Callable) -> optax.GradientTransformation:
    """Plain descent that breaks at its fifth update, unless the rate is low."""
    return optax.sgd(lambda n: jnp.where((n == 4) & (rate(n) > 0.01), jnp.nan, rate(n)))


UNSTABLE: dict[str, Any] = {"optimizer": fragile, "schedule": "constant", "lr": 0.05, "clip": None}


def test_training_that_diverges_keeps_the_good_epochs(data: Path, tmp_path: Path):
    events: list[tuple[int, dict]] = []
    with pytest.raises(RunError) as error:
        train(data, tmp_path / "run", events, **UNSTABLE)
    text = str(error.value)
    # Two steps an epoch: the fifth update breaks the parameters, the sixth step computes the loss.
    assert re.search(
        r"is nan at step 6 \(epoch 3, learning rate 0.05, batch of train/\w+/\d+.png, .* and 3 more\)", text
    )
    assert "is the best model so far, of epoch" in text and "--on-nonfinite rollback" in text
    assert zoo.load(tmp_path / "run").labels == CLASSES and steps(events)[-1] == 6


def test_no_epoch_was_good(data: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"at step 6 \(epoch 1, .*No epoch was finished, so there is no"):
        train(data, tmp_path / "run", **UNSTABLE, batch_size=2, epochs=1)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_back_to_the_last_good_checkpoint(data: Path, tmp_path: Path):
    events: list[tuple[int, dict]] = []
    run = train(data, tmp_path / "run", events, **UNSTABLE, on_nonfinite="rollback", checkpoint_seconds=0, epochs=4)
    assert "a parameter is not finite after step 5 (epoch 3, learning rate 0.05, batch of train/" in texts(events)
    assert "back to step 4, with the peak learning rate of phase head lowered to 0.005 (rollback 1 of 3)" in texts(
        events
    )
    assert [row["rate"] for row in run.history] == pytest.approx([0.05, 0.005, 0.005, 0.005])
    assert all(math.isfinite(row["val_loss"]) for row in run.history)


def test_it_does_not_go_back_for_ever(data: Path, tmp_path: Path):
    never = {**UNSTABLE, "optimizer": lambda rate: optax.sgd(lambda n: jnp.where(n == 4, jnp.nan, rate(n)))}
    with pytest.raises(RunError, match="after 3 rollbacks: training stopped"):
        train(data, tmp_path / "run", **never, on_nonfinite="rollback")


# Memory ------------------------------------------------------------------------------------------------------------


def test_a_step_that_does_not_fit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from zoo.training import loop

    begin = loop.start

    def start(*args: Any, **options: Any) -> Any:
        def run(*arrays: Any) -> Any:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9000000000 bytes.")

        state, program = begin(*args, **options)
        return state, replace(program, run=run)

    monkeypatch.setattr(loop, "start", start)
    with pytest.raises(RunError, match="out of memory on cpu in step 1, .*--batch-size 4 --accumulate 2, which keeps"):
        train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_batch_size_that_fits(monkeypatch: pytest.MonkeyPatch):
    """A step of 100 bytes and 10 for each image, in 300 bytes of which nine tenths may be used."""
    from zoo.training import memory

    def lower(state: Any, frozen: Any, batch: Any, key: Any) -> Any:
        images = batch["image"].shape[0]
        sizes = SimpleNamespace(
            argument_size_in_bytes=50 + 4 * images,
            output_size_in_bytes=50,
            temp_size_in_bytes=20 + 6 * images,
            alias_size_in_bytes=20,
        )
        return SimpleNamespace(compile=lambda: SimpleNamespace(memory_analysis=lambda: sizes))

    program: Any = SimpleNamespace(run=SimpleNamespace(lower=lower), frozen=None)
    batch = {"image": np.zeros((64, 2, 2, 3)), "valid": np.ones(64, bool)}
    for limit, fits in ((300, 17), (10_000, 63), (90, 0), (None, None)):
        monkeypatch.setattr(memory, "available", lambda limit=limit: limit)
        assert memory.fitting_batch(program, {}, batch, jax.random.key(0)) == fits  # type: ignore[arg-type]
    recipe = SimpleNamespace(batch_size=64, accumulate=2)
    session: Any = SimpleNamespace(recipe=recipe, step=0)
    assert "About 17 images fit: use --batch-size 16 --accumulate 8" in str(memory.out_of_memory(session, 17))


def test_one_image_for_each_class(tmp_path: Path):
    for kind in CLASSES:
        (tmp_path / "d" / kind).mkdir(parents=True)
        picture(kind, 0).save(tmp_path / "d" / kind / "0.png")
    events: list[tuple[int, dict]] = []
    run = train(tmp_path / "d", tmp_path / "run", events, epochs=1)
    assert (run.metrics["train_images"], run.metrics["val_images"]) == (2, 2)
    assert "no class has a second image" in texts(events) and "set aside as one" not in texts(events)
