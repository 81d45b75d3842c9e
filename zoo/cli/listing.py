"""`zoo list` and `zoo show` as typer commands."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli import entries


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("list")(list_)
    app.command()(show)


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="backbones, weights, tasks, models, plugins, or an extension point such as detector.head. "
            "Default: the number of each.",
        ),
    ] = "",
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A piece of the name, or a pattern with * and ?.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """List backbones, weights, tasks, models, plugins or the parts of an extension point."""
    entries.list_entries(kind, pattern, as_json)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone, weights (arch.tag), a task or a model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Show everything about a backbone, a set of weights, a task or a model."""
    entries.show_entry(name, as_json)
