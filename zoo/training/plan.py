"""Plans: the phases of a training, each with its rules, length and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.numbers import EPOCHS, RATE, check_number
from zoo.training.plans import Rules, phases_of
from zoo.training.rules import HEAD, Rule, assign

HEAD_RATE = 3e-3
"""Peak learning rate (AdamW) of a new head on frozen features."""
FINE_RATE = 3e-5
"""Peak learning rate of pretrained layers, far below the head's."""
SCRATCH_RATE = 3e-3
"""Peak learning rate of a network that starts from random values."""


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Attributes:
        name: name, shown while training and in the history.
        rules: what trains, see `zoo.training.rules`.
        epochs: number of epochs.
        rate: peak learning rate.
    """

    name: str
    rules: tuple[Rule, ...]
    epochs: int
    rate: float


def make_plan(
    model: Model,
    plan: str | Sequence[Phase],
    epochs: int,
    rate: float | None,
    rules: Sequence[Rule] | None,
    *,
    head_rate: float = HEAD_RATE,
) -> tuple[Phase, ...]:
    """Return the phases of a plan.

    Args:
        model: the model.
        plan: a name that `zoo list plans` shows, or several joined by `+`, which train one after the other. Or phases,
            which are only checked.
        epochs: epochs over all phases. Each phase but the last gets two fifths of the epochs that are left.
        rate: peak learning rate of the last phase; if None, it depends on what the phase trains.
        rules: rules of a single phase, instead of a plan.
        head_rate: peak learning rate of phases that train the head alone, and of a new head in other phases.
    """
    if not isinstance(plan, str):
        return _checked(plan)
    if rules is not None:
        return (Phase("rules", tuple(rules), epochs, rate or FINE_RATE),)
    named = [phase for name in plan.split("+") for phase in _named(model, name)]
    if len(named) > epochs:
        raise ConfigError(
            f"plan {plan} has {len(named)} phases and needs at least as many epochs; epochs is {epochs}. Give at least "
            f"{len(named)} epochs, or a plan of fewer phases, such as head."
        )
    phases, left = [], epochs
    for index, (name, rules_of) in enumerate(named):
        after = len(named) - index - 1
        count = min(max(1, round(left * 0.4)), left - after) if after else left
        left -= count
        head_alone = assign(model, rules_of).backbone_frozen
        peak = rate if rate is not None and not after else _rate(model, head_alone, head_rate)
        if not head_alone and model.card.weights and model.card.new_head and _leaves_head(rules_of):
            # Pretrained layers need a small learning rate, a new head a large one. A head that an earlier phase has
            # trained needs a tenth of that.
            share = head_rate / FINE_RATE * (1 if index == 0 else 0.1)
            rules_of = (("head.*", share), *(rule for rule in rules_of if rule != HEAD))
        phases.append(Phase(name, rules_of, count, peak))
    return tuple(phases)


def _named(model: Model, name: str) -> list[tuple[str, Rules]]:
    """Return the phases of one plan, with their names."""
    phases = phases_of(model, name)
    return [(name if len(phases) == 1 else f"{name} {number}", rules) for number, rules in enumerate(phases, 1)]


def _leaves_head(rules: Sequence[Rule]) -> bool:
    """Whether rules train the head and set no learning rate for it."""
    return all(rule == HEAD or not rule[0].startswith("head") for rule in rules)


def _checked(plan: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases that a user gave. Raises `ConfigError` for phases that cannot train."""
    if not plan:
        raise ConfigError("the plan has no phases; give at least one, or the name of a plan such as head+all.")
    for phase in plan:
        check_number(f"epochs of phase {phase.name}", phase.epochs, EPOCHS)
        check_number(f"rate of phase {phase.name}", phase.rate, RATE)
    return tuple(plan)


def _rate(model: Model, head_alone: bool, head_rate: float) -> float:
    if head_alone:
        return head_rate
    return FINE_RATE if model.card.weights else min(SCRATCH_RATE, head_rate)
