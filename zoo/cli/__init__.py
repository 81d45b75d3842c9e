"""The command line: `zoo VERB ...`, the same verbs as in Python."""

from __future__ import annotations

import os
import sys
import traceback

from zoo.errors import ZooError


def main() -> None:
    """Run the command line. Errors that the user can fix are printed on stderr in one sentence, with exit code 2."""
    try:
        try:
            _run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (`zoo list weights | head`). Without this, Python would report a second error
        # when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ZooError as error:
        if os.environ.get("ZOO_TRACEBACK", "") not in ("", "0"):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(args: list[str]) -> None:
    """Run the typer app, except for a plain `zoo list`: importing typer takes longer than the listing itself."""
    names = [arg for arg in args[1:] if arg != "--json"]
    if args[:1] == ["list"] and len(names) <= 2 and not any(name.startswith("-") for name in names):
        from zoo.cli import entries

        kind, pattern = [*names, "", ""][:2]
        entries.list_entries(kind, pattern, as_json="--json" in args)
        return
    from zoo.cli.app import app

    app(args, prog_name="zoo")
