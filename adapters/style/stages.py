"""Which stages of a backbone a style is read from, derived from what its spec says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import registry
from zoo.registry.spec import BackboneSpec, Stage

FEWEST = 2
"""Maps of different strides below which there is no texture to speak of."""


def maps(spec: BackboneSpec) -> list[Stage]:
    """The leading stages that give maps and have parameters; a pooling alone adds nothing to its input."""
    found = []
    for stage in spec.stages:
        if stage.kind != "map":
            break
        found += [stage] if stage.modules else []
    return found


def style_stages(spec: BackboneSpec, deepest: int, named: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the stages that a style is read from: the named ones, or the first of each stride up to `deepest`.

    Raises:
        ConfigError: for a backbone without enough maps, naming families that have them, or a named stage that is none.
        UnknownNameError: for a stage that does not exist.
    """
    named = tuple(named)
    if named:
        for name in named:
            if spec.stage(name).kind != "map":
                raise ConfigError(f"{name} of {spec.name} gives {spec.stage(name).kind}; a style is read from maps.")
        order = [stage.name for stage in spec.stages]
        return tuple(sorted(set(named), key=order.index))
    found = _firsts((s.name, s.stride) for s in maps(spec) if s.stride <= deepest)
    if len(found) > FEWEST and found[-1] == spec.stages[-1].name:
        found = found[:-1]  # the very last stage tells classes apart, not textures
    if len(found) < FEWEST:
        raise ConfigError(
            f"{spec.name} has no activations that a style can be read from: maps of {FEWEST} or more different strides "
            f"up to {deepest}. Backbones that have them: {_families(deepest)} (VGG and SqueezeNet "
            "give the best pictures)."
        )
    return found


def named_content(spec: BackboneSpec, name: str) -> str:
    """Return the name of a stage that content can be compared at. Raises `ConfigError` for another."""
    if spec.stage(name).kind != "map":
        raise ConfigError(f"{name} of {spec.name} gives {spec.stage(name).kind}; content is compared in maps.")
    return name


def stage_of_stride(spec: BackboneSpec, stride: int, place: int) -> str:
    """Return the stage at `place` among those of a stride, or of the next smaller one; -1 is the last."""
    fitting = [s for s in maps(spec) if s.stride <= stride]
    level = [s.name for s in fitting if s.stride == fitting[-1].stride] if fitting else [maps(spec)[0].name]
    return level[min(place, len(level) - 1)]


def _firsts(stages: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for name, stride in stages:
        found.setdefault(stride, name)
    return tuple(found.values())


def _families(deepest: int) -> str:
    """Families with enough maps, by the catalogue alone: no plugin is imported for a message."""
    found: dict[str, str] = {}
    for row in registry().rows("backbones"):
        if _enough(row.data, deepest):
            found.setdefault(str(row.data.get("family", row.name)), row.name)
    return ", ".join(f"{family} ({name}, ...)" for family, name in sorted(found.items())) or "none is installed"


def _enough(data: Mapping[str, Any], deepest: int) -> bool:
    strides = set()
    for _, _, stride, *kind in data.get("stages", ()):
        if kind:
            break
        strides |= {stride} if stride <= deepest else set()
    return len(strides) >= FEWEST
