"""Kinds of target: what the truth of a sample may be, one class a kind. Importing this needs neither jax nor Pillow.

`Dataset.kind` names one. Everything that depends on it (class indexes, checks, how duplicates join, how a split is
stratified) is asked of the kind, so that a new one is a class and a call of `add`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from zoo.errors import ConfigError, DataError
from zoo.targets.base import Opaque, TargetKind

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

__all__ = ["TargetKind", "add", "converted", "kind", "names"]

_ROWS = {
    "class": "zoo.targets.kinds.label:Label",
    "classes": "zoo.targets.kinds.labels:Labels",
    "boxes": "zoo.targets.kinds.boxes:BoxesKind",
    "masks": "zoo.targets.kinds.masks:MasksKind",
    "images": "zoo.targets.kinds.images:Images",
}
"""Kind -> where its class is. Imported when it is first asked for."""

_loaded: dict[str, TargetKind] = {}


def names() -> tuple[str, ...]:
    """Return the names of the known kinds."""
    return tuple(dict.fromkeys((*_ROWS, *_loaded)))


def kind(name: str) -> TargetKind:
    """Return the kind of a name. Of one that nobody added, nothing is known: its targets are passed on as they are."""
    if name not in _loaded and name in _ROWS:
        module, attribute = _ROWS[name].split(":")
        _loaded[name] = getattr(import_module(module), attribute)()
    return _loaded.get(name) or Opaque(name)


def add(new: TargetKind) -> None:
    """Add a kind of target.

    Raises:
        ConfigError: it has no name, or there is another kind of this name.
    """
    if not new.name:
        raise ConfigError(f"{type(new).__name__} has no name; a kind of target needs one, which data sets give.")
    if new.name in names() and type(kind(new.name)) is not type(new):
        raise ConfigError(f"there is a kind of target {new.name!r} already; known: {', '.join(names())}.")
    _loaded[new.name] = new


def converted(dataset: Dataset, name: str) -> Dataset:
    """Return the data set with its targets as another kind, e.g. masks from boxes with outlines.

    Raises:
        DataError: they cannot be had from these.
    """
    wanted = kind(name)
    if dataset.kind == name:
        return dataset
    if dataset.kind not in wanted.made_from:
        raise DataError(f"{dataset.name} has targets of kind {dataset.kind}, from which no {name} can be made.")
    return wanted.made(dataset)
