"""Read CSV files: find them, name their columns, and parse their rows strictly."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from zoo.data.files import files, split_names
from zoo.errors import DataError

SUFFIXES = (".csv", ".tsv")
LARGEST_CELL = 2**31 - 1
"""Characters in a cell; Python's own limit would refuse a column of outlines that zoo does not even read."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Character between cells -> its name. The first one that the header has is taken."""


def find_tables(path: Path) -> dict[str, Path]:
    """Return split name (empty if the file name gives none) -> CSV file."""
    if path.is_file():
        return {"": path} if path.suffix.lower() in SUFFIXES else {}
    tables = [file for file in files(path) if file.suffix.lower() in SUFFIXES]
    splits = split_names(file.stem for file in tables)
    named = {splits[file.stem]: file for file in tables if file.stem in splits}
    if named and len(named) == len(tables):
        return named
    if len(tables) > 1:
        names = ", ".join(file.name for file in tables)
        raise DataError(f"{path} holds several CSV files ({names}). Give the path of one, or name them after splits.")
    return {"": tables[0]} if tables else {}


def separator_of(table: Path) -> str:
    """Return the character between the cells of a CSV file: a comma, or that of the header if it has no comma."""
    try:
        with table.open(encoding="utf-8-sig") as stream:
            header = next((line for line in stream if line.strip()), "")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{table} cannot be read as a CSV file in UTF-8: {error}.") from error
    return next((character for character in SEPARATORS if character in header), ",")


def header_of(table: Path) -> list[str]:
    """Return the column names, in lower case."""
    return [name.strip().lower() for name in next(rows_of(table), (1, []))[1]]


def rows_of(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, cells) of each row of a CSV file, header first. Empty rows are skipped.

    Parsing is strict: otherwise an unclosed quotation mark would turn all lines up to the next mark into one cell.
    """
    start, separator = 1, separator_of(table)
    try:
        csv.field_size_limit(LARGEST_CELL)
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True, skipinitialspace=True, delimiter=separator)
            for cells in reader:
                if any(cells):
                    yield start, cells
                start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{table}, line {start}: {error}. A quotation mark opens a cell here and is not closed correctly. A quoted "
            'cell must end with a quotation mark before the next comma; a mark inside it is written twice ("").'
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{table} cannot be read as a CSV file in UTF-8: {error}.") from error


def is_file_beside(table: Path, name: str) -> bool:
    """Whether a cell is the path of a file, relative to the CSV file."""
    # Unlike `Path.is_file`, this takes a name that is too long.
    return bool(name.strip()) and os.path.isfile(table.parent / name.strip())
