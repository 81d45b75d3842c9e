"""Find and load plugins. zoo's own modules and third-party entry points are loaded by the same code.

pluggy's own entry-point loader is not used: it stops at the first plugin that raises on import, and all later plugins
would be missing without a word. Here each plugin is imported, registered and called separately, and its `PluginRecord`
says what went wrong.
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
_ROOMS = ("data", "labels", "models", "targets", "training")
"""Packages of the core whose module `parts` is a plugin like any other."""

State = Literal["ok", "failed", "disabled", "shadowed", "incompatible", "unloaded"]

HOOKS: Mapping[str, tuple[str, Callable[[Any], None]]] = {
    "backbones": ("zoo_backbones", validate.validate_backbone),
    "adapters": ("zoo_adapters", validate.validate_adapter),
    "weights": ("zoo_weights", validate.validate_weights),
    "models": ("zoo_models", validate.validate_model),
    "parts": ("zoo_parts", validate.validate_part),
}
"""Kind of spec -> (the hook that returns such specs, the check that each must pass)."""


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """The state of one plugin.

    Attributes:
        name: name of the entry point, or of zoo's own module.
        module: the module that is imported.
        distribution: the installed distribution that it belongs to.
        version: version of the distribution.
        state: `ok`; `failed` (the import, a hook or a spec was wrong); `disabled`; `incompatible` (written for another
            version of the plugin interface); `shadowed` (another distribution is preferred for some of its names);
            `unloaded` (known from its catalogue and not needed yet).
        reason: one sentence; empty for `ok`.
        traceback: traceback of the error, if there was one.
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
    """An installed plugin, before any of its code is imported.

    `attribute` is the plugin object in the module; empty if the module itself is the plugin.
    """

    name: str
    module: str
    attribute: str
    distribution: str
    version: str

    def answers_to(self, name: str) -> bool:
        """Return whether `name` is this plugin's name, its module, or `distribution/name`."""
        return name in (self.name, self.module, f"{self.distribution}/{self.name}")

    @property
    def first_party(self) -> bool:
        """Whether it belongs to zoo itself."""
        return self.module.rpartition(".")[0] in _PACKAGES or self.module in map(_parts_of, _ROOMS)


@dataclass(frozen=True)
class Contribution:
    """The specs of a plugin by kind and name, and its `zoo_fetch` if it has one."""

    specs: Mapping[str, Mapping[str, Any]]
    fetch: Callable[..., Path | None] | None = None


class IncompatibleError(PluginError):
    """A plugin written for another version of the plugin interface."""


def same_distribution(one: str, other: str) -> bool:
    """Return whether two spellings name the same distribution (`My_Dist` is `my-dist`)."""
    return _canonical(one) == _canonical(other)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def discover() -> list[Candidate]:
    """Return every installed plugin: zoo's own, then third-party ones by distribution and name. Nothing is imported."""
    third = {(candidate.module, candidate.attribute): candidate for candidate in _entry_points()}
    return [*_own_modules(), *sorted(third.values(), key=lambda c: (_canonical(c.distribution), c.name))]


def _parts_of(room: str) -> str:
    return f"zoo.{room}.parts"


def _own_modules() -> Iterator[Candidate]:
    for room in _ROOMS:
        yield Candidate(f"zoo-{room}", _parts_of(room), "", FIRST_PARTY, zoo.__version__)
    for package in _PACKAGES:
        for module in sorted(pkgutil.iter_modules(importlib.import_module(package).__path__), key=lambda m: m.name):
            if not module.name.startswith("_"):
                yield Candidate(module.name, f"{package}.{module.name}", "", FIRST_PARTY, zoo.__version__)


def _entry_points() -> Iterator[Candidate]:
    distributions = set()
    for distribution in metadata.distributions():
        try:
            # Parse only files that mention the group: parsing those of all distributions would take longer than the
            # rest of a listing.
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"]
            points = [point for point in distribution.entry_points if point.group == GROUP]
        except Exception:  # a damaged installation of another package must not stop zoo
            continue
        if _canonical(name) in distributions:
            continue  # an older copy, later on sys.path
        distributions.add(_canonical(name))
        for point in points:
            module, _, attribute = point.value.partition(":")
            yield Candidate(point.name, module.strip(), attribute.strip(), name, distribution.version)


def shipped_catalogue(candidate: Candidate) -> Path | None:
    """Return the `registry.toml` that a third-party package ships; None if it ships none. Nothing is imported.

    If several of the nested packages around the plugin module have one, the innermost counts.
    """
    top, *inner = candidate.module.split(".")
    try:
        package = util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    for folder in map(Path, (package and package.submodule_search_locations) or ()):
        nested = [folder.joinpath(*inner[:depth]) for depth in range(len(inner), -1, -1)]
        for place in nested:
            if (place / FILE).is_file():
                return place / FILE
    return None


def load(candidate: Candidate) -> Contribution:
    """Import the plugin, register it with pluggy and collect the specs that its hooks return.

    Raises:
        IncompatibleError: its `ZOO_API` is not the version of this zoo.
        PluginError: a hook is unknown, or a spec is not valid.
        BaseException: any error that the plugin's own code raises.
    """
    module = importlib.import_module(candidate.module)
    plugin: Any = module
    for part in filter(None, candidate.attribute.split(".")):
        plugin = getattr(plugin, part)
    version = getattr(plugin, "ZOO_API", getattr(module, "ZOO_API", spec.API_VERSION))
    if version != spec.API_VERSION:
        raise IncompatibleError(
            f"it was written for version {version!r} of the plugin interface, but this zoo has version "
            f"{spec.API_VERSION}; install matching releases of the two."
        )
    manager = _registered(plugin, candidate.name)
    specs = {kind: _collect(manager, hook, check) for kind, (hook, check) in HOOKS.items()}
    fetch = manager.hook.zoo_fetch if manager.hook.zoo_fetch.get_hookimpls() else None
    return Contribution(specs, fetch)


def _registered(plugin: Any, name: str) -> pluggy.PluginManager:
    """Return a plugin manager with only this plugin.

    Each plugin has a manager of its own: in a shared one, a plugin that raises in a hook would end the call for all.
    """
    import pluggy

    from zoo.registry import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    known = [name for name in vars(manager.hook) if name.startswith("zoo_")]
    for hook in known:
        function = getattr(plugin, hook, None)
        if callable(function) and manager.parse_hookimpl_opts(plugin, hook) is None:
            raise PluginError(f"the function {hook} is not marked as a hook; decorate it with @zoo.hookimpl.")
    manager.register(plugin, name)
    _reject_unknown_hooks(manager, known)
    return manager


def _reject_unknown_hooks(manager: pluggy.PluginManager, known: list[str]) -> None:
    """Raise as pluggy's `check_pending` does, with the hook that was probably meant."""
    for hook, caller in vars(manager.hook).items():
        if hook.startswith("_") or hook in known or all(impl.optionalhook for impl in caller.get_hookimpls()):
            continue
        close = nearest(hook, known, 1)
        meant = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(sorted(known))}."
        raise PluginError(f"it implements {hook}, which is not a hook of zoo; {meant}")


def _collect(manager: pluggy.PluginManager, hook: str, check: Callable[[Any], None]) -> dict[str, Any]:
    specs: dict[str, Any] = {}
    for returned in getattr(manager.hook, hook)():
        for one in returned:
            check(one)
            if one.name in specs:
                raise PluginError(f"{hook} returns {one.name!r} twice.")
            specs[one.name] = one
    return specs


def attempt(candidate: Candidate) -> tuple[Contribution | None, State, str, str]:
    """Call `load` and catch its errors. Returns the contribution or None, the state, the reason and the traceback.

    All exceptions except Ctrl-C are caught: a plugin that calls `sys.exit` on import must not end the program.
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
