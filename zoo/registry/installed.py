"""The installed plugins, each with its state: unloaded, loaded, set aside (broken), or disabled by the user."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from zoo.errors import ConfigError, PluginError, nearest, unknown_name
from zoo.registry import catalogue, examine, loader
from zoo.registry.catalogue import Overlay, Row
from zoo.registry.loader import Candidate, Contribution, PluginRecord, State


@dataclass
class Plugin:
    """An installed plugin and its state.

    Attributes:
        candidate: name, module and distribution.
        rows: its catalogue rows; None if no catalogue describes it.
        state: see `zoo.registry.loader.PluginRecord`.
        reason: why it has this state, as one sentence.
        traceback: traceback of the error, if it failed.
        given: its specs, once it is loaded.
        examined: whether its examination has been asked for.
    """

    candidate: Candidate
    rows: list[Row] | None
    state: State = "unloaded"
    reason: str = "known from its catalogue; not needed yet"
    traceback: str = ""
    given: Contribution | None = None
    examined: bool = False

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

    def examine(self, strict: bool) -> None:
        """Learn what an unloaded third-party plugin gives and whether it works, see `zoo.registry.examine`.

        If examinations are switched off, a plugin without a catalogue is loaded instead.
        """
        if self.candidate.first_party or self.examined or self.state != "unloaded":
            return
        self.examined = True
        examination = examine.examined(self.candidate)
        if examination is None:
            if self.rows is None:
                self.load(strict)
        elif examination.state != "ok":
            self.state, self.reason, self.traceback = examination.state, examination.reason, examination.traceback
            self._raise_if(strict)
        elif self.rows is None:
            self.rows, self.reason = examination.rows(self.candidate), "examined; not needed yet"
            self.__dict__.pop("_listed", None)

    def load(self, strict: bool) -> None:
        self.examine(strict)
        if self.state == "unloaded":
            self.given, self.state, self.reason, self.traceback = loader.attempt(self.candidate)
        self._raise_if(strict)

    def _raise_if(self, strict: bool) -> None:
        if strict and self.state in ("failed", "incompatible"):
            raise PluginError(f"plugin {self.qualified} ({self.candidate.module}) {self.fate()}")

    def record(self) -> PluginRecord:
        it = self.candidate
        return PluginRecord(it.name, it.module, it.distribution, it.version, self.state, self.reason, self.traceback)

    def fate(self) -> str:
        """Return why a plugin gives nothing, as the end of a sentence."""
        verb = {"failed": "failed", "incompatible": "is incompatible", "disabled": "is disabled"}[self.state]
        return f"{verb}: {self.reason}"

    def rows_of(self, kind: str) -> list[Row]:
        """Return its catalogue rows of `kind`; without a catalogue, they are derived from its specs."""
        if self.rows is not None:
            return [row for row in self.rows if row.kind == kind]
        from zoo.registry import derive

        specs = self.given.specs[kind].values() if self.given else ()
        return [derive.row(kind, spec, self.candidate.module, self.candidate.distribution) for spec in specs]


@dataclass(frozen=True)
class Selection:
    """The user's choice of plugins: by argument, then environment, then registry.toml.

    Attributes:
        only: use only these plugins, given by name, module or `distribution/name`; None for all.
        disable: use all plugins except these.
        overlay: content of the user's own registry.toml files.
    """

    only: frozenset[str] | None
    disable: frozenset[str]
    overlay: Overlay

    def why_disabled(self, candidate: Candidate) -> str:
        """Return the reason; an empty text if the plugin is enabled."""
        for only, disabled in self._levels():
            for name, reason in disabled.items():
                if candidate.answers_to(name):
                    return reason
            if only is not None:
                chosen = any(candidate.answers_to(name) for name in only)
                return "" if chosen else f"not among the selected plugins: {', '.join(sorted(only))}"
        return ""

    def check(self, candidates: list[Candidate]) -> None:
        """Raise `UnknownNameError` if a selected or disabled plugin is not installed.

        Names in registry.toml are not checked here: another environment that shares the file may have that plugin.
        `unknown` reports them.
        """
        off = _listed("ZOO_DISABLE_PLUGINS")
        for name in sorted((self.only or frozenset()) | _listed("ZOO_PLUGINS") | self.disable | off):
            if not _answered(name, candidates):
                hint = "It is in $ZOO_DISABLE_PLUGINS; `zoo plugins` lists all." if name in off else ""
                raise unknown_name("plugin", name, [candidate.name for candidate in candidates], hint)

    def unknown(self, candidates: list[Candidate]) -> list[str]:
        """Return a sentence for each name that registry.toml disables and no installed plugin has."""
        names = {candidate.name for candidate in candidates}
        return [
            f"{path} disables the plugin {name!r}, which is not installed"
            + (
                f"; did you mean {close[0]}?"
                if (close := nearest(name, names, 1))
                else f". Installed: {', '.join(sorted(names))}."
            )
            for name, path in self.overlay.disable.items()
            if not _answered(name, candidates)
        ]

    def _levels(self) -> list[tuple[frozenset[str] | None, Mapping[str, str]]]:
        """Return (selected plugins, disabled plugin -> reason) of the arguments, the environment and registry.toml."""
        off, only = _listed("ZOO_DISABLE_PLUGINS"), _listed("ZOO_PLUGINS")
        return [
            (self.only, dict.fromkeys(self.disable, "disabled by argument")),
            (only or None, dict.fromkeys(off, "disabled by $ZOO_DISABLE_PLUGINS")),
            (None, {name: f"disabled in {path}" for name, path in self.overlay.disable.items()}),
        ]


def installed(selection: Selection) -> list[Plugin]:
    """Return every installed plugin; those that the user disabled are marked so. Raises as `Selection.check` does."""
    candidates = loader.discover()
    path = catalogue.first_party_path()
    first_party = catalogue.read_catalogue(path, loader.FIRST_PARTY) if path else {}
    plugins = [
        Plugin(candidate, first_party.get(candidate.module)) if candidate.first_party else _third_party(candidate)
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
    """Return a third-party plugin with the rows of its catalogue.

    A catalogue that cannot be read is the plugin's fault: it sets the plugin aside and does not stop zoo.
    """
    path = loader.shipped_catalogue(candidate)
    try:
        rows = catalogue.read_catalogue(path, candidate.distribution).get(candidate.module) if path else None
    except ConfigError as error:
        return Plugin(candidate, [], "failed", str(error))
    return Plugin(candidate, rows)
