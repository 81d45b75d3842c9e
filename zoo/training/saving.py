"""The best model so far, and checkpoints to resume from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from zoo.errors import ZooError
from zoo.models.store import FILE, load, save
from zoo.training.checkpoint import intact, read, sealed
from zoo.training.phase_sources import cache_features
from zoo.training.run import TRAINED, read_json, write_json, writing
from zoo.training.session import Place, Session
from zoo.training.step import Program, TrainState, install

SHARE = 0.05
"""Largest share of the time that goes into writing the best model after each better epoch."""


def keep_if_best(session: Session, row: dict[str, Any]) -> bool:
    """Remember the model if it is the best so far: by the task's primary metric, then by the smaller loss."""
    if session.best is not None and _rank(session, row) <= _rank(session, session.best[0]):
        return False
    arrays = nnx.state(session.model, (nnx.Param, nnx.BatchStat))
    session.best = (row, jax.tree.map(lambda leaf: leaf, arrays))
    session.best_saved = False
    return True


def _rank(session: Session, row: dict[str, Any]) -> tuple[float, float]:
    return row.get(session.model.adapter.primary, -row["val_loss"]), -row["val_loss"]


def write_best(session: Session, *, lazily: bool = False) -> None:
    """Write the best model so far to the run directory, unless it is there.

    Args:
        session: the training.
        lazily: leave it for later if writing would take more than `SHARE` of the time since the last write. The first
            model is written at once.
    """
    when, seconds = session.best_written
    began = time.monotonic()
    if session.best is None or session.best_saved or (lazily and began - when < seconds / SHARE):
        return
    model, card = session.model, session.model.card
    now = jax.tree.map(lambda leaf: leaf, nnx.state(model, (nnx.Param, nnx.BatchStat)))
    nnx.update(model, session.best[1])
    # The file serves like that of a finished run, should this one stop: its head has been trained.
    model.card = replace(card, new_head=False)
    try:
        with writing(session.folder / FILE):
            save(model, session.folder / FILE)
    finally:
        model.card = card
        nnx.update(model, now)
    session.best_saved, session.best_written = True, (time.monotonic(), time.monotonic() - began)


def write_trained(session: Session) -> None:
    """Record that training has ended, so that a resumed run only computes what is missing then."""
    write_best(session)
    assert session.best is not None
    record = {
        "best": session.best[0],
        "history": session.history,
        "step": session.step,
        "cached_after": session.cached_after if session.caches else None,
    }
    with writing(session.folder / TRAINED):
        write_json(session.folder / TRAINED, sealed(record))


def read_trained(session: Session) -> tuple[bool, str]:
    """Give the result of a training that has ended to the session, and the best parameters to its model.

    Returns:
        Whether the run directory has such a result, and a sentence on what is damaged if it has not.
    """
    if not (session.folder / TRAINED).is_file():
        return False, ""
    try:
        record = read_json(session.folder / TRAINED)
        if not intact(record):
            return False, f"{session.folder / TRAINED} has changed."
        best = nnx.state(load(session.folder / FILE), (nnx.Param, nnx.BatchStat))
        nnx.update(session.model, best)
    except (ZooError, LookupError, TypeError, ValueError) as error:
        return False, str(error)
    session.best, session.best_saved = (record["best"], best), True
    session.step, session.history = record["step"], record["history"]
    if record["cached_after"] is not None and session.recipe.cache:
        # The final metrics then come from the same features, and are the same to the last bit.
        session.cached_after = record["cached_after"]
        cache_features(session, "val")
    return True, ""


def save_checkpoint(session: Session, state: TrainState, program: Program, at: Place) -> None:
    """Write a checkpoint, and the best model so far to the run directory."""
    write_best(session)
    position = {
        "cached_after": session.cached_after if session.caches else None,
        "at": at.plain(),
        "step": session.step,
        "history": session.history,
        "best": session.best[0] if session.best else None,
        "rollbacks": session.rollbacks,
        "rolled_to": session.rolled_to,
        "lowered": {str(phase): factor for phase, factor in session.lowered.items()},
    }
    # The best model is part of the checkpoint: the file in the run directory may be newer than it, or damaged.
    session.checkpoints.save(session.step, (state, program.frozen, session.best and session.best[1]), position)
    session.saved = time.monotonic()


def restore(
    session: Session, state: TrainState, program: Program, folder: Path, place: dict[str, Any]
) -> tuple[TrainState, Program]:
    """Return the state of a phase from a checkpoint, and give its history and best model to the session.

    Args:
        session: the training.
        state: the first state of the phase, for structure, shapes and dtypes.
        program: the step of the phase.
        folder: the folder of the checkpoint.
        place: the position in the checkpoint.
    """
    # The frozen parameters come from the checkpoint too: an earlier phase may have trained them.
    best = nnx.state(session.model, (nnx.Param, nnx.BatchStat)) if place["best"] is not None else None
    state, frozen, best = read(folder, (state, program.frozen, best))
    session.step, session.history = place["step"], place["history"]
    # After a rollback, the best model may be one of the epochs that are trained again: it is kept.
    if best is not None and (session.best is None or _rank(session, place["best"]) >= _rank(session, session.best[0])):
        # The model in the run directory may be newer than the checkpoint, or damaged: it is written again.
        session.best, session.best_saved = (place["best"], best), False
    nnx.update(session.model, frozen)
    install(session.model, state)
    return state, Program(program.run, frozen, program.graphdef)
