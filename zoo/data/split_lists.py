"""Read lists of splits beside class folders: `train.txt`, `meta/test.txt`, `TestImages.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from zoo.data.dataset import Dataset
from zoo.data.files import SPLITS, files, read_lines, split_name, split_names
from zoo.errors import counted

FOLDERS = ("meta", "splits", "split", "lists", "imagesets", "main")
"""Names of folders with lists of splits, in lower case."""
_LISTS = (".txt", ".lst")
_OTHER = re.compile(r"(.*[^a-z])?(splits?|setid)|(train|test|val)[^a-z].*|.*[^a-z](train|test|val)", re.IGNORECASE)
_UNREAD = frozenset({".txt", ".lst", ".csv", ".json", ".mat", ".yaml", ".yml", ".pkl", ".npz"})
_BOTH = re.compile(r"train[ _-]?val", re.IGNORECASE)


def listed_splits(dataset: Dataset, *, short: bool = False) -> dict[str, Dataset]:
    """Divide a dataset by lists beside the class folders: split -> dataset, or the whole as `all` without lists.

    A line names an image by its path relative to the folder, with or without suffix; a label may follow. If there is
    no list for training, `train` is the images that are in no list.

    Args:
        dataset: the whole data.
        short: lines may leave out the first folders of the path, if what is left fits a single image.
    """
    path = dataset.root
    texts = [file for file in _beside(path) if file.suffix.lower() in _UNREAD]
    lists = {file.stem: file for file in texts if file.suffix.lower() in _LISTS}
    called = split_names(lists)
    if "train" not in called.values():
        called |= {name: "train" for name in lists if _BOTH.fullmatch(name)}
    by_split: dict[str, list[Path]] = {}
    for name, split in called.items():
        by_split.setdefault(split, []).append(lists[name])
    notes: list[str] = []
    found: dict[str, list[int]] = {}
    names = _names(dataset, short)
    for split in SPLITS:
        if len(by_split.get(split, ())) > 1:
            notes.append(
                f"{', '.join(file.name for file in by_split[split])} are all lists of the {split} split: none is used."
            )
        elif split in by_split:
            found[split], said = _rows(by_split[split][0], names)
            notes += [said] if said else []
    found = {split: rows for split, rows in found.items() if rows}
    read = {file for split in found for file in by_split[split]}
    other = [file for file in texts if file not in read and (split_name(file.stem) or _OTHER.fullmatch(file.stem))]
    if other and not found:
        shown = ", ".join(
            file.relative_to(path).as_posix() if file.is_relative_to(path) else file.name for file in other[:3]
        )
        notes.append(
            f"{shown} beside the folders of images may define splits, but cannot be read: to use them, sort the images "
            "into train/, val/ and test/, or list them in a CSV file with the column 'split'."
        )
    rest = sorted(set(range(len(dataset))) - {row for rows in found.values() for row in rows})
    if found and "train" not in found and rest:
        found = {"train": rest, **found}
        notes.append(
            f"there is no list for training: {counted(len(rest), 'image that is', 'images that are')} in no list "
            f"{'is' if len(rest) == 1 else 'are'} used for it."
        )
    elif found and rest:
        notes.append(
            f"{counted(len(rest), 'image is', 'images are')} in no list and left out, e.g. {dataset[rest[0]].id}."
        )
    dataset = replace(dataset, notes=(*dataset.notes, *(f"{dataset.name}: {note}" for note in notes)))
    return {split: dataset.subset(rows, f"{dataset.name}/{split}") for split, rows in found.items()} or {"all": dataset}


def _beside(path: Path) -> Iterable[Path]:
    """Yield the files beside the class folders and in folders of lists, also one level up from a folder `images/`."""
    places = [path, path.parent] if path.name.lower() == "images" else [path]
    for place in places:
        yield from files(place)
        for folder in sorted(entry for entry in place.iterdir() if entry.name.lower() in FOLDERS and entry.is_dir()):
            yield from files(folder)


def _names(dataset: Dataset, short: bool) -> dict[str, int]:
    """Return each name by which a list may refer to a sample -> its row, or -1 if several samples have the name."""
    found: dict[str, int] = {}
    for row, sample in enumerate(dataset):
        names = [sample.id]
        while short and "/" in names[-1]:
            names.append(names[-1].partition("/")[2])
        for name in (form for one in names for form in (one, one.rpartition(".")[0])):
            found[name] = row if found.setdefault(name, row) == row else -1
            found[f"{dataset.root.name}/{name}"] = found[name]
    return found


def _rows(file: Path, names: dict[str, int]) -> tuple[list[int], str]:
    """Return (rows of the samples in a list, in its order, a note on the list or an empty string)."""
    rows: list[int] = []
    missing: list[int] = []
    for number, line in enumerate(read_lines(file), 1):
        if not (line := line.strip().replace("\\", "/").removeprefix("./")):
            continue
        words = (line, line.rsplit(None, 1)[0], re.split(r"[,;\t]", line)[0].strip().strip('"'))
        row = next((names[word] for word in words if word in names), -1)
        (rows if row >= 0 else missing).append(row if row >= 0 else number)
    if len(rows) < len(missing):
        return [], f"{file.name} is named after a split, but most of its lines name no image: it is not used."
    if len(set(rows)) < len(rows):
        rows = list(dict.fromkeys(rows))
    lines = counted(len(missing), f"line of {file.name} names", f"lines of {file.name} name")
    return rows, f"{lines} no image, e.g. line {missing[0]}." if missing else ""
