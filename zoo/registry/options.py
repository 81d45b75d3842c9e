"""Options of a task, declared once at the field: type, default, accepted values, and a description for people.

    width: Annotated[int, Meta("Channels of the feature pyramid.", ge=1)] = 128
    head: Annotated[str, HEADS, Meta("Detection head.")] = "fcos"

`zoo show TASK`, the catalogue, the checks and their errors read the declaration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from zoo.numbers import Accepted, check_number
from zoo.registry.annotations import NamesParts, annotation


@dataclass(frozen=True)
class Meta:
    """What an option's annotation says beside its type.

    Attributes:
        description: What the option does, one or two sentences.
        ge: The smallest accepted number.
        gt: Numbers must be above it.
        lt: Numbers must be below it.
        values: The accepted values in words, where type and range do not say them. The task checks them itself.
        hidden: Whether the option is internal: set by the data, and not shown to people.
    """

    description: str
    ge: float | None = None
    gt: float | None = None
    lt: float | None = None
    values: str = ""
    hidden: bool = False


@dataclass(frozen=True)
class TaskOption:
    """An option as people see it.

    Attributes:
        accepted: The accepted values in words. The names of parts follow where there is a `point`.
        point: The extension point whose parts the option names; empty if there is none.
        numbers: The range of a number, or of each number in a list.
        hidden: Whether it is internal.
    """

    name: str
    default: Any
    description: str
    accepted: str
    point: str = ""
    numbers: Accepted | None = None
    hidden: bool = False

    def check(self, value: Any) -> None:
        """Raise `ConfigError` for a number outside the accepted range."""
        if self.numbers is None:
            return
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None and not isinstance(number, str):
                check_number(self.name, number, self.numbers)


def task_options(adapter: type) -> Mapping[str, TaskOption]:
    """Return the options of a task adapter by name, in the order of its fields."""
    return _by_name(adapter)


def internal_options(adapter: type) -> frozenset[str]:
    """Return the names of a task's options that the data set, and that people do not see."""
    return frozenset(name for name, option in _by_name(adapter).items() if option.hidden)


@cache
def _by_name(adapter: type) -> Mapping[str, TaskOption]:
    return {option.name: option for option in _options(adapter)}


def _options(adapter: type) -> Iterator[TaskOption]:
    for option in fields(adapter):
        if not option.init or option.name.startswith("_"):
            continue
        kind, metadata = annotation(adapter, option)
        meta = next((one for one in metadata if isinstance(one, Meta)), Meta(""))
        point = next((one for one in metadata if isinstance(one, NamesParts)), None)
        bounded = any(bound is not None for bound in (meta.ge, meta.gt, meta.lt))
        numbers = Accepted(meta.ge, meta.gt, meta.lt, whole=_is_whole(kind)) if bounded else None
        yield TaskOption(
            option.name,
            _default(option),
            meta.description,
            meta.values or (point.choice if point else _words(kind, numbers)),
            point.name if point else "",
            numbers,
            meta.hidden,
        )


def _default(option: Field[Any]) -> Any:
    if callable(option.default_factory):
        return option.default_factory()
    return None if option.default is MISSING else option.default


def _is_whole(kind: Any) -> bool:
    """Whether the numbers of a type are integers."""
    return kind is int or (kind is not float and bool(inner := _inner(kind)) and all(map(_is_whole, inner)))


def _inner(kind: Any) -> list[Any]:
    """The types of the numbers in a union or a tuple."""
    if get_origin(kind) is Literal:
        return []
    return [one for one in get_args(kind) if one not in (NoneType, Ellipsis) and get_origin(one) is not Literal]


def _words(kind: Any, numbers: Accepted | None) -> str:
    """The values of a type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(shown, inner))
    if origin in (Union, UnionType):
        return " | ".join(_words(one, numbers) for one in inner)
    if origin is tuple:
        return (
            f"a list, each {_words(inner[0], numbers)}"
            if Ellipsis in inner
            else f"{len(inner)} values, each " + (_words(inner[0], numbers))
        )
    if kind in (int, float):
        return str(numbers or Accepted(whole=kind is int))
    if isinstance(kind, str):  # a postponed annotation without `Annotated`
        return kind
    known = {bool: "true | false", str: "text", NoneType: "null"}
    return known[kind] if kind in known else str(getattr(kind, "__name__", kind))


def shown(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) and value else json.dumps(value)
