"""The typer app. Each module of commands imports nothing heavy at its top level."""

from __future__ import annotations

import importlib
import os
from typing import Annotated

import typer

import zoo
from zoo.cli.commands import Commands

COMMANDS = ("listing", "check", "training", "inference", "convert", "demo", "plugins", "doctor")
"""Modules of this package, in the order of the help text. Each has `register(app)`."""

# Without rich, whose help pages take as long as the rest of `zoo --help`.
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
        bool, typer.Option("--traceback", help="Show the traceback of an error (also: ZOO_TRACEBACK=1).")
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
