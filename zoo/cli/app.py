"""The typer app. Each command lies in a file of its own, which imports nothing heavy at its top level."""

from __future__ import annotations

import importlib
import os
from typing import Annotated

import typer

import zoo
from zoo.cli.commands import Commands

COMMANDS = ("listing", "training", "demo", "plugins", "doctor")
"""Modules of this package, in the order of the help. Each has `register(app)`."""

# rich's help pages would cost as much as all the rest of `zoo --help`.
app = typer.Typer(
    cls=Commands,
    help="Any pretrained backbone, any vision task, on your data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from (also: ZOO_TRACEBACK=1).")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"zoo {zoo.__version__}")
        raise typer.Exit()
    if traceback:
        os.environ["ZOO_TRACEBACK"] = "1"


for _name in COMMANDS:
    importlib.import_module(f"zoo.cli.{_name}").register(app)
