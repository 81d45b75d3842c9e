"""What the commands print: rich tables on a terminal, aligned text elsewhere, strict JSON where it is asked for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

_LONGEST = 500
"""Rows; beyond it laying a table out would take seconds, and nobody reads it."""


def json_text(value: Any) -> str:
    """Strict JSON, a list with one entry a line; NaN and infinities raise."""
    if isinstance(value, list) and value:
        lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) for one in value)
        return "[\n" + ",\n".join(lines) + "\n]\n"
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def print_json(value: Any) -> None:
    """`json_text` on stdout."""
    sys.stdout.write(json_text(value))


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


def picture_files(photos: Sequence[Path], folder: Path) -> list[Path]:
    """The file in the folder for the picture made of each photo. Raises `ConfigError` where two would be the same."""
    targets = [folder / f"{photo.stem}.png" for photo in photos]
    if len(set(targets)) != len(targets):
        name, times = Counter(target.name for target in targets).most_common(1)[0]
        raise ConfigError(f"{times} photos would be written as {folder / name}: give those of one name one by one.")
    return kept_photos(photos, targets)


def kept_photos(photos: Sequence[Path], targets: list[Path]) -> list[Path]:
    """The targets. Raises `ConfigError` where one is a photo, which would be overwritten."""
    if taken := {photo.resolve() for photo in photos} & {target.resolve() for target in targets}:
        raise ConfigError(f"{sorted(taken)[0]} is one of the photos and would be overwritten: choose another --out.")
    return targets


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
