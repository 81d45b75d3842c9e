"""Data on disk to `Dataset`s.

A format is a part of the extension point `data.format`: a module, or another object, with `NAME`, `KINDS` (of the data
sets it gives), `LAYOUT` (one line for people), `detect(path)` and `read(path)`. It may have `READS` (suffixes of
annotations beside the images, where not all texts are) and `doubts(path)` (what speaks against a format that was
named). One of zoo's own is one file here.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset
from zoo.data.files import describe
from zoo.data.layouts import looks_like
from zoo.data.left_out import TEXTS, files_of, left_out
from zoo.data.unique import unified
from zoo.errors import DataError, PluginError
from zoo.labels.spelling import nfc, twins
from zoo.registry import registry
from zoo.registry.parts import Point
from zoo.targets import converted, kind

FORMATS: Point[Any] = Point("data.format", "data format")
"""The formats there are, zoo's own and those of other plugins."""


def formats() -> dict[str, Any]:
    """The known formats: name -> what reads them, in the order of their names."""
    return {name: module for name in FORMATS if (module := _loaded(name)) is not None}


def _loaded(name: str) -> Any:
    """A format; None, with a warning, for one of a plugin that cannot be loaded."""
    try:
        return FORMATS[name]
    except PluginError as error:
        warnings.warn(str(error), stacklevel=2)
        return None


def read(path: str | Path, format: str | None = None, kinds: Sequence[str] = ()) -> dict[str, Dataset]:
    """The data sets at `path`: split name (`train`, `val`, `test`, as found) -> data set, or the single key `all`.

    Args:
        path: a folder or a file.
        format: name of the format; by default it is recognised by the layout.
        kinds: of data sets (`Dataset.kind`) that will do. They decide where the layout fits several formats, and masks
            are made from boxes with masks or outlines. Any folder of images will do where nothing but images is needed.

    Raises:
        DataError: nothing is there, no known layout fits, or more than one does; a file is in two splits, or is there
            twice with contradicting targets.
        UnknownNameError: `format` is not a known one.
    """
    path = Path(path).expanduser()
    named = FORMATS[format] if format else None
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a folder or a file with data.")
    if format is None and len(kinds) == 1:
        format = kind(kinds[0]).format or None
    module = named or (FORMATS[format] if format else _recognise(path, kinds))
    parts = unified({name: _in_one_form(part) for name, part in module.read(path).items()})
    against = getattr(module, "doubts", None)
    if format and against and (said := against(path)):
        parts = {name: replace(part, notes=(*part.notes, said)) for name, part in parts.items()}
    if path.is_dir() and (said := left_out(path, files_of(parts.values()), getattr(module, "READS", TEXTS))):
        parts = {name: replace(part, notes=(*part.notes, said)) for name, part in parts.items()}
    return suited(parts, kinds)


def _in_one_form(dataset: Dataset) -> Dataset:
    """The data set with its classes' names in one Unicode form, and a note on those that hardly differ."""
    classes = tuple(map(nfc, dataset.classes))
    notes = [
        f"{dataset.name}: the classes {' and '.join(map(repr, group))} differ by case or spaces alone; they count as "
        "different classes. Where one is meant, give it one name."
        for group in twins(classes)
    ]
    return replace(dataset, classes=classes, notes=(*dataset.notes, *notes))


def suited(parts: Mapping[str, Dataset], kinds: Sequence[str]) -> dict[str, Dataset]:
    """The parts of a data set as one of these kinds, where they can be had from another; else as they are."""

    def one(dataset: Dataset) -> Dataset:
        makers = [name for name in kinds if dataset.kind in kind(name).made_from]
        return converted(dataset, makers[0]) if makers and dataset.kind not in kinds else dataset

    return {name: one(part) for name, part in parts.items()}


def _recognise(path: Path, kinds: Sequence[str]) -> Any:
    own = registry().own_names("parts")
    mine = [name for name in FORMATS if FORMATS.key(name) in own]
    others = [name for name in FORMATS if name not in mine]
    # What zoo reads itself it goes on reading itself, whatever is installed: others are asked where none of its fits.
    fitting = [FORMATS[name] for name in mine if FORMATS[name].detect(path)]
    fitting = fitting or [module for name in others if (module := _detecting(name, path))]
    fitting = [module for module in fitting if set(module.KINDS) & set(kinds)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    seen = f"{path} holds {describe(path)}" if path.is_dir() else f"{path} is a single file"
    if fitting:
        names = ", ".join(module.NAME for module in fitting)
        raise DataError(
            f"{seen}, which fits several formats: {names}. Name the one that is meant as the format, or the task."
        )
    doubt = looks_like(path) if path.is_dir() else ""
    if doubt:
        raise DataError(
            f"{seen}, which is no known layout of data. It looks like boxes or masks: {doubt}. So its folders are not "
            "taken for classes. If they are classes, name the format: folder. Else arrange the data in one of these "
            f"layouts: {_layouts({'boxes', 'masks'})}."
        )
    raise DataError(f"{seen}, which is no known layout of data. Known layouts: {_layouts()}.")


def _detecting(name: str, path: Path) -> Any:
    """A format of others where it fits. One that fails is passed over, with a warning."""
    module = _loaded(name)
    try:
        return module if module is not None and module.detect(path) else None
    except Exception as error:
        warnings.warn(f"the data format {name} failed to look at {path}: {error!r}", stacklevel=2)
        return None


def _layouts(kinds: Collection[str] = ()) -> str:
    """The layouts of all formats, or of those that give such data sets."""
    fitting = (module for module in formats().values() if not kinds or set(kinds) & set(module.KINDS))
    return "; ".join(f"{module.NAME}: {module.LAYOUT}" for module in fitting)
