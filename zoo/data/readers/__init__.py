"""Read data on disk into `Dataset`s.

A format is a part of the extension point `data.format`: a module or another object with these members.

Attributes:
    NAME: of the format.
    KINDS: kinds of target of the datasets that it returns.
    LAYOUT: one line that describes the layout to users.
    NEEDS: optional; what the layout needs, in a few words.
    detect: function of a path; whether the format fits.
    read: function of a path; returns split name -> `Dataset`.
    READS: optional; suffixes of annotation files beside the images. By default, those of all text files.
    doubts: optional function of a path; returns the evidence against the format if the user named it.
    OVER: optional; names of formats that this one overrules if both fit, because it says more (a list of the files).
    ANY_FOLDER: optional; True if `read` finds something to say about any folder, so that its errors are no evidence.

Each of zoo's formats is one file in this folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.data.dataset import Dataset
from zoo.data.files import describe
from zoo.data.inside import require_inside
from zoo.data.left_out import TEXTS, files_of, left_out
from zoo.data.nearest import explained
from zoo.data.refusals import remark
from zoo.data.unique import unified
from zoo.errors import DataError, PluginError
from zoo.labels.spelling import nfc, twins
from zoo.reading import kind_of
from zoo.registry import registry
from zoo.registry.parts import Point
from zoo.targets import converted, kind
from zoo.text import decoded

FORMATS: Point[Any] = Point("data.format", "data format")
"""The known formats, zoo's and those of other plugins."""


def formats() -> dict[str, Any]:
    """Return the known formats: name -> reader, sorted by name."""
    return {name: module for name in FORMATS if (module := _loaded(name)) is not None}


def _loaded(name: str) -> Any:
    """Return a format; None, with a warning, if its plugin cannot be loaded."""
    try:
        return FORMATS[name]
    except PluginError as error:
        warnings.warn(str(error), stacklevel=2)
        return None


def read(path: str | Path, format: str | None = None, kinds: Sequence[str] = ()) -> dict[str, Dataset]:
    """Read the dataset at `path`: split name (those of `train`, `val`, `test` that exist) -> dataset, or one key `all`.

    Args:
        path: a folder or a file.
        format: name of the format; by default it is recognised by the layout.
        kinds: accepted kinds of target (`Dataset.kind`). They decide if the layout fits several formats. Masks are
            made from boxes with masks or outlines if needed. If only images are needed, any folder of images will do.

    Raises:
        DataError: `path` does not exist, no known layout or more than one fits, or a file is in two splits or occurs
            twice with contradicting targets. Or a file lies outside of the data's folder, see `zoo.data.inside`.
        UnknownNameError: `format` is unknown.
    """
    path, module, named = reader_of(path, format, kinds)
    splits = unified(opened(path, module, named))
    if path.is_dir() and (note := left_out(path, files_of(splits.values()), getattr(module, "READS", TEXTS))):
        splits = {name: replace(dataset, notes=(*dataset.notes, note)) for name, dataset in splits.items()}
    return suited(splits, kinds)


def reader_of(path: str | Path, format: str | None = None, kinds: Sequence[str] = ()) -> tuple[Path, Any, bool]:
    """Return (the path, the reader of its format, whether the format was named rather than recognised).

    Arguments and errors are those of `read`.
    """
    path = settings.expanded(path)
    named = FORMATS[format] if format else None
    if not path.exists():
        raise DataError(f"{path} does not exist. Give the folder or file of a dataset.")
    if not path.is_dir() and (special := kind_of(path.stat().st_mode)):
        raise DataError(f"{path} is {special}. Give the folder or file of a dataset.")
    if format is None and len(kinds) == 1:
        format = kind(kinds[0]).format or None
    module = named or (FORMATS[format] if format else _recognise(path, kinds))
    return path, module, bool(format)


def opened(path: Path, module: Any, named: bool) -> dict[str, Dataset]:
    """Return what a reader makes of the data, in which a file may still occur several times.

    Args:
        path: the folder or file.
        module: the reader of its format.
        named: whether the user named the format. Then evidence against it becomes a note.

    Raises:
        DataError: the data cannot be read, or a file lies outside of the data's folder; see `zoo.data.inside`.
    """
    splits = {name: _normalised(dataset) for name, dataset in module.read(path).items()}
    require_inside(path, splits.values())
    doubts = getattr(module, "doubts", None)
    if named and doubts and (note := doubts(path)):
        splits = {name: replace(dataset, notes=(*dataset.notes, note)) for name, dataset in splits.items()}
    return splits


def _normalised(dataset: Dataset) -> Dataset:
    """Return the dataset with class names in Unicode NFC, and a note on names that differ only by case or spaces.

    The same name may be composed (NFC) on one system and decomposed (NFD) on another, notably in folder names on macOS.
    Class names and ids are text that can be written in UTF-8, even if the names of folders and files are not.
    """
    classes = tuple(nfc(decoded(name)) for name in dataset.classes)
    if any(sample.id != decoded(sample.id) for sample in dataset):
        samples = tuple(replace(sample, id=decoded(sample.id)) for sample in dataset)
        dataset = replace(dataset, samples=samples)
    notes = [
        note
        for group in twins(classes)
        for note in remark(
            f"{dataset.name}: the classes {' and '.join(map(repr, group))} differ only by case or spaces; they count "
            "as different classes. If they are the same class, give it one name."
        )
    ]
    return replace(dataset, classes=classes, notes=(*dataset.notes, *notes))


def suited(parts: Mapping[str, Dataset], kinds: Sequence[str]) -> dict[str, Dataset]:
    """Return the splits of a dataset, converted to an accepted kind where needed and possible; else unchanged."""

    def one(dataset: Dataset) -> Dataset:
        makers = [name for name in kinds if dataset.kind in kind(name).made_from]
        return converted(dataset, makers[0]) if makers and dataset.kind not in kinds else dataset

    return {name: one(part) for name, part in parts.items()}


def _recognise(path: Path, kinds: Sequence[str]) -> Any:
    """Return the one format that fits the layout. Raise `DataError` if none or several do."""
    builtin_keys = registry().own_names("parts")
    builtin = [name for name in FORMATS if FORMATS.key(name) in builtin_keys]
    others = [name for name in FORMATS if name not in builtin]
    # Installing a plugin must not change how data is read that zoo can read itself. So formats of other plugins are
    # tried only if no built-in one fits.
    fitting = [FORMATS[name] for name in builtin if FORMATS[name].detect(path)]
    fitting = fitting or [module for name in others if (module := _detecting(name, path))]
    fitting = [module for module in fitting if set(module.KINDS) & set(kinds)] or fitting
    overruled = {name for module in fitting for name in getattr(module, "OVER", ())}
    fitting = [module for module in fitting if module.NAME not in overruled]
    # Most folders could be class folders. If the task needs something else, that is no answer.
    other = bool(fitting) and all(_of_other_kind(module, kinds) and _takes_any(module) for module in fitting)
    if not fitting or other:
        raise DataError(*explained(path, list(formats().values()), kinds, fitting))
    if len(fitting) == 1:
        return fitting[0]
    content = f"{path} holds {describe(path)}" if path.is_dir() else f"{path} is a single file"
    names = ", ".join(module.NAME for module in fitting)
    raise DataError(f"{content}, which fits several formats: {names}. Name the right format, or the task.")


def _of_other_kind(module: Any, kinds: Sequence[str]) -> bool:
    """Whether a format gives no accepted kind of target, not even after conversion."""
    accepted = {*kinds, *(other for name in kinds for other in kind(name).made_from)}
    return bool(kinds) and not accepted & set(module.KINDS)


def _takes_any(module: Any) -> bool:
    return getattr(module, "ANY_FOLDER", False)


def _detecting(name: str, path: Path) -> Any:
    """Return another plugin's format if it fits, else None. If its `detect` fails, warn and return None."""
    module = _loaded(name)
    try:
        return module if module is not None and module.detect(path) else None
    except Exception as error:
        warnings.warn(f"the data format {name} failed to inspect {path}: {error!r}", stacklevel=2)
        return None
