"""Kinds of target: what the annotation of a sample may be, one class per kind. Importing needs neither jax nor Pillow.

`Dataset.kind` names the kind. Everything that depends on it (class indexes, checks, merging of duplicates, stratified
splits) is a method of the kind, so a new kind is one class and one part of `target.kind`. A task turns targets into
arrays. Arrays with positions in the image have a nature (`zoo.targets.spatial`), which moves them together with the
pixels during augmentation.
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
"""The known kinds of target, zoo's and those of other plugins."""

NATURES: Point[Spatial] = Point("target.nature", "nature of targets")
"""The known natures of arrays; see `zoo.targets.spatial.base.Spatial`."""

_ADDED: dict[str, dict[str, Any]] = {KINDS.name: {}, NATURES.name: {}}
"""Kinds and natures added by `add` and `add_nature` in this process, without a plugin."""


def names() -> tuple[str, ...]:
    """Return the names of the known kinds of target."""
    return (*KINDS, *_ADDED[KINDS.name])


def kind(name: str) -> TargetKind:
    """Return the kind of a name. An unknown name gives an `Opaque` kind, whose targets are passed on unchanged."""
    if name in _ADDED[KINDS.name]:
        added: TargetKind = _ADDED[KINDS.name][name]
        return added
    return KINDS[name] if name in KINDS else Opaque(name)


def add(new: TargetKind) -> None:
    """Add a kind of target for this process; a plugin registers a part of `target.kind` instead.

    Raises:
        ConfigError: the kind has no name, or the name is taken.
    """
    _add(KINDS, new)


def natures() -> tuple[str, ...]:
    """Return the names of the known natures of arrays."""
    return (*NATURES, *_ADDED[NATURES.name])


def nature(name: str) -> Spatial:
    """Return the nature of a name. Raises `UnknownNameError` for an unknown name."""
    if name in _ADDED[NATURES.name]:
        added: Spatial = _ADDED[NATURES.name][name]
        return added
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
        raise ConfigError(f"the {point.noun} {new.name!r} exists already; known: {known}. Use another name.")
    added[new.name] = new


def converted(dataset: Dataset, name: str) -> Dataset:
    """Return the dataset with its targets converted to another kind, e.g. boxes with outlines to masks.

    Raises:
        DataError: targets of this kind cannot be converted to the other.
    """
    new_kind = kind(name)
    if dataset.kind == name:
        return dataset
    if dataset.kind not in new_kind.made_from:
        raise DataError(f"{dataset.name} has targets of kind {dataset.kind}, which cannot be converted to {name}.")
    return new_kind.made(dataset)
