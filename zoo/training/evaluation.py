"""Evaluation of a model: metrics over a dataset, and the images with the largest losses."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.data import Dataset
from zoo.data.augment import identity
from zoo.data.check import Policy, checked
from zoo.models.adapter import Metrics
from zoo.models.model import Model
from zoo.models.task.objective import total_loss
from zoo.numbers import BATCH_SIZE, check_number
from zoo.training.data import Data, evaluation_split, relabelled, splits
from zoo.training.sources import Source, evaluation_source
from zoo.training.step import seen_size

KEPT = 16
"""Images with the largest, and with the smallest losses that an evaluation keeps."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        metrics: the task's metrics and the mean `loss`; plain values, ready for JSON.
        dataset: what was evaluated.
        mistakes, successes: (loss, file, decoded arrays, targets) of the images with the largest losses, largest first,
            and of those with the smallest, smallest first; at most 16 of each.
        accumulated: what the task's metrics were computed from.
        predictions: for each image in the data's order what was predicted, nothing left out that figures are computed
            from; empty unless asked for.
        notes: what was found in the data and the annotations, for people.
    """

    metrics: dict[str, Any]
    dataset: Dataset
    mistakes: list[tuple[float, Path, Arrays, Arrays]] = field(repr=False)
    successes: list[tuple[float, Path, Arrays, Arrays]] = field(default_factory=list, repr=False)
    accumulated: Metrics | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    predictions: list[Any] = field(default_factory=list, repr=False)

    def worst(self, count: int) -> list[tuple[Path, Arrays, Arrays]]:
        """(file, decoded arrays, targets) of the `count` images with the largest losses."""
        return [(file, decoded, targets) for _, file, decoded, targets in self.mistakes[:count]]

    def best(self, count: int) -> list[tuple[Path, Arrays, Arrays]]:
        """The same of the images with the smallest losses."""
        return [(file, decoded, targets) for _, file, decoded, targets in self.successes[:count]]


class _Foremost:
    """The entries of the largest keys among many; of equal ones the first."""

    def __init__(self, count: int):
        self.count, self._tie = count, itertools.count()
        self._heap: list[tuple[float, int, Any]] = []

    def wants(self, key: float) -> bool:
        return len(self._heap) < self.count or key > self._heap[0][0]

    def add(self, key: float, entry: Any) -> None:
        push = heapq.heappush if len(self._heap) < self.count else heapq.heapreplace
        push(self._heap, (key, -next(self._tie), entry))

    def entries(self) -> list[Any]:
        """Largest key first."""
        return [entry for _, _, entry in sorted(self._heap, key=lambda one: one[:2], reverse=True)]


@partial(jax.jit, static_argnums=0)
def _evaluate(
    graphdef: nnx.GraphDef[Model], state: nnx.State, batch: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], jax.Array, dict[str, jax.Array]]:
    model = nnx.merge(graphdef, state)
    adapter = model.adapter
    if "image" in batch:
        batch = identity(batch, seen_size(model.card.preprocess, batch["image"].shape), adapter.training.moves)
    forward = model.forward(batch)
    terms = adapter.loss_terms(forward, batch)
    return adapter.decode(forward, batch), total_loss(adapter, terms), terms if len(terms) > 1 else {}


def evaluate_batches(
    model: Model, dataset: Dataset, batches: Iterable[Mapping[str, Any]], *, predictions: bool = False
) -> Evaluation:
    """Evaluate a model over batches of images or of cached features, with its `predictions` if they are asked for."""
    model.eval()
    graphdef, state = nnx.split(model)
    metrics = model.adapter.metrics()
    total, count = 0.0, 0
    parts: dict[str, float] = {}
    worst, best = _Foremost(KEPT), _Foremost(KEPT)
    whole, predicted = model.adapter.unabridged(), dict[int, Any]()
    for batch in batches:
        found, losses, terms = _evaluate(graphdef, state, {k: v for k, v in batch.items() if k != "index"})
        decoded = {name: np.asarray(value) for name, value in found.items()}
        targets = {name: np.asarray(v) for name, v in batch.items() if name != "image" and ":" not in name}
        valid = np.flatnonzero(targets["valid"])
        if predictions:
            files = [str(dataset[int(row)].image) for row in targets["index"][valid]]
            there = {name: value[valid] for name, value in decoded.items()}
            rows = [int(row) for row in targets["index"][valid]]
            predicted |= dict(zip(rows, whole.predictions(there, files), strict=True))
        if len(valid) < len(targets["valid"]):
            # What fills up a batch is no image of the data: no task gets to count it.
            decoded, targets = ({name: value[valid] for name, value in part.items()} for part in (decoded, targets))
        metrics.update(decoded, targets)
        losses = np.asarray(losses, np.float64)[valid]
        total, count = total + losses.sum(), count + len(valid)
        for name, value in terms.items():
            parts[name] = parts.get(name, 0.0) + float(np.asarray(value, np.float64)[valid].sum())
        for row in range(len(valid)):
            loss = float(losses[row])
            wanting = [(kept, key) for kept, key in ((worst, loss), (best, -loss)) if kept.wants(key)]
            if not wanting:
                continue
            arrays = ({name: value[row] for name, value in part.items()} for part in (decoded, targets))
            entry = (loss, dataset[int(targets["index"][row])].image, *arrays)
            for kept, key in wanting:
                kept.add(key, entry)
    means = {name: value / max(count, 1) for name, value in {**parts, "loss": float(total)}.items()}
    found = Evaluation({**metrics.compute(), **means}, dataset, worst.entries(), best.entries(), metrics)
    return replace(found, predictions=[predicted[row] for row in sorted(predicted)])


def evaluate_source(model: Model, source: Source) -> Evaluation:
    """Return the metrics of a model over one epoch of a source."""
    return evaluate_batches(model, source.dataset, source.epoch(0))


def evaluate(
    model: Any,
    data: Data,
    *,
    split: str | None = None,
    format: str | None = None,
    batch_size: int = 32,
    annotations: Policy = "fix",
    predictions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model on data.

    Args:
        model: a `Model`, a `Run`, or what `zoo.load` takes.
        data: a folder or file of any format that `zoo.data.formats()` lists, or a data set.
        split: which part; without it `test`, else `val`, else all there is.
        format: name of the data's format, where its layout does not tell.
        annotations: what becomes of faulty boxes and masks, see `zoo.data.check`.
        predictions: keep what was predicted for each image as well, see `Evaluation.predictions`; `adapter.results`
            makes of it what other programs read.
        progress: called with (images done, images in all).
    Raises:
        DataError: when the data's classes are not the model's.
    """
    check_number("batch_size", batch_size, BATCH_SIZE)
    model = as_model(model)
    parts = splits(data, format, model.adapter.targets_from)
    part, notes = checked({"": evaluation_split(parts, split)}, annotations)
    dataset = relabelled(part[""], model)
    model, cut = _with_room(model, dataset)
    source = evaluation_source(model, dataset, batch_size)

    def counted() -> Iterable[dict[str, np.ndarray]]:
        done = 0
        for batch in source.epoch(0):
            yield batch
            done += int(batch["valid"].sum())
            if progress:
                progress(done, len(dataset))

    return replace(
        evaluate_batches(model, dataset, counted(), predictions=predictions),
        notes=(*dataset.notes, *notes, *filter(None, [cut])),
    )


def _with_room(model: Model, dataset: Dataset) -> tuple[Model, str]:
    """(the model, able to hold the targets of the data; the given one where it is already; what is left out)."""
    adapter, cut = model.adapter.sized([dataset])
    if adapter == model.adapter:
        return model, cut
    other: Model = nnx.merge(*nnx.split(model))
    other.adapter = adapter
    return other, cut


def as_model(source: Any) -> Model:
    """A model from a model, a run, or a place that holds one."""
    if isinstance(source, Model):
        return source
    if isinstance(inner := getattr(source, "model", None), Model):
        return inner
    from zoo.models.store import load

    return load(source)
