"""The registry: names to specs, over all installed plugins.

A single look-up loads only the plugin that the catalogue names for it. Plugins without a catalogue are loaded first,
because nothing else says what they give. `zoo.registry.resolve` has the rules for names that several plugins give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from zoo import settings
from zoo.errors import FetchError, PluginError, UnknownNameError, ZooError
from zoo.registry import catalogue, loader
from zoo.registry.catalogue import Overlay, Row
from zoo.registry.installed import Plugin, Selection, installed
from zoo.registry.loader import PluginRecord
from zoo.registry.resolve import SINGULAR, Resolver, split
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess, WeightSpec


class Registry:
    """All backbones, task adapters, weights, models and parts that the installed plugins give.

    Three places say which plugins are used: the arguments, then the environment (`ZOO_PLUGINS`,
    `ZOO_DISABLE_PLUGINS`, comma-separated), then the user's registry.toml (`[plugins] disable`). The first of the
    three that mentions a plugin decides. A disabled plugin is not imported.

    Args:
        plugins: use only these plugins, given by name, module or `distribution/name`; None for all.
        disable: use all plugins except these.
        strict: raise `PluginError` for a broken plugin instead of setting it aside; None for `ZOO_STRICT_PLUGINS`.
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
        """Return the backbone called `name` (or `distribution/name`).

        Raises:
            UnknownNameError: no plugin gives it; the message has the nearest names.
            PluginError: its plugin is broken, or two plugins give it.
        """
        return cast(BackboneSpec, self._spec("backbones", name))

    def adapter(self, name: str) -> AdapterSpec:
        """Return the task adapter called `name`. Raises as `backbone` does."""
        return cast(AdapterSpec, self._spec("adapters", name))

    def model(self, name: str) -> ModelSpec:
        """Return the named model called `name`. Raises as `backbone` does."""
        return cast(ModelSpec, self._spec("models", name))

    def weights(self, name: str) -> WeightSpec:
        """Return the weights called `name` (`arch.tag`). Raises as `backbone` does.

        Three sources are merged: the plugin's spec, then the user's own row in registry.toml, then the user's pin.
        Weights without preprocessing get the backbone's.
        """
        private = self.overlay.weights.get(name)
        try:
            spec = cast(WeightSpec, self._names.spec("weights", name))
        except UnknownNameError:
            if private is None:
                raise
            spec = WeightSpec(name, preprocess=None)
        else:
            self.overlay.announce(spec.name)
        if spec.preprocess is None:
            spec = replace(spec, preprocess=self._usual_preprocess(name))
        if private is not None:
            spec = catalogue.weight_spec(private, spec)
        pin = self.overlay.pins.get(spec.name)
        return replace(spec, **pin) if pin else spec  # type: ignore[arg-type]

    def _usual_preprocess(self, weights: str) -> Preprocess:
        """Return the preprocessing of the backbone that weights are for; the default if no plugin gives it."""
        try:
            return self.backbone(self.backbone_of(weights)).preprocess
        except UnknownNameError:
            return Preprocess()

    def part(self, name: str) -> Part:
        """Return the part called `point:name` (or `distribution/point:name`). Raises as `backbone` does.

        Other code uses `zoo.registry.parts.Point` instead.
        """
        return cast(Part, self._spec("parts", name))

    def part_rows(self, point: str) -> list[Row]:
        """Return the catalogue rows of the parts of an extension point, by name."""
        return [row for row in self.rows("parts") if row.name.startswith(f"{point}:")]

    def part_names(self, point: str) -> list[str]:
        """Return the names of the parts of an extension point, in the order of `part_rows`."""
        return [name.replace(f"{point}:", "") for name in self.names_of(self.part_rows(point))]

    def points(self) -> dict[str, int]:
        """Return the extension points that have parts, each with the number of its parts."""
        return dict(Counter(row.name.partition(":")[0] for row in self.rows("parts")))

    def backbone_of(self, weights: str) -> str:
        """Return the name of the backbone that weights are for; it may be qualified."""
        distribution, bare = split(weights)
        arch = bare.split(".", 1)[0]
        if not distribution:
            try:
                distribution = self._names.plugin_of("weights", weights).candidate.distribution
            except UnknownNameError:  # weights of the user's registry.toml
                return arch
        return self._names.beside("backbones", arch, distribution)

    def parts_of(self, model: str) -> tuple[str, str]:
        """Return the names of the backbone and of the task adapter of a named model; they may be qualified."""
        plugin, spec = self._names.plugin_of("models", model), self.model(model)
        distribution, arch = plugin.candidate.distribution, spec.backbone.split(".", 1)[0]
        backbone = self._names.beside("backbones", arch, distribution) + spec.backbone[len(arch) :]
        return backbone, self._names.beside("adapters", spec.adapter, distribution)

    def means_model(self, name: str) -> bool:
        """Return whether a name means a named model.

        A name that is also one of zoo's own backbones means that backbone, unless the named model is zoo's own as
        well: installing a plugin must not change what a name means.
        """
        if not any(name in (row.name, row.qualified) for row in self.rows("models")):
            return False
        return name not in self.own_names("backbones") or name in self.own_names("models")

    def provider(self, kind: str, name: str) -> tuple[str, str]:
        """Return (distribution, version) of the plugin that gives `name`. Raises as `backbone` does."""
        candidate = self._names.plugin_of(kind, name).candidate
        return candidate.distribution, candidate.version

    def recorded(self, kind: str, name: str, distribution: str, version: str) -> Any:
        """Return the spec that a saved model was made with: `name` of that distribution, never another's.

        Raises:
            PluginError: the distribution or the spec is missing; the message says what to install.
        """
        own = [p for p in self._plugins if loader.same_distribution(p.candidate.distribution, distribution)]
        needed = f"the {SINGULAR[kind]} {name!r} of the distribution {distribution} {version} is needed"
        try:
            return self._names.spec(kind, f"{distribution}/{name}")
        except (UnknownNameError, PluginError):
            if self._names.givers(kind, name, distribution):
                raise
            if broken := [plugin for plugin in own if plugin.given is None]:
                raise PluginError(f"{needed}, but its plugin {broken[0].qualified} {broken[0].fate()}") from None
        taken = "".join(
            f" {plugin.candidate.distribution}/{name} has the same name but is other code, so it is not used instead."
            for plugin in self._names.givers(kind, name)
        )
        if own:
            raise PluginError(
                f"{needed}, but the installed {distribution} {own[0].candidate.version} does not give it: "
                f"`pip install '{distribution}=={version}'`.{taken}"
            )
        raise PluginError(f"{needed}, but it is not installed: `pip install {distribution}`.{taken}")

    def own_names(self, kind: str) -> frozenset[str]:
        """Return the names of `kind` that zoo's own plugins give, without those of disabled plugins."""
        own = [plugin for plugin in self._plugins if plugin.candidate.first_party and plugin.state != "disabled"]
        return frozenset(row.name for plugin in own for row in plugin.rows_of(kind))

    def recognised(self, backbone: str, sha256: str) -> WeightSpec | None:
        """Return the weights of a backbone whose file has this hash; None for an unknown file.

        zoo's own weights come before those of other distributions.
        """
        own = self.own_names("weights")
        same = [spec for spec in self.weights_for(backbone) if sha256 and spec.sha256 == sha256]
        return min(same, key=lambda spec: spec.name not in own, default=None)

    def weights_for(self, backbone: str) -> list[WeightSpec]:
        """Return all weights of a backbone, by name; an empty list if there are none."""
        distribution, arch = split(backbone)
        prefix = f"{arch}."
        for plugin in self._plugins:
            if plugin.rows is None:
                plugin.examine(self._strict)
            if plugin.rows is None or any(r.kind == "weights" and r.name.startswith(prefix) for r in plugin.rows):
                plugin.load(self._strict)
        names = {name for name, _ in self._names.all_givers("weights") if name.startswith(prefix)}
        names |= {name for name in self.overlay.weights if name.startswith(prefix)}
        return [self._preferring(name, distribution) for name in sorted(names)]

    def _preferring(self, name: str, distribution: str) -> WeightSpec:
        if distribution and self._names.givers("weights", name, distribution):
            return self.weights(f"{distribution}/{name}")
        return self.weights(name)

    def fetch(self, source: str, file: str, revision: str, offline: bool) -> Path | None:
        """Return a local path for `file` at `source`, from the first plugin that knows the scheme; None if none does.

        Each plugin is asked separately, so that one that fails does not hide the others.

        Raises:
            ZooError: no plugin answered, and the first that failed raised this.
            FetchError: the same for any other error; the message names the plugin.
        """
        self.load_all()
        errors: list[Exception] = []
        for plugin in self._plugins:
            if plugin.given is None or plugin.given.fetch is None:
                continue
            try:
                path = plugin.given.fetch(source=source, file=file, revision=revision, offline=offline)
            except (Exception, SystemExit) as error:
                errors.append(error if isinstance(error, ZooError) else _fetch_error(plugin, source, error))
                continue
            if path is not None:
                return Path(path)
        if errors:
            raise errors[0]
        return None

    # -- everything -----------------------------------------------------------------------------------------------

    def backbones(self) -> dict[str, BackboneSpec]:
        """Return every backbone by name.

        If several plugins give a name, the bare name is the one that it means; the others are `distribution/name`.
        """
        return self._names.everything("backbones")

    def adapters(self) -> dict[str, AdapterSpec]:
        """Return every task adapter by name, as `backbones` does."""
        return self._names.everything("adapters")

    def models(self) -> dict[str, ModelSpec]:
        """Return every named model by name, as `backbones` does."""
        return self._names.everything("models")

    def rows(self, kind: str) -> list[Row]:
        """Return the catalogue rows of `kind` for every plugin that is not disabled, by name.

        Only catalogues are read. A plugin is imported only if no catalogue describes it.
        """
        rows = []
        for plugin in self._plugins:
            if plugin.rows is None:
                plugin.examine(self._strict)
            if plugin.state not in ("disabled", "failed", "incompatible"):
                rows += plugin.rows_of(kind)
        if kind == "weights":
            private = self.overlay.weights
            listed = {row.name for row in rows}
            rows = [_overlaid(row, private.get(row.name)) for row in rows]
            rows += [row for name, row in private.items() if name not in listed]
        return sorted(rows, key=lambda row: (row.name, row.distribution))

    def names_of(self, rows: Iterable[Row]) -> list[str]:
        """Return the name of each row of one kind: bare if that means this row, otherwise `distribution/name`."""
        return self._names.names_of(rows)

    def records(self, *, load: bool = True) -> list[PluginRecord]:
        """Return the state of every plugin. Without `load`, plugins that were not needed yet stay `unloaded`."""
        if load:
            self.load_all()
        shadowed = self._names.shadowed()
        records = []
        for plugin in self._plugins:
            record = plugin.record()
            if plugin.qualified in shadowed:
                record = replace(record, state="shadowed", reason="; ".join(shadowed[plugin.qualified]))
            records.append(record)
        return records

    def load_all(self) -> None:
        """Load every plugin that is not disabled."""
        self._names.load_all()

    def loading(self) -> Iterator[str]:
        """Load every plugin that is not disabled; yield `distribution/name` of each before it is loaded."""
        yield from self._names.loading()

    @cached_property
    def overlay(self) -> Overlay:
        """The merged content of the user's own registry.toml files."""
        return catalogue.read_overlay()

    # -- shared by the look-ups -----------------------------------------------------------------------------------

    def _spec(self, kind: str, name: str) -> Any:
        spec = self._names.spec(kind, name)
        self.overlay.announce(name)
        return spec

    @cached_property
    def _plugins(self) -> list[Plugin]:
        return installed(Selection(self._only, self._disable, self.overlay))

    @cached_property
    def _names(self) -> Resolver:
        return Resolver(self._plugins, self.overlay.prefer, self._strict)


def _overlaid(row: Row, private: Row | None) -> Row:
    return row if private is None else replace(private, module=row.module, data={**row.data, **private.data})


def _fetch_error(plugin: Plugin, source: str, error: BaseException) -> FetchError:
    return FetchError(f"plugin {plugin.qualified} failed to fetch {source}: {type(error).__name__}: {error}")


_default: Registry | None = None


def registry() -> Registry:
    """Return the registry of this process; the first call makes it."""
    global _default
    if _default is None:
        _default = Registry()
    return _default


def reset() -> None:
    """Forget the registry of this process; the next call of `registry` makes one with the settings of that moment."""
    global _default
    _default = None
