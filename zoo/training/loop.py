"""The training loop: phases, epochs and steps in a straight line, as a generator of (step, what happened)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo.data import Loader
from zoo.models.model import Model
from zoo.training.evaluation import Evaluation
from zoo.training.kept import keep_if_best, restore, save_checkpoint
from zoo.training.plan import Phase
from zoo.training.precondition import precondition, started, with_statistics
from zoo.training.reads import (
    affine_maps,
    augments,
    open_caches,
    sample_features,
    train_batches,
    training_loader,
    validated,
)
from zoo.training.remarks import never_predicted, slow_average, still_figure, unpredicted_text
from zoo.training.rules import Assignment, assign
from zoo.training.run import write_history
from zoo.training.schedules import schedule
from zoo.training.session import Event, Interrupted, Place, Session, finite_losses
from zoo.training.step import Program, TrainState, install, lenient, optimizer, start
from zoo.weights.mapping import Path as ModulePath

Resumed = tuple[Path, dict[str, Any]]


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
    for text in session.notes:
        yield 0, {"kind": "note", "text": text}
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
    loader = training_loader(session, assignment)
    rate = schedule(recipe.schedule, phase.rate, phase.epochs, max(len(loader) // recipe.accumulate, 1))
    maps = affine_maps(model, assignment) if assignment.backbone_frozen else {}
    state, program = _start(session, assignment, rate, maps)
    at = Place(index)
    if resumed:
        state, program = restore(session, state, program, *resumed)
        at = Place(**resumed[1]["at"])
        text = f"resumed at step {session.step}, in epoch {len(session.history) + 1}"
        yield session.step, {"kind": "note", "text": text}
    # Only now is the backbone what this phase trains on.
    open_caches(session, assignment)
    if maps and not resumed:
        statistics = with_statistics(state.opt_state, sample_features(session, maps))
        fresh = model.card.new_head and not session.history
        state = replace(state, opt_state=statistics)
        if fresh:
            params = started(state.params, statistics, maps)
            average = None if state.ema is None else jax.tree.map(jnp.copy, params)
            state = replace(state, params=params, ema=average)
    yield session.step, _announcement(phase, index, loader, assignment, bool(session.caches), model)
    updates = max(phase.epochs * len(loader) // recipe.accumulate, 1)
    if not resumed and (text := slow_average(phase, updates, recipe.ema)):
        yield session.step, {"kind": "note", "text": text}
    key = jax.random.fold_in(jax.random.key(recipe.seed), index)
    while at.epoch < phase.epochs and not _patience_lost(session, at):
        began, seen = time.monotonic(), 0
        number = index * 100_003 + at.epoch  # a stream of orders for each phase
        for batch in train_batches(session, loader, number, at.batch):
            state, metrics = program.run(state, program.frozen, batch, key)
            session.step += 1
            seen += int(np.sum(batch["valid"]))
            at.add(metrics)
            yield session.step, {"kind": "step", **metrics}
            if session.stop or time.monotonic() - session.saved > recipe.checkpoint_seconds:
                save_checkpoint(session, state, program, at)
                if session.stop:
                    raise Interrupted(session.stop)
        losses = finite_losses(session, at)
        seconds = time.monotonic() - began
        install(model, state)
        with lenient():
            now = float(rate(state.step // recipe.accumulate))
        scores, evaluation = validated(session, at)
        row = {
            "epoch": len(session.history) + 1,
            "step": session.step,
            "phase": phase.name,
            "rate": now,
            "train_loss": float(np.mean(losses)),
            "grad_norm": float(np.mean([*map(float, at.norms)])),
            "images_per_second": round(seen / max(seconds, 1e-9), 1),
            **scores,
        }
        session.history.append(row)
        write_history(session.folder, session.history)
        at.waited = 0 if keep_if_best(session, row) else at.waited + 1
        at.next_epoch()
        model.adapter.preview(model, session.val, session.folder / "previews" / f"epoch{row['epoch']:04}.png")
        yield session.step, {"kind": "epoch", **row}
        for text in _remarks(session, evaluation):
            yield session.step, {"kind": "note", "text": text}
    if at.epoch < phase.epochs:
        text = f"no better epoch in {at.waited}: phase {phase.name} ends early"
        yield session.step, {"kind": "note", "text": text}


def _start(
    session: Session, assignment: Assignment, rate: optax.Schedule, maps: Mapping[str, ModulePath]
) -> tuple[TrainState, Program]:
    """The first state of a phase and its compiled step. `maps` are the head's maps of standardised features."""
    model, recipe = session.model, session.recipe
    transform = optimizer(
        rate,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        assignment=assignment,
        row=recipe.optimizer,
    )
    return start(
        model,
        assignment,
        precondition(transform, maps) if maps else transform,
        augmentation=recipe.augmentation if augments(model, assignment) else None,
        ema=recipe.ema,
        norm_statistics=recipe.statistics,
        remat=recipe.remat,
        accumulate=recipe.accumulate,
    )


def _remarks(session: Session, evaluation: Evaluation) -> Iterator[str]:
    """What should be said after an epoch. Of classes that are never predicted only what is new."""
    adapter, history = session.model.adapter, session.history
    if counted := getattr(evaluation.accumulated, "class_counts", None):
        counts = counted()
        classes = never_predicted(counts)
        if classes and classes != session.unpredicted:
            yield unpredicted_text(classes, counts, len(history), adapter)
        session.unpredicted = classes
    if text := still_figure(history, adapter.primary):
        yield text


def _patience_lost(session: Session, at: Place) -> bool:
    return session.recipe.patience is not None and at.waited >= session.recipe.patience


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
