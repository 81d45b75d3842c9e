"""What the commands print: rich tables on a terminal, aligned text elsewhere, strict JSON where it is asked for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_LONGEST = 500
"""Rows; beyond it laying a table out would take seconds, and nobody reads it."""


def print_json(value: Any) -> None:
    """Strict JSON on stdout, a list with one entry a line; NaN and infinities raise."""
    if isinstance(value, list) and value:
        lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) for one in value)
        sys.stdout.write("[\n" + ",\n".join(lines) + "\n]\n")
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; the columns named in `right` are aligned to the right."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(texts) <= _LONGEST:
        _rich_table(headers, texts, right)
        return
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    ends = [">" if header in right else "<" for header in headers]
    line = "  ".join(f"{{:{end}{width}}}" for end, width in zip(ends, widths, strict=True))
    sys.stdout.write("".join(line.format(*row).rstrip() + "\n" for row in [headers, *texts]))


def _rich_table(headers: Sequence[str], rows: list[list[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def note(text: str) -> None:
    """A remark on stderr, so that stdout stays what was asked for."""
    print(text, file=sys.stderr)


@contextlib.contextmanager
def plugins_may_print() -> Iterator[None]:
    """Sends what plugins print while they are imported to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def count(number: int | None) -> str:
    """A number of parameters for people: 11.2 M."""
    if not number:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
