"""Plans by name: what trains in each phase. Each row turns the stages of a backbone into rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flax import nnx

from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.registry.spec import Stage
from zoo.training.points import PLANS
from zoo.training.rules import HEAD, REST_FROZEN, REST_TRAINS, Rule

Rules = tuple[Rule, ...]


@dataclass(frozen=True)
class StageRules:
    """A stage of the backbone that has parameters.

    Attributes:
        name: the stage.
        patterns: what matches the paths of its parameters.
    """

    name: str
    patterns: tuple[str, ...]

    def at(self, multiplier: float | None) -> Rules:
        """Return rules that train the stage at this share of the learning rate, or freeze it."""
        return tuple((pattern, multiplier) for pattern in self.patterns)


Plan = Callable[[Sequence[StageRules], str], Sequence[Rules]]
"""A row: takes the backbone's stages, in order, and the text after the colon (empty without one); returns the rules of
each phase. It raises `ConfigError` for a text that it does not accept; the caller puts the plan before the message."""


def head(stages: Sequence[StageRules], argument: str) -> Sequence[Rules]:
    """Train the head; the backbone stays frozen, so that its features can be cached."""
    _nothing(argument)
    return [(HEAD, REST_FROZEN)]


def last(stages: Sequence[StageRules], argument: str) -> Sequence[Rules]:
    """Train the head and the last N stages."""
    count = int(argument) if argument.isdigit() else 0
    if not 0 < count <= len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(
            f"the backbone has {len(stages)} stages with parameters ({names}); use last:1 to last:{len(stages)}, or all"
        )
    if count == len(stages):
        return [(REST_TRAINS,)]
    return [(HEAD, *(rule for stage in stages[-count:] for rule in stage.at(1.0)), REST_FROZEN)]


def everything(stages: Sequence[StageRules], argument: str) -> Sequence[Rules]:
    """Train everything; with D, each stage at D times the rate of the one after it.

    Layer-wise decay: arXiv:1801.06146, section 3.2. The head trains at the full rate, the last stage at D times that.
    """
    if not argument:
        return [(REST_TRAINS,)]
    decay = _number(argument)
    if not 0 < decay < 1:
        raise ConfigError("the decay must be a number between 0 and 1, as in all:0.75")
    rates = [decay ** (len(stages) - i) for i in range(len(stages))]
    return [(HEAD, *(rule for stage, rate in zip(stages, rates, strict=True) for rule in stage.at(rate)))]


def bitfit(stages: Sequence[StageRules], argument: str) -> Sequence[Rules]:
    """Train the head and the biases of the backbone (arXiv:2106.10199)."""
    _nothing(argument)
    return [(HEAD, ("backbone.*.bias", 1.0), REST_FROZEN)]


def phases_of(model: Model, name: str) -> Sequence[Rules]:
    """Return the rules of each phase of a plan for a model.

    Args:
        name: a plan that `zoo list plans` shows, with its argument behind a colon.
    Raises:
        UnknownNameError: for a name that no plan has.
        ConfigError: for an argument that the plan does not accept.
    """
    bare, _, argument = name.partition(":")
    plan = PLANS[bare]
    try:
        return plan(stages_of(model), argument)
    except ConfigError as error:
        raise ConfigError(f"plan {name}: {str(error).rstrip('.')}.") from error


def preset(model: Model, name: str) -> Rules:
    """Return the rules of a plan that has a single phase. See `phases_of`."""
    first, *others = phases_of(model, name)
    if others:
        raise ConfigError(f"plan {name} has {1 + len(others)} phases: use `zoo.training.plans.phases_of`.")
    return first


def stages_of(model: Model) -> list[StageRules]:
    """Return the stages that have parameters; others, such as a pooling, do not count."""
    return [StageRules(stage.name, tuple(_patterns(model, stage))) for stage in model.spec.stages if stage.modules]


def _patterns(model: Model, stage: Stage) -> Iterator[str]:
    """Patterns of a stage's parameters. Some of its modules may be bare parameters (class token, positions)."""
    for module in stage.modules:
        bare = isinstance(_below(model.backbone, module), nnx.Variable)
        yield f"backbone.{module}" if bare else f"backbone.{module}.*"


def _below(node: Any, path: str) -> Any:
    for part in path.split("."):
        node = node[int(part)] if part.isdigit() else getattr(node, part)
    return node


def _nothing(argument: str) -> None:
    if argument:
        raise ConfigError("it takes no argument")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
