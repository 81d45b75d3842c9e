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
from zoo.data.damage import OnCorrupt, naming_all, readable
from zoo.models.adapter import Metrics
from zoo.models.model import Model
from zoo.models.task.objective import total_loss
from zoo.numbers import BATCH_SIZE, check_number
from zoo.training.data import Data, evaluation_split, relabelled, splits
from zoo.training.sources import Source, evaluation_source
from zoo.training.step import seen_size

KEPT = 16
"""Number of images with the largest losses, and of images with the smallest, that an evaluation returns."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: the task's metrics and the mean `loss`, as JSON values.
        dataset: the data.
        mistakes: (loss, file, decoded arrays, targets) of up to 16 images with the largest losses, largest first.
        successes: the same for the smallest losses, smallest first.
        accumulated: the object that computed the task's metrics.
        notes: remarks on the data and the annotations.
        predictions: the prediction for each image, in the order of the data, with everything that metrics are computed
            from. Empty unless requested.
    """

    metrics: dict[str, Any]
    dataset: Dataset
    mistakes: list[tuple[float, Path, Arrays, Arrays]] = field(repr=False)
    successes: list[tuple[float, Path, Arrays, Arrays]] = field(default_factory=list, repr=False)
    accumulated: Metrics | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    predictions: list[Any] = field(default_factory=list, repr=False)

    def worst(self, count: int) -> list[tuple[Path, Arrays, Arrays]]:
        """Return (file, decoded arrays, targets) of the `count` images with the largest losses."""
        return [(file, decoded, targets) for _, file, decoded, targets in self.mistakes[:count]]

    def best(self, count: int) -> list[tuple[Path, Arrays, Arrays]]:
        """Return (file, decoded arrays, targets) of the `count` images with the smallest losses."""
        return [(file, decoded, targets) for _, file, decoded, targets in self.successes[:count]]


class _Foremost:
    """The entries with the largest keys of a stream; among equal keys, the first ones."""

    def __init__(self, count: int):
        self.count, self._tie = count, itertools.count()
        self._heap: list[tuple[float, int, Any]] = []

    def wants(self, key: float) -> bool:
        return len(self._heap) < self.count or key > self._heap[0][0]

    def add(self, key: float, entry: Any) -> None:
        push = heapq.heappush if len(self._heap) < self.count else heapq.heapreplace
        push(self._heap, (key, -next(self._tie), entry))

    def entries(self) -> list[Any]:
        """Return the entries, largest key first."""
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
    """Evaluate a model over batches of images or of cached features.

    Args:
        model: the model.
        dataset: the data that the batches come from.
        batches: the batches; each has `index`, the rows of the dataset.
        predictions: whether to return the predictions as well.
    """
    model.eval()
    graphdef, state = nnx.split(model)
    metrics = model.adapter.metrics()
    total, count = 0.0, 0
    parts: dict[str, float] = {}
    worst, best = _Foremost(KEPT), _Foremost(KEPT)
    whole, predicted = model.adapter.unabridged(), dict[int, Any]()
    for batch in batches:
        outputs, losses, terms = _evaluate(graphdef, state, {k: v for k, v in batch.items() if k != "index"})
        decoded = {name: np.asarray(value) for name, value in outputs.items()}
        targets = {name: np.asarray(v) for name, v in batch.items() if name != "image" and ":" not in name}
        valid = np.flatnonzero(targets["valid"])
        if predictions:
            files = [str(dataset[int(row)].image) for row in targets["index"][valid]]
            arrays = {name: value[valid] for name, value in decoded.items()}
            rows = [int(row) for row in targets["index"][valid]]
            predicted |= dict(zip(rows, whole.predictions(arrays, files), strict=True))
        if len(valid) < len(targets["valid"]):
            # Padding rows are copies of images. They are removed here, so that no task can count them.
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
            of_row = ({name: value[row] for name, value in part.items()} for part in (decoded, targets))
            entry = (loss, dataset[int(targets["index"][row])].image, *of_row)
            for kept, key in wanting:
                kept.add(key, entry)
    means = {name: value / max(count, 1) for name, value in {**parts, "loss": float(total)}.items()}
    evaluation = Evaluation({**metrics.compute(), **means}, dataset, worst.entries(), best.entries(), metrics)
    return replace(evaluation, predictions=[predicted[row] for row in sorted(predicted)])


def evaluate_source(model: Model, source: Source, between: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate a model over one epoch of a source.

    Args:
        model: the model.
        source: the data.
        between: called before each batch; it may raise to end the evaluation.
    """

    def watched() -> Iterable[Mapping[str, Any]]:
        for batch in source.epoch(0):
            between()
            yield batch

    return evaluate_batches(model, source.dataset, watched())


def evaluate(
    model: Any,
    data: Data,
    *,
    split: str | None = None,
    format: str | None = None,
    batch_size: int = 32,
    annotations: Policy = "fix",
    on_corrupt: OnCorrupt = "error",
    predictions: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a model on data.

    Args:
        model: A `Model`, a `Run`, or anything that `zoo.load` accepts.
        data: A folder or file of any format that `zoo list formats` shows, or a dataset.
        split: The split to evaluate. Default: `test`, else `val`, else all data.
        format: The dataset format. Default: detected from the files.
        batch_size: Images per batch.
        annotations: Treatment of faulty boxes and masks: fix, drop (leave out) or error.
        on_corrupt: Treatment of images and masks that cannot be read: error, which names all of them, or skip, which
            leaves out up to a tenth of the split.
        predictions: Whether to return the prediction for each image as well, see `Evaluation.predictions`;
            `adapter.results` converts them to formats of other programs.
        progress: Called with (images done, images in all).
        **options: Prediction options for this evaluation only, see `Model.adjusted`.

    Raises:
        DataError: The data has classes that the model lacks, or files cannot be read.
        ConfigError: An option cannot be changed on a trained model.
    """
    check_number("batch_size", batch_size, BATCH_SIZE)
    model = as_model(model)
    if options:
        model = model.adjusted(**options)
    parts = splits(data, format, model.adapter.targets_from)
    files = readable({"": evaluation_split(parts, split)}, on_corrupt)
    with naming_all(files.splits.values()):
        part, notes = checked(files.splits, annotations)
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

    with naming_all([dataset]):
        evaluation = evaluate_batches(model, dataset, counted(), predictions=predictions)
    return replace(evaluation, notes=(*dataset.notes, *files.notes, *notes, *filter(None, [cut])))


def _with_room(model: Model, dataset: Dataset) -> tuple[Model, str]:
    """Return the model, or a copy with room for all targets of the data; and a remark on targets that do not fit."""
    adapter, cut = model.adapter.sized([dataset])
    if adapter == model.adapter:
        return model, cut
    other: Model = nnx.merge(*nnx.split(model))
    other.adapter = adapter
    return other, cut


def as_model(source: Any) -> Model:
    """Return the model of a `Model`, a `Run`, or anything that `zoo.load` accepts."""
    if isinstance(source, Model):
        return source
    if isinstance(inner := getattr(source, "model", None), Model):
        return inner
    from zoo.models.store import load

    return load(source)
