"""Learning-rate schedules by name. Each makes the schedule of one phase."""

from __future__ import annotations

from collections.abc import Callable

import optax

from zoo.training.points import SCHEDULES

Schedule = Callable[[float, int, int], optax.Schedule]
"""A part, also accepted instead of a name: a function of the peak rate, the updates of the phase, and the updates of
its warm-up."""


def cosine(peak: float, updates: int, warm: int) -> optax.Schedule:
    """Linear warm-up, then cosine decay to a hundredth of the peak (https://arxiv.org/abs/1608.03983)."""
    return optax.warmup_cosine_decay_schedule(peak / 20 if warm else peak, peak, warm, updates, peak / 100)


def linear(peak: float, updates: int, warm: int) -> optax.Schedule:
    """Linear warm-up, then linear decay to a hundredth of the peak."""
    rise = optax.linear_schedule(peak / 20 if warm else peak, peak, warm)
    fall = optax.linear_schedule(peak, peak / 100, max(updates - warm, 1))
    return optax.join_schedules([rise, fall], [warm])


def constant(peak: float, updates: int, warm: int) -> optax.Schedule:
    """The peak rate throughout, without warm-up."""
    return optax.constant_schedule(peak)


def schedule(row: str | Schedule, peak: float, epochs: int, updates_per_epoch: int) -> optax.Schedule:
    """Return the schedule of a phase. Its warm-up is the first tenth of the phase, but at most one epoch."""
    updates = max(epochs * updates_per_epoch, 1)
    warm = min(updates_per_epoch, updates // 10)
    return (SCHEDULES[row] if isinstance(row, str) else row)(peak, updates, warm)
