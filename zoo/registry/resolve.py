"""Which plugin a name comes from, when one or several plugins give it.

The rules, in this order:

1. A qualified name, `distribution/name`, means that distribution's.
2. A bare name means the distribution that the user's registry.toml prefers for it (`[prefer]`).
3. Otherwise it means the one that zoo's own plugins give, so that installing a plugin changes no default.
4. Two third-party plugins that give one name are never resolved silently: the look-up raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zoo.errors import PluginError, ZooError, unknown_name
from zoo.registry import loader
from zoo.registry.catalogue import KINDS, Row
from zoo.registry.installed import Plugin

SINGULAR = {
    "backbones": "backbone",
    "adapters": "task",
    "weights": "weights",
    "models": "model",
    "parts": "part",
}
_LISTED = {"adapters": "tasks"}
"""Kinds that users know by another name than the catalogue's."""


def split(name: str) -> tuple[str, str]:
    """Return (distribution, bare name) of a name; the distribution is empty for a name that is not qualified."""
    distribution, _, bare = name.rpartition("/")
    return distribution, bare


class Resolver:
    """Find the plugin behind a name, loading as few plugins as possible.

    Args:
        plugins: every installed plugin, in order.
        prefer: name -> the distribution that the user prefers for it.
        strict: raise `PluginError` for a broken plugin instead of setting it aside.
    """

    def __init__(self, plugins: list[Plugin], prefer: Mapping[str, str], strict: bool) -> None:
        self._plugins = plugins
        self._prefer = prefer
        self._strict = strict

    def plugin_of(self, kind: str, name: str) -> Plugin:
        """Return the plugin that gives what is called `name`, loaded.

        Raises:
            UnknownNameError: no plugin gives it.
            PluginError: its plugin is broken, or two plugins give it.
        """
        distribution, bare = split(name)
        # Load only the plugins whose catalogue lists the name, and those of which nothing is known. All others are
        # loaded only if no catalogue lists the name, since a catalogue may be out of date.
        candidates = self._own(kind, name) or self._listing(kind, bare)
        for plugin in candidates:
            plugin.load(self._strict)
        givers = self.givers(kind, bare, distribution)
        if not givers and not any(plugin.lists(kind, bare) for plugin in candidates):
            self.load_all()
            givers = self.givers(kind, bare, distribution)
        if not givers:
            raise self._missing(kind, name)
        return self._choose(kind, bare, givers)

    def _own(self, kind: str, name: str) -> list[Plugin]:
        """Return zoo's own plugin that a bare name means; nothing for a name that may mean another distribution's."""
        if "/" in name or self._prefer.get(name) or self._prefer.get(name.split(".", 1)[0]):
            return []
        own = [plugin for plugin in self._plugins if plugin.candidate.first_party and plugin.lists(kind, name)]
        return own if own and all(plugin.state in ("unloaded", "ok") for plugin in own) else []

    def _listing(self, kind: str, bare: str) -> list[Plugin]:
        """Return the plugins that list a name, and those without any list."""
        for plugin in self._plugins:
            if plugin.rows is None:
                plugin.examine(self._strict)
        return [plugin for plugin in self._plugins if plugin.rows is None or plugin.lists(kind, bare)]

    def spec(self, kind: str, name: str) -> Any:
        """Return the spec called `name`. Raises as `plugin_of` does."""
        given = self.plugin_of(kind, name).given
        assert given is not None
        return given.specs[kind][split(name)[1]]

    def beside(self, kind: str, name: str, distribution: str) -> str:
        """Return what a plugin of `distribution` means by a bare name.

        This is `distribution/name` if the distribution gives that name and the bare name means another
        distribution's; otherwise it is the bare name.
        """
        gives = self.givers(kind, name, distribution) or self._lists(kind, name, distribution)
        if gives and not loader.same_distribution(self.plugin_of(kind, name).candidate.distribution, distribution):
            return f"{distribution}/{name}"
        return name

    def givers(self, kind: str, name: str, distribution: str = "") -> list[Plugin]:
        """Return the loaded plugins that give a bare name; only those of `distribution` if it is not empty."""
        givers = [plugin for plugin in self._plugins if plugin.gives(kind, name)]
        if distribution:
            givers = [p for p in givers if loader.same_distribution(p.candidate.distribution, distribution)]
        return givers

    def all_givers(self, kind: str) -> list[tuple[str, list[Plugin]]]:
        """Return every name of `kind` that a loaded plugin gives, with the plugins that give it."""
        givers: dict[str, list[Plugin]] = {}
        for plugin in self._plugins:
            for name in plugin.given.specs[kind] if plugin.given else ():
                givers.setdefault(name, []).append(plugin)
        return sorted(givers.items())

    def everything(self, kind: str) -> dict[str, Any]:
        """Load all plugins and return every spec of `kind` by name, qualified if the bare name means another."""
        self.load_all()
        specs = {}
        for name, givers in self.all_givers(kind):
            chosen = self._preferred(name, givers) if len(givers) > 1 else givers
            for plugin in givers:
                assert plugin.given is not None
                key = name if chosen == [plugin] else f"{plugin.candidate.distribution}/{name}"
                specs[key] = plugin.given.specs[kind][name]
        return specs

    def names_of(self, rows: Iterable[Row]) -> list[str]:
        """Return the name of each row of one kind: bare if that means this row, otherwise `distribution/name`."""
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

    def shadowed(self) -> dict[str, list[str]]:
        """Return, for each plugin that lost names to a preferred distribution, one phrase for each name."""
        lost: dict[str, list[str]] = {}
        for kind in KINDS:
            for name, givers in self.all_givers(kind):
                chosen = self._preferred(name, givers) if len(givers) > 1 else []
                for plugin in givers if len(chosen) == 1 else ():
                    if plugin is not chosen[0]:
                        phrase = f"{SINGULAR[kind]} {name} is taken from {chosen[0].qualified}"
                        lost.setdefault(plugin.qualified, []).append(phrase)
        return lost

    def load_all(self) -> None:
        """Load every plugin that is not disabled."""
        for _ in self.loading():
            pass

    def loading(self) -> Iterator[str]:
        """Load every plugin that is not disabled; yield `distribution/name` of each before it is loaded."""
        for plugin in self._plugins:
            yield plugin.qualified
            plugin.load(self._strict)

    def _lists(self, kind: str, name: str, distribution: str) -> bool:
        return any(
            plugin.lists(kind, name) and loader.same_distribution(plugin.candidate.distribution, distribution)
            for plugin in self._plugins
        )

    def _choose(self, kind: str, name: str, givers: list[Plugin]) -> Plugin:
        if len(givers) > 1:
            givers = self._preferred(name, givers) or givers
        if len(givers) == 1:
            return givers[0]
        plugins = " and ".join(f"{plugin.qualified} ({plugin.candidate.module})" for plugin in givers)
        names = sorted({f"{plugin.candidate.distribution}/{name}" for plugin in givers})
        if len(names) < len(givers):
            advice = "Disable one of them."
        else:
            advice = (
                f"Write {' or '.join(names)}, or prefer one in registry.toml: "
                f'[prefer] "{name}" = "{givers[0].candidate.distribution}".'
            )
        raise PluginError(f"two plugins give the {SINGULAR[kind]} {name!r}: {plugins}. {advice}")

    def _preferred(self, name: str, givers: list[Plugin]) -> list[Plugin]:
        """Return the plugins that the bare name means; none if that is not clear."""
        chosen = self._meant(name, [plugin.candidate.distribution for plugin in givers])
        return [plugin for plugin in givers if plugin.candidate.distribution in chosen]

    def _meant(self, name: str, distributions: Iterable[str]) -> set[str]:
        """Return which of the distributions that give `name` its bare form means; none if that is not clear.

        A preference for a backbone holds for its weights as well.
        """
        preferred = self._prefer.get(name) or self._prefer.get(name.split(".", 1)[0])
        for one in (preferred, loader.FIRST_PARTY):
            if one and (chosen := {other for other in distributions if loader.same_distribution(other, one)}):
                return chosen
        return set()

    def _missing(self, kind: str, name: str) -> ZooError:
        """Return the error for a name that no working plugin gives; it names the broken plugin if a catalogue does."""
        bare = split(name)[1]
        for plugin in self._plugins:
            if plugin.lists(kind, bare) and plugin.given is None:
                return PluginError(
                    f"{SINGULAR[kind]} {name!r} comes from plugin {plugin.qualified}, which {plugin.fate()}"
                )
            if plugin.lists(kind, bare) and not plugin.gives(kind, bare):
                return PluginError(
                    f"{SINGULAR[kind]} {name!r} is in the catalogue of plugin {plugin.qualified}, which does not "
                    "give it; the catalogue is out of date."
                )
        names = [known for known, _ in self.all_givers(kind)]
        broken = [plugin.qualified for plugin in self._plugins if plugin.state in ("failed", "incompatible")]
        hint = f"`zoo list {_LISTED.get(kind, kind)}` lists all."
        if broken:
            hint += f" Plugins set aside: {', '.join(broken)}; `zoo plugins` says why."
        return unknown_name(SINGULAR[kind], name, names, hint)
