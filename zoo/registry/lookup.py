"""The registry: names to specs, over every plugin that is installed.

A single look-up loads only the plugin that the catalogue names for it; plugins without a catalogue are loaded first,
because only they themselves know what they give. A bare name that one of zoo's own plugins gives means that one,
whatever else is installed, unless the user's registry.toml prefers another distribution: installing a plugin changes no
default. Two third-party plugins that give one name are never resolved silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from zoo import settings
from zoo.errors import FetchError, PluginError, UnknownNameError, ZooError, unknown_name
from zoo.registry import catalogue, loader
from zoo.registry.catalogue import KINDS, Overlay, Row
from zoo.registry.installed import Plugin, Selection, installed
from zoo.registry.loader import PluginRecord
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess, WeightSpec

_SINGULAR = {
    "backbones": "backbone",
    "adapters": "task",
    "weights": "weights",
    "models": "model",
    "parts": "part",
}
_LISTED = {"adapters": "tasks"}
"""Kinds that users know by another name than the catalogue's."""


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

        Those that say nothing about preprocessing take the backbone's, whoever gives them.
        """
        own = self._overlay.weights.get(name)
        try:
            found = cast(WeightSpec, self._find("weights", name))
        except UnknownNameError:
            if own is None:
                raise
            found = WeightSpec(name, preprocess=None)
        if found.preprocess is None:
            found = replace(found, preprocess=self._usual_preprocess(name))
        if own is not None:
            found = catalogue.weight_spec(own, found)
        pin = self._overlay.pins.get(found.name)
        return replace(found, **pin) if pin else found  # type: ignore[arg-type]

    def _usual_preprocess(self, weights: str) -> Preprocess:
        """That of the backbone that weights are for; the default where no plugin gives it."""
        try:
            return self.backbone(self.backbone_of(weights)).preprocess
        except UnknownNameError:
            return Preprocess()

    def part(self, name: str) -> Part:
        """The part called `point:name` (or `distribution/point:name`); raises as `backbone` does. See
        `zoo.registry.parts.Point`, which is what others use."""
        return cast(Part, self._find("parts", name))

    def part_rows(self, point: str) -> list[Row]:
        """Catalogue rows of the parts of an extension point, by name."""
        return [row for row in self.rows("parts") if row.name.startswith(f"{point}:")]

    def part_names(self, point: str) -> list[str]:
        """What the parts of an extension point are called, in the order of `part_rows`."""
        return [name.replace(f"{point}:", "") for name in self.names_of(self.part_rows(point))]

    def points(self) -> dict[str, int]:
        """The extension points that have parts, with how many there are."""
        return dict(Counter(row.name.partition(":")[0] for row in self.rows("parts")))

    def backbone_of(self, weights: str) -> str:
        """The name, perhaps qualified, of the backbone that weights are for."""
        distribution, bare = _split(weights)
        arch = bare.split(".", 1)[0]
        if not distribution:
            try:
                distribution = self._plugin_of("weights", weights).candidate.distribution
            except UnknownNameError:  # the user's own
                return arch
        return self._beside("backbones", arch, distribution)

    def parts_of(self, model: str) -> tuple[str, str]:
        """The names, perhaps qualified, of the backbone and the adapter of a named composition."""
        plugin, spec = self._plugin_of("models", model), self.model(model)
        distribution, arch = plugin.candidate.distribution, spec.backbone.split(".", 1)[0]
        backbone = self._beside("backbones", arch, distribution) + spec.backbone[len(arch) :]
        return backbone, self._beside("adapters", spec.adapter, distribution)

    def _beside(self, kind: str, name: str, distribution: str) -> str:
        """What a plugin means by a bare name: that of its own distribution, where that gives one and another one has
        the bare name."""
        own = self._given(kind, name, distribution) or self._lists(kind, name, distribution)
        if own and not loader.same_distribution(self._plugin_of(kind, name).candidate.distribution, distribution):
            return f"{distribution}/{name}"
        return name

    def means_model(self, name: str) -> bool:
        """Whether a name means a named composition: not where it is also a backbone of zoo's own and the composition
        is another distribution's, which would change what the name has always meant."""
        if not any(name in (row.name, row.qualified) for row in self.rows("models")):
            return False
        return name not in self.own_names("backbones") or name in self.own_names("models")

    def provider(self, kind: str, name: str) -> tuple[str, str]:
        """(distribution, version) of the plugin that gives what is called `name`; raises as `backbone` does."""
        candidate = self._plugin_of(kind, name).candidate
        return candidate.distribution, candidate.version

    def recorded(self, kind: str, name: str, distribution: str, version: str) -> Any:
        """What a saved model was made with: the spec called `name` of that distribution and of no other.

        Raises `PluginError`, which says what to install, where it is not to be had.
        """
        own = [p for p in self._plugins if loader.same_distribution(p.candidate.distribution, distribution)]
        needed = f"the {_SINGULAR[kind]} {name!r} of the distribution {distribution} {version} is needed"
        try:
            return self._find(kind, f"{distribution}/{name}")
        except (UnknownNameError, PluginError):
            if self._given(kind, name, distribution):
                raise
            if broken := [plugin for plugin in own if plugin.given is None]:
                raise PluginError(f"{needed}, and its plugin {broken[0].qualified} {broken[0].fate()}") from None
        others = [plugin for plugin in self._plugins if plugin.gives(kind, name)]
        taken = "".join(
            f" {plugin.candidate.distribution}/{name} has the same name, but is other code, and is not used instead."
            for plugin in others
        )
        if own:
            raise PluginError(
                f"{needed}, and {distribution} {own[0].candidate.version}, which is installed, does not give it: "
                f"`pip install '{distribution}=={version}'`.{taken}"
            )
        raise PluginError(f"{needed}, which is not installed: `pip install {distribution}`.{taken}")

    def own_names(self, kind: str) -> frozenset[str]:
        """The names of `kind` that zoo's own plugins give, disabled ones left out."""
        own = [plugin for plugin in self._plugins if plugin.candidate.first_party and plugin.state != "disabled"]
        return frozenset(row.name for plugin in own for row in plugin.rows_of(kind))

    def recognised(self, backbone: str, sha256: str) -> WeightSpec | None:
        """The weights of a backbone whose file has this hash, zoo's own before others'; None for an unknown file."""
        own = self.own_names("weights")
        same = [spec for spec in self.weights_for(backbone) if sha256 and spec.sha256 == sha256]
        return min(same, key=lambda spec: spec.name not in own, default=None)

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
        """Every backbone by name. Where several plugins give a name, only the one that is meant by the bare name has
        it; the others are `distribution/name`."""
        return self._everything("backbones")

    def adapters(self) -> dict[str, AdapterSpec]:
        """Every task adapter by name, as `backbones` does."""
        return self._everything("adapters")

    def models(self) -> dict[str, ModelSpec]:
        """Every named composition by name, as `backbones` does."""
        return self._everything("models")

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
        given = self._plugin_of(kind, name).given
        assert given is not None
        return given.specs[kind][_split(name)[1]]

    def _plugin_of(self, kind: str, name: str) -> Plugin:
        """The plugin that a name is taken from, loaded; raises as `backbone` does."""
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
        return self._choose(kind, bare, found)

    def _lists(self, kind: str, name: str, distribution: str) -> bool:
        return any(
            plugin.lists(kind, name) and loader.same_distribution(plugin.candidate.distribution, distribution)
            for plugin in self._plugins
        )

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
        """Those that the bare name means: of the distribution that the user prefers for `name`, or for the backbone it
        is weights for; else zoo's own."""
        chosen = self._meant(name, [plugin.candidate.distribution for plugin in found])
        return [plugin for plugin in found if plugin.candidate.distribution in chosen]

    def _meant(self, name: str, distributions: Iterable[str]) -> set[str]:
        """Which of the distributions that give `name` its bare form means; none where that is not clear."""
        wanted = self._overlay.prefer.get(name) or self._overlay.prefer.get(name.split(".", 1)[0])
        for one in (wanted, loader.FIRST_PARTY):
            if one and (chosen := {other for other in distributions if loader.same_distribution(other, one)}):
                return chosen
        return set()

    def names_of(self, rows: Iterable[Row]) -> list[str]:
        """What each row of one kind is called: by its bare name where that means it, else `distribution/name`."""
        rows = list(rows)
        givers: dict[str, list[str]] = {}
        for row in rows:
            givers.setdefault(row.name, []).append(row.distribution)
        return [
            row.name
            if len(others := givers[row.name]) == 1 or self._meant(row.name, others) == {row.distribution}
            else row.qualified
            for row in rows
        ]

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
            for plugin in found:
                assert plugin.given is not None
                key = name if chosen == [plugin] else f"{plugin.candidate.distribution}/{name}"
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
        hint = f"`zoo list {_LISTED.get(kind, kind)}` lists all."
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
