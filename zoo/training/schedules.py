"""Learning-rate schedules by name: each row makes the schedule of one phase."""

from __future__ import annotations

from collections.abc import Callable

import optax

from zoo.training.points import SCHEDULES

Schedule = Callable[[float, int, int], optax.Schedule]
"""A row, and what may be given for a name: of the peak rate, the phase's updates, and those of the warm-up."""


def cosine(peak: float, updates: int, warm: int) -> optax.Schedule:
    """Warm up linearly, then fall along a cosine to a hundredth (https://arxiv.org/abs/1608.03983)."""
    return optax.warmup_cosine_decay_schedule(peak / 20 if warm else peak, peak, warm, updates, peak / 100)


def linear(peak: float, updates: int, warm: int) -> optax.Schedule:
    """Warm up linearly, then fall along a line to a hundredth."""
    rise = optax.linear_schedule(peak / 20 if warm else peak, peak, warm)
    fall = optax.linear_schedule(peak, peak / 100, max(updates - warm, 1))
    return optax.join_schedules([rise, fall], [warm])


def constant(peak: float, updates: int, warm: int) -> optax.Schedule:
    """Stay at the peak rate, without warm-up."""
    return optax.constant_schedule(peak)


def schedule(row: str | Schedule, peak: float, epochs: int, updates_per_epoch: int) -> optax.Schedule:
    """The schedule of a phase. The warm-up is its first tenth, at most one epoch."""
    updates = max(epochs * updates_per_epoch, 1)
    warm = min(updates_per_epoch, updates // 10)
    return (SCHEDULES[row] if isinstance(row, str) else row)(peak, updates, warm)
