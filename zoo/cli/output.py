"""Output of the commands: rich tables on a terminal, aligned text elsewhere, strict JSON with --json."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError
from zoo.text import json_text as strict_json
from zoo.text import printable

_LONGEST = 500
"""Largest number of rows for a rich table; the layout of more takes seconds."""


def json_text(value: Any) -> str:
    """Return strict JSON; a list has one entry a line. NaN and infinities raise `ValueError`."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(map(strict_json, value)) + "\n]\n"
    return strict_json(value, indent=2) + "\n"


def print_json(value: Any) -> None:
    """Print `json_text` on stdout."""
    sys.stdout.write(json_text(value))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print a table on stdout; the columns named in `right` are aligned to the right."""
    texts = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(texts) <= _LONGEST:
        _rich_table(headers, texts, right)
        return
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    ends = [">" if header in right else "<" for header in headers]
    form = "  ".join(f"{{:{end}{width}}}" for end, width in zip(ends, widths, strict=True))
    sys.stdout.write("".join(form.format(*row).rstrip() + "\n" for row in [headers, *texts]))


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


def print_metrics(metrics: dict[str, Any], title: str) -> None:
    """Print the single metrics, then those of each class if there are at most 20."""
    line(title)
    single = {k: v for k, v in metrics.items() if isinstance(v, float) and k != "seconds"}
    print_table(("metric", "value"), [(name, f"{value:.4f}") for name, value in single.items()], right=("value",))
    classes = metrics.get("per_class", {})
    if 0 < len(classes) <= 20:
        print()
        columns = list(next(iter(classes.values())))
        rows = [
            (name, *(f"{row[c]:.3f}" if isinstance(row[c], float) else row[c] for c in columns))
            for name, row in classes.items()
        ]
        print_table(("class", *columns), rows, right=tuple(columns))
    if "test" in metrics:
        print()
        print_metrics(metrics["test"], "test split")


def picture_files(images: Sequence[Path], folder: Path, given: Sequence[str]) -> list[Path]:
    """Return the file in the folder for the picture of each image; images in sub-folders keep their relative paths.

    Args:
        images: the input images.
        folder: folder to write.
        given: what the user named: images, folders and patterns.

    Raises:
        ConfigError: a picture would overwrite an input image.
    """
    from zoo.data.image_names import names_of

    names = names_of(images, given)
    pictures = [str(Path(name).with_suffix(".png")) for name in names]
    if len(set(pictures)) < len(set(names)):  # a.jpg and a.png
        pictures = [f"{name}.png" for name in names]
    return kept_images(images, [folder / picture for picture in pictures])


def kept_images(images: Sequence[Path], targets: list[Path]) -> list[Path]:
    """Return the targets. Raises `ConfigError` if one is an input image, which would be overwritten."""
    if taken := {image.resolve() for image in images} & {target.resolve() for target in targets}:
        raise ConfigError(
            f"{sorted(taken)[0]} is one of the input images and would be overwritten: choose another --out."
        )
    return targets


def line(text: object = "") -> None:
    """Print a line on stdout; control characters in it are escaped, and so are line breaks."""
    print(printable(text))


def note(text: str) -> None:
    """Print a remark on stderr, so that stdout has only the result."""
    print(printable(text), file=sys.stderr)


@contextlib.contextmanager
def plugins_may_print() -> Iterator[None]:
    """Redirect to stderr what plugins print while they are imported."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def count(number: int | None) -> str:
    """Return a number of parameters as short text, e.g. `11.2 M`."""
    if not number:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
