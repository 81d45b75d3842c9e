"""Options of tasks that can be changed on a trained model, as options of the commands that use one.

`--score-threshold 0.2` is short for `--set score_threshold=0.2`. The names come from the catalogue, so that the options
of every installed task are known without importing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from typer.core import TyperCommand

from zoo.errors import ConfigError


class _Flag(NamedTuple):
    """An option of a task as an option of a command.

    Attributes:
        key: name of the option, as `--set` takes it.
        help: what it does, and which tasks have it.
        switch: the value that the flag alone stands for; empty if a value follows it.
    """

    key: str
    help: str
    switch: str = ""


class AdjustingCommand(TyperCommand):
    """A command with the option `--set`, whose keys are options of the command as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_as_set(args, self.task_flags())))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        flags = self.task_flags()
        rows = [
            (f"{flag} VALUE" if not one.switch else f"{flag}, {flag.replace('--', '--no-', 1)}", one.help)
            for flag, one in flags.items()
            if one.switch != "false"
        ]
        if rows:
            with formatter.section("Options of the task, the same as --set KEY=VALUE"):
                formatter.write_dl(rows)

    def task_flags(self) -> dict[str, _Flag]:
        """Return flag -> option of a task, without the flags that the command has itself."""
        own = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        return {flag: one for flag, one in _known().items() if flag not in own}


def _known() -> dict[str, _Flag]:
    """Return flag -> option, for the options of all installed tasks that can be changed on a trained model."""
    from zoo.registry import registry

    described: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for row in registry().rows("adapters"):
        for key, said in row.data.get("options", {}).items():
            if isinstance(said, Mapping) and said.get("adjustable"):
                described.setdefault(key, (said, []))[1].append(row.name)
    flags = {}
    for key, (said, tasks) in described.items():
        flag, text = f"--{key.replace('_', '-')}", f"{said.get('description', '')} ({', '.join(dict.fromkeys(tasks))})"
        if said.get("accepted") == "true | false":
            flags[flag] = _Flag(key, text, "true")
            flags[flag.replace("--", "--no-", 1)] = _Flag(key, text, "false")
        else:
            flags[flag] = _Flag(key, text)
    return flags


def _as_set(args: list[str], flags: Mapping[str, _Flag]) -> Iterator[str]:
    """Yield the arguments with flags of tasks written as `--set KEY=VALUE`."""
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            yield arg
            yield from rest
            return
        name, equals, value = arg.partition("=")
        if name not in flags:
            yield arg
            continue
        flag = flags[name]
        if flag.switch and not equals:
            value = flag.switch
        elif flag.switch == "false":
            raise ConfigError(f"{name} takes no value.")
        elif not equals and not (value := next(rest, "")):
            raise ConfigError(f"{name} needs a value, e.g. {name} VALUE. {flag.help}")
        yield from ("--set", f"{flag.key}={value}")
