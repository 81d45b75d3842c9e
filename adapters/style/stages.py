"""Choose the stages of a backbone for style and content, by its spec alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import registry
from zoo.registry.spec import BackboneSpec, Stage

FEWEST = 2
"""Fewest maps of different strides that describe a texture."""


def maps(spec: BackboneSpec) -> list[Stage]:
    """Return the leading stages that give maps and have parameters. Pooling alone adds nothing to its input."""
    leading = []
    for stage in spec.stages:
        if stage.kind != "map":
            break
        leading += [stage] if stage.modules else []
    return leading


def style_stages(spec: BackboneSpec, deepest: int, named: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the stages of the style loss.

    Args:
        spec: the backbone.
        deepest: largest stride; the first stage of each stride up to it is chosen.
        named: stages to use instead.

    Raises:
        ConfigError: if the backbone has too few maps, with families that have enough, or if a named stage has no map.
        UnknownNameError: for a stage that does not exist.
    """
    named = tuple(named)
    if named:
        for name in named:
            if spec.stage(name).kind != "map":
                raise ConfigError(
                    f"style_layers: {name} of {spec.name} gives {spec.stage(name).kind}; choose stages that give maps."
                )
        order = [stage.name for stage in spec.stages]
        return tuple(sorted(set(named), key=order.index))
    chosen = _firsts((s.name, s.stride) for s in maps(spec) if s.stride <= deepest)
    if len(chosen) > FEWEST and chosen[-1] == spec.stages[-1].name:
        chosen = chosen[:-1]  # the very last stage tells classes apart, not textures
    if len(chosen) < FEWEST:
        raise ConfigError(
            f"{spec.name} has no activations that a style can be read from: maps of {FEWEST} or more different strides "
            f"up to {deepest}. Backbones that have them: {_families(deepest)} (VGG and SqueezeNet "
            "give the best results)."
        )
    return chosen


def named_content(spec: BackboneSpec, name: str) -> str:
    """Return the name of a stage if content can be compared there. Raises `ConfigError` for a stage without a map."""
    if spec.stage(name).kind != "map":
        raise ConfigError(
            f"content_layer: {name} of {spec.name} gives {spec.stage(name).kind}; choose a stage that gives a map."
        )
    return name


def stage_of_stride(spec: BackboneSpec, stride: int, place: int) -> str:
    """Return the stage at index `place` among those of a stride, or of the next smaller stride there is."""
    fitting = [s for s in maps(spec) if s.stride <= stride]
    level = [s.name for s in fitting if s.stride == fitting[-1].stride] if fitting else [maps(spec)[0].name]
    return level[min(place, len(level) - 1)]


def _firsts(stages: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Return the first stage of each stride."""
    first: dict[int, str] = {}
    for name, stride in stages:
        first.setdefault(stride, name)
    return tuple(first.values())


def _families(deepest: int) -> str:
    """Return the families with enough maps, from the catalogue: no plugin is imported for an error message."""
    families: dict[str, str] = {}
    for row in registry().rows("backbones"):
        if _enough(row.data, deepest):
            families.setdefault(str(row.data.get("family", row.name)), row.name)
    return ", ".join(f"{family} ({name}, ...)" for family, name in sorted(families.items())) or "none is installed"


def _enough(data: Mapping[str, Any], deepest: int) -> bool:
    strides = set()
    for _, _, stride, *kind in data.get("stages", ()):
        if kind:
            break
        strides |= {stride} if stride <= deepest else set()
    return len(strides) >= FEWEST
