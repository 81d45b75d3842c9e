"""Models on disk: one safetensors file that describes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from zoo import settings
from zoo.errors import WeightsError, ZooError
from zoo.models.adapter import configure
from zoo.models.assemble import Blueprint, assemble
from zoo.models.fill import put
from zoo.models.model import Model
from zoo.models.saved import Saved, brought_up_to_date, describe, saved, spec_of, with_recorded_parts
from zoo.weights.fetch import fetch
from zoo.weights.file import DESCRIPTION, TensorFile
from zoo.weights.file import read as read_tensors
from zoo.weights.file import write as write_tensors
from zoo.weights.mapping import Slot, dotted, slots

FILE = "model.safetensors"


def named_slots(model: Model) -> dict[str, tuple[nnx.Module, Slot]]:
    """Return name in the saved file -> (module that owns the array, its slot)."""
    parts = (("backbone", model.backbone), ("head", model.head))
    return {f"{part}.{slot.name}": (module, slot) for part, module in parts for slot in slots(module)}


def arrays_of(module: nnx.Module) -> dict[tuple[Any, ...], np.ndarray]:
    """Return path -> array for every parameter and statistic of a module."""
    state = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(variable.get_value()) for path, variable in state}


def save(model: Model, path: str | Path) -> Path:
    """Write a model as one safetensors file with its card, labels and options. `zoo.load` reads it back.

    Args:
        model: The model.
        path: A file ending in `.safetensors`, or a folder for a `model.safetensors`. Folders are created.

    Returns:
        The file.
    """
    path = settings.expanded(path)
    file = path if path.suffix == ".safetensors" else path / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {part: arrays_of(module) for part, module in (("backbone", model.backbone), ("head", model.head))}
    tensors = {
        name: slot.write(arrays[name.split(".", 1)[0]][slot.path]) for name, (_, slot) in named_slots(model).items()
    }
    write_tensors(file, tensors, {DESCRIPTION: json.dumps(describe(model), sort_keys=True)})
    return file


def load(source: str | Path) -> Model:
    """Load a saved model, in evaluation mode.

    Args:
        source: A run directory, a file or folder written by `zoo.save`, or `hf://org/repo[@revision]` with such a file.

    Raises:
        WeightsError: The source holds no saved model, or a damaged one.
        PluginError: The distribution that the backbone or the task came from is not installed.
    """
    fetched = fetch(str(source), FILE)
    file = read_tensors(fetched.path)
    found = saved(file)
    if found is None:
        raise WeightsError(
            f"{source} holds weights, not a model saved by zoo: use zoo.create(NAME, TASK, weights={str(source)!r})."
        )
    try:
        return _rebuild(found, file)
    except ZooError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise WeightsError(
            f"the description in {fetched.path} does not fit the code that is installed: {reason}."
        ) from error


def _rebuild(described: Saved, file: TensorFile) -> Model:
    tensors = file.load()  # first of all: it verifies the description as well
    card = described.card
    spec, adapter_spec = spec_of(card, "backbone").built_with(card.options), spec_of(card, "adapter")
    card = brought_up_to_date(card)
    options = with_recorded_parts(card, adapter_spec.adapter, described.renamed(adapter_spec.adapter).options)
    adapter = configure(adapter_spec.adapter, described.labels, options)
    model = assemble(Blueprint(spec, adapter, card.preprocess, card.in_channels, card.options), card)
    expected = named_slots(model)
    if expected.keys() != tensors.keys():
        missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
        raise WeightsError(
            f"{file.path} does not fit {card.backbone} as it is installed: missing {missing[:3]}, unknown {extra[:3]}. "
            "It was written by another version of the plugin."
        )
    for module in (model.backbone, model.head):
        mine = {slot.path: slot.read(tensors[name]) for name, (owner, slot) in expected.items() if owner is module}
        for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
            here, there = tuple(variable.get_value().shape), mine[path].shape
            if here != there:
                raise WeightsError(f"{file.path}: {dotted(path)} has shape {there}, not {here}.")
        put(module, mine, card.seed)
    return model
