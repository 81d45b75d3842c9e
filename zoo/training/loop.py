"""The training loop over phases, epochs and steps, as a generator of (step, event)."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo.errors import RunError
from zoo.models.model import Model
from zoo.training.evaluation import Evaluation, evaluate_source
from zoo.training.memory import ERRORS, fitting_batch, is_exhausted, out_of_memory
from zoo.training.phase_sources import Sources, augments, open_sources, training_images
from zoo.training.plan import Phase
from zoo.training.precondition import affine_maps, precondition, started, with_statistics
from zoo.training.recovery import Resumed, Watch, recall, roll_back
from zoo.training.remarks import never_predicted, slow_average, still_metric, unpredicted_text
from zoo.training.rules import Assignment, assign
from zoo.training.run import scalars, write_history, writing
from zoo.training.saving import keep_if_best, read_trained, restore, write_best, write_trained
from zoo.training.schedules import schedule
from zoo.training.session import STREAM, Diverged, Event, Interrupted, Place, Session
from zoo.training.sources import joined
from zoo.training.step import Program, TrainState, fitting_ema, install, optimizer, start
from zoo.weights.mapping import Path as ModulePath

SAMPLE = 1024
"""Largest number of training images that the statistics of features are computed from."""


def fit(session: Session, *, resume: bool = False) -> Iterator[Event]:
    """Train, phase after phase. Afterwards the model holds the best epoch's parameters.

    Args:
        session: the training.
        resume: continue from the newest intact checkpoint.

    Yields:
        (step, event). An event has a `kind`: `note` (text), `phase` (name, epochs, batches, trained,
        parameters, cached, ema, lowered), `step` (loss and grad_norm, on the device) or `epoch` (a row of the history).

    Raises:
        RunError: the loss is no longer finite, or a checkpoint cannot be written or read.
    """
    for text in session.notes:
        yield 0, {"kind": "note", "text": text}
    trained, damage = read_trained(session) if resume else (False, "")
    if trained:
        yield session.step, {"kind": "note", "text": "training has ended; the final metrics and plots are missing"}
        session.model.eval()
        return
    if damage:
        yield 0, {"kind": "note", "text": f"{damage} The last epochs are trained again."}
    checkpoint = session.checkpoints.latest() if resume else None
    if resume and checkpoint is None:
        yield 0, {"kind": "note", "text": "there is no checkpoint yet: training starts from the beginning"}
    for text in checkpoint[2] if checkpoint else ():
        yield 0, {"kind": "note", "text": f"{text}: an earlier one is used"}
    if checkpoint:
        recall(session, checkpoint[1])
    yield from _phases(session, checkpoint[:2] if checkpoint else None)
    if session.best is not None:
        nnx.update(session.model, session.best[1])
    session.model.eval()
    write_trained(session)


def _phases(session: Session, resumed: Resumed | None) -> Iterator[Event]:
    """Train phase after phase, from a checkpoint on, and from an earlier one again if a loss is not finite."""
    while True:
        reached = resumed[1]["at"]["phase"] if resumed else 0
        try:
            for index, phase in enumerate(session.plan):
                if index >= reached:
                    yield from _phase(session, index, phase, resumed if index == reached else None)
            return
        except Diverged as error:
            resumed, text = roll_back(session, error)
            yield session.step, {"kind": "note", "text": text}


def _phase(session: Session, index: int, phase: Phase, resumed: Resumed | None) -> Iterator[Event]:
    model, recipe = session.model, session.recipe
    assignment = assign(model, phase.rules)
    images = training_images(session, assignment)
    peak = phase.rate * session.lowered.get(index, 1.0)
    rate = schedule(recipe.schedule, peak, phase.epochs, max(len(images) // recipe.accumulate, 1))
    maps = affine_maps(model, assignment) if assignment.backbone_frozen else {}
    updates = max(phase.epochs * len(images) // recipe.accumulate, 1)
    ema = recipe.ema if recipe.ema_given else fitting_ema(recipe.ema, updates)
    state, program = _start(session, assignment, rate, maps, ema)
    at = Place(index)
    if resumed:
        state, program = restore(session, state, program, *resumed)
        at = Place(**resumed[1]["at"])
        text = f"resumed at step {session.step}, in epoch {len(session.history) + 1}"
        yield session.step, {"kind": "note", "text": text}
    # Features may be cached only now: a checkpoint has just put its backbone into the model.
    sources = open_sources(session, assignment, images)
    if resumed and resumed[1]["cached_after"] is not None:
        session.cached_after = resumed[1]["cached_after"]
    if maps and not resumed:
        state = _standardised(session, state, maps, sources)
    watch = Watch(session, at, sources, rate)
    if session.step == session.rolled_to if resumed else recipe.on_nonfinite == "rollback":
        # After a rollback: with the lowered rate. At the beginning of a phase: to have something to go back to.
        watch.save_checkpoint(state, program)
    announced = _announcement(phase, index, sources, assignment, model)
    yield session.step, {**announced, "ema": ema, "lowered": ema != recipe.ema}
    if not resumed and (text := slow_average(phase, updates, ema)):
        yield session.step, {"kind": "note", "text": text}
    # The randomness of a step depends only on (seed, phase, step), not on a key that is carried along. A resumed run
    # therefore draws the same numbers as one that was never stopped.
    key = jax.random.fold_in(jax.random.key(recipe.seed), index)
    while at.epoch < phase.epochs and not _patience_lost(session, at):
        began = time.monotonic()
        state, images_done = yield from _steps(watch, state, program, key)
        watch.require_finite(wait=True)
        seconds = time.monotonic() - began
        install(model, state)
        with _checkpointed(watch, state, program):
            scores, evaluation = _validated(watch)
        row = {
            "epoch": len(session.history) + 1,
            "step": session.step,
            "phase": phase.name,
            "rate": watch.rate_at(at.batch),
            "train_loss": float(np.mean(at.losses)),
            "grad_norm": float(np.mean(at.norms)),
            "images_per_second": round(images_done / max(seconds, 1e-9), 1),
            **scores,
        }
        session.history.append(row)
        at.waited = 0 if keep_if_best(session, row) else at.waited + 1
        write_best(session, lazily=True)  # first of all: whatever fails from here on, this epoch's model is kept
        write_history(session.folder, session.history)
        at.next_epoch()
        yield session.step, {"kind": "epoch", **row}
        if text := _preview(session, len(session.history)):
            yield session.step, {"kind": "note", "text": text}
        for text in _remarks(session, evaluation):
            yield session.step, {"kind": "note", "text": text}
        with _checkpointed(watch, state, program):
            _heed(session)
    if at.epoch < phase.epochs:
        text = f"early stopping: no better epoch in {at.waited}, phase {phase.name} ends"
        yield session.step, {"kind": "note", "text": text}


def _steps(
    watch: Watch, state: TrainState, program: Program, key: jax.Array
) -> Generator[Event, None, tuple[TrainState, int]]:
    """Take the remaining steps of an epoch. Returns the state and the number of images trained on."""
    session, at, images = watch.session, watch.at, 0
    # The order of images depends only on this number, and `joined` skips the batches that are done. So a run that is
    # resumed within an epoch continues with the next batch of the same order. Phases do not share orders.
    number = at.phase * STREAM + at.epoch
    for batch in joined(watch.sources.train, number, at.batch):
        try:
            # The step donates the state: the old one must not be read again.
            state, metrics = program.run(state, program.frozen, batch, key)
            if not at.batch and not at.epoch:
                jax.block_until_ready(metrics)  # memory that does not suffice is noticed here
        except ERRORS as error:
            if not is_exhausted(error):
                raise
            raise out_of_memory(session, fitting_batch(program, state, batch, key)) from error
        session.step += 1
        images += int(np.sum(batch["valid"]))
        at.add(metrics)
        if session.later:
            session.later.check()
        yield session.step, {"kind": "step", **metrics}
        watch.require_finite(wait=False)
        if session.stop or time.monotonic() - session.saved > session.recipe.checkpoint_seconds:
            watch.save_checkpoint(state, program)
            _heed(session)
    return state, images


def _heed(session: Session) -> None:
    """Raise `Interrupted` if a signal has asked to stop."""
    if session.stop:
        raise Interrupted(session.stop)


@contextmanager
def _checkpointed(watch: Watch, state: TrainState, program: Program) -> Iterator[None]:
    """Write a checkpoint if the block is interrupted."""
    try:
        yield
    except Interrupted:
        watch.save_checkpoint(state, program)
        raise


def _preview(session: Session, epoch: int) -> str:
    """Draw the task's preview of an epoch. Returns a remark if it fails: a picture must not end a training."""
    file = session.folder / "previews" / f"epoch{epoch:04}.png"
    try:
        with writing(file):
            session.model.adapter.preview(session.model, session.val, file)
    except RunError:
        raise
    except Exception as error:
        return f"the preview of epoch {epoch} could not be drawn: {error}"
    return ""


def _standardised(session: Session, state: TrainState, maps: Mapping[str, ModulePath], sources: Sources) -> TrainState:
    """Return the state with the statistics of the features that the head reads; a new head starts with small values."""
    first = next(iter(sources.train.values()))
    features, reads = first.sample(session.model, SAMPLE), session.model.head.reads()  # type: ignore[attr-defined]
    statistics = with_statistics(state.opt_state, {name: features[reads[name]] for name in maps})
    state = replace(state, opt_state=statistics)
    if not session.model.card.new_head or session.history:
        return state
    params = started(state.params, statistics, maps)
    # A copy, because the step donates the state: one buffer cannot be donated twice.
    return replace(state, params=params, ema=None if state.ema is None else jax.tree.map(jnp.copy, params))


def _validated(watch: Watch) -> tuple[dict[str, float], Evaluation]:
    """Evaluate the model. Returns the metrics for the row of the history, and the evaluation."""
    session = watch.session
    if session.later:
        session.later.wait(lambda: session.stop)
    evaluation = evaluate_source(session.model, watch.sources.val, lambda: _heed(session))
    metrics = evaluation.metrics
    watch.require_finite_validation(metrics["loss"])
    row = {("val_loss" if name == "loss" else name): v for name, v in scalars(metrics).items() if name != "images"}
    return row, evaluation


def _start(
    session: Session, assignment: Assignment, rate: optax.Schedule, maps: Mapping[str, ModulePath], ema: float
) -> tuple[TrainState, Program]:
    """Return the first state of a phase and its compiled step.

    Args:
        session: the training.
        assignment: what trains.
        rate: the learning rate by update.
        maps: the head's affine maps that read standardised features, see `zoo.training.precondition`.
        ema: decay of the EMA of the parameters, 0 for none.
    """
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
        ema=ema,
        norm_statistics=recipe.statistics,
        remat=recipe.remat,
        accumulate=recipe.accumulate,
    )


def _remarks(session: Session, evaluation: Evaluation) -> Iterator[str]:
    """Yield the remarks after an epoch. Classes that are never predicted are named again only when they change."""
    adapter, history = session.model.adapter, session.history
    if counted := getattr(evaluation.accumulated, "class_counts", None):
        counts = counted()
        classes = never_predicted(counts)
        if classes and classes != session.unpredicted:
            yield unpredicted_text(classes, counts, len(history), adapter)
        session.unpredicted = classes
    if text := still_metric(history, adapter.primary):
        yield text


def _patience_lost(session: Session, at: Place) -> bool:
    return session.recipe.patience is not None and at.waited >= session.recipe.patience


def _announcement(phase: Phase, index: int, sources: Sources, assignment: Assignment, model: Model) -> dict[str, Any]:
    """Return the event at the beginning of a phase."""
    sizes = {path: int(np.prod(v.shape)) for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    return {
        "kind": "phase",
        "index": index,
        "name": phase.name,
        "epochs": phase.epochs,
        "batches": len(next(iter(sources.train.values()))),
        "trained": sum(size for path, size in sizes.items() if assignment.trains(path)),
        "parameters": sum(sizes.values()),
        "cached": any(source.cached for source in sources.train.values()),
    }


@contextmanager
def stopping(session: Session) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C stop the training after the current step, with a checkpoint; a second one, immediately."""
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        session.stop = number
        signal.signal(number, before.get(number, signal.SIG_DFL))

    try:
        before |= {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone may handle signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
