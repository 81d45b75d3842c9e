"""CSV files: one line an image, with its label or labels and optionally its split."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.dataset import Dataset, Kind, Sample
from zoo.data.files import SPLITS, describe, files, split_names
from zoo.data.unique import listed
from zoo.errors import DataError
from zoo.labels.spelling import nfc, ordered

NAME = "csv"
KINDS = ("class", "classes")
LAYOUT = (
    "a .csv file (or a folder with one, or with train.csv, val.csv, ...) with a header line and the columns "
    "'image' and 'label' (several labels separated by |), or 'labels' separated by | or ;, and optionally 'split'"
)
IMAGE_COLUMNS = ("image", "file", "filename", "path")
LABEL_COLUMNS = ("label", "labels")


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    image: Path
    id: str
    labels: tuple[str, ...]
    split: str
    joined: bool


def detect(path: Path) -> bool:
    """A .csv file, or a folder with such files, whose header has an image column and a label column."""
    try:
        tables = _tables(path)
        return bool(tables) and all(_columns(table, _header(table)) for table in tables.values())
    except DataError:
        return False


def read(path: Path) -> dict[str, Dataset]:
    """The splits that the files' names or the column `split` tell, or `all`. Paths are relative to the CSV file.

    A column `labels` holds any number of class names, separated by `|` or `;`; a column `label` holds one, or several
    separated by `|`. A file that is listed several times is one sample.

    Raises:
        DataError: names the file and line of a missing image, an empty label, an unknown split, a quotation mark that
            does not close, cells without a column, or a line that contradicts another.
    """
    tables = _tables(path)
    if not tables:
        raise DataError(f"{path} is not {LAYOUT}" + (f"; it holds {describe(path)}." if path.is_dir() else "."))
    rows = [row for split, table in tables.items() for row in _rows(table, split)]
    if not rows:
        raise DataError(f"{path} has a header but no line with an image.")
    several = {_columns(table, _header(table))[1] == "labels" for table in tables.values()}
    if len(several) > 1:
        raise DataError(f"{path}: some of the CSV files have a column 'label' and some 'labels'. Use the same in all.")
    return _datasets(path, rows, several.pop())


def _tables(path: Path) -> dict[str, Path]:
    """Split name (empty when the file does not tell) -> CSV file."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".csv" else {}
    found = [file for file in files(path) if file.suffix.lower() == ".csv"]
    splits = split_names(file.stem for file in found)
    named = {splits[file.stem]: file for file in found if file.stem in splits}
    if named and len(named) == len(found):
        return named
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{path} holds several CSV files ({names}). Give the one that is meant, or name them by split.")
    return {"": found[0]} if found else {}


def _header(table: Path) -> list[str]:
    """Column names, in lower case."""
    return [name.strip().lower() for name in next(_lines(table), (1, []))[1]]


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row of a CSV file, the header's first; empty rows are left out.

    Strict, because an open quotation mark would make one cell of all lines up to the next mark.
    """
    start = 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True, skipinitialspace=True)
            for cells in reader:
                if any(cells):
                    yield start, cells
                start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{table}, line {start}: {error}. A quotation mark opens a cell here that is not closed as it must be: a "
            'cell in quotation marks ends with one before the next comma, and a mark in it is written twice ("").'
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{table} cannot be read as a CSV file in UTF-8: {error}.") from error


def _columns(table: Path, header: list[str]) -> tuple[str, str]:
    """The image column and the label column. Raises `DataError`, saying the columns there are."""
    image = next((name for name in IMAGE_COLUMNS if name in header), None)
    label = next((name for name in LABEL_COLUMNS if name in header), None)
    if image is None or label is None:
        raise DataError(
            f"{table} has the columns {header}; its first line must name an image column "
            f"({', '.join(IMAGE_COLUMNS)}) and a label column ({', '.join(LABEL_COLUMNS)}), separated by commas."
        )
    if twice := [name for name in (image, label, "split") if header.count(name) > 1]:
        raise DataError(f"{table} has several columns called {twice[0]!r}: keep one of them.")
    return image, label


def _rows(table: Path, split: str) -> list[_Row]:
    header = _header(table)
    image, label = _columns(table, header)
    lines = list(_lines(table))[1:]
    column = header.index("split") if "split" in header else len(header)
    splits = split_names({cells[column].strip() for _, cells in lines if len(cells) > column})
    found = []
    for number, cells in lines:
        place = f"{table}, line {number}"
        if any(cells[len(header) :]):
            raise DataError(
                f"{place} has {len(cells)} cells and the first line {len(header)}: {cells}. A comma in a cell needs "
                "quotation marks around the cell."
            )
        named = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
        _check_marks(table, place, named, header.index(image), (image, label, "split"))
        found.append(_row(table, place, named, image, label, split, splits))
    return found


def _check_marks(table: Path, place: str, cells: dict[str, str], image: int, bare: Sequence[str]) -> None:
    """Raise `DataError` for a cell over several lines that cannot be meant: a name, or text that holds whole lines."""
    for name, cell in cells.items():
        first, *lines = cell.splitlines() or [""]
        held = [line.split(",") for line in lines]
        if lines and (name in bare or any(len(row) > image and _is_file(table, row[image]) for row in held)):
            raise DataError(
                f"{place}: the cell of the column {name!r} goes over {len(held) + 1} lines, {cell[:80]!r}: its "
                "quotation mark is not closed where it should be."
            )


def _is_file(table: Path, name: str) -> bool:
    return bool(name.strip()) and (table.parent / name.strip()).is_file()


def _row(
    table: Path, place: str, cells: dict[str, str], image: str, label: str, split: str, splits: dict[str, str]
) -> _Row:
    name = cells[image].strip()
    file = table.parent / name
    if not name or not file.is_file():
        raise DataError(f"{place}: the image {cells[image]!r} does not exist (looked for {file}).")
    text = cells[label].replace(";", "|") if label == "labels" else cells[label]
    labels = tuple(nfc(part.strip()) for part in text.split("|") if part.strip())
    if label == "label" and not labels:
        raise DataError(f"{place}: the label is empty. Every image needs a class name.")
    if "split" in cells and not split:
        split = splits.get(cells["split"].strip(), "")
        if not split:
            raise DataError(
                f"{place}: the split {cells['split']!r} is unknown; accepted: train, val, test and their usual names."
            )
    id = os.path.normpath(name).replace("\\", "/")
    return _Row(place, file, id, labels, split or "all", "|" in cells[label])


def _datasets(path: Path, rows: list[_Row], several: bool) -> dict[str, Dataset]:
    classes = tuple(ordered({name for row in rows for name in row.labels}))
    joined = [row for row in rows if row.joined]
    notes: tuple[str, ...] = ()
    if joined and not several:
        several = True
        notes = (
            f"{path.name}: {len(joined)} of {len(rows)} lines have several labels, separated by | (e.g. line "
            f"{joined[0].place.rpartition(' ')[2]}): images are taken to have any number of labels each.",
        )
    if len(classes) < (1 if several else 2):
        raise DataError(f"{path}: all {len(rows)} lines have the label {classes}; a classifier needs two classes.")
    index = {name: i for i, name in enumerate(classes)}
    _check_trained(path, rows)
    root = path if path.is_dir() else path.parent
    kind: Kind = "classes" if several else "class"
    name = path.stem if path.is_file() else path.name
    found = {}
    for split in (*SPLITS, "all"):
        chosen = [row for row in rows if row.split == split]
        samples = []
        for row in chosen:
            targets = tuple(sorted({index[label] for label in row.labels}))
            samples.append(Sample(row.image, targets if several else targets[0], row.id))
        if samples:
            found[split] = listed(
                samples,
                classes,
                kind,
                f"{name}/{split}" if split != "all" else name,
                root,
                places=[row.place for row in chosen],
                advice="" if several else ", or call the column 'labels' where images have several",
                notes=notes,
            )
    return found


def _check_trained(path: Path, rows: list[_Row]) -> None:
    """Raise when a class occurs outside the training split only: no model could learn it."""
    trained = {name for row in rows if row.split == "train" for name in row.labels}
    for row in rows:
        unseen = sorted(set(row.labels) - trained)
        if trained and unseen:
            raise DataError(f"{row.place}: the class {unseen[0]!r} occurs in {row.split} but never in train.")
