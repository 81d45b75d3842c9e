"""A model on disk: one safetensors file that holds its own description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from flax import nnx

from zoo.adapter import configure, option_fields
from zoo.backbone import abstract, feature_shapes
from zoo.compose import put
from zoo.errors import WeightsError
from zoo.model import Card, Model
from zoo.registry import registry
from zoo.weights.fetch import fetch
from zoo.weights.file import TensorFile
from zoo.weights.file import read as read_tensors
from zoo.weights.file import write as write_tensors
from zoo.weights.mapping import Slot, dotted, slots

FILE = "model.safetensors"
FORMAT = 1


def named_slots(model: Model) -> dict[str, tuple[nnx.Module, Slot]]:
    """Name in zoo's own file -> (the module below which it lies, its slot)."""
    parts = (("backbone", model.backbone), ("head", model.head))
    return {f"{part}.{slot.name}": (module, slot) for part, module in parts for slot in slots(module)}


def arrays_of(module: nnx.Module) -> dict[tuple[Any, ...], np.ndarray]:
    """Path -> array for every parameter and statistic of a module."""
    state = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(variable.get_value()) for path, variable in state}


def save(model: Model, path: str | Path) -> Path:
    """Write a model as one safetensors file with its card, labels and options; `zoo.load` reads it back.

    Args:
        path: a file ending in `.safetensors`, or a folder (made if need be) that gets a `model.safetensors`.
    Returns:
        The file.
    """
    path = Path(path)
    file = path if path.suffix == ".safetensors" else path / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {part: arrays_of(module) for part, module in (("backbone", model.backbone), ("head", model.head))}
    tensors = {
        name: slot.write(arrays[name.split(".", 1)[0]][slot.path]) for name, (_, slot) in named_slots(model).items()
    }
    write_tensors(file, tensors, {"zoo": json.dumps(describe(model), sort_keys=True)})
    return file


def describe(model: Model) -> dict[str, Any]:
    """Everything but the arrays, as plain JSON values."""
    adapter = model.adapter
    return {
        "format": FORMAT,
        "card": msgspec.to_builtins(asdict(model.card)),
        "labels": list(adapter.labels),
        "adapter": {name: msgspec.to_builtins(getattr(adapter, name)) for name in option_fields(type(adapter))},
    }


def load(source: str | Path) -> Model:
    """A saved model, in evaluation mode.

    Args:
        source: a run folder, a file or folder that `zoo.save` wrote, or `hf://org/repo[@revision]` with such a file.
    Raises:
        WeightsError: when it holds no model of zoo's, or a damaged one.
    """
    fetched = fetch(str(source), FILE)
    file = read_tensors(fetched.path)
    if "zoo" not in file.metadata:
        raise WeightsError(
            f"{source} holds weights, not a model saved by zoo: use zoo.create(NAME, TASK, weights={str(source)!r})."
        )
    try:
        saved = json.loads(file.metadata["zoo"])
        card = msgspec.convert(saved["card"], Card)
        return _rebuild(card, tuple(saved["labels"]), saved["adapter"], file)
    except (KeyError, msgspec.ValidationError, json.JSONDecodeError) as error:
        raise WeightsError(f"the description in {fetched.path} cannot be read: {error}.") from None


def _rebuild(card: Card, labels: tuple[str, ...], options: Mapping[str, Any], file: TensorFile) -> Model:
    spec = registry().backbone(card.backbone).built_with(card.options)
    adapter_spec = registry().adapter(card.adapter)
    adapter = configure(adapter_spec.adapter, labels, options)
    shapes = feature_shapes(
        spec, card.preprocess.size, adapter.taps(spec), in_channels=card.in_channels, **card.options
    )
    head = nnx.eval_shape(lambda: adapter.build(spec, shapes, size=card.preprocess.size, rngs=nnx.Rngs(0)))
    backbone = abstract(spec, in_channels=card.in_channels, **card.options)
    model = Model(backbone, head, spec=spec, adapter=adapter, card=card)
    expected, tensors = named_slots(model), file.load()
    if expected.keys() != tensors.keys():
        missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
        raise WeightsError(
            f"{file.path} does not fit {card.backbone} as it is installed: missing {missing[:3]}, unknown {extra[:3]}. "
            "It was written by another version of the plugin."
        )
    for module in (backbone, head):
        mine = {slot.path: slot.read(tensors[name]) for name, (owner, slot) in expected.items() if owner is module}
        for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
            here, there = tuple(variable.get_value().shape), mine[path].shape
            if here != there:
                raise WeightsError(f"{file.path}: {dotted(path)} has shape {there}, not {here}.")
        put(module, mine, card.seed)
    model.eval()
    return model
