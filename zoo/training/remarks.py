"""What a training says of itself where it goes wrong without an error: a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.models.adapter import Adapter, option_fields
from zoo.training.plan import Phase
from zoo.training.step import fitting_ema

EPOCHS = 3
"""Epochs after which a figure that has never moved is said."""
_STILL = 1e-4
"""Relative change below which a loss counts as still."""


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
    """The classes that the validation data have and no prediction of an epoch names.

    Args:
        counts: class -> (how often it was predicted, how often it is true).
    """
    return tuple(label for label, (predicted, true) in counts.items() if true and not predicted)


def unpredicted_text(
    classes: Sequence[str], counts: Mapping[str, tuple[int, int]], epoch: int, adapter: Adapter
) -> str:
    """The sentence on `never_predicted` classes."""
    few = ", ".join(f"{label!r} ({counts[label][1]} in the validation data)" for label in classes[:4])
    more = f" and {len(classes) - 4} more" if len(classes) > 4 else ""
    balanced = ", class_weights=balanced" if "class_weights" in option_fields(type(adapter)) else ""
    return (
        f"never predicted in epoch {epoch}: {few}{more}. If that lasts: more epochs, a higher learning rate{balanced}, "
        "or more examples of what is missing; and see whether the annotations are right."
    )


def still_figure(history: Sequence[Mapping[str, Any]], primary: str) -> str:
    """A validation figure that has been the same since the first epoch; empty where it moves, is perfect, or where
    there are too few epochs to tell. It is said after the third epoch.

    Args:
        history: a row for each epoch, with `val_loss` and perhaps the primary figure.
    """
    if len(history) != EPOCHS:
        return ""
    name = primary if all(primary in row for row in history) else "val_loss"
    values, losses = [float(row[name]) for row in history], [float(row["val_loss"]) for row in history]
    flat = _still(losses)
    if not (flat if name == "val_loss" else len(set(values)) == 1 and values[0] != 1):
        return ""
    said = "val loss" if name == "val_loss" else name
    if flat:
        advice = (
            "The loss does not move either: the learning rate may be far too low or too high, or what trains may not "
            "reach the outputs. Try another lr, and look at what the plan trains."
        )
    elif losses[-1] < losses[0]:
        advice = "The loss falls, so that more epochs or a higher lr may do."
    else:
        advice = "The loss does not fall: try another lr, and look at the annotations and their classes."
    return f"{said} has not moved from {values[0]:.4g} in {len(history)} epochs. {advice}"


def _still(losses: Sequence[float]) -> bool:
    return max(losses) - min(losses) <= _STILL * max(map(abs, losses))
