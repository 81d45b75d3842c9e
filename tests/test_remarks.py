"""A training says when a class is never predicted, an average is longer than the run, or a figure does not move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import training_kit
from training_kit import CLASSES, FAST, create

import zoo
from zoo.adapters.classifier import Classifier
from zoo.adapters.segmenter.metrics import SegmentationMetrics
from zoo.dense.coco import CocoEvaluation
from zoo.errors import RunError
from zoo.models.model import Model
from zoo.training import Phase
from zoo.training.progress import phase_line
from zoo.training.remarks import never_predicted, slow_average, still_metric
from zoo.training.session import Session

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet
data = training_kit.data
PHASE = Phase("head", (("*", 1.0),), 4, 1e-3)


def notes_of(model: Model, data: Path, folder: Path, **options: Any) -> list[str]:
    """The notes of a training, each with the number of epochs done before it."""
    found: list[str] = []

    def show(session: Session) -> Any:
        def take(event: tuple[int, dict[str, Any]]) -> None:
            if event[1]["kind"] == "note":
                found.append(f"{len(session.history)}: {event[1]['text']}")

        return take

    zoo.train(model, data, out=folder / "run", **{**FAST, "show": show, **options})
    return found


# A class that is never predicted ----------------------------------------------------------------------------------


def blind(label: str) -> Model:
    """A model that never predicts a class."""
    model = create()
    model.head.fc.bias[...] = jnp.where(jnp.arange(3) == CLASSES.index(label), -50.0, 0.0)  # type: ignore[attr-defined]
    return model


def test_a_class_that_is_never_predicted_is_named_once(data: Path, tmp_path: Path):
    found = notes_of(blind("stripe"), data, tmp_path, plan="all", lr=1e-6, epochs=2)
    said = [note for note in found if "'stripe' (4 in the validation data)" in note]
    assert len(said) == 1 and said[0].startswith("1: never predicted in epoch 1")
    assert "class_weights=balanced" in said[0] and "learning rate" in said[0]


def test_a_class_that_the_data_do_not_have_is_not_missed():
    assert never_predicted({"a": (0, 3), "b": (2, 2), "c": (0, 0), "d": (5, 0)}) == ("a",)


def test_what_each_task_counts():
    metrics = Classifier(("a", "b", "c")).metrics()
    for labels in ([0, 0], [1, 2]):
        decoded = {"probabilities": np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])}
        metrics.update(decoded, {"valid": np.ones(2, bool), "label": np.array(labels)})
    assert metrics.class_counts() == {"a": (2, 2), "b": (2, 1), "c": (0, 1)}

    several = Classifier(("a", "b"), multi_label=True).metrics()
    several.update(
        {"probabilities": np.array([[0.9, 0.6], [0.2, 0.7]])},
        {"valid": np.ones(2, bool), "label": np.array([[1.0, 0.0], [1.0, 0.0]])},
    )
    assert several.class_counts() == {"a": (1, 2), "b": (2, 0)}

    pixels = SegmentationMetrics(("background", "cell"))
    pixels.update(
        {"mask": np.zeros((1, 4, 4), np.uint8)},
        {
            "valid": np.ones(1, bool),
            "true_mask": np.array([[[0, 1, 1, 255]] * 4], np.uint8),
            "frame": np.array([[1, 1, 0, 0, 4, 4]], np.float32),
        },
    )
    assert pixels.class_counts() == {"background": (12, 4), "cell": (0, 8)}

    boxes = CocoEvaluation(["cat", "dog"])
    one = np.array([[0.0, 0.0, 5.0, 5.0]])
    boxes.add(one, np.array([0.9]), np.array([0]), np.repeat(one, 2, 0), np.array([1, 1]), np.array([False, True]))
    assert boxes.class_counts() == {"cat": (1, 0), "dog": (0, 1)}


# A moving average that is longer than the run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "decay", "words"),
    [
        (84, 0.99, "over about 100 updates, but phase head has only 84.*ema 0.98 or less"),
        (12, 0.9999, "over about 10000 updates, but phase head has only 12.*ema 0.91 or less"),
        (1, 0.5, "over about 2 updates, but phase head has only 1.*ema 0 or less"),
        (100, 0.99, ""),
        (10, 0.9, ""),
        (84, 0.0, ""),
    ],
)
def test_an_average_that_is_longer_than_its_phase(updates: int, decay: float, words: str):
    import re

    found = slow_average(PHASE, updates, decay)
    assert re.search(words, found) if words else found == ""


def test_it_is_said_before_the_first_step(data: Path, tmp_path: Path):
    """24 images in batches of 8 are 3 updates an epoch, and half as many where two batches make one."""
    options: dict[str, Any] = {"plan": "head", "epochs": 4, "ema": 0.9}
    assert not any("ema" in note for note in notes_of(create(), data, tmp_path / "long", **options))
    (said,) = [note for note in notes_of(create(), data, tmp_path / "short", accumulate=2, **options) if "ema" in note]
    assert said.startswith("0: ema 0.9 averages") and "phase head has only 6" in said


@pytest.mark.parametrize(
    ("accumulate", "decay"),
    [(1, 0.9), (2, 0.83), (12, 0.0)],
)
def test_an_average_of_the_task_that_is_longer_than_a_phase_is_shortened(
    accumulate: int, decay: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """12 updates, 6 and 1, where the task's own decay is 0.9: as if the fitting one had been given, and no remark.
    The decay is said when the phase begins, and a run with a given decay cannot be resumed without it."""
    options: dict[str, Any] = {"plan": "head", "epochs": 4, "accumulate": accumulate}
    given = trained(data, tmp_path / "given", ema=decay, **options)
    monkeypatch.setattr(Classifier, "training", replace(Classifier.training, recipe={"ema": 0.9}))
    own = trained(data, tmp_path / "own", **options)
    assert own[1] == given[1] and not any("ema" in text for text in own[0])
    assert ("EMA decay lowered" in own[2]) == (accumulate > 1) and "EMA" not in given[2]
    assert accumulate == 1 or f"EMA decay lowered to {decay:g} " in own[2]
    with pytest.raises(RunError, match="recipe.ema_given was False and is now True"):
        zoo.train(create(), data, out=tmp_path / "own" / "run", resume=True, **{**FAST, **options, "ema": 0.9})


def trained(data: Path, folder: Path, **options: Any) -> tuple[list[str], list[float], str]:
    """The notes of a training, the loss of each epoch, and how the phase is announced."""
    notes, lines = [], []

    def show(session: Session) -> Any:
        def take(event: tuple[int, dict[str, Any]]) -> None:
            if event[1]["kind"] == "note":
                notes.append(event[1]["text"])
            elif event[1]["kind"] == "phase":
                lines.append(phase_line(event[1]))

        return take

    run = zoo.train(create(), data, out=folder / "run", **{**FAST, "show": show, **options})
    (line,) = lines
    return notes, [row["val_loss"] for row in run.history], line


# A figure that does not move ----------------------------------------------------------------------------------------


def rows(figures: list[float], losses: list[float]) -> list[dict[str, Any]]:
    return [{"AP": figure, "val_loss": loss} for figure, loss in zip(figures, losses, strict=True)]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (rows([0, 0, 0], [3, 3, 3]), ["AP has not changed from 0 in 3 epochs", "is constant too"]),
        (rows([0, 0, 0], [3, 2, 1]), ["AP has not changed", "The loss falls"]),
        (rows([0.5] * 3, [1, 2, 3]), ["AP has not changed from 0.5", "The loss does not fall"]),
        (rows([0, 0], [3, 3]), []),  # too early
        (rows([0] * 4, [3] * 4), []),  # said before
        (rows([0, 0.1, 0], [3, 3, 3]), []),
        (rows([1, 1, 1], [0.1, 0.1, 0.1]), []),  # nothing to improve
    ],
)
def test_a_figure_that_stands_still(history: list[dict[str, Any]], words: list[str]):
    found = still_metric(history, "AP")
    assert bool(found) == bool(words) and all(word in found for word in words)


def test_the_loss_is_the_figure_of_a_task_without_one():
    assert still_metric(rows([0, 1, 2], [3, 3.00001, 3]), "loss").startswith("val loss has not changed from 3")
    assert still_metric(rows([0, 0, 0], [3, 3.01, 3]), "loss") == ""


def test_a_training_that_goes_nowhere_says_so(data: Path, tmp_path: Path):
    found = notes_of(create(), data, tmp_path / "dead", plan="head", lr=1e-12, epochs=4)
    (said,) = [note for note in found if "has not changed" in note]
    assert said.startswith("3: accuracy has not changed") and "The loss is constant too" in said
    learns = notes_of(create(), data, tmp_path / "live", plan="all", lr=1e-2, epochs=4)
    assert not any("has not changed" in note for note in learns)
