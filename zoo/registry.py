"""The registry: names to specs, over every plugin that is installed.

A single look-up loads only the plugin that the catalogue names for it; plugins without a catalogue are loaded first,
because only they themselves know what they give. Two plugins that give one name are never resolved silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from zoo import catalogue, loader, settings
from zoo.catalogue import KINDS, Overlay, Row
from zoo.errors import FetchError, PluginError, UnknownNameError, ZooError, unknown_name
from zoo.installed import Plugin, Selection, installed
from zoo.loader import PluginRecord
from zoo.spec import AdapterSpec, BackboneSpec, ModelSpec, WeightSpec

_SINGULAR = {"backbones": "backbone", "adapters": "adapter", "weights": "weights", "models": "model"}


class Registry:
    """Every backbone, adapter, set of weights and model that the installed plugins give.

    Args:
        plugins: only these plugins, by name, module or `distribution/name`.
        disable: all plugins but these.
        strict: raise `PluginError` for a plugin that is broken, instead of setting it aside.

    What is not given comes from the environment (`ZOO_PLUGINS`, `ZOO_DISABLE_PLUGINS`, comma-separated;
    `ZOO_STRICT_PLUGINS`), then from the user's registry.toml (`[plugins] disable`). The first of the three that says
    something about a plugin decides; a disabled plugin is not imported.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[str] | None = None,
        disable: Iterable[str] | None = None,
        strict: bool | None = None,
    ) -> None:
        self._only = None if plugins is None else frozenset(plugins)
        self._disable = frozenset(disable or ())
        self._strict = settings.flag("ZOO_STRICT_PLUGINS") if strict is None else strict

    # -- single look-ups ------------------------------------------------------------------------------------------

    def backbone(self, name: str) -> BackboneSpec:
        """The backbone called `name` (or `distribution/name`).

        Raises `UnknownNameError` with the nearest names; `PluginError` when its plugin is broken or two give it.
        """
        return cast(BackboneSpec, self._find("backbones", name))

    def adapter(self, name: str) -> AdapterSpec:
        """The task adapter called `name`; raises as `backbone` does."""
        return cast(AdapterSpec, self._find("adapters", name))

    def model(self, name: str) -> ModelSpec:
        """The named composition called `name`; raises as `backbone` does."""
        return cast(ModelSpec, self._find("models", name))

    def weights(self, name: str) -> WeightSpec:
        """The weights called `name` (`arch.tag`), with the user's own row and pin for them; raises as `backbone` does.

        Private weights of the user's registry.toml that say nothing about preprocessing take the backbone's.
        """
        own = self._overlay.weights.get(name)
        try:
            found = cast(WeightSpec, self._find("weights", name))
        except UnknownNameError:
            if own is None:
                raise
            found = self._private_base(name)
        if own is not None:
            found = catalogue.weight_spec(own, found)
        pin = self._overlay.pins.get(found.name)
        return replace(found, **pin) if pin else found  # type: ignore[arg-type]

    def _private_base(self, name: str) -> WeightSpec:
        return WeightSpec(name, preprocess=self.backbone(name.split(".", 1)[0]).preprocess)

    def weights_for(self, backbone: str) -> list[WeightSpec]:
        """All weights of a backbone, by name; an empty list where there are none."""
        distribution, arch = _split(backbone)
        prefix = f"{arch}."
        for plugin in self._plugins:
            if plugin.rows is None or any(r.kind == "weights" and r.name.startswith(prefix) for r in plugin.rows):
                plugin.load(self._strict)
        names = {name for name, _ in self._all_given("weights") if name.startswith(prefix)}
        names |= {name for name in self._overlay.weights if name.startswith(prefix)}
        return [self._preferring(name, distribution) for name in sorted(names)]

    def _preferring(self, name: str, distribution: str) -> WeightSpec:
        given = [plugin for plugin in self._plugins if plugin.gives("weights", name)]
        if any(loader.same_distribution(plugin.candidate.distribution, distribution) for plugin in given):
            return self.weights(f"{distribution}/{name}")
        return self.weights(name)

    def fetch(self, source: str, file: str, revision: str, offline: bool) -> Path | None:
        """A local path for `file` at `source`, from the first plugin that knows the scheme; None when none does.

        Every plugin is asked on its own. One that fails is passed over; where no other one answers, its error is
        raised: a `ZooError` as it is, anything else as a `FetchError` naming the plugin.
        """
        self.load_all()
        errors: list[Exception] = []
        for plugin in self._plugins:
            if plugin.given is None or plugin.given.fetch is None:
                continue
            try:
                found = plugin.given.fetch(source=source, file=file, revision=revision, offline=offline)
            except (Exception, SystemExit) as error:
                errors.append(error if isinstance(error, ZooError) else _fetch_error(plugin, source, error))
                continue
            if found is not None:
                return Path(found)
        if errors:
            raise errors[0]
        return None

    # -- everything -----------------------------------------------------------------------------------------------

    def backbones(self) -> dict[str, BackboneSpec]:
        """Every backbone by name. A name that two plugins give appears as `distribution/name`, once for each."""
        return self._everything("backbones")

    def adapters(self) -> dict[str, AdapterSpec]:
        """Every task adapter by name, as `backbones` does."""
        return self._everything("adapters")

    def models(self) -> dict[str, ModelSpec]:
        """Every named composition by name, as `backbones` does."""
        return self._everything("models")

    def weights_all(self) -> dict[str, WeightSpec]:
        """All weights by name, the user's own included, as `backbones` does."""
        names = {*self._everything("weights"), *self._overlay.weights}
        return {name: self.weights(name) for name in sorted(names)}

    def rows(self, kind: str) -> list[Row]:
        """Catalogue rows of `kind` for every plugin that is not disabled, by name.

        Reads catalogues. A plugin is imported only when no catalogue describes it.
        """
        found = []
        for plugin in self._plugins:
            if plugin.rows is None:
                plugin.load(self._strict)
            if plugin.state not in ("disabled", "failed", "incompatible"):
                found += plugin.rows_of(kind)
        if kind == "weights":
            own = self._overlay.weights
            listed = {row.name for row in found}
            found = [_overlaid(row, own.get(row.name)) for row in found]
            found += [row for name, row in own.items() if name not in listed]
        return sorted(found, key=lambda row: (row.name, row.distribution))

    def records(self, *, load: bool = True) -> list[PluginRecord]:
        """How every plugin fared. Without `load`, plugins that were not needed yet stay `unloaded`."""
        if load:
            self.load_all()
        shadowed = self._shadowed()
        records = []
        for plugin in self._plugins:
            record = plugin.record()
            if plugin.qualified in shadowed:
                record = replace(record, state="shadowed", reason="; ".join(shadowed[plugin.qualified]))
            records.append(record)
        return records

    def load_all(self) -> None:
        """Load every plugin that is not disabled."""
        for _ in self.loading():
            pass

    def loading(self) -> Iterator[str]:
        """`load_all` step by step: yields `distribution/name` of each plugin before it is loaded."""
        for plugin in self._plugins:
            yield plugin.qualified
            plugin.load(self._strict)

    @property
    def overlay(self) -> Overlay:
        """What the user's own registry.toml files say."""
        return self._overlay

    # -- how ------------------------------------------------------------------------------------------------------

    @cached_property
    def _overlay(self) -> Overlay:
        return catalogue.read_overlay()

    @cached_property
    def _plugins(self) -> list[Plugin]:
        return installed(Selection(self._only, self._disable, self._overlay))

    def _find(self, kind: str, name: str) -> Any:
        distribution, bare = _split(name)
        listing = [plugin for plugin in self._plugins if plugin.rows is None or plugin.lists(kind, bare)]
        for plugin in listing:
            plugin.load(self._strict)
        found = self._given(kind, bare, distribution)
        if not found and not any(plugin.lists(kind, bare) for plugin in listing):
            self.load_all()
            found = self._given(kind, bare, distribution)
        if not found:
            raise self._missing(kind, name)
        plugin = self._choose(kind, bare, found)
        assert plugin.given is not None
        return plugin.given.specs[kind][bare]

    def _given(self, kind: str, name: str, distribution: str) -> list[Plugin]:
        found = [plugin for plugin in self._plugins if plugin.gives(kind, name)]
        if distribution:
            found = [p for p in found if loader.same_distribution(p.candidate.distribution, distribution)]
        return found

    def _choose(self, kind: str, name: str, found: list[Plugin]) -> Plugin:
        if len(found) > 1:
            found = self._preferred(name, found) or found
        if len(found) == 1:
            return found[0]
        plugins = " and ".join(f"{plugin.qualified} ({plugin.candidate.module})" for plugin in found)
        names = sorted({f"{plugin.candidate.distribution}/{name}" for plugin in found})
        if len(names) < len(found):
            advice = "Disable one of them."
        else:
            advice = (
                f"Say {' or '.join(names)}, or prefer one in registry.toml: "
                f'[prefer] "{name}" = "{found[0].candidate.distribution}".'
            )
        raise PluginError(f"the {_SINGULAR[kind]} {name!r} is given by two plugins, {plugins}. {advice}")

    def _preferred(self, name: str, found: list[Plugin]) -> list[Plugin]:
        """Those of the distribution that the user prefers for `name`, or for the backbone it is weights for."""
        wanted = self._overlay.prefer.get(name) or self._overlay.prefer.get(name.split(".", 1)[0])
        return [p for p in found if wanted and loader.same_distribution(p.candidate.distribution, wanted)]

    def _shadowed(self) -> dict[str, list[str]]:
        """For each plugin that lost names to a preferred distribution, one phrase a name."""
        lost: dict[str, list[str]] = {}
        for kind in KINDS:
            for name, found in self._all_given(kind):
                chosen = self._preferred(name, found) if len(found) > 1 else []
                for plugin in found if len(chosen) == 1 else ():
                    if plugin is not chosen[0]:
                        phrase = f"{_SINGULAR[kind]} {name} is taken from {chosen[0].qualified}"
                        lost.setdefault(plugin.qualified, []).append(phrase)
        return lost

    def _all_given(self, kind: str) -> list[tuple[str, list[Plugin]]]:
        """Every name of `kind` that a loaded plugin gives, with those that give it."""
        givers: dict[str, list[Plugin]] = {}
        for plugin in self._plugins:
            for name in plugin.given.specs[kind] if plugin.given else ():
                givers.setdefault(name, []).append(plugin)
        return sorted(givers.items())

    def _everything(self, kind: str) -> dict[str, Any]:
        self.load_all()
        specs = {}
        for name, found in self._all_given(kind):
            chosen = self._preferred(name, found) if len(found) > 1 else found
            for plugin in chosen or found:
                assert plugin.given is not None
                key = name if len(chosen) == 1 else f"{plugin.candidate.distribution}/{name}"
                specs[key] = plugin.given.specs[kind][name]
        return specs

    def _missing(self, kind: str, name: str) -> ZooError:
        """The error for a name that no working plugin gives: its plugin's fate where a catalogue lists it."""
        bare = _split(name)[1]
        for plugin in self._plugins:
            if plugin.lists(kind, bare) and plugin.given is None:
                return PluginError(
                    f"{_SINGULAR[kind]} {name!r} comes from plugin {plugin.qualified}, which {plugin.fate()}"
                )
            if plugin.lists(kind, bare) and not plugin.gives(kind, bare):
                return PluginError(
                    f"{_SINGULAR[kind]} {name!r} is in the catalogue of plugin {plugin.qualified}, which does not "
                    "give it; the catalogue is out of date."
                )
        names = [known for known, _ in self._all_given(kind)]
        broken = [plugin.qualified for plugin in self._plugins if plugin.state in ("failed", "incompatible")]
        hint = f"`zoo list {kind}` lists all."
        if broken:
            hint += f" Set aside: {', '.join(broken)}; `zoo plugins` says why."
        return unknown_name(_SINGULAR[kind], name, names, hint)


def _split(name: str) -> tuple[str, str]:
    """(distribution or nothing, name) of a name that may be qualified."""
    distribution, _, bare = name.rpartition("/")
    return distribution, bare


def _overlaid(row: Row, own: Row | None) -> Row:
    return row if own is None else replace(own, module=row.module, data={**row.data, **own.data})


def _fetch_error(plugin: Plugin, source: str, error: BaseException) -> FetchError:
    return FetchError(f"plugin {plugin.qualified} failed to fetch {source}: {type(error).__name__}: {error}")


_default: Registry | None = None


def registry() -> Registry:
    """The process's registry, made at the first call."""
    global _default
    if _default is None:
        _default = Registry()
    return _default


def reset() -> None:
    """Forget the process's registry: the next call makes one from the settings as they are then."""
    global _default
    _default = None
