"""`zoo check`: check a dataset."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import output
from zoo.cli.arguments import Format, Json, Task
from zoo.errors import ConfigError
from zoo.numbers import Accepted, check_number


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(check)


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Dataset: a folder or a file.")],
    format: Format = "",
    task: Task = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a report with thumbnails: one HTML file, e.g. report.html.")
    ] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Search for near duplicates, not only for equal files.")
    ] = True,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="NAME", help="Leave out a kind of finding, e.g. imbalance; may be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 for notes, too.")] = False,
    show: Annotated[int, typer.Option("--show", help="Number of places to show of each kind of finding.")] = 3,
    as_json: Json = False,
) -> None:
    """Check DATA: damaged images, duplicates, leaks between splits, annotations, classes.

    Exits with code 0 if there is nothing but notes, 1 if there are errors or warnings, and 2 if DATA cannot be read.
    """
    check_number("show", show, Accepted(least=0, whole=True))
    if out is not None and (out.suffix.lower() not in (".html", ".htm") or out.is_dir()):
        raise ConfigError(
            f"--out {out} is no HTML file: give a name like report.html. For JSON, use --json > report.json."
        )
    from zoo.data.inspect import check as inspect
    from zoo.registry import registry

    kinds = registry().adapter(task).adapter.targets_from if task else ()
    result = inspect(data, format or None, kinds, near=near, ignore=ignore or (), progress=_progress())
    written = result.save_page(out) if out is not None else None
    if as_json:
        output.print_json(result.to_dict())
    else:
        sys.stdout.write(result.text(show))
    if written is not None:
        sys.stdout.flush()
        output.note(f"report: {written}")
    raise typer.Exit(int(bool(result.findings) if strict else not result.ok))


def _progress(every: float = 5.0) -> Callable[[int, int], None]:
    """Return a function that prints the number of checked images, every few seconds."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > every:
            last = time.monotonic()
            output.note(f"{done} of {total} images")

    return show
