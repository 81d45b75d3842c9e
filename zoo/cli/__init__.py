"""The command line: `zoo VERB ...`, the same verbs as in Python."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
import warnings
from typing import NoReturn

from zoo.errors import ZooError
from zoo.text import printable


def main() -> None:
    """Run the command line. Errors that the user can fix are printed on stderr in one sentence, with exit code 2."""
    _speak_utf8()
    warnings.formatwarning = _warning
    try:
        try:
            _run([_expanded(arg) for arg in sys.argv[1:]])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (`zoo list weights | head`). Without this, Python would report a second error
        # when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ZooError as error:
        _fail(str(error))  # which is safe to print
    except OSError as error:
        # System errors that nothing else has explained: a full disk, a path that is too long, a drive
        # that is gone.
        words = f"{error.filename}: {error.strerror}." if error.filename and error.strerror else f"{error}."
        _fail(printable(words))


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a warning as the command line shows it. Warnings for users come without their place in the code."""
    if issubclass(category, UserWarning):
        return f"warning: {printable(message)}\n"
    return _format(message, category, filename, lineno, line)


_format = warnings.formatwarning


def _expanded(arg: str) -> str:
    """Return an argument with ~ replaced where it begins a path that shells leave alone, as in `--out=~/run`."""
    match = re.fullmatch(r"([\w.-]+=|@)?(~.*)", arg, re.DOTALL)
    return (match[1] or "") + os.path.expanduser(match[2]) if match else arg


def _fail(message: str) -> NoReturn:
    if os.environ.get("ZOO_TRACEBACK", "") not in ("", "0"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _speak_utf8() -> None:
    """Make every file name and every character usable in the C (POSIX) locale, which knows only ASCII."""
    if sys.getfilesystemencoding() == "ascii" and "utf8" not in sys._xoptions:
        # Python chooses the encoding of file names when it starts, so it has to start again.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
