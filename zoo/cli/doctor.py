"""`zoo doctor`: check the environment."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from zoo.cli import output
from zoo.errors import counted


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    timeout: Annotated[float, typer.Option(help="Time limit in seconds, for the devices and for the plugins.")] = 60.0,
) -> None:
    """Check the environment: versions, devices, folders, plugins.

    Exits with code 1 if there are problems.
    """
    from zoo import doctor as examination

    sections = []
    for section in examination.examine(timeout):
        sections.append(section)
        if as_json:
            continue
        output.line(section.title)
        width = max(map(len, section.facts), default=0)
        for key, value in section.facts.items():
            output.line(f"  {key:<{width}}  {', '.join(map(str, value)) if isinstance(value, list) else value}")
        for problem in section.problems:
            output.line(f"  PROBLEM: {problem}")
    problems = sum(len(section.problems) for section in sections)
    if as_json:
        output.print_json({"ok": not problems, "sections": [asdict(section) for section in sections]})
    else:
        print(f"\n{counted(problems, 'problem')}." if problems else "\nNo problems.")
    raise typer.Exit(int(problems > 0))
