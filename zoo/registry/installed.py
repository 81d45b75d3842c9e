"""The plugins that are installed and what has become of each: unloaded, loaded, set aside, or disabled by the user."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from zoo.errors import ConfigError, PluginError, nearest, unknown_name
from zoo.registry import catalogue, loader
from zoo.registry.catalogue import Overlay, Row
from zoo.registry.loader import Candidate, Contribution, PluginRecord, State


@dataclass
class Plugin:
    """A candidate and what has become of it. `rows` is None where no catalogue describes it."""

    candidate: Candidate
    rows: list[Row] | None
    state: State = "unloaded"
    reason: str = "known from its catalogue; not needed yet"
    traceback: str = ""
    given: Contribution | None = None

    @property
    def qualified(self) -> str:
        return f"{self.candidate.distribution}/{self.candidate.name}"

    def gives(self, kind: str, name: str) -> bool:
        return self.given is not None and name in self.given.specs[kind]

    @cached_property
    def _listed(self) -> frozenset[tuple[str, str]]:
        return frozenset((row.kind, row.name) for row in self.rows or ())

    def lists(self, kind: str, name: str) -> bool:
        return (kind, name) in self._listed

    def load(self, strict: bool) -> None:
        if self.state == "unloaded":
            self.given, self.state, self.reason, self.traceback = loader.attempt(self.candidate)
        if strict and self.state in ("failed", "incompatible"):
            raise PluginError(f"plugin {self.qualified} ({self.candidate.module}) {self.fate()}")

    def record(self) -> PluginRecord:
        found = self.candidate
        return PluginRecord(
            found.name, found.module, found.distribution, found.version, self.state, self.reason, self.traceback
        )

    def fate(self) -> str:
        """What became of a plugin that gives nothing, as the end of a sentence."""
        verb = {"failed": "failed", "incompatible": "is incompatible", "disabled": "is disabled"}[self.state]
        return f"{verb}: {self.reason}"

    def rows_of(self, kind: str) -> list[Row]:
        """Its catalogue rows of `kind`, derived from its specs where no catalogue describes it."""
        if self.rows is not None:
            return [row for row in self.rows if row.kind == kind]
        from zoo.registry import derive

        given = self.given.specs[kind].values() if self.given else ()
        return [derive.row(kind, spec, self.candidate.module, self.candidate.distribution) for spec in given]


@dataclass(frozen=True)
class Selection:
    """Which plugins the user wants: by argument, then environment, then registry.toml.

    Attributes:
        only: only these, by name, module or `distribution/name`; None for all. disable: all but these.
        overlay: what the user's own registry.toml files say.
    """

    only: frozenset[str] | None
    disable: frozenset[str]
    overlay: Overlay

    def why_disabled(self, candidate: Candidate) -> str:
        """The reason; nothing where it is enabled."""
        for only, disabled in self._levels():
            for name, reason in disabled.items():
                if candidate.answers_to(name):
                    return reason
            if only is not None:
                chosen = any(candidate.answers_to(name) for name in only)
                return "" if chosen else f"not among the plugins asked for: {', '.join(sorted(only))}"
        return ""

    def check(self, candidates: list[Candidate]) -> None:
        """Raise `UnknownNameError` for a plugin that was asked for, or to be disabled, and is not installed.

        A name in registry.toml may be of another environment that shares the file; `unknown` tells those.
        """
        off = _listed("ZOO_DISABLE_PLUGINS")
        for name in sorted((self.only or frozenset()) | _listed("ZOO_PLUGINS") | self.disable | off):
            if not _answered(name, candidates):
                hint = "It is in $ZOO_DISABLE_PLUGINS; `zoo plugins` lists all." if name in off else ""
                raise unknown_name("plugin", name, [candidate.name for candidate in candidates], hint)

    def unknown(self, candidates: list[Candidate]) -> list[str]:
        """A sentence for each name that registry.toml disables and no installed plugin has."""
        names = {candidate.name for candidate in candidates}
        return [
            f"{path} disables the plugin {name!r}, which is not installed"
            + (
                f"; did you mean {close[0]}?"
                if (close := nearest(name, names, 1))
                else f" ({', '.join(sorted(names))} are)."
            )
            for name, path in self.overlay.disable.items()
            if not _answered(name, candidates)
        ]

    def _levels(self) -> list[tuple[frozenset[str] | None, Mapping[str, str]]]:
        """(only these, these not and why) by argument, environment and registry.toml."""
        off, only = _listed("ZOO_DISABLE_PLUGINS"), _listed("ZOO_PLUGINS")
        return [
            (self.only, dict.fromkeys(self.disable, "disabled by argument")),
            (only or None, dict.fromkeys(off, "disabled by $ZOO_DISABLE_PLUGINS")),
            (None, {name: f"disabled in {path}" for name, path in self.overlay.disable.items()}),
        ]


def installed(selection: Selection) -> list[Plugin]:
    """Every installed plugin; those that the user does not want are disabled. Raises `UnknownNameError` as `check`."""
    candidates = loader.discover()
    path = catalogue.first_party_path()
    own = catalogue.read_catalogue(path, loader.FIRST_PARTY) if path else {}
    plugins = [
        Plugin(candidate, own.get(candidate.module)) if candidate.first_party else _third_party(candidate)
        for candidate in candidates
    ]
    selection.check(candidates)
    for sentence in selection.unknown(candidates):
        warnings.warn(sentence, stacklevel=2)
    for plugin in plugins:
        if reason := selection.why_disabled(plugin.candidate):
            plugin.state, plugin.reason = "disabled", reason
    return plugins


def _answered(name: str, candidates: list[Candidate]) -> bool:
    return any(candidate.answers_to(name) for candidate in candidates)


def _listed(variable: str) -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


def _third_party(candidate: Candidate) -> Plugin:
    """With the rows of its own catalogue; a catalogue that cannot be read sets the plugin aside, not the host."""
    path = loader.shipped_catalogue(candidate)
    try:
        rows = catalogue.read_catalogue(path, candidate.distribution).get(candidate.module) if path else None
    except ConfigError as error:
        return Plugin(candidate, [], "failed", str(error))
    return Plugin(candidate, rows)
