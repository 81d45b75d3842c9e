"""CSV files: one line per image, with its label or labels and optionally its split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zoo.data.dataset import Dataset, Kind, Sample
from zoo.data.files import SPLITS, describe, is_image, split_names
from zoo.data.left_out import TEXTS
from zoo.data.refusals import refuse
from zoo.data.tables import SEPARATORS, find_tables, header_of, is_file_beside, rows_of, separator_of
from zoo.data.unique import listed
from zoo.errors import DataError
from zoo.labels.spelling import nfc, ordered
from zoo.targets.faults import Fault

NAME = "csv"
KINDS = ("class", "classes")
NEEDS = "a .csv file with the columns 'image' and 'label'"
LAYOUT = (
    "a .csv or .tsv file (or a folder with one, or with train.csv, val.csv, ...) with a header line and the columns "
    "'image' and 'label' (several labels separated by |), or 'labels' separated by | or ;, and optionally 'split'"
)
READS = (*TEXTS, ".tsv")
IMAGE_COLUMNS = ("image", "file", "filename", "path", "file_name", "image_path", "image_name", "filepath", "images")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "class_name", "category")
_SEVERAL = ("labels", "classes")
"""Label columns that hold any number of classes."""
_BOXES = frozenset({"xmin", "ymin", "x1", "y1", "x_min", "y_min", "bbox"})


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a CSV file.

    Attributes:
        place: file and line, for errors.
        image: path of the image file.
        id: of the sample.
        labels: class names.
        split: name of the split, or `all`.
        joined: whether the cell holds several labels, separated by `|`.
    """

    place: str
    image: Path
    id: str
    labels: tuple[str, ...]
    split: str
    joined: bool


def detect(path: Path) -> bool:
    """Whether `path` is a .csv file with an image column and a label column, or a folder with such files."""
    try:
        tables = find_tables(path)
        return bool(tables) and all(_names_classes(table) for table in tables.values())
    except DataError:
        return False


def _names_classes(table: Path) -> bool:
    """Whether a CSV file has the columns for images and classes, and the classes are no files, such as masks."""
    header = header_of(table)
    _, label = _columns(table, header)
    place = header.index(label)
    first = next((cells for _, cells in islice(rows_of(table), 1, None) if len(cells) > place), None)
    return (
        first is None or not is_image(os.path.basename(first[place].strip())) or not is_file_beside(table, first[place])
    )


def read(path: Path) -> dict[str, Dataset]:
    """Read CSV files: split name -> dataset, or one key `all`.

    Splits are named by the files or by the column `split`. Image paths are relative to the CSV file. A column `labels`
    holds any number of class names, separated by `|` or `;`. A column `label` holds one, or several separated by `|`.
    A file that is listed several times is one sample.

    Raises:
        DataError: an image is missing, a label empty, a split unknown, a quotation mark not closed, a cell without a
            column, or a line contradicts another; names the file and line.
    """
    tables = find_tables(path)
    if not tables:
        raise DataError(f"{path} is not {LAYOUT}" + (f"; it holds {describe(path)}." if path.is_dir() else "."))
    rows = [row for split, table in tables.items() for row in _rows(table, split)]
    if not rows:
        raise DataError(f"{path} has a header but no line with an image.")
    columns = {table: _columns(table, header_of(table)) for table in tables.values()}
    several = {label in _SEVERAL for _, label in columns.values()}
    if len(several) > 1:
        raise DataError(f"{path}: some of the CSV files have a column 'label' and some 'labels'. Use the same in all.")
    notes = tuple(note for table, names in columns.items() if (note := _unusual(table, *names)))
    return _datasets(path, rows, several.pop(), notes)


def _unusual(table: Path, image: str, label: str) -> str:
    """Return a note on columns of other names and cells that are not separated by commas, empty if there are none."""
    separator = separator_of(table)
    if separator == "," and image in IMAGE_COLUMNS[:4] and label in LABEL_COLUMNS[:2]:
        return ""
    return (
        f"{table.name} has the columns {image!r} and {label!r}, which are read as images and classes, separated by "
        f"{SEPARATORS[separator]}."
    )


def _columns(table: Path, header: list[str]) -> tuple[str, str]:
    """Return the names of the image column and the label column. Raise `DataError` if one is missing or repeated."""
    image = next((name for name in IMAGE_COLUMNS if name in header), None)
    label = next((name for name in LABEL_COLUMNS if name in header), None)
    if image is None or label is None:
        raise DataError(
            f"{table} has the columns {header}; its first line must name an image column "
            f"({', '.join(IMAGE_COLUMNS)}) and a label column ({', '.join(LABEL_COLUMNS)}), separated by commas, "
            "semicolons or tabs."
        )
    if boxes := [name for name in header if name in _BOXES]:
        raise DataError(
            f"{table} has a column {boxes[0]!r}, so it seems to list boxes, which are read from COCO, YOLO or Pascal "
            "VOC files only. Remove such columns if each image has one class."
        )
    if twice := [name for name in (image, label, "split") if header.count(name) > 1]:
        raise DataError(f"{table} has several columns called {twice[0]!r}: keep one of them.")
    return image, label


def _rows(table: Path, split: str) -> list[_Row]:
    """Return the rows of a CSV file; `split` is the split in its name, or empty."""
    header = header_of(table)
    image, label = _columns(table, header)
    lines = list(rows_of(table))[1:]
    column = header.index("split") if "split" in header else len(header)
    splits = split_names({cells[column].strip() for _, cells in lines if len(cells) > column})
    rows = []
    for number, cells in lines:
        place = f"{table}, line {number}"
        if any(cells[len(header) :]):
            raise DataError(
                f"{place} has {len(cells)} cells, but the header has {len(header)}: {cells}. A cell with a comma needs "
                "quotation marks around it."
            )
        named = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
        _check_quotes(table, place, named, header.index(image), (image, label, "split"))
        if row := _row(table, place, named, image, label, split, splits):
            rows.append(row)
    return rows


def _check_quotes(table: Path, place: str, cells: dict[str, str], image: int, one_line: Sequence[str]) -> None:
    """Raise `DataError` for a cell that spans several lines because of a misplaced quotation mark.

    Such a file may still be valid CSV, so the parser does not complain. A line break is an error in the columns
    `one_line`, and in other columns if one of the swallowed lines is a row: it has an existing file in column `image`.
    """
    for name, cell in cells.items():
        _, *lines = cell.splitlines() or [""]
        swallowed = [line.split(separator_of(table)) for line in lines]
        rows = (row[image] for row in swallowed if len(row) > image)
        if lines and (name in one_line or any(is_file_beside(table, cell) for cell in rows)):
            raise DataError(
                f"{place}: the cell in column {name!r} spans {len(swallowed) + 1} lines, {cell[:80]!r}: its quotation "
                "mark is not closed where it should be."
            )


def _row(
    table: Path, place: str, cells: dict[str, str], image: str, label: str, split: str, splits: dict[str, str]
) -> _Row | None:
    """Return one row, checked: the image exists, it has a label, and its split is known. None if it is left out."""
    name = cells[image].strip()
    file = table.parent / name
    if not is_file_beside(table, name):
        error = f"{place}: the image {cells[image]!r} does not exist (looked for {file})."
        refuse(error, Fault("missing", name, None, "", place))
        return None
    text = cells[label].replace(";", "|") if label in _SEVERAL else cells[label]
    labels = tuple(nfc(part.strip()) for part in text.split("|") if part.strip())
    if label not in _SEVERAL and not labels:
        refuse(
            f"{place}: the label is empty. Every image needs a class name.", Fault("unlabelled", name, None, "", place)
        )
        return None
    if "split" in cells and not split:
        split = splits.get(cells["split"].strip(), "")
        if not split:
            raise DataError(
                f"{place}: the split {cells['split']!r} is unknown; accepted: train, val, test and common variants."
            )
    id = os.path.normpath(name).replace("\\", "/")
    return _Row(place, file, id, labels, split or "all", "|" in cells[label])


def _datasets(path: Path, rows: list[_Row], several: bool, notes: tuple[str, ...]) -> dict[str, Dataset]:
    classes = tuple(ordered({name for row in rows for name in row.labels}))
    joined = [row for row in rows if row.joined]
    if joined and not several:
        several = True
        notes = (
            *notes,
            f"{path.name}: {len(joined)} of {len(rows)} lines have several labels, separated by | (e.g. line "
            f"{joined[0].place.rpartition(' ')[2]}), so this is read as a multi-label dataset.",
        )
    if not classes:
        raise DataError(f"{path}: none of the {len(rows)} lines has a label; at least one class is needed.")
    index = {name: i for i, name in enumerate(classes)}
    _check_trained(path, rows)
    root = path if path.is_dir() else path.parent
    kind: Kind = "classes" if several else "class"
    name = path.stem if path.is_file() else path.name
    datasets = {}
    for split in (*SPLITS, "all"):
        chosen = [row for row in rows if row.split == split]
        samples = []
        for row in chosen:
            targets = tuple(sorted({index[label] for label in row.labels}))
            samples.append(Sample(row.image, targets if several else targets[0], row.id))
        if samples:
            datasets[split] = listed(
                samples,
                classes,
                kind,
                f"{name}/{split}" if split != "all" else name,
                root,
                places=[row.place for row in chosen],
                advice="" if several else ", or call the column 'labels' if images have several labels",
                notes=notes,
            )
    return datasets


def _check_trained(path: Path, rows: list[_Row]) -> None:
    """Raise `DataError` if a class of another split does not occur in `train`: no model could learn it."""
    trained = {name for row in rows if row.split == "train" for name in row.labels}
    for row in rows:
        unseen = sorted(set(row.labels) - trained)
        if trained and unseen:
            refuse(f"{row.place}: the class {unseen[0]!r} occurs in {row.split} but never in train.")
