"""Checks of specs. Each error names the field and the values that it accepts.

They run when a plugin is loaded, so that a mistake is reported with the plugin's name, long before a model is built.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from zoo.errors import PluginError
from zoo.registry.spec import (
    AdapterSpec,
    BackboneSpec,
    ClassifierLayout,
    ModelSpec,
    Part,
    Preprocess,
    Range,
    Stage,
    WeightSpec,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_WEIGHTS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9][A-Za-z0-9._-]*")
_POINT = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"([0-9a-f]{64})?")


def validate_backbone(spec: Any) -> None:
    """Raise `PluginError` unless `spec` is a usable `BackboneSpec`."""
    _require(isinstance(spec, BackboneSpec), f"zoo_backbones gave {spec!r}; it must give BackboneSpec values")
    where = f"backbone {spec.name!r}"
    _require_name(where, spec.name, _NAME, "letters, digits, '_' and '-'")
    _require(callable(spec.build), f"{where}: build must be callable, not {spec.build!r}")
    _validate_stages(where, spec.stages)
    _require(
        isinstance(spec.classifier, ClassifierLayout) and bool(spec.classifier.path),
        f"{where}: classifier must be a ClassifierLayout with a path, not {spec.classifier!r}",
    )
    _require_choices(where, spec.classifier)
    _validate_preprocess(where, spec.preprocess)
    for key, values in _mapping(where, "options", spec.options).items():
        _require(
            isinstance(values, Range) or (isinstance(values, tuple) and len(values) > 0),
            f"{where}: option {key!r} must be a tuple of accepted values, the default first, or a Range, "
            f"not {values!r}",
        )
    for key, layout in _mapping(where, "layouts", spec.layouts).items():
        _require(callable(layout), f"{where}: layout {key!r} must be a function without arguments, not {layout!r}")
    for key, reason in _mapping(where, "ignored", spec.ignored).items():
        _require(
            isinstance(reason, str) and bool(reason),
            f"{where}: ignored {key!r} must have a reason as text, not {reason!r}",
        )
    for key, function in _mapping(where, "resampled", spec.resampled).items():
        _require(callable(function), f"{where}: resampled {key!r} must be a function, not {function!r}")
    for key in ("min_size", "size_multiple", "fold"):
        value = getattr(spec, key)
        _require(_is_count(value), f"{where}: {key} must be a positive integer, not {value!r}")
    _require(
        spec.pretrained is None or (isinstance(spec.pretrained, str) and bool(spec.pretrained)),
        f"{where}: pretrained must be a tag or None, not {spec.pretrained!r}",
    )
    _require_texts(where, spec, "family", "native_layout", "paper", "citation", "code_license")
    _require(_are_texts(spec.capabilities), f"{where}: capabilities must be a tuple of strings")


def _validate_stages(where: str, stages: Any) -> None:
    _require(isinstance(stages, tuple) and len(stages) > 0, f"{where}: stages must be a non-empty tuple of Stage")
    owner: dict[str, str] = {}
    names = set()
    for stage in stages:
        _require(isinstance(stage, Stage), f"{where}: {stage!r} is not a Stage")
        _require(
            isinstance(stage.name, str) and bool(stage.name),
            f"{where}: the name of a stage must be a text, not {stage.name!r}",
        )
        _require(stage.name not in names, f"{where}: two stages are called {stage.name!r}")
        names.add(stage.name)
        for key in ("channels", "stride"):
            value = getattr(stage, key)
            _require(
                _is_count(value), f"{where}: stage {stage.name!r} has {key} {value!r}; it must be a positive integer"
            )
        _require_choices(f"{where}: stage {stage.name!r}", stage)
        _require(_are_texts(stage.modules), f"{where}: stage {stage.name!r}: modules must be a tuple of strings")
        for module in stage.modules:
            _require(
                module not in owner,
                f"{where}: stages {owner.get(module)!r} and {stage.name!r} both own module {module!r}",
            )
            owner[module] = stage.name


def validate_weights(spec: Any) -> None:
    """Raise `PluginError` unless `spec` is a usable `WeightSpec`."""
    _require(isinstance(spec, WeightSpec), f"zoo_weights gave {spec!r}; it must give WeightSpec values")
    where = f"weights {spec.name!r}"
    _require_name(where, spec.name, _WEIGHTS_NAME, "arch.tag, with letters, digits, '_', '-' and '.'")
    _require_texts(where, spec, "source", "file", "revision", "sha256", "labels", "license", "note")
    _require(bool(_SHA256.fullmatch(spec.sha256)), f"{where}: sha256 must be 64 lower-case hexadecimal digits or empty")
    if spec.preprocess is not None:
        _validate_preprocess(where, spec.preprocess)
    _require(
        isinstance(spec.num_classes, int) and spec.num_classes >= 0,
        f"{where}: num_classes must be 0 or more, not {spec.num_classes!r}",
    )
    _require_choices(where, spec)
    _mapping(where, "options", spec.options)


def validate_adapter(spec: Any) -> None:
    """Raise `PluginError` unless `spec` is a usable `AdapterSpec`."""
    _require(isinstance(spec, AdapterSpec), f"zoo_adapters gave {spec!r}; it must give AdapterSpec values")
    where = f"adapter {spec.name!r}"
    _require_name(where, spec.name, _NAME, "letters, digits, '_' and '-'")
    _require(
        isinstance(spec.adapter, type) and dataclasses.is_dataclass(spec.adapter),
        f"{where}: adapter must be a dataclass deriving from zoo.models.adapter.Adapter, not {spec.adapter!r}",
    )
    _require_texts(where, spec, "summary", "paper", "citation")


def validate_model(spec: Any) -> None:
    """Raise `PluginError` unless `spec` is a usable `ModelSpec`."""
    _require(isinstance(spec, ModelSpec), f"zoo_models gave {spec!r}; it must give ModelSpec values")
    where = f"model {spec.name!r}"
    _require_name(where, spec.name, _NAME, "letters, digits, '_' and '-'")
    _require_texts(where, spec, "backbone", "adapter", "summary", "labels", "license")
    _require(bool(spec.backbone and spec.adapter), f"{where}: backbone and adapter must both be named")
    _mapping(where, "config", spec.config)
    _mapping(where, "layouts", spec.layouts)
    if spec.preprocess is not None:
        _validate_preprocess(where, spec.preprocess)


def validate_part(spec: Any) -> None:
    """Raise `PluginError` unless `spec` is a usable `Part`. Its value is checked when it is first used."""
    _require(isinstance(spec, Part), f"zoo_parts gave {spec!r}; it must give Part values")
    where = f"part {spec.point!r}, {spec.id!r}"
    _require_texts(where, spec, "summary")
    _require(
        isinstance(spec.point, str) and bool(_POINT.fullmatch(spec.point)),
        f"{where}: the point must be two words with a dot between them, such as detector.head",
    )
    _require_name(where, spec.id, _PART, "letters, digits, '.', '_' and '-'")


def _validate_preprocess(where: str, value: Any) -> None:
    _require(isinstance(value, Preprocess), f"{where}: preprocess must be a Preprocess, not {value!r}")
    _require_choices(f"{where}: preprocess", value)
    _require(
        isinstance(value.size, tuple) and len(value.size) == 2 and all(map(_is_count, value.size)),
        f"{where}: size must be (height, width) in pixels, not {value.size!r}",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PluginError(f"{message}.")


def _require_name(where: str, name: Any, pattern: re.Pattern[str], form: str) -> None:
    _require(isinstance(name, str) and bool(pattern.fullmatch(name)), f"{where}: the name must consist of {form}")


def _require_texts(where: str, spec: Any, *fields: str) -> None:
    for name in fields:
        value = getattr(spec, name)
        _require(isinstance(value, str), f"{where}: {name} must be a string, not {value!r}")


def _require_choices(where: str, value: Any) -> None:
    """Require that every field annotated with a Literal holds one of its values."""
    for name, accepted in _choices(type(value)).items():
        choice = getattr(value, name)
        _require(choice in accepted, f"{where}: {name} is {choice!r}; accepted: {', '.join(map(str, accepted))}")


_CHOICES: dict[type, dict[str, tuple[Any, ...]]] = {}


def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    if cls not in _CHOICES:
        hints = {name: get_args(hint) for name, hint in get_type_hints(cls).items()}
        _CHOICES[cls] = {name: args for name, args in hints.items() if args and all(isinstance(a, str) for a in args)}
    return _CHOICES[cls]


def _mapping(where: str, name: str, value: Any) -> Mapping[Any, Any]:
    _require(isinstance(value, Mapping), f"{where}: {name} must be a mapping, not {value!r}")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_texts(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)
