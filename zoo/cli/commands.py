"""Commands that plugins add. `zoo --help` lists them without importing the plugins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.registry import registry
from zoo.registry.parts import Point

COMMANDS: Point[Callable[..., Any]] = Point("zoo.command", "command")
"""Commands: functions with parameters that typer understands. `zoo --help` shows the summary of the part."""


class Commands(TyperGroup):
    """The group of all commands: those of `zoo.cli`, then those of plugins."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        built_in = super().list_commands(ctx)
        return [*built_in, *(name for name in COMMANDS if name not in built_in)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        built_in = super().get_command(ctx, cmd_name)
        if built_in is not None:
            _name_parts(built_in)
            return built_in
        if cmd_name not in COMMANDS:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=COMMANDS.summaries()[cmd_name])
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(cmd_name)(COMMANDS[cmd_name])
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_commands(ctx, formatter)
        self._listing = False


def _name_parts(command: Any) -> None:
    """Replace `{point}` in the help of options by the names of the parts of this extension point."""
    for option in command.params:
        for point in re.findall(r"\{(\w+\.\w+)\}", getattr(option, "help", None) or ""):
            option.help = option.help.replace(f"{{{point}}}", ", ".join(registry().part_names(point)))
