"""Checkpoints of whole models: backbone, neck and head of a named composition in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from flax import nnx

from zoo.errors import WeightsError
from zoo.registry.spec import BackboneSpec, ModelSpec
from zoo.weights.load import LoadReport, assign, recognise
from zoo.weights.mapping import Path, Slot, slots

PARTS = ("backbone", "head")


def is_whole(named: ModelSpec, spec: BackboneSpec, backbone: nnx.Module, names: Sequence[str]) -> bool:
    """Return whether a file with tensors of these names holds the whole model, not only its backbone."""
    if not named.layouts:
        return False
    try:
        recognise(_composed(named, spec), [f"backbone.{slot.name}" for slot in slots(backbone)], names)
    except WeightsError:
        return False
    return True


def assign_whole(
    named: ModelSpec,
    spec: BackboneSpec,
    backbone: nnx.Module,
    head: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    *,
    first_conv: str | None,
) -> tuple[dict[Path, np.ndarray], dict[Path, np.ndarray], LoadReport]:
    """Return arrays by path for the backbone and the head from a published checkpoint. Every tensor is accounted for.

    Args:
        head: The head for the checkpoint's classes.
        first_conv: Name of the backbone's kernel that reads the image.

    Raises:
        WeightsError: Tensors are missing, left over or of the wrong shape; the error names them all.
    """
    mine = {part: slots(module) for part, module in zip(PARTS, (backbone, head), strict=True)}
    every = [replace(slot, name=f"{part}.{slot.name}") for part in PARTS for slot in mine[part]]
    first = first_conv and f"backbone.{first_conv}"
    arrays, report = assign(_composed(named, spec), every, tensors, first_conv=first)
    body, top = ({slot.path: arrays[f"{part}.{slot.name}"] for slot in mine[part]} for part in PARTS)
    return body, top, report


def fitting(head: nnx.Module, arrays: Mapping[Path, np.ndarray], report: LoadReport) -> dict[Path, np.ndarray]:
    """Return the arrays that fit a head for other classes. The report says that the rest is re-initialised."""
    shapes: dict[Path, Slot] = {slot.path: slot for slot in slots(head)}
    kept = {path: array for path, array in arrays.items() if shapes[path].shape == array.shape}
    for path in arrays.keys() - kept.keys():
        name = f"head.{shapes[path].name}"
        report.reinitialised[name] = "the model has other classes"
        report.loaded.remove(name)
    return kept


def _composed(named: ModelSpec, spec: BackboneSpec) -> BackboneSpec:
    """Return the backbone's spec for the whole checkpoint: all that it says of tensors moves below `backbone`."""
    return replace(
        spec,
        name=named.name,
        native_layout="zoo",
        layouts=named.layouts,
        ignored={},
        resampled={f"backbone.{name}": function for name, function in spec.resampled.items()},
        classifier=replace(spec.classifier, path=f"backbone.{spec.classifier.path}"),
    )
