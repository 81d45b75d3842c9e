"""Kinds of target: what the truth of a sample may be, one class a kind. Importing this needs neither jax nor Pillow.

`Dataset.kind` names one. Everything that depends on it (class indexes, checks, how duplicates join, how a split is
stratified) is asked of the kind, so that a new one is a class and a part of `target.kind`. A task turns targets into
arrays; those that say where things are have a nature (`spatial`), which moves them as augmentation moves the pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, DataError
from zoo.registry.parts import Point
from zoo.targets.base import Opaque, TargetKind

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset
    from zoo.targets.spatial.base import Spatial

__all__ = ["TargetKind", "add", "add_nature", "converted", "kind", "names", "nature", "natures"]

KINDS = Point("target.kind", "kind of target", TargetKind)
"""The kinds there are, zoo's own and those of other plugins."""

NATURES: Point[Spatial] = Point("target.nature", "nature of targets")
"""The natures of arrays there are; see `zoo.targets.spatial.base.Spatial`."""

_ADDED: dict[str, dict[str, Any]] = {KINDS.name: {}, NATURES.name: {}}
"""What programs added for themselves, without a plugin."""


def names() -> tuple[str, ...]:
    """Return the names of the known kinds of target."""
    return (*KINDS, *_ADDED[KINDS.name])


def kind(name: str) -> TargetKind:
    """Return the kind of a name. Of one that nobody added, nothing is known: its targets are passed on as they are."""
    if name in _ADDED[KINDS.name]:
        found: TargetKind = _ADDED[KINDS.name][name]
        return found
    return KINDS[name] if name in KINDS else Opaque(name)


def add(new: TargetKind) -> None:
    """Add a kind of target for this process; a plugin gives it as a part of `target.kind`.

    Raises:
        ConfigError: it has no name, or there is another kind of this name.
    """
    _add(KINDS, new)


def natures() -> tuple[str, ...]:
    """Return the names of the known natures of arrays."""
    return (*NATURES, *_ADDED[NATURES.name])


def nature(name: str) -> Spatial:
    """Return the nature of a name. Raises `UnknownNameError` for one that nobody added."""
    if name in _ADDED[NATURES.name]:
        found: Spatial = _ADDED[NATURES.name][name]
        return found
    return NATURES[name]


def add_nature(new: Spatial) -> None:
    """Add a nature of arrays for this process. Raises `ConfigError` as `add` does."""
    _add(NATURES, new)


def _add(point: Point[Any], new: Any) -> None:
    added = _ADDED[point.name]
    if not new.name:
        raise ConfigError(f"{type(new).__name__} has no name; each {point.noun} needs one.")
    if new.name in point or (new.name in added and type(added[new.name]) is not type(new)):
        known = ", ".join([*point, *added])
        raise ConfigError(f"there is a {point.noun} {new.name!r} already; known: {known}. Use another name.")
    added[new.name] = new


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
