"""Finding and loading plugins: first-party modules and third-party entry points go through the same door.

pluggy's own entry-point loader is not used: one plugin that raises while it is imported would end it, and every plugin
after that one would be silently absent. Here each plugin is imported, registered and asked on its own, and what goes
wrong is kept in its `PluginRecord`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zoo
from zoo.errors import PluginError, nearest
from zoo.registry import spec, validate
from zoo.registry.catalogue import FILE

if TYPE_CHECKING:
    import pluggy

GROUP = "zoo.plugins"
"""The entry-point group of third-party plugins."""

FIRST_PARTY = "flax-zoo"
_PACKAGES = ("zoo.plugins", "zoo.adapters")
_ROOMS = ("data", "labels", "targets", "training")
"""Rooms of the core whose module `parts` is a plugin as others are."""

State = Literal["ok", "failed", "disabled", "shadowed", "incompatible", "unloaded"]

HOOKS: Mapping[str, tuple[str, Callable[[Any], None]]] = {
    "backbones": ("zoo_backbones", validate.validate_backbone),
    "adapters": ("zoo_adapters", validate.validate_adapter),
    "weights": ("zoo_weights", validate.validate_weights),
    "models": ("zoo_models", validate.validate_model),
    "parts": ("zoo_parts", validate.validate_part),
}
"""For each kind of spec, the hook that gives it and the check it must pass."""


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """How one plugin fared.

    Attributes:
        state: `ok`; `failed` (import, hooks or a spec were wrong); `disabled`; `incompatible` (written for another
            version of the plugin interface); `shadowed` (another distribution is preferred for some of its names);
            `unloaded` (known from its catalogue, not needed yet).
        reason: one sentence, empty for `ok`. traceback: of the error, where there was one.
    """

    name: str
    module: str
    distribution: str
    version: str
    state: State
    reason: str = ""
    traceback: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that is installed, before anything of it is imported."""

    name: str
    module: str
    attribute: str
    distribution: str
    version: str

    def answers_to(self, name: str) -> bool:
        """Whether `name` means this plugin: its own name, its module, or `distribution/name`."""
        return name in (self.name, self.module, f"{self.distribution}/{self.name}")

    @property
    def first_party(self) -> bool:
        """Whether it belongs to zoo itself."""
        return self.module.rpartition(".")[0] in _PACKAGES or self.module in map(_parts_of, _ROOMS)


@dataclass(frozen=True)
class Contribution:
    """What a plugin gives, by kind and name, and its `zoo_fetch` where it has one."""

    specs: Mapping[str, Mapping[str, Any]]
    fetch: Callable[..., Path | None] | None = None


class IncompatibleError(PluginError):
    """A plugin written for another version of the plugin interface."""


def same_distribution(one: str, other: str) -> bool:
    """Whether two spellings name one distribution (`My_Dist` is `my-dist`)."""
    return _canonical(one) == _canonical(other)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def discover() -> list[Candidate]:
    """Every installed plugin: zoo's own, then third-party ones by distribution and name. Nothing is imported."""
    third = {(candidate.module, candidate.attribute): candidate for candidate in _entry_points()}
    return [*_own_modules(), *sorted(third.values(), key=lambda c: (_canonical(c.distribution), c.name))]


def _parts_of(room: str) -> str:
    return f"zoo.{room}.parts"


def _own_modules() -> Iterator[Candidate]:
    for room in _ROOMS:
        yield Candidate(f"zoo-{room}", _parts_of(room), "", FIRST_PARTY, zoo.__version__)
    for package in _PACKAGES:
        for found in sorted(pkgutil.iter_modules(importlib.import_module(package).__path__), key=lambda m: m.name):
            if not found.name.startswith("_"):
                yield Candidate(found.name, f"{package}.{found.name}", "", FIRST_PARTY, zoo.__version__)


def _entry_points() -> Iterator[Candidate]:
    seen = set()
    for distribution in metadata.distributions():
        try:
            # Parsing the entry points of every installed distribution would take longer than all the rest of a listing.
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"]
            points = [point for point in distribution.entry_points if point.group == GROUP]
        except Exception:  # a damaged installation of something else is not a plugin
            continue
        if _canonical(name) in seen:
            continue  # an older copy, further down the path
        seen.add(_canonical(name))
        for point in points:
            module, _, attribute = point.value.partition(":")
            yield Candidate(point.name, module.strip(), attribute.strip(), name, distribution.version)


def shipped_catalogue(candidate: Candidate) -> Path | None:
    """A third-party package's own `registry.toml`, of the innermost package that has one; nothing is imported."""
    top, *inner = candidate.module.split(".")
    try:
        found = util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        parts = [folder.joinpath(*inner[:depth]) for depth in range(len(inner), -1, -1)]
        for part in parts:
            if (part / FILE).is_file():
                return part / FILE
    return None


def load(candidate: Candidate) -> Contribution:
    """Import the plugin, register it with pluggy and collect what its hooks give.

    Raises:
        IncompatibleError: its `ZOO_API` is not this zoo's.
        PluginError: a hook is unknown, or a spec is not valid.
        BaseException: whatever the plugin's own code raises.
    """
    module = importlib.import_module(candidate.module)
    plugin: Any = module
    for part in filter(None, candidate.attribute.split(".")):
        plugin = getattr(plugin, part)
    wanted = getattr(plugin, "ZOO_API", getattr(module, "ZOO_API", spec.API_VERSION))
    if wanted != spec.API_VERSION:
        raise IncompatibleError(
            f"it was written for version {wanted!r} of the plugin interface, this zoo has version {spec.API_VERSION}; "
            "install a matching release of one of the two."
        )
    manager = _registered(plugin, candidate.name)
    specs = {kind: _collect(manager, hook, check) for kind, (hook, check) in HOOKS.items()}
    fetch = manager.hook.zoo_fetch if manager.hook.zoo_fetch.get_hookimpls() else None
    return Contribution(specs, fetch)


def _registered(plugin: Any, name: str) -> pluggy.PluginManager:
    """A plugin manager of its own for each plugin: one that raises in a hook cannot end another's call."""
    import pluggy

    from zoo.registry import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    known = [name for name in vars(manager.hook) if name.startswith("zoo_")]
    for hook in known:
        function = getattr(plugin, hook, None)
        if callable(function) and manager.parse_hookimpl_opts(plugin, hook) is None:
            raise PluginError(f"{hook} is not marked as a hook; put @zoo.hookimpl above it.")
    manager.register(plugin, name)
    _reject_unknown_hooks(manager, known)
    return manager


def _reject_unknown_hooks(manager: pluggy.PluginManager, known: list[str]) -> None:
    """What pluggy's `check_pending` does, with the name that was probably meant."""
    for hook, caller in vars(manager.hook).items():
        if hook.startswith("_") or hook in known or all(impl.optionalhook for impl in caller.get_hookimpls()):
            continue
        close = nearest(hook, known, 1)
        meant = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(sorted(known))}."
        raise PluginError(f"it implements {hook}, which is no hook; {meant}")


def _collect(manager: pluggy.PluginManager, hook: str, check: Callable[[Any], None]) -> dict[str, Any]:
    specs: dict[str, Any] = {}
    for given in getattr(manager.hook, hook)():
        for one in given:
            check(one)
            if one.name in specs:
                raise PluginError(f"{hook} gives {one.name!r} twice.")
            specs[one.name] = one
    return specs


def attempt(candidate: Candidate) -> tuple[Contribution | None, State, str, str]:
    """`load` without the risk: the contribution or None, the state, the reason and the traceback.

    Everything but Ctrl-C is caught: a plugin that calls `sys.exit` while it is imported must not end the program.
    """
    try:
        return load(candidate), "ok", "", ""
    except KeyboardInterrupt:
        raise
    except IncompatibleError as error:
        return None, "incompatible", str(error), ""
    except BaseException as error:
        text = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        return None, "failed", (text.strip().splitlines() or ["no message"])[0], traceback.format_exc()
