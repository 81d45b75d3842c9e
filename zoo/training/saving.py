"""The best model so far, and checkpoints to resume from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from zoo.models.store import FILE, save
from zoo.training.checkpoint import read
from zoo.training.session import Place, Session, finite_losses
from zoo.training.step import Program, TrainState, install


def keep_if_best(session: Session, row: dict[str, Any]) -> bool:
    """Remember the model if it is the best so far: by the task's primary metric, then by the smaller loss."""

    def rank(row: dict[str, Any]) -> tuple[float, float]:
        return row.get(session.model.adapter.primary, -row["val_loss"]), -row["val_loss"]

    if session.best is not None and rank(row) <= rank(session.best[0]):
        return False
    arrays = nnx.state(session.model, (nnx.Param, nnx.BatchStat))
    session.best = (row, jax.tree.map(lambda leaf: leaf, arrays))
    session.best_saved = False
    return True


def save_checkpoint(session: Session, state: TrainState, program: Program, at: Place) -> None:
    """Write a checkpoint, and the best model so far to the run directory."""
    finite_losses(session, at)  # a diverged state must not replace a good checkpoint
    if session.best is not None and not session.best_saved:
        now = jax.tree.map(lambda leaf: leaf, nnx.state(session.model, (nnx.Param, nnx.BatchStat)))
        card = session.model.card
        nnx.update(session.model, session.best[1])
        # The file serves like that of a finished run, should this one stop: its head has been trained.
        session.model.card = replace(card, new_head=False)
        save(session.model, session.folder / FILE)
        session.model.card = card
        nnx.update(session.model, now)
        session.best_saved = True
    position = {
        "at": at.plain(),
        "step": session.step,
        "history": session.history,
        "best": session.best[0] if session.best else None,
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
    if best is not None:
        session.best = (place["best"], best)
    nnx.update(session.model, frozen)
    install(session.model, state)
    return state, Program(program.run, frozen, program.graphdef)
