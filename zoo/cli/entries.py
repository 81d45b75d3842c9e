"""The entries that `zoo list` and `zoo show` print, from catalogues alone.

This module imports neither jax nor typer, so that listing is fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from zoo.cli import output
from zoo.errors import ConfigError, UnknownNameError, unknown_name
from zoo.registry.spec import BackboneSpec, Preprocess, WeightSpec, defaults

if TYPE_CHECKING:
    from zoo.registry.catalogue import Row

KINDS = ("backbones", "weights", "tasks", "models", "plugins")
"""Kinds of entries; the others are the parts of an extension point."""
_CATALOGUE: Mapping[str, str] = {"tasks": "adapters"}
"""Kinds with another name in the catalogue: the plugin that implements a task is a task adapter."""
_PREPROCESS = defaults(Preprocess)
_BACKBONE = defaults(BackboneSpec)
_WEIGHTS = {name: value for name, value in defaults(WeightSpec).items() if name != "preprocess"}
_RIGHT = ("parameters", "channels", "stride", "weights", "input", "classes")


def list_entries(kind: str = "", pattern: str = "", as_json: bool = False) -> None:
    """Print the entries of `kind` whose name matches the pattern, or the number of entries of each kind.

    Raises:
        UnknownNameError: the kind is unknown, or nothing matches. With JSON, no match gives an empty list.
    """
    with output.plugins_may_print():
        kind = _kind(kind) if kind else ""
        every = _entries(kind) if kind else []
        counts = {} if kind else _counts()
    _note_broken_plugins()
    if not kind:
        _summary(counts, as_json)
        return
    entries = [entry for entry in every if _matches(pattern, entry["name"])]
    if as_json:
        output.print_json(entries)
    elif not entries and pattern:
        raise unknown_name(_singular(kind), pattern, [entry["name"] for entry in every])
    elif not entries:
        print(f"There are no {kind}.")
    else:
        headers, line = _COLUMNS.get(kind, _COLUMNS["parts"])
        output.print_table(headers, [line(entry) for entry in entries], right=_RIGHT)


def _kind(asked: str) -> str:
    """Return the kind of entry or the extension point for a name. `heads` is accepted for `detector.head`."""
    from zoo.registry import registry

    if asked == "adapters":
        raise UnknownNameError("`zoo list adapters` is now `zoo list tasks`.")
    points = registry().points()
    plurals: dict[str, list[str]] = {}
    for point in points:
        word = point.partition(".")[2]
        plurals.setdefault(f"{word}es" if word.endswith("s") else f"{word}s", []).append(point)
    if asked in KINDS or asked in points:
        return asked
    if len(named := plurals.get(asked, [])) > 1:
        raise ConfigError(
            f"several extension points have {asked}: use `zoo list {named[0]}`, or {', '.join(named[1:])}."
        )
    if named:
        return named[0]
    raise unknown_name("kind", asked, [*KINDS, *points, *plurals], "`zoo list` shows all kinds.")


def _counts() -> dict[str, int]:
    from zoo.registry import registry

    counts = {kind: len(_rows(kind)) for kind in KINDS if kind != "plugins"}
    return {**counts, "plugins": len(registry().records(load=False)), **registry().points()}


def _summary(counts: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        output.print_json(counts)
        return
    for kind, number in counts.items():
        print(f"{number:>6}  {kind:<18} zoo list {kind} [PATTERN] [--json]")
    print("\nDetails of one: zoo show NAME")


def _note_broken_plugins() -> None:
    from zoo.registry import registry

    broken = [r for r in registry().records(load=False) if r.state in ("failed", "incompatible")]
    for record in broken:
        output.note(f"plugin {record.distribution}/{record.name} is not used ({record.state}): {record.reason}")


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.lower(), name.lower()
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def _entries(kind: str) -> list[dict[str, Any]]:
    from zoo.registry import registry

    if kind == "plugins":
        registry().rows("backbones")  # imports the plugins without a catalogue, so that their state is known
        return [asdict(record) for record in registry().records(load=False)]
    if kind not in KINDS:
        rows = registry().part_rows(kind)
        return [{**_plain(row), "name": name} for row, name in zip(rows, registry().part_names(kind), strict=True)]
    rows = _rows(kind)
    if kind == "weights":
        rows = _with_preprocessing(rows)
    entries = [_ENTRY[kind](row) for row in rows]
    for name, entry in zip(registry().names_of(rows), entries, strict=True):
        entry["name"] = name
    if kind == "weights":
        for row, entry in zip(rows, entries, strict=True):
            entry.update(registry().overlay.pins.get(row.name, {}))
    if kind == "backbones":
        weights = Counter(row.name.split(".", 1)[0] for row in registry().rows("weights"))
        for row, entry in zip(rows, entries, strict=True):
            entry["weights"] = weights[row.name]
    return entries


def _rows(kind: str) -> list[Row]:
    from zoo.registry import registry

    return registry().rows(_CATALOGUE.get(kind, kind))


def _with_preprocessing(rows: list[Row]) -> list[Row]:
    """Return rows of weights with the preprocessing of their backbone, if they have none.

    Weights from the user's registry.toml inherit each field of it that they leave out.
    """
    from zoo.registry import registry

    some = registry().rows("backbones")
    backbones = {row.qualified: row for row in some} | dict(zip(registry().names_of(some), some, strict=True))
    found = []
    for row in rows:
        if "preprocess" in row.data or not row.module:
            arch = row.name.split(".", 1)[0]
            base = backbones.get(f"{row.distribution}/{arch}") or backbones.get(arch)
            usual = {name: value for name, value in base.data.items() if name in _PREPROCESS} if base else {}
            row = replace(row, data={**row.data, **usual} if row.module else {**usual, **row.data})
        found.append(row)
    return found


def _preprocess(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields of the preprocessing.

    The result is a plain dict, since making 20,000 specs would take longer than reading the rows.
    """
    fields = {name: data.get(name, default) for name, default in _PREPROCESS.items()}
    if isinstance(fields["size"], int):
        fields["size"] = [fields["size"], fields["size"]]
    return fields


def _backbone(row: Row) -> dict[str, Any]:
    data = row.data
    return {
        "name": row.name,
        "family": data.get("family", ""),
        "parameters": data.get("params"),
        "stages": [_stage(*stage) for stage in data["stages"]],
        "preprocess": _preprocess(data),
        "pretrained": data.get("pretrained"),
        "options": data.get("options", {}),
        "layouts": [data.get("native_layout", _BACKBONE["native_layout"]), *data.get("layouts", [])],
        "min_size": data.get("min_size", _BACKBONE["min_size"]),
        "size_multiple": data.get("size_multiple", _BACKBONE["size_multiple"]),
        "capabilities": data.get("capabilities", []),
        "paper": data.get("paper", ""),
        "citation": data.get("citation", ""),
        "code_license": data.get("code_license", _BACKBONE["code_license"]),
        **_origin(row),
    }


def _stage(name: str, channels: int, stride: int, kind: str = "map") -> dict[str, Any]:
    return {"name": name, "kind": kind, "channels": channels, "stride": stride}


def _weights(row: Row) -> dict[str, Any]:
    fields = {name: row.data.get(name, default) for name, default in _WEIGHTS.items()}
    return {"name": row.name, **fields, "preprocess": _preprocess(row.data), **_origin(row)}


def _plain(row: Row) -> dict[str, Any]:
    return {"name": row.name, **row.data, **_origin(row)}


def _task(row: Row) -> dict[str, Any]:
    return {**_plain(row), "options": {name: _option(one) for name, one in row.data.get("options", {}).items()}}


def _option(said: Any) -> dict[str, Any]:
    """Return the description of an option, with the names of the parts it accepts. Older catalogues have one text."""
    from zoo.registry import registry

    if not isinstance(said, Mapping):
        return {"description": "", "accepted": str(said), "default": None, "adjustable": False}
    names = registry().part_names(said["point"]) if "point" in said else []
    accepted = " ".join(filter(None, (said.get("accepted", ""), " | ".join(names))))
    described = {"description": said.get("description", ""), "accepted": accepted, "default": said.get("default")}
    return {**described, "adjustable": said.get("adjustable", False)}


def _origin(row: Row) -> dict[str, str]:
    return {"distribution": row.distribution, "module": row.module}


_ENTRY: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "backbones": _backbone,
    "weights": _weights,
    "tasks": _task,
    "models": _plain,
}


def _size(entry: Mapping[str, Any]) -> str:
    height, width = entry["preprocess"]["size"]
    return str(height) if height == width else f"{height}x{width}"


_COLUMNS: Mapping[str, tuple[Sequence[str], Callable[[Mapping[str, Any]], Sequence[Any]]]] = {
    "backbones": (
        ("name", "family", "parameters", "channels", "stride", "input", "weights", "default"),
        lambda e: (
            e["name"],
            e["family"],
            output.count(e["parameters"]),
            e["stages"][-1]["channels"],
            max(stage["stride"] for stage in e["stages"]),
            _size(e),
            e["weights"],
            e["pretrained"],
        ),
    ),
    "weights": (
        ("name", "input", "classes", "license", "commercial", "source"),
        lambda e: (
            e["name"],
            _size(e),
            e["num_classes"],
            e["license"],
            e["commercial_use"],
            e["source"] or "your own file",
        ),
    ),
    "tasks": (("name", "summary"), lambda e: (e["name"], e.get("summary", ""))),
    "models": (
        ("name", "backbone", "task", "summary"),
        lambda e: (e["name"], e["backbone"], e["adapter"], e.get("summary", "")),
    ),
    "parts": (("name", "summary"), lambda e: (e["name"], e.get("summary", ""))),
    "plugins": (
        ("name", "distribution", "version", "state", "reason"),
        lambda e: (e["name"], e["distribution"], e["version"], e["state"], e["reason"]),
    ),
}


def show_entry(name: str, as_json: bool = False) -> None:
    """Print everything about the entry called `name`.

    Raises:
        UnknownNameError: there is no such entry.
        ConfigError: several distributions have an entry of this name.
    """
    with output.plugins_may_print():
        entries = {kind: _entries(kind) for kind in ("backbones", "weights", "tasks", "models")}
    found = [
        (kind, entry) for kind, some in entries.items() for entry in some if name in (entry["name"], _qualified(entry))
    ]
    if not found:
        _refuse(name, [entry for some in entries.values() for entry in some])
    for kind, entry in found:
        if kind == "backbones":
            entry["weights"] = [w for w in entries["weights"] if _bare(w).split(".", 1)[0] == _bare(entry)]
    if as_json:
        shown = [{"kind": _singular(kind), **entry} for kind, entry in found]
        output.print_json(shown[0] if len(shown) == 1 else shown)
        return
    from zoo.cli import pages

    for kind, entry in found:
        pages.PAGES[kind](entry, entries)


def _singular(kind: str) -> str:
    return kind if kind == "weights" else kind.removesuffix("s")


def _bare(entry: Mapping[str, Any]) -> str:
    return entry["name"].rpartition("/")[2]


def _qualified(entry: Mapping[str, Any]) -> str:
    return f"{entry['distribution']}/{_bare(entry)}"


def _refuse(name: str, entries: list[dict[str, Any]]) -> None:
    twice = [entry["name"] for entry in entries if entry["name"].endswith(f"/{name}")]
    if twice:
        raise ConfigError(f"several distributions have {name!r}; use {' or '.join(twice)}.")
    raise unknown_name("name", name, [entry["name"] for entry in entries], "`zoo list` shows the kinds of names.")
