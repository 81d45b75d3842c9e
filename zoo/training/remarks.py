"""Remarks of a training that goes wrong without an error: what was observed, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.models.adapter import Adapter, option_fields
from zoo.training.plan import Phase
from zoo.training.step import fitting_ema

EPOCHS = 3
"""Number of epochs after which a metric that has never changed is reported."""
_STILL = 1e-4
"""Relative change below which a loss counts as constant."""


def slow_average(phase: Phase, updates: int, decay: float) -> str:
    """Return a remark on an EMA of the parameters that is longer than the phase; empty if it is not.

    Args:
        phase: the phase.
        updates: number of updates of the parameters in the phase.
        decay: decay of the EMA.
    """
    fitting = fitting_ema(decay, updates)
    if fitting == decay:
        return ""
    return (
        f"ema {decay:g} averages the parameters over about {1 / (1 - decay):.0f} updates, but phase {phase.name} has "
        f"only {updates}. Use ema {fitting:g} or less (0: none), more epochs, or a smaller batch_size."
    )


def never_predicted(counts: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Return the classes that occur in the validation data but were never predicted.

    Args:
        counts: class -> (number of predictions, number of true instances).
    """
    return tuple(label for label, (predicted, true) in counts.items() if true and not predicted)


def unpredicted_text(
    classes: Sequence[str], counts: Mapping[str, tuple[int, int]], epoch: int, adapter: Adapter
) -> str:
    """Return the remark on `never_predicted` classes.

    Args:
        classes: the classes.
        counts: see `never_predicted`.
        epoch: number of the epoch.
        adapter: the task adapter, for advice that it has an option for.
    """
    few = ", ".join(f"{label!r} ({counts[label][1]} in the validation data)" for label in classes[:4])
    more = f" and {len(classes) - 4} more" if len(classes) > 4 else ""
    balanced = ", class_weights=balanced" if "class_weights" in option_fields(type(adapter)) else ""
    return (
        f"never predicted in epoch {epoch}: {few}{more}. If this persists, try more epochs, a higher learning "
        f"rate{balanced}, or more examples of these classes; and check their annotations."
    )


def still_metric(history: Sequence[Mapping[str, Any]], primary: str) -> str:
    """Return a remark, after the third epoch, on a validation metric that has not changed since the first.

    It is empty if the metric changes or is perfect, and after any other epoch.

    Args:
        history: a row for each epoch, with `val_loss` and perhaps the primary metric.
        primary: name of the primary metric.
    """
    if len(history) != EPOCHS:
        return ""
    name = primary if all(primary in row for row in history) else "val_loss"
    values, losses = [float(row[name]) for row in history], [float(row["val_loss"]) for row in history]
    flat = _still(losses)
    if not (flat if name == "val_loss" else len(set(values)) == 1 and values[0] != 1):
        return ""
    label = "val loss" if name == "val_loss" else name
    if flat:
        advice = (
            "The loss is constant too: the learning rate may be far too low or too high, or the outputs may not depend "
            "on the trained parameters. Try a different lr, and check what the plan trains."
        )
    elif losses[-1] < losses[0]:
        advice = "The loss falls, so more epochs or a higher lr may help."
    else:
        advice = "The loss does not fall: try a different lr, and check the annotations and their classes."
    return f"{label} has not changed from {values[0]:.4g} in {len(history)} epochs. {advice}"


def _still(losses: Sequence[float]) -> bool:
    return max(losses) - min(losses) <= _STILL * max(map(abs, losses))
