"""The extension points of training: optimizers, learning-rate schedules and plans. Nothing here imports jax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.registry.parts import Point

if TYPE_CHECKING:
    from zoo.training.optimizers import Optimizer
    from zoo.training.plans import Plan
    from zoo.training.schedules import Schedule

OPTIMIZERS: Point[Optimizer] = Point("training.optimizer", "optimizer")
"""A part is an `Optimizer`."""
SCHEDULES: Point[Schedule] = Point("training.schedule", "schedule")
"""A part is a `Schedule`."""
PLANS: Point[Plan] = Point("training.plan", "plan")
"""A part is a `Plan`."""
