"""The training loop: phases, epochs and steps in a straight line, as a generator of (step, what happened)."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.data import Dataset, Loader, MemoryCache
from zoo.data.augment import Augment
from zoo.errors import ConfigError, RunError
from zoo.model import Model
from zoo.rules import Assignment, assign
from zoo.store import FILE, load, save
from zoo.training import batches as batching
from zoo.training.cache import ActivationCache, compute_features, open_cache
from zoo.training.checkpoint import Checkpoints, read
from zoo.training.evaluation import Evaluation, evaluate_batches
from zoo.training.plan import Phase, schedule
from zoo.training.precondition import precondition, started, with_statistics
from zoo.training.run import scalars, write_history
from zoo.training.step import Program, TrainState, features_of, install, lenient, optimizer, start
from zoo.weights.mapping import Path as ModulePath

SAMPLE = 1024
"""Images that the statistics of features are taken from."""

Event = tuple[int, dict[str, Any]]
Resumed = tuple[Path, dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """How to train, beside the plan.

    Attributes:
        batch_size: images in a step. seed: of order, augmentation and dropout.
        weight_decay, clip, accumulate, ema: see `zoo.training.step`.
        augmentation: in phases that train the backbone. statistics: whether norms use and update batch statistics.
        cache: keep the features of a frozen backbone on disk. remat: see `zoo.backbone.run_stages`.
        patience: epochs without a better figure after which a phase ends. checkpoint_seconds: time between two
            checkpoints.
    """

    batch_size: int = 32
    seed: int = 0
    weight_decay: float = 0.01
    clip: float | None = 1.0
    accumulate: int = 1
    ema: float = 0.0
    augmentation: Augment | None = None
    statistics: bool = False
    cache: bool = True
    remat: bool = False
    patience: int | None = None
    checkpoint_seconds: float = 60.0


@dataclass
class Session:
    """One training under way.

    Attributes:
        model: what is trained. train, val: the data, with the model's labels. plan: its phases.
        folder: the run folder. history: a row for each epoch. best: the best epoch's row and the model's arrays.
        caches: features of the backbone by part of the data, while it is frozen; they belong to the backbone as it has
            been since epoch `cached_after`.
        features: called with (images done, images in all) while features are cached. closing: ends the display.
    """

    model: Model
    train: Dataset
    val: Dataset
    plan: tuple[Phase, ...]
    recipe: Recipe
    folder: Path
    features: Callable[[int, int], None] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[dict[str, Any], nnx.State] | None = None
    step: int = 0
    saved: float = field(default_factory=time.monotonic)
    caches: dict[str, ActivationCache] = field(default_factory=dict)
    cached_after: int = 0
    stop: int = 0
    best_saved: bool = True
    closing: Callable[[], None] = lambda: None

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")


@dataclass
class Place:
    """Where training stands in a phase. A checkpoint keeps it beside the arrays, so that a resumed run ends like one
    that was never stopped.

    Attributes:
        phase, epoch: indexes. batch: batches done in the epoch. waited: epochs since the best one.
        losses, norms: of the epoch's batches; scalars, on the device or plain.
    """

    phase: int
    epoch: int = 0
    batch: int = 0
    waited: int = 0
    losses: list[Any] = field(default_factory=list)
    norms: list[Any] = field(default_factory=list)

    def add(self, metrics: dict[str, Any]) -> None:
        """Count a batch."""
        self.batch += 1
        self.losses.append(metrics["loss"])
        self.norms.append(metrics["grad_norm"])

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch, self.losses, self.norms = 0, [], []

    def plain(self) -> dict[str, Any]:
        """The same as JSON values. Waits for the device."""
        return {**vars(self), "losses": [*map(float, self.losses)], "norms": [*map(float, self.norms)]}


def fit(session: Session, *, resume: bool = False) -> Iterator[Event]:
    """Train. Afterwards the model holds the best epoch's parameters.

    Yields:
        (step, event); an event has `kind`: `note` (text), `phase` (name, epochs, batches, trained, parameters),
        `step` (loss and grad_norm, on the device) or `epoch` (a row of the history).
    Raises:
        RunError: when the loss is no longer finite, or a checkpoint cannot be written or read.
    """
    found = session.checkpoints.latest() if resume else None
    if resume and found is None:
        yield 0, {"kind": "note", "text": "there is no checkpoint yet: training starts from the beginning"}
    for text in found[2] if found else ():
        yield 0, {"kind": "note", "text": f"{text}: an earlier one is used"}
    at = found[1]["at"]["phase"] if found else 0
    for index, phase in enumerate(session.plan):
        if index >= at:
            yield from _phase(session, index, phase, found[:2] if found and index == at else None)
    if session.best is not None:
        nnx.update(session.model, session.best[1])
    session.model.eval()


def _phase(session: Session, index: int, phase: Phase, resumed: Resumed | None) -> Iterator[Event]:
    model, recipe = session.model, session.recipe
    assignment = assign(model, phase.rules)
    loader = _loader(session, assignment)
    rate = schedule(phase, max(len(loader) // recipe.accumulate, 1))
    transform = optimizer(
        rate,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        assignment=assignment,
    )
    maps = _affine_maps(model, assignment) if assignment.backbone_frozen else {}
    state, program = start(
        model,
        assignment,
        precondition(transform, maps) if maps else transform,
        augmentation=None if assignment.backbone_frozen else recipe.augmentation,
        ema=recipe.ema,
        norm_statistics=recipe.statistics,
        remat=recipe.remat,
        accumulate=recipe.accumulate,
    )
    at = Place(index)
    if resumed:
        state, program = _restore(session, state, program, *resumed)
        at = Place(**resumed[1]["at"])
        text = f"resumed at step {session.step}, in epoch {len(session.history) + 1}"
        yield session.step, {"kind": "note", "text": text}
    # Only now is the backbone what this phase trains on.
    _open_caches(session, assignment)
    if maps and not resumed:
        statistics = with_statistics(state.opt_state, _sample_features(session, maps))
        fresh = model.card.new_head and not session.history
        state = replace(state, opt_state=statistics)
        if fresh:
            params = started(state.params, statistics, maps)
            average = None if state.ema is None else jax.tree.map(jnp.copy, params)
            state = replace(state, params=params, ema=average)
    yield session.step, _announcement(phase, index, loader, assignment, bool(session.caches), model)
    key = jax.random.fold_in(jax.random.key(recipe.seed), index)
    while at.epoch < phase.epochs and not _patience_lost(session, at):
        began, first = time.monotonic(), at.batch
        number = index * 100_003 + at.epoch  # a stream of orders for each phase
        for batch in _train_batches(session, loader, number, at.batch):
            state, metrics = program.run(state, program.frozen, batch, key)
            session.step += 1
            at.add(metrics)
            yield session.step, {"kind": "step", **metrics}
            if session.stop or time.monotonic() - session.saved > recipe.checkpoint_seconds:
                _checkpoint(session, state, program, at)
                if session.stop:
                    raise Interrupted(session.stop)
        losses = _finite_losses(session, at)
        seconds = time.monotonic() - began
        install(model, state)
        with lenient():
            now = float(rate(state.step // recipe.accumulate))
        row = {
            "epoch": len(session.history) + 1,
            "step": session.step,
            "phase": phase.name,
            "rate": now,
            "train_loss": float(np.mean(losses)),
            "grad_norm": float(np.mean([*map(float, at.norms)])),
            "images_per_second": round((at.batch - first) * recipe.batch_size / max(seconds, 1e-9), 1),
            **_validated(session, at),
        }
        session.history.append(row)
        write_history(session.folder, session.history)
        at.waited = 0 if _keep_if_best(session, row) else at.waited + 1
        at.next_epoch()
        yield session.step, {"kind": "epoch", **row}
    if at.epoch < phase.epochs:
        text = f"no better epoch in {at.waited}: phase {phase.name} ends early"
        yield session.step, {"kind": "note", "text": text}


def _patience_lost(session: Session, at: Place) -> bool:
    return session.recipe.patience is not None and at.waited >= session.recipe.patience


def _finite_losses(session: Session, at: Place) -> list[float]:
    """The losses of the epoch's batches. Raises `RunError` for one that is not finite: the parameters are lost."""
    losses = [*map(float, at.losses)]
    if not all(map(math.isfinite, losses)):
        raise _diverged(session, at, "loss", next(loss for loss in losses if not math.isfinite(loss)))
    return losses


def _diverged(session: Session, at: Place, what: str, value: float) -> RunError:
    rate = session.plan[at.phase].rate
    return RunError(
        f"the {what} is {value} in epoch {len(session.history) + 1} (step {session.step}): training stopped. Try a "
        f"lower learning rate (lr is {rate:g}), or look at the data; {session.folder} keeps what was good before."
    )


class Interrupted(BaseException):
    """A signal asked to stop; the run was checkpointed first."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def stopping(session: Session) -> Iterator[None]:
    """While it lasts, SIGTERM and Ctrl-C stop the training at the next step, with a checkpoint; the second time at
    once."""
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        session.stop = number
        signal.signal(number, before.get(number, signal.SIG_DFL))

    try:
        before |= {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What a phase reads --------------------------------------------------------------------------------------------


def _loader(session: Session, assignment: Assignment) -> Loader:
    """Training batches, of images."""
    recipe, model = session.recipe, session.model
    augmented = recipe.augmentation is not None and not assignment.backbone_frozen
    load = batching.training_load(model) if augmented else batching.evaluation_load(model)
    size = min(recipe.batch_size, len(session.train))
    return Loader(session.train, MemoryCache(load), size, seed=recipe.seed, shuffle=True)


def _open_caches(session: Session, assignment: Assignment) -> None:
    """Features of a frozen backbone as it is now; those of one that is going to be trained are forgotten."""
    if not (session.recipe.cache and assignment.backbone_frozen):
        session.caches.clear()
        return
    if session.caches:
        return  # nothing has trained the backbone since

    def progress(done: int, total: int) -> None:
        if session.features:
            session.features(done, total)
        if session.stop:
            raise Interrupted(session.stop)

    for name, dataset in (("train", session.train), ("val", session.val)):
        session.caches[name] = open_cache(session.model, dataset, progress=progress)
    session.cached_after = len(session.history)


def _affine_maps(model: Model, assignment: Assignment) -> dict[str, ModulePath]:
    """The head's affine maps that read a reduced feature and train: path in the head -> path in the model."""
    paths = {name: ("head", *name.split(".")) for name in model.head.reads()}  # type: ignore[attr-defined]
    return {name: path for name, path in paths.items() if assignment.trains((*path, "kernel"))}


def _sample_features(session: Session, maps: Mapping[str, ModulePath]) -> dict[str, np.ndarray]:
    """What each affine map reads, for at most `SAMPLE` training images spread over the data: (images, ..., in)."""
    model, dataset = session.model, session.train
    index = np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(int)
    if cache := session.caches.get("train"):
        found = features_of(cache.rows(index))
    else:
        found = compute_features(model, dataset.subset(index, dataset.name), session.recipe.batch_size)
    reads = model.head.reads()  # type: ignore[attr-defined]
    return {name: found[reads[name]] for name in maps}


def _train_batches(session: Session, loader: Loader, epoch: int, offset: int) -> Iterator[dict[str, Any]]:
    batches: Iterator[dict[str, Any]] = loader.epoch(epoch, offset)
    if cache := session.caches.get("train"):
        targets = batching.all_targets(session.train, session.model)
        batches = batching.cached_batches(cache, loader, targets, epoch, offset)
    for batch in batches:
        yield {name: value for name, value in batch.items() if name != "index"}


def _validated(session: Session, at: Place) -> dict[str, float]:
    """The single figures of the model as it is, as they stand in a row of the history."""
    found = validate(session.model, session.val, session.caches.get("val"), session.recipe.batch_size).metrics
    if not math.isfinite(found["loss"]):
        raise _diverged(session, at, "validation loss", found["loss"])
    return {("val_loss" if k == "loss" else k): v for k, v in scalars(found).items() if k != "images"}


def validate(model: Model, dataset: Dataset, cache: ActivationCache | None, batch_size: int) -> Evaluation:
    """Figures of the model on prepared data, from its cached features where there are any."""
    size = min(batch_size, len(dataset))
    loader = Loader(dataset, batching.evaluation_load(model), size)
    if cache is None:
        return evaluate_batches(model, dataset, loader.epoch(0))
    return evaluate_batches(
        model, dataset, batching.cached_batches(cache, loader, batching.all_targets(dataset, model), 0)
    )


def _announcement(
    phase: Phase, index: int, loader: Loader, assignment: Assignment, cached: bool, model: Model
) -> dict[str, Any]:
    sizes = {path: int(np.prod(v.shape)) for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    return {
        "kind": "phase",
        "index": index,
        "name": phase.name,
        "epochs": phase.epochs,
        "batches": len(loader),
        "trained": sum(size for path, size in sizes.items() if assignment.trains(path)),
        "parameters": sum(sizes.values()),
        "cached": cached,
    }


# What is kept --------------------------------------------------------------------------------------------------


def _keep_if_best(session: Session, row: dict[str, Any]) -> bool:
    """Remember the model when it is the best so far: by the task's figure, then by the smaller loss."""

    def rank(row: dict[str, Any]) -> tuple[float, float]:
        return row[session.model.adapter.primary], -row["val_loss"]

    if session.best is not None and rank(row) <= rank(session.best[0]):
        return False
    arrays = nnx.state(session.model, (nnx.Param, nnx.BatchStat))
    session.best = (row, jax.tree.map(lambda leaf: leaf, arrays))
    session.best_saved = False
    return True


def _checkpoint(session: Session, state: TrainState, program: Program, at: Place) -> None:
    _finite_losses(session, at)  # what is broken must not push out what was good
    if session.best is not None and not session.best_saved:
        now = jax.tree.map(lambda leaf: leaf, nnx.state(session.model, (nnx.Param, nnx.BatchStat)))
        nnx.update(session.model, session.best[1])
        save(session.model, session.folder / FILE)
        nnx.update(session.model, now)
        session.best_saved = True
    position = {
        "at": at.plain(),
        "step": session.step,
        "history": session.history,
        "best": session.best[0] if session.best else None,
    }
    session.checkpoints.save(session.step, (state, program.frozen), position)
    session.saved = time.monotonic()


def _restore(
    session: Session, state: TrainState, program: Program, folder: Path, place: dict[str, Any]
) -> tuple[TrainState, Program]:
    """The phase's state as a checkpoint has it; the session takes over its history and best model."""
    state, frozen = read(folder, (state, program.frozen))
    session.step, session.history = place["step"], place["history"]
    if place["best"] is not None:
        best = load(session.folder)
        session.best = (place["best"], nnx.state(best, (nnx.Param, nnx.BatchStat)))
    nnx.update(session.model, frozen)
    install(session.model, state)
    return state, Program(program.run, frozen, program.graphdef)


def check_recipe(recipe: Recipe) -> None:
    """Raise `ConfigError` for a recipe that cannot train."""
    rows: tuple[tuple[str, float | None, bool], ...] = (
        ("batch_size", recipe.batch_size, recipe.batch_size >= 1),
        ("accumulate", recipe.accumulate, recipe.accumulate >= 1),
        ("seed", recipe.seed, recipe.seed >= 0),
        ("weight_decay", recipe.weight_decay, recipe.weight_decay >= 0),
        ("clip", recipe.clip, recipe.clip is None or recipe.clip > 0),
        ("ema", recipe.ema, 0 <= recipe.ema < 1),
        ("patience", recipe.patience, recipe.patience is None or recipe.patience >= 1),
    )
    for name, value, good in rows:
        if not good:
            raise ConfigError(f"{name} is {value}, which is out of range; see the documentation of zoo.train.")
