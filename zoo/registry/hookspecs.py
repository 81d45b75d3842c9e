"""The hooks a plugin may implement. Hooks return values and take keyword arguments; they only ever grow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pluggy

from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, WeightSpec

PROJECT = "zoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def zoo_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """The backbones this plugin builds."""


@hookspec
def zoo_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """The task adapters this plugin provides."""


@hookspec
def zoo_weights() -> Iterable[WeightSpec]:  # type: ignore[empty-body]
    """Published weights, of this plugin's backbones or of others'."""


@hookspec
def zoo_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Named compositions of a backbone, an adapter and a configuration."""


@hookspec
def zoo_parts() -> Iterable[Part]:  # type: ignore[empty-body]
    """What this plugin adds to extension points: heads, decoders, data formats, optimizers, commands, ..."""


@hookspec(firstresult=True)
def zoo_fetch(source: str, file: str, revision: str, offline: bool) -> Path | None:  # type: ignore[empty-body]
    """A local path for `file` at `source` (e.g. `s3://bucket/key`), or None when the scheme is not this plugin's."""
