"""Options declared once, as fields of a frozen dataclass: checks, signature, documentation and flags are derived.

Nothing here imports jax, because `zoo train --help` reads the declarations.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import wraps
from types import NoneType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, get_args, overload

from zoo.errors import ConfigError, unknown_name
from zoo.models.options import refuse_renamed
from zoo.numbers import Accepted, check_number
from zoo.registry.parts import Point

if TYPE_CHECKING:
    from zoo.models.model import Model
    from zoo.training.data import Data
    from zoo.training.run import Run

P = ParamSpec("P")
C = TypeVar("C", contravariant=True)
Check = Callable[[str, Any], None]
"""A function of an option's name and value that raises `ConfigError` or `UnknownNameError`."""
RENAMED = {"figures": "plots"}
"""Former names of options -> their names now."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """The declaration of an option, apart from its type and default.

    Attributes:
        help: what it does, without the final full stop.
        more: values that only Python accepts, without the final full stop.
        accepted: the range of numbers that it accepts, or a check.
        point: the extension point of the parts that it names; help lists them.
        flag: its flag on the command line: `--NAME` with hyphens if None; empty for no flag.
        parse: converts the value from the command line.
        taken: the type of the value on the command line, if it differs from the field's.
        metavar: placeholder of the value in help.
        fixed: whether a resumed run must have the same value.
    """

    help: str
    more: str = ""
    accepted: Accepted | Check | None = None
    point: Point[Any] | None = None
    flag: str | None = None
    parse: Callable[[Any], Any] | None = None
    taken: Any = None
    metavar: str | None = None
    fixed: bool = True


def option(default: Any, help: str, **declaration: Any) -> Any:
    """Return a field with a default and its `Option`."""
    return field(default=default, metadata={"option": Option(help=help, **declaration)})


@dataclass(frozen=True)
class Declared:
    """An option with the name, annotation and default of its field.

    Attributes:
        name: name of the field.
        annotation: its type.
        default: its default.
        help: the declaration's help, with the default that holds if the task does not decide.
        option: the declaration.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    option: Option

    @property
    def optional(self) -> bool:
        """Whether None is accepted."""
        if isinstance(self.annotation, str):
            return "None" in self.annotation
        return NoneType in get_args(self.annotation)

    def check(self, value: Any) -> None:
        """Raise `ConfigError` or `UnknownNameError` for a value that is not accepted."""
        accepted = self.option.accepted
        if self.annotation is bool and value not in (True, False):
            raise ConfigError(f"{self.name} is {value!r}; accepted: True or False.")
        if accepted is None or (value is None and self.optional):
            return
        if isinstance(accepted, Accepted):
            check_number(self.name, value, accepted)
        elif not (isinstance(value, str) and value == self.default):
            # The default is not checked: a check may import jax to know the accepted names.
            accepted(self.name, value)

    def parsed(self, value: Any) -> Any:
        """Return the value for text from the command line. Empty text means None where None is accepted."""
        if self.option.parse:
            return self.option.parse(value)
        return None if value == "" and self.optional else value


def declared(config: type, filled: type | None = None) -> Iterator[Declared]:
    """Yield the options of a dataclass: its fields that have a declaration.

    Args:
        config: the dataclass.
        filled: a subclass that gives a default to each field that a task may decide.
    """
    later = {one.name: one.default for one in fields(filled)} if filled else {}
    for one in fields(config):
        if "option" not in one.metadata:
            continue
        help = one.metadata["option"].help
        if later.get(one.name, one.default) != one.default:
            help = f"{help}. Default: the task's own, else {later[one.name]}"
        yield Declared(one.name, _resolved(one.type, config), one.default, f"{help}.", one.metadata["option"])


def _resolved(annotation: Any, config: type) -> Any:
    """Return the type of an annotation; the text itself if a class in it is imported for type checkers only."""
    try:
        return eval(annotation, vars(sys.modules[config.__module__])) if isinstance(annotation, str) else annotation
    except NameError:
        return annotation


def check_values(config: Any) -> None:
    """Raise `ConfigError` or `UnknownNameError` for a value of a configuration that is not accepted."""
    options: dict[str, Declared] = {}
    for base in reversed(type(config).__mro__):
        # A subclass that changes only a field's type or default inherits its declaration.
        if is_dataclass(base):
            options |= {one.name: one for one in declared(base)}
    for one in options.values():
        one.check(getattr(config, one.name))


def one_of(*names: str) -> Check:
    """Return a check that accepts these names."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in names:
            raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(names)}.")

    return check


def row_of(point: Point[Any], kind: str) -> Check:
    """Return a check that accepts names of an extension point's parts, and callables.

    Args:
        point: the extension point.
        kind: description of the callable, for the error.
    """

    def check(name: str, value: Any) -> None:
        if isinstance(value, str) and value not in point:
            raise unknown_name(name, value, point, f"Also accepted: {kind}.")
        if not isinstance(value, str) and not callable(value):
            raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(point)}, or {kind}.")

    return check


# The function that takes the options -------------------------------------------------------------------------------


class Train(Protocol[P, C]):
    """A function of a model, data and options: a configuration, keywords, or both."""

    __name__: str

    @overload
    def __call__(self, model: Model, data: Data, *args: P.args, **options: P.kwargs) -> Run: ...

    @overload
    def __call__(self, model: Model, data: Data, config: C, *args: P.args, **options: P.kwargs) -> Run: ...

    def __call__(self, model: Model, data: Data, *args: Any, **options: Any) -> Run:
        """Train."""


def configured(
    config: Callable[P, C], options: tuple[Declared, ...]
) -> Callable[[Callable[[Model, Data, C], Run]], Train[P, C]]:
    """Let a function of a configuration accept its options as keywords too, and document them.

    The signature lists the keywords, and `{options}` in the docstring becomes their descriptions.

    Args:
        config: the dataclass; type checkers read the keywords from its constructor.
        options: the options that it declares.
    """
    names = [one.name for one in options]

    def decorated(function: Callable[[Model, Data, C], Run]) -> Train[P, C]:
        @wraps(function)
        def called(model: Model, data: Data, config: C | None = None, **given: Any) -> Run:
            refuse_renamed(given, names, RENAMED)
            for name in given:
                if name not in names:
                    raise unknown_name("option", name, names, owner=f"of {called.__name__}")
            base: Any = make() if config is None else config
            if not isinstance(base, make):
                raise ConfigError(f"config is {config!r}; accepted: a {make.__name__}.")
            return function(model, data, replace(base, **given))

        make: Any = config
        called.__doc__ = inspect.cleandoc(function.__doc__ or "").replace("{options}", documented(options).lstrip())
        called.__signature__ = _signature(function, options)  # type: ignore[attr-defined]
        return called  # type: ignore[return-value]

    return decorated


def documented(options: tuple[Declared, ...]) -> str:
    """Return the options as lines of an `Args:` section."""
    lines = []
    for one in options:
        accepted = one.option.accepted
        more = f" {one.option.more}." if one.option.more else ""
        if one.option.point is not None:
            more = f" `zoo list {one.option.point.plural}` shows the names.{more}"
        range_ = f" Accepted: {accepted}." if isinstance(accepted, Accepted) else ""
        lines += textwrap.wrap(
            f"{one.name}: {one.help}{more}{range_}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8
        )
    return "\n".join(lines)


def _signature(function: Callable[Concatenate[Any, ...], Any], options: tuple[Declared, ...]) -> inspect.Signature:
    own = inspect.signature(function)
    model, data, config = own.parameters.values()
    keywords = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.annotation)
        for one in options
    ]
    optional = config.replace(default=None, annotation=f"{config.annotation} | None")
    return own.replace(parameters=[model, data, optional, *keywords])
