"""The state of a training in progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax import nnx

from zoo.activations.views import CachedViews
from zoo.data import Dataset
from zoo.data.damage import Later
from zoo.errors import RunError
from zoo.models.model import Model
from zoo.training.checkpoint import Checkpoints
from zoo.training.config import Recipe
from zoo.training.plan import Phase

Event = tuple[int, dict[str, Any]]
STREAM = 100_003
"""Orders of images reserved for each phase; more than a phase has epochs."""
LAG = 32
"""Steps after which a loss that is not finite is noticed at the latest; mostly it is after one or two."""


@dataclass
class Session:
    """A training in progress.

    Attributes:
        model: the model, trained in place.
        train: the training data, with the model's labels.
        val: the validation data, with the model's labels.
        plan: the phases.
        recipe: the options.
        folder: the run directory.
        notes: remarks on the data, shown before the first step.
        features: called with (images done, images in all) while features are computed for the cache.
        history: a row for each epoch.
        best: the row of the best epoch, and the model's arrays at its end.
        step: number of steps taken, over all phases.
        saved: time of the last checkpoint, by the monotonic clock.
        caches: cached features by split, while the backbone is frozen.
        cached_after: number of epochs in the history when the features were cached.
        stop: number of the signal that asked to stop, or 0.
        best_saved: whether the run directory has the best model.
        best_written: when the best model was last written, by the monotonic clock, and the seconds that it took.
        unpredicted: classes that were never predicted in the last epoch.
        closing: called at the end, to close the display.
        rollbacks: number of times that the training went back to a checkpoint because a loss was not finite.
        lowered: factor of the learning rate by index of the phase, where it was lowered for that reason.
        rolled_to: step of the checkpoint that the training last went back to, or -1.
        later: decodes the validation and test images of a large dataset, while they are not needed yet.
    """

    model: Model
    train: Dataset
    val: Dataset
    plan: tuple[Phase, ...]
    recipe: Recipe
    folder: Path
    notes: tuple[str, ...] = ()
    features: Callable[[int, int], None] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[dict[str, Any], nnx.State] | None = None
    step: int = 0
    saved: float = field(default_factory=time.monotonic)
    caches: dict[str, CachedViews] = field(default_factory=dict)
    cached_after: int = 0
    stop: int = 0
    best_saved: bool = True
    best_written: tuple[float, float] = (-math.inf, 0.0)
    unpredicted: tuple[str, ...] = ()
    closing: Callable[[], None] = lambda: None
    rollbacks: int = 0
    lowered: dict[int, float] = field(default_factory=dict)
    rolled_to: int = -1
    later: Later | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")


@dataclass
class Place:
    """The position of a training in its plan.

    Checkpoints store it beside the arrays. Order of images, augmentation and dropout follow from the seed and the
    position, so a resumed run ends with the same bits as one that was never stopped.

    Attributes:
        phase: index of the phase.
        epoch: index of the epoch in the phase.
        batch: number of batches done in the epoch.
        waited: number of epochs since the best one, for early stopping.
        losses: the losses of the epoch's batches; scalars, on the device or plain.
        norms: the gradient norms of the epoch's batches.
        checked: number of losses and norms that are known to be finite; these are plain numbers.
    """

    phase: int
    epoch: int = 0
    batch: int = 0
    waited: int = 0
    losses: list[Any] = field(default_factory=list)
    norms: list[Any] = field(default_factory=list)
    checked: int = 0

    def add(self, metrics: dict[str, Any]) -> None:
        """Record a batch."""
        self.batch += 1
        self.losses.append(metrics["loss"])
        self.norms.append(metrics["grad_norm"])

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch, self.checked, self.losses, self.norms = 0, 0, [], []

    def nonfinite(self, *, wait: bool) -> tuple[str, float, int] | None:
        """Compare the losses and gradient norms that have not been compared yet, until one is not finite.

        The step is not slowed down: a value is read only once the device has computed it, or `LAG` steps later.

        Args:
            wait: compare all of them, and wait for the device where necessary.

        Returns:
            What is not finite, its value, and the batch of the epoch; None if nothing is.
        """
        while (batch := self.checked) < len(self.losses):
            pair = self.losses[batch], self.norms[batch]
            if not wait and len(self.losses) - batch < LAG and not all(map(_computed, pair)):
                return None
            self.losses[batch], self.norms[batch] = map(float, pair)
            self.checked += 1
            for name, value in (("loss", self.losses[batch]), ("norm of the gradient", self.norms[batch])):
                if not math.isfinite(value):
                    return name, value, batch
        return None

    def plain(self) -> dict[str, Any]:
        """Return the position as JSON values. Waits for the device."""
        return {**vars(self), "losses": [*map(float, self.losses)], "norms": [*map(float, self.norms)]}


class Interrupted(BaseException):
    """A signal asked to stop; a checkpoint has been written."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Diverged(RunError):
    """A loss, a gradient or a parameter is not finite.

    Attributes:
        what: the first half of a sentence: what is not finite, and where.
        phase: index of the phase.
    """

    def __init__(self, what: str, phase: int):
        super().__init__(what)
        self.what, self.phase = what, phase


def _computed(value: Any) -> bool:
    """Return whether a scalar can be read without waiting for the device."""
    return value.is_ready() if hasattr(value, "is_ready") else True
