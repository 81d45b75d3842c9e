"""The task contract: what a head on features needs, learns, predicts and reports.

A task adapter is a frozen dataclass. Its fields are the options that a user may set; its methods are everything that
the task means. The core assembles, trains, evaluates, saves and serves it without knowing the task. The pieces of the
contract are in `zoo.models.task`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from zoo.errors import ConfigError, unknown_name
from zoo.models.options import by_owner, refuse_renamed
from zoo.models.task.backbone import OnBackbone
from zoo.models.task.former import refuse_former
from zoo.models.task.forward import ForwardPass
from zoo.models.task.head import Head, HeadInputs
from zoo.models.task.objective import Objective
from zoo.models.task.output import Inference, Output, Table
from zoo.models.task.report import Metrics, Report
from zoo.models.task.training import Training
from zoo.numbers import check_finite
from zoo.registry.options import internal_options, task_options
from zoo.registry.parts import points_of

__all__ = [
    "Adapter",
    "ForwardPass",
    "Head",
    "HeadInputs",
    "Inference",
    "Metrics",
    "Table",
    "Training",
    "adjusted",
    "configure",
    "option_fields",
]


@dataclass(frozen=True)
class Adapter(OnBackbone, Objective, Output, Report):
    """Base class of every task. Subclasses are frozen dataclasses whose further fields are options with defaults.

    A property of the contract may be overridden by a class attribute where it does not depend on the options.

    Attributes:
        labels: The class names, in the order of the outputs.
    """

    labels: tuple[str, ...] = ()

    classes: ClassVar[bool] = True
    """Whether the outputs stand for classes. A task without classes takes no labels."""
    adjustable: ClassVar[tuple[str, ...]] = ()
    """Options that change predictions but nothing that is learned. They can be changed on a trained model."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of options -> their names now. Saved models with former names load; setting one is an error that
    names the new one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_former(cls, Adapter.__mro__)

    def __post_init__(self) -> None:
        for name, option in task_options(type(self)).items():
            option.check(getattr(self, name))

    @property
    def training(self) -> Training:
        """How the task trains: recipe, cached features, augmentation."""
        return Training()


def option_fields(adapter: type[Adapter]) -> dict[str, dataclasses.Field[Any]]:
    """Return the options of a task: its fields except `labels`."""
    return {f.name: f for f in dataclasses.fields(adapter) if f.name != "labels"}


def configure(adapter: type[Adapter], labels: Sequence[str], options: Mapping[str, Any]) -> Adapter:
    """Return a task with options given as Python values or as strings of a command line.

    Raises:
        UnknownNameError: The task lacks an option; the error names the nearest ones.
        ConfigError: A value has the wrong type or is out of range.
    """
    known = option_fields(adapter)
    refuse_renamed(options, known, adapter.renamed)
    for key in options:
        if key not in known:
            internal = internal_options(adapter)
            suggested = [name for name in known if name not in internal]
            raise unknown_name("option", key, suggested, owner=f"of {adapter.__name__}")
    try:
        found = msgspec.convert({"labels": tuple(labels), **options}, adapter, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):  # raised by the adapter itself
            raise error.__cause__ from None
        raise ConfigError(_refused(adapter, options, error)) from None
    for key in options:
        check_finite(key, getattr(found, key))
    for key, point in points_of(adapter).items():
        point.check(getattr(found, key))
    return found


def adjusted(adapter: Adapter, options: Mapping[str, Any]) -> Adapter:
    """Return a task with changed values of `adjustable` options. Raises `ConfigError` for other options."""
    kind = type(adapter)
    refuse_renamed([key.removeprefix("task.") for key in options], option_fields(kind), kind.renamed)
    for key in options:
        if key.removeprefix("task.") not in kind.adjustable:
            internal = internal_options(kind)
            accepted = ", ".join(name for name in kind.adjustable if name not in internal) or "none"
            raise ConfigError(f"`{key}` cannot be changed on a trained model. Options that can: {accepted}.")
    own = {name: msgspec.to_builtins(getattr(adapter, name)) for name in option_fields(kind)}
    chosen = by_owner(kind.__name__, {"task": kind.adjustable}, options)["task"]
    return configure(kind, adapter.labels, {**own, **chosen})


def _refused(adapter: type[Adapter], options: Mapping[str, Any], error: Exception) -> str:
    """Return the message for a value of the wrong type: the value, and what the option accepts."""
    known = task_options(adapter)
    # msgspec names the place: "Expected `int`, got `str` - at `$.width`", or `$.tversky[0]` in a list.
    place = re.search(r"`\$\.(\w+)", str(error))
    if place is None or place[1] not in options:
        visible = ", ".join(name for name, one in known.items() if name != "labels" and not one.hidden)
        return f"{adapter.__name__}: {error}. Options: {visible}."
    option = known[place[1]]
    said = f" {option.description}" if option.description else ""
    return f"{option.name} is {options[option.name]!r}; accepted: {option.accepted}.{said}"
