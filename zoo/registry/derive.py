"""Derive the catalogue from the specs of plugins. The reverse of `zoo.registry.catalogue`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry.catalogue import FIELDS, INHERITED, KINDS, SHARED, Row
from zoo.registry.loader import Contribution
from zoo.registry.options import task_options
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess, Stage, WeightSpec, defaults

HEADER = "# Derived from the plugins' own tables by `{command}`. Do not edit.\n"

Table = Mapping[str, Mapping[str, Any]]


def row(kind: str, spec: Any, module: str, distribution: str) -> Row:
    """Return the catalogue row of one spec, without its parameter count."""
    return Row(kind, spec.name, module, distribution, fields(kind, spec))


def fields(kind: str, spec: Any) -> dict[str, Any]:
    """Return the fields of a spec that differ from its defaults, as plain TOML values."""
    values = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name in FIELDS[kind]}
    usual = defaults(type(spec))
    differing = {name: value for name, value in values.items() if name not in usual or value != usual[name]}
    if isinstance(spec, BackboneSpec):
        differing |= {"stages": [_stage(stage) for stage in spec.stages], "layouts": sorted(spec.layouts)}
    elif isinstance(spec, ModelSpec):
        differing["layouts"] = sorted(spec.layouts)
    elif kind == "adapters":
        differing["options"] = _adapter_options(spec.adapter)
    differing.pop("preprocess", None)
    if isinstance(spec, AdapterSpec | Part):
        pass
    elif spec.preprocess is not None:
        differing |= _preprocess(spec.preprocess)
    elif isinstance(spec, WeightSpec):
        differing["preprocess"] = INHERITED
    return {name: _plain(value) for name, value in differing.items() if value not in ([], {}, ())}


_DEFAULTS = {**defaults(BackboneSpec), **defaults(WeightSpec), **defaults(Preprocess), "size": 224}


def _stage(stage: Stage) -> list[Any]:
    return [stage.name, stage.channels, stage.stride, *([] if stage.kind == "map" else [stage.kind])]


def _preprocess(value: Preprocess) -> dict[str, Any]:
    differing = {
        name: getattr(value, name) for name, usual in defaults(Preprocess).items() if getattr(value, name) != usual
    }
    if "size" in differing and value.size[0] == value.size[1]:
        differing["size"] = value.size[0]
    return differing


def _adapter_options(adapter: type) -> dict[str, dict[str, Any]]:
    """Option name -> its description, accepted values, default, and whether it can be changed on a trained model.

    Internal options are left out; so are a default of None and what is not so.
    """
    options = {}
    for option in task_options(adapter).values():
        said: dict[str, Any] = {"description": option.description, "accepted": option.accepted, "point": option.point}
        said |= {"adjustable": option.name in getattr(adapter, "adjustable", ())}
        if not option.hidden and option.name != "labels":
            default = {} if option.default is None else {"default": option.default}
            options[option.name] = {name: text for name, text in said.items() if text} | default
    return options


def _plain(value: Any) -> Any:
    """Return a value in TOML's types. A value that TOML lacks (None) becomes the text of its Python form."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else repr(value)


def catalogue(
    plugins: Iterable[tuple[str, Contribution]], command: str, count: Callable[[BackboneSpec], int] | None
) -> str:
    """Return the catalogue file of these plugins. Equal tables give equal text.

    Args:
        plugins: (module, contribution) of each plugin.
        command: the command that derives the file, for its header.
        count: returns the number of parameters of a backbone, see `zoo.models.backbone.count_params`; None leaves the
            numbers out.
    """
    parts = [HEADER.format(command=command)]
    for module, contribution in sorted(plugins, key=lambda plugin: plugin[0]):
        tables = {kind: {name: fields(kind, spec) for name, spec in contribution.specs[kind].items()} for kind in KINDS}
        for name, spec in contribution.specs["backbones"].items() if count else ():
            tables["backbones"][name]["params"] = count(spec)  # type: ignore[misc]
        if not any(tables.values()):
            # An empty table says that the plugin gives nothing, so that a listing need not import it to find out.
            parts.append(f"\n[plugin.{_toml(module)}]\n")
        parts += [_render(f"plugin.{_toml(module)}.{kind}", kind, table) for kind, table in tables.items() if table]
    return "".join(parts)


def _render(place: str, kind: str, table: Table) -> str:
    shared, rows = _share(kind, table)
    if shared:
        rows = {SHARED: shared, **rows}
    return f"\n[{place}]\n" + "".join(f"{_toml(name)} = {_toml(data)}\n" for name, data in rows.items())


def _share(kind: str, table: Table) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the fields that most rows of a table share, and each row without them.

    A row without a shared field must state the default of this field. If the default cannot be written in TOML (None,
    or no default), the field is shared only if every row has it.
    """
    rows = {name: _templated(kind, name, table[name]) for name in sorted(table)}
    shared = {}
    for key in FIELDS[kind]:
        values = [json.dumps(data[key], sort_keys=True) for data in rows.values() if key in data]
        writable = isinstance(_DEFAULTS.get(key), str | int | float)
        if len(values) < len(rows) and not writable:
            continue
        text, count = (Counter(values).most_common(1) or [("", 0)])[0]
        if count > 1 and count > len(rows) / 2:
            shared[key] = json.loads(text)
    return shared, {name: _without(data, shared) for name, data in rows.items()}


def _without(data: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    stated = {key: _DEFAULTS[key] for key in shared if key not in data}
    return {key: value for key, value in {**data, **stated}.items() if key not in shared or shared[key] != value}


def _templated(kind: str, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "weights" and name in data.get("source", ""):
        return {**data, "source": data["source"].replace(name, "{name}")}
    return dict(data)


def _toml(value: Any) -> str:
    """Return a TOML value on one line. Strings are written as in JSON, which TOML reads the same way."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{value} cannot be written to a catalogue; give a finite number.")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _toml(key)
