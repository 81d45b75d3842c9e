"""The hooks that a plugin may implement.

Hooks take keyword arguments and return values. New hooks may be added; existing ones do not change.
"""

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
    """Return the backbones of this plugin."""


@hookspec
def zoo_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """Return the task adapters of this plugin."""


@hookspec
def zoo_weights() -> Iterable[WeightSpec]:  # type: ignore[empty-body]
    """Return published weights, for this plugin's backbones or for those of other plugins."""


@hookspec
def zoo_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Return named models: backbone, task adapter and configuration under one name."""


@hookspec
def zoo_parts() -> Iterable[Part]:  # type: ignore[empty-body]
    """Return parts for extension points: heads, decoders, data formats, optimizers, commands, ..."""


@hookspec(firstresult=True)
def zoo_fetch(source: str, file: str, revision: str, offline: bool) -> Path | None:
    """Return a local path for `file` at `source` (e.g. `s3://bucket/key`); None for a scheme that is not its own."""
