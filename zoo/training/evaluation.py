"""Evaluating a model: figures over a data set, and the images it was most wrong about."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.data import Dataset, Loader, format_for
from zoo.data.augment import identity
from zoo.data.check import Policy, checked
from zoo.model import Model
from zoo.training.batches import Data, evaluation_load, evaluation_split, frame_numbers, relabelled, splits
from zoo.training.step import reduced_of, seen_size

KEEP_WORST = 16


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        metrics: the task's figures and the mean `loss`; plain values, ready for JSON.
        dataset: what was evaluated.
        mistakes: (loss, file, decoded arrays, targets) of the images with the largest losses, largest first.
    """

    metrics: dict[str, Any]
    dataset: Dataset
    mistakes: list[tuple[float, Path, dict[str, np.ndarray], dict[str, np.ndarray]]] = field(repr=False)

    def worst(self, count: int) -> list[tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """(file, decoded arrays, targets) of the `count` images with the largest losses."""
        return [(file, decoded, targets) for _, file, decoded, targets in self.mistakes[:count]]


@partial(jax.jit, static_argnums=0)
def _evaluate(
    graphdef: nnx.GraphDef[Model], state: nnx.State, batch: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], jax.Array, dict[str, jax.Array]]:
    model = nnx.merge(graphdef, state)
    if "image" in batch:
        batch = identity(batch, seen_size(model.card.preprocess, batch["image"].shape))
    reduced = reduced_of(model, batch)
    # Outputs and terms are computed several times here and once in the compiled program, which shares what is equal.
    adapter = model.adapter
    terms = adapter.terms(model, reduced, batch)
    return adapter.decoded(model, reduced, batch), adapter.losses(model, reduced, batch), terms


def evaluate_batches(model: Model, dataset: Dataset, batches: Iterable[Mapping[str, Any]]) -> Evaluation:
    """Figures of a model, in evaluation mode, over batches of images or of cached features."""
    model.eval()
    graphdef, state = nnx.split(model)
    metrics = model.adapter.metrics()
    total, count, tie = 0.0, 0, itertools.count()
    parts: dict[str, float] = {}
    worst: list[tuple[float, int, int, dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    for batch in batches:
        found, losses, terms = _evaluate(graphdef, state, {k: v for k, v in batch.items() if k != "index"})
        decoded = {name: np.asarray(value) for name, value in found.items()}
        targets = {name: np.asarray(v) for name, v in batch.items() if name != "image" and ":" not in name}
        metrics.update(decoded, targets)
        valid = np.flatnonzero(targets["valid"])
        losses = np.asarray(losses, np.float64)
        total, count = total + losses[valid].sum(), count + len(valid)
        for name, value in terms.items():
            parts[name] = parts.get(name, 0.0) + float(np.asarray(value, np.float64)[valid].sum())
        for row in valid:
            if len(worst) >= KEEP_WORST and losses[row] <= worst[0][0]:
                continue
            entry = (
                float(losses[row]),
                next(tie),
                int(targets["index"][row]),
                {name: value[row] for name, value in decoded.items()},
                {name: value[row] for name, value in targets.items()},
            )
            (heapq.heappush if len(worst) < KEEP_WORST else heapq.heapreplace)(worst, entry)
    mistakes = [(loss, dataset[i].image, d, t) for loss, _, i, d, t in sorted(worst, key=lambda w: (-w[0], w[1]))]
    means = {name: value / max(count, 1) for name, value in {**parts, "loss": float(total)}.items()}
    return Evaluation({**metrics.compute(), **means}, dataset, mistakes)


def evaluate(
    model: Any,
    data: Data,
    *,
    split: str | None = None,
    format: str | None = None,
    batch_size: int = 32,
    annotations: Policy = "fix",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Figures of a model on data.

    Args:
        model: a `Model`, a `Run`, or what `zoo.load` takes.
        data: a folder or file of any format that `zoo.data.formats()` lists, or a data set.
        split: which part; without it `test`, else `val`, else all there is.
        format: name of the data's format, where its layout does not tell.
        annotations: what becomes of faulty boxes, see `zoo.data.check`.
        progress: called with (images done, images in all).
    Raises:
        DataError: when the data's classes are not the model's.
    """
    model = as_model(model)
    parts = splits(data, format or format_for(model.adapter.targets_from))
    dataset = relabelled(evaluation_split(checked(parts, annotations)[0], split), model)
    model = _with_room(model, dataset)
    groups = frame_numbers(dataset, model.card.preprocess)
    loader = Loader(dataset, evaluation_load(model), min(batch_size, len(dataset)), groups=groups)

    def counted() -> Iterable[dict[str, np.ndarray]]:
        done = 0
        for batch in loader.epoch(0):
            yield batch
            done += int(batch["valid"].sum())
            if progress:
                progress(done, len(dataset))

    return evaluate_batches(model, dataset, counted())


def _with_room(model: Model, dataset: Dataset) -> Model:
    """The model, able to hold the targets of the data; the given one where it is already."""
    adapter, _ = model.adapter.sized([dataset])
    if adapter == model.adapter:
        return model
    other: Model = nnx.merge(*nnx.split(model))
    other.adapter = adapter
    return other


def as_model(source: Any) -> Model:
    """A model from a model, a run, or a place that holds one."""
    if isinstance(source, Model):
        return source
    if isinstance(inner := getattr(source, "model", None), Model):
        return inner
    from zoo.store import load

    return load(source)
