"""Lists of images and masks: a CSV, JSON or text file with the path of an image and of its mask in each entry."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from zoo.data.class_table import find_table, read_table
from zoo.data.dataset import Dataset
from zoo.data.files import SPLITS, files, is_image, load_json, read_lines, split_names
from zoo.data.left_out import TEXTS
from zoo.data.pairs import title
from zoo.data.readers.csv import IMAGE_COLUMNS, LABEL_COLUMNS
from zoo.data.readers.masks import coded, sample
from zoo.data.tables import SUFFIXES, header_of, rows_of
from zoo.data.unique import listed
from zoo.errors import DataError, counted
from zoo.reading import read_file
from zoo.targets.masks import MaskFile

NAME = "mask_list"
KINDS = ("masks",)
OVER = ("folder", "instances", "masks")
NEEDS = "a .csv or .json file that names an image and its mask in each entry"
LAYOUT = (
    "lists of images and masks: a .csv file with the columns 'image' and 'mask' and optionally 'split'; a .json file "
    "with a list of such entries, a list for each split, or an object from image to mask; or a .txt file with an image "
    "and a mask in each line; or train.csv, val.csv, ... (.json, .txt) in a folder; class names as beside folders of "
    "masks (classes.txt)"
)
READS = (*TEXTS, ".tsv", ".lst")
_MASKS = ("mask", "masks", "mask_path", "mask_file", "mask_name", "segmentation", "annotation", "label_path", "gt")
_TEXTS = (".txt", ".lst")
_START = 4096
"""Bytes of a JSON file that tell whether it could be such a list. COCO files are large, and are not parsed for that."""
_LIKELY = re.compile(rb'"(?:\w*mask\w*|label|label_path|segmentation|annotation|gt)"\s*:\s*"|\.\w{3,4}"\s*:\s*"')


class _Entry(NamedTuple):
    """One pair: where it is listed, both paths as written, and the name of its split or an empty string."""

    place: str
    image: str
    mask: str
    split: str


def detect(path: Path) -> bool:
    """Whether a file lists images and masks that exist, or a folder holds such files."""
    return bool(_lists(path))


def read(path: Path) -> dict[str, Dataset]:
    """Read lists of images and masks: split name -> dataset, or one key `all`.

    Splits are named by the files or by the entries. Paths are relative to the list. Of paths that do not exist, such as
    those of another machine, leading folders are dropped until they do, with a note.

    Raises:
        DataError: an image or a mask does not exist, a split is unknown, or an image has two masks; names the entry.
    """
    lists = _lists(path)
    if not lists:
        raise DataError(f"{path} is not {LAYOUT}.")
    root = path if path.is_dir() else path.parent
    entries = [entry for split, file in lists.items() for entry in _entries(file, split)]
    named = split_names({entry.split for entry in entries} - {""})
    by_split: dict[str, list[tuple[Path, Path, str]]] = {}
    moved: list[str] = []
    name_of: dict[Path, str] = {}
    for entry in entries:
        if entry.split and entry.split not in named:
            raise DataError(
                f"{entry.place}: the split {entry.split!r} is unknown; accepted: train, val, test and common variants."
            )
        both = [_found(name, root) for name in (entry.image, entry.mask)]
        for name, file, what in zip((entry.image, entry.mask), both, ("image", "mask"), strict=True):
            if file is None:
                raise DataError(f"{entry.place}: the {what} {name!r} does not exist (looked for {root / name}).")
            moved += [name] if file != root / name else []
            if name_of.setdefault(file, name) != name:
                raise DataError(f"{entry.place}: {name!r} and {name_of[file]!r} are the same file, {file}.")
        image, mask = both
        assert image and mask
        by_split.setdefault(named.get(entry.split, "all"), []).append((image, mask, entry.place))
    table = find_table(root)
    masks = [mask for pairs in by_split.values() for _, mask, _ in pairs]
    classes, values, colours = coded(read_table(table) if table else [], masks, root)
    note = (
        f"{path.name}: {counted(len(moved), 'path')} found below {root.name} by the end of the path, e.g. {moved[0]}."
        if moved
        else ""
    )

    def dataset(split: str, pairs: Sequence[tuple[Path, Path, str]]) -> Dataset:
        samples = [sample(image, MaskFile(mask, values, colours), root) for image, mask, _ in pairs]
        places = [place for _, _, place in pairs]
        name = title(path.with_suffix("") if path.is_file() else path, split)
        return listed(samples, classes, "masks", name, root, places=places, notes=(note,) if note else ())

    return {split: dataset(split, by_split[split]) for split in (*SPLITS, "all") if split in by_split}


def _lists(path: Path) -> dict[str, Path]:
    """Return split name (empty if the file's name gives none) -> list."""
    if path.is_file():
        return {"": path} if _is_list(path) else {}
    found = [file for file in files(path) if _is_list(file)] if path.is_dir() else []
    splits = split_names(file.stem for file in found)
    if len(found) > 1 and len(set(splits.values())) < len(found):
        names = ", ".join(file.name for file in found)
        raise DataError(
            f"{path} holds several lists of masks ({names}). Give the path of one, or name them after splits."
        )
    return {splits.get(file.stem, ""): file for file in found}


def _is_list(file: Path) -> bool:
    """Whether a file lists images and masks, of which the first exist."""
    suffix = file.suffix.lower()
    try:
        if suffix not in (*SUFFIXES, *_TEXTS, ".json"):
            return False
        if suffix == ".json" and not _LIKELY.search(read_file(file, _START)):
            return False
        first = next(iter(_entries(file, "", 1)), None)
    except (DataError, OSError):
        return False
    return first is not None and all(
        found is not None and is_image(found.name) for found in (_found(name, file.parent) for name in first[1:3])
    )


def _entries(file: Path, split: str, most: int | None = None) -> list[_Entry]:
    """Return the entries of a list, or the first `most`. `split` is the split in the file's name, or empty."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return _cells(file, split, most)
    if suffix == ".json":
        return _objects(load_json(file), file, split)[:most]
    entries = []
    for number, line in enumerate(read_lines(file), 1):
        words = [word.strip() for word in re.split(r"[,;\t]|\s+(?=\S+$)", line.strip()) if word.strip()]
        if words:
            entries.append(_Entry(f"{file}, line {number}", words[0], words[-1] if len(words) > 1 else "", split))
        if most and len(entries) == most:
            break
    return entries


def _cells(file: Path, split: str, most: int | None) -> list[_Entry]:
    header = header_of(file)
    image = next((name for name in IMAGE_COLUMNS if name in header), None)
    mask = next((name for name in (*_MASKS, *LABEL_COLUMNS) if name in header), None)
    if image is None or mask is None:
        raise DataError(
            f"{file} has the columns {header}; columns for images and masks are needed, e.g. image and mask."
        )
    entries = []
    for number, cells in islice(rows_of(file), 1, None if most is None else most + 1):
        row = dict(zip(header, [*(cell.strip() for cell in cells), *[""] * len(header)], strict=False))
        entries.append(_Entry(f"{file}, line {number}", row[image], row[mask], split or row.get("split", "")))
    return entries


def _objects(content: Any, file: Path, split: str) -> list[_Entry]:
    """Return the entries of a JSON value."""
    if isinstance(content, dict) and content and all(isinstance(value, str) for value in content.values()):
        return [_Entry(f"{file}, {image!r}", image, mask, split) for image, mask in content.items()]
    if isinstance(content, dict):
        inner = {name: value for name, value in content.items() if isinstance(value, list)}
        named = split_names(inner)
        return [entry for name in named for entry in _objects(inner[name], file, split or name)]
    entries = []
    for number, one in enumerate(content if isinstance(content, list) else []):
        lower = {str(key).lower(): value for key, value in one.items()} if isinstance(one, dict) else {}
        image = next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
        mask = next((lower[name] for name in (*_MASKS, *LABEL_COLUMNS) if name in lower), None)
        if not isinstance(image, str) or not isinstance(mask, str):
            raise DataError(f"{file}, entry {number} must be an object with the paths of an image and a mask as text.")
        entries.append(_Entry(f"{file}, entry {number}", image, mask, split or str(lower.get("split", ""))))
    return entries


def _found(name: str, root: Path) -> Path | None:
    """Return the file of a listed path, perhaps without its leading folders; None if there is none."""
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    if not parts:
        return None
    whole = root / name.strip()
    if os.path.isfile(whole):  # `Path.is_file` raises for names that are too long
        return whole
    tails = (root.joinpath(*parts[first:]) for first in range(1 if parts[0] == "/" else 0, len(parts)))
    return next((file for file in tails if os.path.isfile(file)), None)
