"""Turn the fields of a configuration into options of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from zoo.training.options import Declared


def with_flags(options: Sequence[Declared]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options that have a flag to the signature of a command, which typer reads.

    The command receives them as `**flags`.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            one.replace(annotation=hints[one.name])
            for one in inspect.signature(command).parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        flags = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=_annotation(one)
            )
            for one in options
            if one.option.flag != ""
        ]
        command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
        return command

    return decorated


def values(options: Sequence[Declared], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration from the values of the command line."""
    return {one.name: one.parsed(flags[one.name]) for one in options if one.name in flags}


def _annotation(one: Declared) -> Any:
    """Return the type that typer converts to, with the flag and help of the declaration."""
    flag = one.option.flag or f"--{one.name.replace('_', '-')}"
    if one.default is True:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    taken = one.option.taken or one.annotation
    kinds = [kind for kind in get_args(one.annotation) or (one.annotation,) if kind is not NoneType]
    if not one.option.taken and (len(kinds) != 1 or kinds[0] not in (bool, int, float, str)):
        taken = str | None if one.optional else str  # objects of Python have no text; the command line takes names
    # The names are filled in when help is shown (`zoo.cli.commands`): the registry is not read before.
    names = f" Names: {{{one.option.point.name}}}." if one.option.point is not None else ""
    return Annotated[taken, typer.Option(flag, help=one.help + names, metavar=one.option.metavar)]
