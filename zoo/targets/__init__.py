"""Kinds of target: what the truth of a sample may be, one class a kind. Importing this needs neither jax nor Pillow.

`Dataset.kind` names one. Everything that depends on it (class indexes, checks, how duplicates join, how a split is
stratified) is asked of the kind, so that a new one is a class and a call of `add`. A task turns targets into arrays;
those that say where things are have a nature (`spatial`), which moves them as augmentation moves the pixels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, DataError, unknown_name
from zoo.targets.base import Opaque, TargetKind

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset
    from zoo.targets.spatial.base import Spatial

__all__ = ["TargetKind", "add", "add_nature", "converted", "kind", "names", "nature", "natures"]

_KINDS: dict[str, Any] = {
    "class": "zoo.targets.kinds.label:KIND",
    "classes": "zoo.targets.kinds.labels:KIND",
    "boxes": "zoo.targets.kinds.boxes:KIND",
    "masks": "zoo.targets.kinds.masks:KIND",
    "images": "zoo.targets.kinds.images:KIND",
}
"""Kind -> the object, or where it is; it is imported when it is first asked for."""

_NATURES: dict[str, Any] = {
    "boxes": "zoo.targets.spatial.boxes:NATURE",
    "mask": "zoo.targets.spatial.mask:NATURE",
    "points": "zoo.targets.spatial.points:NATURE",
}
"""The same for natures of arrays."""


def names() -> tuple[str, ...]:
    """Return the names of the known kinds of target."""
    return tuple(_KINDS)


def kind(name: str) -> TargetKind:
    """Return the kind of a name. Of one that nobody added, nothing is known: its targets are passed on as they are."""
    found: TargetKind = _row(_KINDS, name) if name in _KINDS else Opaque(name)
    return found


def add(new: TargetKind) -> None:
    """Add a kind of target.

    Raises:
        ConfigError: it has no name, or there is another kind of this name.
    """
    _add(_KINDS, new, "kind of target")


def natures() -> tuple[str, ...]:
    """Return the names of the known natures of arrays."""
    return tuple(_NATURES)


def nature(name: str) -> Spatial:
    """Return the nature of a name. Raises `UnknownNameError` for one that nobody added."""
    if name not in _NATURES:
        raise unknown_name("nature of targets", name, _NATURES)
    found: Spatial = _row(_NATURES, name)
    return found


def add_nature(new: Spatial) -> None:
    """Add a nature of arrays. Raises `ConfigError` as `add` does."""
    _add(_NATURES, new, "nature of targets")


def _row(rows: dict[str, Any], name: str) -> Any:
    if isinstance(row := rows[name], str):
        module, attribute = row.split(":")
        rows[name] = getattr(import_module(module), attribute)
    return rows[name]


def _add(rows: dict[str, Any], new: Any, what: str) -> None:
    if not new.name:
        raise ConfigError(f"{type(new).__name__} has no name; each {what} needs one.")
    if new.name in rows and type(_row(rows, new.name)) is not type(new):
        raise ConfigError(f"there is a {what} {new.name!r} already; known: {', '.join(rows)}. Use another name.")
    rows[new.name] = new


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
