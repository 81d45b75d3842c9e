"""The catalogue: which backbones, task adapters, weights and models exist, and which module gives each.

It is TOML and is read without importing any plugin. There are two kinds of file, both called `registry.toml`:

- The catalogue of plugins, derived from their own tables (`tools/catalogue.py`). zoo's is at the root of the repository
  and inside the installed package; a third-party package may ship its own. It has one table for each plugin module:

      [plugin."zoo.plugins.resnet".weights]
      "*" = { source = "hf://timm/{name}", license = "Apache-2.0" }
      "resnet18.a1_in1k" = { crop_pct = 0.95 }

  The row `*` holds the fields that the other rows of its table share, so that 20,000 rows parse in a second. Fields
  that have the default of their spec are left out.
- The user's overlay, in the working directory or in the configuration folder; the working directory wins. What one in
  the working directory says of published names is announced at every use, since it may have come with its folder:

      [weights."resnet18.mine"]          # private weights; a relative `source` starts at this file
      source = "weights/mine.safetensors"
      [plugins]
      disable = ["some-plugin"]
      [prefer]                           # the distribution to use if several give a name
      resnet18 = "my-dist"
      [pins."resnet18.a1_in1k"]
      revision = "..."
      sha256 = "..."
"""

from __future__ import annotations

import math
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.errors import ConfigError, FetchError, PluginError, nearest
from zoo.registry import validate
from zoo.registry.source import check_listed
from zoo.registry.spec import Preprocess, WeightSpec

FILE = "registry.toml"
SHARED = "*"

_Types = Mapping[str, tuple[type, ...]]
_PREPROCESS: _Types = {
    "size": (int, list),
    "mean": (list,),
    "std": (list,),
    "interpolation": (str,),
    "crop_pct": (float, int),
    "crop_mode": (str,),
    "channels": (str,),
    "fill": (int,),
    "background": (list,),
    "frames": (list,),
}
FIELDS: Mapping[str, _Types] = {
    "backbones": {
        "family": (str,),
        "stages": (list,),
        "params": (int,),
        "options": (dict,),
        "pretrained": (str,),
        "native_layout": (str,),
        "layouts": (list,),
        "min_size": (int,),
        "size_multiple": (int,),
        "capabilities": (list,),
        "paper": (str,),
        "citation": (str,),
        "code_license": (str,),
        **_PREPROCESS,
    },
    "adapters": {"summary": (str,), "options": (dict,), "paper": (str,), "citation": (str,)},
    "weights": {
        "source": (str,),
        "file": (str,),
        "revision": (str,),
        "sha256": (str,),
        "num_classes": (int,),
        "labels": (str,),
        "options": (dict,),
        "license": (str,),
        "commercial_use": (str,),
        "note": (str,),
        "preprocess": (str,),
        **_PREPROCESS,
    },
    "models": {
        "backbone": (str,),
        "adapter": (str,),
        "config": (dict,),
        "summary": (str,),
        "labels": (str,),
        "layouts": (list,),
        "license": (str,),
        **_PREPROCESS,
    },
    "parts": {"summary": (str,)},
}
"""Fields of each kind of row, with the TOML types that they accept."""

KINDS = tuple(FIELDS)
INHERITED = "backbone"
"""Value of the field `preprocess` of weights that use the preprocessing of their backbone."""
_PIN: _Types = {"revision": (str,), "sha256": (str,)}
_OVERLAY = ("weights", "plugins", "prefer", "pins")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the catalogue.

    Attributes:
        kind: `backbones`, `adapters`, `weights`, `models` or `parts`.
        name: name of the entry, without its distribution.
        module: the plugin module that gives it; empty for a row of a user's overlay.
        distribution: the installed distribution that it belongs to, or the path of the overlay.
        data: the fields that differ from the defaults of its spec.
    """

    kind: str
    name: str
    module: str
    distribution: str
    data: Mapping[str, Any]

    @property
    def qualified(self) -> str:
        """`distribution/name`, which is unambiguous even if two distributions give the name."""
        return f"{self.distribution}/{self.name}"


@dataclass(frozen=True)
class Overlay:
    """The merged content of a user's own `registry.toml` files.

    Attributes:
        files: the files: the working directory's before the configuration folder's.
        weights: name -> row of private or changed weights.
        disable: name of a disabled plugin -> the file that disables it.
        prefer: name -> the distribution to use if several give it.
        pins: name of weights -> their pinned `revision` and `sha256`.
        here: the file in the working directory, which may have come with somebody's data; None without one.
        redirected: names that `here` gives another meaning -> what it says of them.
        announced: those that the user was told of.
    """

    files: tuple[Path, ...] = ()
    weights: Mapping[str, Row] = field(default_factory=dict)
    disable: Mapping[str, Path] = field(default_factory=dict)
    prefer: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    here: Path | None = None
    redirected: Mapping[str, str] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set, compare=False, repr=False)

    def announce(self, name: str) -> None:
        """Warn, once, if the file in the working directory gives this name another meaning."""
        if name in self.redirected and name not in self.announced:
            self.announced.add(name)
            warnings.warn(
                f"{self.here}, in the working directory, changes what {name} is: {self.redirected[name]}. Delete that "
                "line if it is not yours.",
                stacklevel=4,
            )


def first_party_path() -> Path | None:
    """Return the path of zoo's own catalogue; None if it is missing.

    A wheel has it inside the package, a checkout beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    if (package / FILE).is_file():
        return package / FILE
    root = package.parent
    return root / FILE if (root / FILE).is_file() and (root / "pyproject.toml").is_file() else None


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of a TOML file. Raises `ConfigError`, which names the file, if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def read_catalogue(path: Path, distribution: str) -> dict[str, list[Row]]:
    """Return the rows of a plugin catalogue by plugin module.

    Raises `ConfigError`, which names the file and the wrong key.
    """
    content = read_toml(path)
    _check_keys(path, "", content, ("plugin",))
    rows: dict[str, list[Row]] = {}
    for module, tables in _table(path, "plugin", content.get("plugin", {})).items():
        rows[module] = _module_rows(path, module, tables, distribution)
    return rows


def _module_rows(path: Path, module: str, tables: Any, distribution: str) -> list[Row]:
    place = f'plugin."{module}"'
    _check_keys(path, place, _table(path, place, tables), KINDS)
    rows = []
    for kind, table in tables.items():
        where = f"{place}.{kind}"
        shared = _table(path, where, table).get(SHARED, {})
        for name, fields in table.items():
            _check_fields(path, f'{where}."{name}"', fields, FIELDS[kind])
            if name != SHARED:
                rows.append(Row(kind, name, module, distribution, _named(name, {**shared, **fields})))
    return rows


def _named(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the row with `{name}` in its source replaced by its name."""
    source = data.get("source", "")
    return {**data, "source": source.replace("{name}", name)} if "{name}" in source else data


def read_overlay() -> Overlay:
    """Return the user's overlays, merged.

    A plugin catalogue in the working directory (a checkout of zoo has one) is skipped, because it is not an overlay.
    Raises `ConfigError`, which names the file and the key, for unknown keys and wrong values.
    """
    merged, own = Overlay(), settings.config_dir() / FILE
    for path in (Path.cwd() / FILE, own):
        if not path.is_file() or path in merged.files:
            continue
        content = read_toml(path)
        if content.keys() == {"plugin"}:
            continue
        merged = _overlaid(merged, _one_overlay(path, content, trusted=path.resolve() == own.resolve()))
    return merged


def _overlaid(first: Overlay, then: Overlay) -> Overlay:
    """Merge two overlays; `first` wins if they disagree."""
    return Overlay(
        files=(*first.files, *then.files),
        weights={**then.weights, **first.weights},
        disable={**then.disable, **first.disable},
        prefer={**then.prefer, **first.prefer},
        pins={**then.pins, **first.pins},
        here=first.here or then.here,
        redirected={**then.redirected, **first.redirected},
    )


def _one_overlay(path: Path, content: dict[str, Any], trusted: bool) -> Overlay:
    """Return the content of one file. `trusted` is the user's own; any other one came with its folder."""
    _check_keys(path, "", content, _OVERLAY)
    _check_numbers(path, "", content)
    tables = {key: _table(path, key, content.get(key, {})) for key in _OVERLAY}
    _check_fields(path, "plugins", tables["plugins"], {"disable": (list,)})
    for name in [name for key in ("weights", "pins") for name in tables[key]]:
        if "." not in name:
            raise ConfigError(
                f'{path}: {name!r} is not a name of weights (arch.tag). Write it in quotes, e.g. "resnet18.mine".'
            )
    for name, fields in tables["pins"].items():
        _check_fields(path, f'pins."{name}"', fields, _PIN)
        if not _SHA256.fullmatch(fields.get("sha256", "0" * 64)):
            raise ConfigError(f'{path}: pins."{name}".sha256 must be 64 lower-case hexadecimal digits.')
        _check_source(path, f'pins."{name}"', fields, trusted)
    _check_fields(path, "prefer", tables["prefer"], dict.fromkeys(tables["prefer"], (str,)))
    weights = {name: _private_row(path, name, data, trusted) for name, data in tables["weights"].items()}
    said = {name: f"preferred from {distribution}" for name, distribution in tables["prefer"].items()}
    said |= {name: f"pinned to {', '.join(pin.values())}" for name, pin in tables["pins"].items()}
    said |= {name: _change(row) for name, row in weights.items()}
    return Overlay(
        files=(path,),
        weights=weights,
        disable=dict.fromkeys(map(str, tables["plugins"].get("disable", [])), path),
        prefer=tables["prefer"],
        pins=tables["pins"],
        here=None if trusted else path,
        redirected={} if trusted else said,
    )


def _change(row: Row) -> str:
    """Return what a row says of its weights, for people."""
    if source := row.data.get("source"):
        return f"taken from {source}"
    return f"with another {', '.join(row.data) or 'row'}"


def _private_row(path: Path, name: str, data: dict[str, Any], trusted: bool) -> Row:
    _check_fields(path, f'weights."{name}"', data, FIELDS["weights"])
    data = _named(name, data)
    _check_source(path, f'weights."{name}"', data, trusted)
    source = data.get("source", "")
    if source and "://" not in source:
        data = {**data, "source": str(path.parent / settings.expanded(source))}
    for key in ("size", "mean", "std", "background"):
        values = data.get(key, [])
        if isinstance(values, list) and not all(isinstance(v, int | float) for v in values):
            raise ConfigError(f'{path}: weights."{name}".{key} is {values!r}; it must hold numbers.')
    frames = data.get("frames", [])
    if not all(isinstance(frame, list) and [*map(type, frame)] == [int, int] for frame in frames):
        raise ConfigError(f'{path}: weights."{name}".frames is {frames!r}; each frame must be [height, width].')
    row = Row("weights", name, "", str(path), data)
    try:
        validate.validate_weights(weight_spec(row))
    except (ConfigError, PluginError) as error:
        raise ConfigError(f'{path}: weights."{name}": {error}') from error
    return row


def _check_source(path: Path, place: str, data: Mapping[str, Any], trusted: bool) -> None:
    try:
        check_listed(data.get("source", ""), data.get("file", ""), data.get("revision", ""), below=not trusted)
    except FetchError as error:
        raise ConfigError(f"{path}: {place}: {error}") from error


def _check_numbers(path: Path, place: str, value: Any) -> None:
    """Raise `ConfigError` for a NaN or an infinity, wherever it stands."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {place} is {value}; it must be a finite number.")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        _check_numbers(path, f"{place}.{key}" if place else str(key), one)


def preprocess_of(data: Mapping[str, Any], base: Preprocess | None = None) -> Preprocess:
    """Return the preprocessing that a row describes; missing fields are taken from `base`."""
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in data.items() if key in _PREPROCESS
    }
    if isinstance(fields.get("size"), int):
        fields["size"] = (fields["size"], fields["size"])
    if "frames" in fields:
        fields["frames"] = tuple(map(tuple, fields["frames"]))
    return replace(base or Preprocess(), **fields)


def weight_spec(row: Row, base: WeightSpec | None = None) -> WeightSpec:
    """Return the weights that a row describes; missing fields are taken from `base`.

    Raises `ConfigError` if the row has a field `preprocess` that is not `INHERITED`.
    """
    base = base or WeightSpec(row.name)
    fields = {key: value for key, value in row.data.items() if key not in _PREPROCESS}
    if (preprocess := fields.pop("preprocess", INHERITED)) != INHERITED:
        raise ConfigError(f'preprocess is {preprocess!r}; accepted: "{INHERITED}", or size, mean, std, ... instead.')
    if "preprocess" in row.data:
        return replace(base, **fields)
    return replace(base, preprocess=preprocess_of(row.data, base.preprocess), **fields)


def _table(path: Path, place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {place} must be a table, not {value!r}.")
    return value


def _check_keys(path: Path, place: str, table: Mapping[str, Any], accepted: tuple[str, ...]) -> None:
    for key in table:
        if key not in accepted:
            where = f"{place}.{key}" if place else key
            close = nearest(key, accepted, 1)
            advice = f"did you mean {close[0]}?" if close else f"accepted: {', '.join(accepted)}."
            raise ConfigError(f"{path}: unknown key {where}; {advice}")


def _check_fields(path: Path, place: str, fields: Any, types: _Types) -> None:
    _check_keys(path, place, _table(path, place, fields), tuple(types))
    for key, value in fields.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            names = {str: "a string", int: "an integer", float: "a number", list: "a list", dict: "a table"}
            expected = " or ".join(names[kind] for kind in types[key])
            raise ConfigError(f"{path}: {place}.{key} is {value!r}; it must be {expected}.")
