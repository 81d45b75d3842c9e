"""What a training does when a loss, a gradient or a parameter is not finite: it stops, or goes back to a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import RunError
from zoo.models.store import FILE
from zoo.training.phase_sources import Sources
from zoo.training.saving import save_checkpoint, write_best
from zoo.training.session import STREAM, Diverged, Place, Session
from zoo.training.step import Program, TrainState, lenient

Resumed = tuple[Path, dict[str, Any]]
"""The folder of a checkpoint, and its position."""
ROLLBACKS = 3
"""Largest number of times that a training goes back to a checkpoint."""
FACTOR = 0.1
"""Factor of the learning rate after each time."""
NAMED = 5
"""Number of images of a batch that a message names."""


@dataclass(frozen=True)
class Watch:
    """Notices losses and gradients of a phase that are not finite.

    Attributes:
        session: the training.
        at: its position.
        sources: what the phase reads.
        rate: the learning rate by update.
    """

    session: Session
    at: Place
    sources: Sources
    rate: optax.Schedule

    def require_finite(self, *, wait: bool) -> None:
        """Raise `Diverged` for a loss or gradient norm that is not finite, see `Place.nonfinite`."""
        if found := self.at.nonfinite(wait=wait):
            name, value, batch = found
            step = self.session.step - (len(self.at.losses) - 1 - batch)
            self._raise(f"the {name} is {value} at step {step}", batch)

    def require_finite_validation(self, loss: float) -> None:
        """Raise `Diverged` for a validation loss that is not finite."""
        if not math.isfinite(loss):
            self._raise(f"the validation loss is {loss} after step {self.session.step}")

    def save_checkpoint(self, state: TrainState, program: Program) -> None:
        """Write a checkpoint. Raises `Diverged` instead of replacing a good one by a state that is not finite."""
        self.require_finite(wait=True)
        if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params)):
            self._raise(f"a parameter is not finite after step {self.session.step}", self.at.batch - 1)
        save_checkpoint(self.session, state, program, self.at)

    def rate_at(self, batch: int) -> float:
        """Return the learning rate of a batch of the epoch."""
        steps = self.at.epoch * len(next(iter(self.sources.train.values()))) + batch
        with lenient():
            return float(self.rate(steps // self.session.recipe.accumulate))

    def _raise(self, what: str, batch: int = -1) -> None:
        epoch, last = len(self.session.history) + 1, max(self.at.batch - 1, 0)
        about = f"epoch {epoch}, learning rate {self.rate_at(last if batch < 0 else batch):.3g}"
        if batch >= 0:
            about += f", batch of {self._files(batch)}"
        raise Diverged(f"{what} ({about})", self.at.phase)

    def _files(self, batch: int) -> str:
        source = next(iter(self.sources.train.values()))
        files = [source.dataset[int(i)].image for i in source.rows(self.at.phase * STREAM + self.at.epoch, batch)]
        root = source.dataset.root
        names = [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files[:NAMED]]
        return ", ".join(names) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")


def stopped(session: Session, error: Diverged) -> RunError:
    """Return the error that ends a training that has diverged, once the best model so far is on disk."""
    write_best(session)
    if session.best is not None:
        kept = f"{session.folder / FILE} is the best model so far, of epoch {session.best[0]['epoch']}."
    else:
        kept = "No epoch was finished, so there is no model yet."
    rate = session.plan[error.phase].rate * session.lowered.get(error.phase, 1.0)
    if session.rollbacks:
        advice = f", after {session.rollbacks} rollbacks" if session.rollbacks > 1 else ", after a rollback"
        return RunError(
            f"{error}{advice}: training stopped. {kept} Try a lower learning rate (lr is {rate:g}), or check the data."
        )
    return RunError(
        f"{error}: training stopped. {kept} Try a lower learning rate (lr is {rate:g}), or check these images; or "
        "repeat the command with --resume --on-nonfinite rollback, which goes back to the last good checkpoint and "
        "continues with a lower rate."
    )


def roll_back(session: Session, error: Diverged) -> tuple[Resumed, str]:
    """Choose the checkpoint to go back to, and lower the learning rate of the phase that diverged.

    Returns:
        The checkpoint, and a remark.

    Raises:
        RunError: the training is to stop instead.
    """
    if session.recipe.on_nonfinite != "rollback" or session.rollbacks == ROLLBACKS:
        raise stopped(session, error) from None
    newest = session.checkpoints.latest()
    if newest is not None and newest[1]["step"] == session.rolled_to:
        # It diverged from here before. Its parameters may be the reason, although they are finite.
        newest = session.checkpoints.latest(before=session.rolled_to) or newest
    if newest is None:
        raise stopped(session, error) from None
    folder, place, _ = newest
    session.rollbacks += 1
    session.rolled_to = place["step"]
    session.lowered[error.phase] = session.lowered.get(error.phase, 1.0) * FACTOR
    # Not before the training has left them behind for good: a resumed one takes the newest.
    session.checkpoints.discard(after=place["step"])
    rate = session.plan[error.phase].rate * session.lowered[error.phase]
    return (folder, place), (
        f"{error}: back to step {place['step']}, with the peak learning rate of phase "
        f"{session.plan[error.phase].name} lowered to {rate:.3g} (rollback {session.rollbacks} of {ROLLBACKS})"
    )


def recall(session: Session, place: dict[str, Any]) -> None:
    """Give the rollbacks of a checkpoint's training to the session that resumes it."""
    session.rollbacks, session.rolled_to = place["rollbacks"], place["rolled_to"]
    session.lowered = {int(phase): factor for phase, factor in place["lowered"].items()}
