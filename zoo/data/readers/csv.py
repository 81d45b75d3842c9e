"""CSV files: one line an image, with its label or labels and optionally its split."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from zoo.data.dataset import Dataset, Kind, Sample
from zoo.data.files import SPLIT_NAMES, describe, files
from zoo.errors import DataError

NAME = "csv"
KINDS = ("class", "classes")
LAYOUT = (
    "a .csv file (or a folder with one, or with train.csv, val.csv, ...) with a header line and the columns "
    "'image' and 'label', or 'labels' separated by | or ;, and optionally 'split'"
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


def detect(path: Path) -> bool:
    """A .csv file, or a folder with such files, whose header has an image column and a label column."""
    try:
        tables = _tables(path)
        return bool(tables) and all(_columns(table, _header(table)) for table in tables.values())
    except DataError:
        return False


def read(path: Path) -> dict[str, Dataset]:
    """The splits that the files' names or the column `split` tell, or `all`. Paths are relative to the CSV file.

    A column `label` holds one class name, a column `labels` any number of them. Raises `DataError`, naming the file
    and line, for a missing image, an empty label or an unknown split.
    """
    tables = _tables(path)
    if not tables:
        raise DataError(f"{path} is not {LAYOUT}" + (f"; it holds {describe(path)}." if path.is_dir() else "."))
    rows = [row for split, table in tables.items() for row in _rows(table, split)]
    if not rows:
        raise DataError(f"{path} has a header but no line with an image.")
    multiple = {_columns(table, _header(table))[1] == "labels" for table in tables.values()}
    if len(multiple) > 1:
        raise DataError(f"{path}: some of the CSV files have a column 'label' and some 'labels'. Use the same in all.")
    return _datasets(path, rows, multiple.pop())


def _tables(path: Path) -> dict[str, Path]:
    """Split name (empty when the file does not tell) -> CSV file."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".csv" else {}
    found = [file for file in files(path) if file.suffix.lower() == ".csv"]
    named = {SPLIT_NAMES[file.stem.lower()]: file for file in found if file.stem.lower() in SPLIT_NAMES}
    if named and len(named) == len(found):
        return named
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{path} holds several CSV files ({names}). Give the one that is meant, or name them by split.")
    return {"": found[0]} if found else {}


def _header(table: Path) -> list[str]:
    """Column names, in lower case."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            return [name.strip().lower() for name in next(csv.reader(stream), [])]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
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
    return image, label


def _rows(table: Path, split: str) -> list[_Row]:
    header = _header(table)
    image, label = _columns(table, header)
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, fieldnames=header, restval="")
        next(reader, None)
        return [_row(table, reader.line_num, cells, image, label, split) for cells in reader if any(cells.values())]


def _row(table: Path, line: int, cells: dict[str, str], image: str, label: str, split: str) -> _Row:
    place = f"{table}, line {line}"
    file = table.parent / cells[image].strip()
    if not cells[image].strip() or not file.is_file():
        raise DataError(f"{place}: the image {cells[image]!r} does not exist (looked for {file}).")
    text = cells[label].replace("|", ";") if label == "labels" else cells[label]
    parts = text.split(";") if label == "labels" else [text]
    labels = tuple(part.strip() for part in parts if part.strip())
    if label == "label" and not labels:
        raise DataError(f"{place}: the label is empty. Every image needs a class name.")
    if "split" in cells and not split:
        split = SPLIT_NAMES.get(cells["split"].strip().lower(), "")
        if not split:
            raise DataError(f"{place}: the split {cells['split']!r} is unknown; accepted: {', '.join(SPLIT_NAMES)}.")
    return _Row(place, file, cells[image].strip().replace("\\", "/"), labels, split or "all")


def _datasets(path: Path, rows: list[_Row], multiple: bool) -> dict[str, Dataset]:
    names = {name for row in rows for name in row.labels}
    # Numbers are ordered as numbers: otherwise label 10 would become class 2.
    classes = tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))
    if len(classes) < (1 if multiple else 2):
        raise DataError(f"{path}: all {len(rows)} lines have the label {classes}; a classifier needs two classes.")
    index = {name: i for i, name in enumerate(classes)}
    _check_trained(path, rows)
    root = path if path.is_dir() else path.parent
    found: dict[str, list[Sample]] = {split: [] for split in ("train", "val", "test", "all")}
    for row in rows:
        targets = tuple(sorted({index[name] for name in row.labels}))
        found[row.split].append(Sample(row.image, targets if multiple else targets[0], row.id))
    kind: Kind = "classes" if multiple else "class"
    name = path.stem if path.is_file() else path.name
    return {
        split: Dataset(tuple(samples), classes, kind, f"{name}/{split}" if split != "all" else name, root)
        for split, samples in found.items()
        if samples
    }


def _check_trained(path: Path, rows: list[_Row]) -> None:
    """Raise when a class occurs outside the training split only: no model could learn it."""
    trained = {name for row in rows if row.split == "train" for name in row.labels}
    for row in rows:
        unseen = sorted(set(row.labels) - trained)
        if trained and unseen:
            raise DataError(f"{row.place}: the class {unseen[0]!r} occurs in {row.split} but never in train.")
