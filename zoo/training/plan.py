"""A plan: phases of training, each with its own rules, length and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.numbers import EPOCHS, RATE, check_number
from zoo.training.rules import Rule, preset

HEAD_RATE = 3e-3
"""Peak learning rate (AdamW) of a new head on frozen features."""
FINE_RATE = 3e-5
"""Peak learning rate of pretrained layers, far below the head's."""
SCRATCH_RATE = 3e-3
"""Peak learning rate of a net that starts from random values."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: for people. rules: what trains. epochs: how many. rate: peak learning rate.
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
    """The phases of a plan.

    Args:
        plan: a preset of `zoo.training.rules.preset`, or several joined by `+`, which share the epochs: each but the
            last takes two fifths of what is left. Or phases of one's own.
        epochs: in all. rate: peak learning rate of the last phase, else chosen by what it trains.
        rules: rules of one's own for a single phase, in place of a preset.
        head_rate: of a new head, where `rate` is not its.
    """
    if not isinstance(plan, str):
        return _checked(plan)
    if rules is not None:
        return (Phase("rules", tuple(rules), epochs, rate or FINE_RATE),)
    names = plan.split("+")
    if len(names) > epochs:
        raise ConfigError(f"plan {plan} has {len(names)} phases and needs at least as many epochs; epochs is {epochs}.")
    phases, left = [], epochs
    for index, name in enumerate(names):
        after = len(names) - index - 1
        count = min(max(1, round(left * 0.4)), left - after) if after else left
        left -= count
        chosen = rate if rate is not None and not after else _rate(model, name, head_rate)
        rules_of = preset(model, name)
        if name != "head" and model.card.weights and model.card.new_head:
            # A new head beside pretrained layers learns at a rate of its own, untrained or after a phase of its own.
            share = head_rate / FINE_RATE * (1 if index == 0 else 0.1)
            rules_of = (("head.*", share), *(rule for rule in rules_of if rule[0] != "head.*"))
        phases.append(Phase(name, rules_of, count, chosen))
    return tuple(phases)


def _checked(plan: Sequence[Phase]) -> tuple[Phase, ...]:
    """Phases of a user's own. Raises `ConfigError` for what cannot train."""
    if not plan:
        raise ConfigError("the plan has no phases; give at least one, or the name of a preset such as head+all.")
    for phase in plan:
        check_number(f"epochs of phase {phase.name}", phase.epochs, EPOCHS)
        check_number(f"rate of phase {phase.name}", phase.rate, RATE)
    return tuple(plan)


def _rate(model: Model, name: str, head_rate: float) -> float:
    if name == "head":
        return head_rate
    return FINE_RATE if model.card.weights else min(SCRATCH_RATE, head_rate)
