"""`zoo plugins`: list the plugins with their state, check a plugin, print its catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli import output
from zoo.errors import unknown_name

if TYPE_CHECKING:
    from zoo.registry.loader import Candidate

plugins = typer.Typer(
    help="List the installed plugins with their state; check a plugin.",
    rich_markup_mode=None,
    invoke_without_command=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(plugins, name="plugins")


@plugins.callback()
def list_(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with tracebacks.")] = False,
) -> None:
    """List the installed plugins with their state. Imports every plugin that is not disabled."""
    if context.invoked_subcommand:
        return
    from zoo.registry import registry

    with output.plugins_may_print():
        records = registry().records()
    if as_json:
        output.print_json([asdict(record) for record in records])
        return
    headers = ("name", "state", "distribution", "version", "module", "reason")
    output.print_table(headers, [tuple(getattr(record, header) for header in headers) for record in records])


@plugins.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin: its name, module or distribution/name.")],
    timeout: Annotated[float, typer.Option(help="Time limit in seconds.")] = 300.0,
) -> None:
    """Check that a plugin builds what it declares.

    The plugin is imported in a separate process. The next command examines it again.
    """
    from zoo.registry import examine

    examine.forget(_candidate(name))
    command = [sys.executable, "-m", "zoo.models.conformance", name]
    try:
        code = subprocess.run(command, timeout=timeout, check=False).returncode
    except subprocess.TimeoutExpired:
        output.line(f"{name}: not finished after {timeout:g} s; it hangs, or it needs a longer --timeout.")
        code = 1
    if code < 0:
        output.line(f"{name}: the check was ended by signal {-code}.")
    raise typer.Exit(int(code != 0))


@plugins.command()
def catalogue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin: its name, module or distribution/name.")],
) -> None:
    """Print the registry.toml for a plugin's package.

    A package that ships it can be listed without being imported.
    """
    from zoo.models.backbone import count_params
    from zoo.registry import derive, loader

    candidate = _candidate(name)
    with output.plugins_may_print():
        plugin, command = (candidate.module, loader.load(candidate)), f"zoo plugins catalogue {name}"
        text = derive.catalogue([plugin], command, count_params)
    sys.stdout.write(text)


def _candidate(name: str) -> Candidate:
    from zoo.registry import loader

    candidates = loader.discover()
    matches = [candidate for candidate in candidates if candidate.answers_to(name)]
    if not matches:
        raise unknown_name("plugin", name, [candidate.name for candidate in candidates])
    return matches[0]
