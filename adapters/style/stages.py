"""Which stages of a backbone a style is read from, derived from what its spec says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import registry
from zoo.registry.spec import BackboneSpec, Stage

DEEPEST = {"adain": 8, "fast": 16, "gatys": 16}
"""Largest stride that a style is read from: relu4_1 of a VGG for AdaIN, relu5_1 for the others."""
CONTENT = {"fast": 4, "gatys": 8}
"""Stride of the map that says what is in a picture: relu3_3 of VGG16 (arXiv:1603.08155), relu4_2 of VGG19
(arXiv:1508.06576)."""
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


def style_stages(spec: BackboneSpec, method: str, named: Iterable[str] = ()) -> tuple[str, ...]:
    """The stages that a style is read from: the named ones, or the first of each stride.

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
    found = _firsts((s.name, s.stride) for s in maps(spec) if s.stride <= DEEPEST[method])
    if len(found) > FEWEST and found[-1] == spec.stages[-1].name:
        found = found[:-1]  # the very last stage tells classes apart, not textures
    if len(found) < FEWEST:
        raise ConfigError(
            f"{spec.name} has no activations that a style can be read from: maps of {FEWEST} or more different strides "
            f"up to {DEEPEST[method]}. Backbones that have them: {_families(DEEPEST[method])} (VGG and SqueezeNet "
            "give the best pictures)."
        )
    return found


def content_stage(spec: BackboneSpec, method: str, named: str = "") -> str:
    """The stage that content is compared at: the named one, or of stride 8 the second, of stride 4 the last."""
    if named:
        if spec.stage(named).kind != "map":
            raise ConfigError(f"{named} of {spec.name} gives {spec.stage(named).kind}; content is compared in maps.")
        return named
    if method == "adain":
        return style_stages(spec, method)[-1]
    fitting = [s for s in maps(spec) if s.stride <= CONTENT[method]]
    level = [s.name for s in fitting if s.stride == fitting[-1].stride] if fitting else [maps(spec)[0].name]
    return level[-1] if method == "fast" else level[min(1, len(level) - 1)]


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
