"""Put a checkpoint's arrays into the modules of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.errors import WeightsError
from zoo.models.adapter import Adapter
from zoo.models.whole import assign_whole, fitting
from zoo.registry.spec import BackboneSpec, ModelSpec
from zoo.weights.load import LoadReport, assign
from zoo.weights.mapping import Path, Slot, dotted, slots


def fill(
    spec: BackboneSpec,
    backbone: nnx.Module,
    head: nnx.Module,
    adapter: Adapter,
    tensors: Mapping[str, np.ndarray],
    in_channels: int,
    *,
    keep_head: bool,
    seed: int,
) -> LoadReport:
    """Put a checkpoint's arrays into an abstract backbone and, where `keep_head`, into the head."""
    body = slots(backbone)
    paths = adapter.checkpoint_paths(spec) if keep_head else {}
    tops = [replace(slot, name=in_checkpoint(slot, paths)) for slot in slots(head) if in_checkpoint(slot, paths)]
    reason = "the model has a new classifier" if not keep_head else "the head has another form"
    if tops:
        reason = ""
    elif not slots(head):
        reason = "the model has no classifier"
    arrays, report = assign(
        spec, [*body, *tops], tensors, first_conv=first_conv_of(spec, body, in_channels), head_reason=reason
    )
    put(backbone, {slot.path: arrays[slot.name] for slot in body}, seed)
    put(head, {slot.path: arrays[slot.name] for slot in tops if slot.name in arrays}, seed)
    return report


def fill_whole(
    named: ModelSpec,
    spec: BackboneSpec,
    backbone: nnx.Module,
    head: nnx.Module,
    heads: Sequence[tuple[tuple[str, ...], Callable[[], nnx.Module]]],
    tensors: Mapping[str, np.ndarray],
    in_channels: int,
    seed: int,
) -> tuple[tuple[str, ...], LoadReport]:
    """Put a whole model's checkpoint into an abstract backbone and a head.

    Args:
        heads: (classes, the head for them) that the checkpoint may be for, the published classes first.

    Returns:
        The checkpoint's classes, and a report on its tensors.
    """
    first, errors = first_conv_of(spec, slots(backbone), in_channels), []
    for classes, build in heads:
        try:
            body, top, report = assign_whole(named, spec, backbone, build(), tensors, first_conv=first)
        except WeightsError as error:
            errors.append(error)
            continue
        put(backbone, body, seed)
        put(head, fitting(head, top, report), seed)
        return classes, report
    raise errors[0]


def in_checkpoint(slot: Slot, paths: Mapping[str, str]) -> str:
    """Return the checkpoint's name for a slot of the head, or an empty string if it has none."""
    for here, there in paths.items():
        if slot.name.startswith(here + "."):
            return there + slot.name[len(here) :]
    return ""


def first_conv_of(spec: BackboneSpec, body: Sequence[Slot], in_channels: int) -> str | None:
    """Return the name of the kernel that reads the image: the first convolution of the first stage."""
    stage, inputs = spec.stages[0].modules, in_channels * spec.fold**2
    found = [
        slot
        for slot in body
        if len(slot.shape) == 4 and slot.shape[2] == inputs and any(slot.name.startswith(m + ".") for m in stage)
    ]
    return min(found, key=lambda slot: (len(slot.path), dotted(slot.path))).name if found else None


def arrays_for(module: nnx.Module, tensors: Mapping[str, np.ndarray], name: str) -> dict[Path, np.ndarray]:
    """Return arrays by path from tensors by name, with the checkpoint's axes. Raises `WeightsError` unless they fit."""
    wanted = {slot.name: slot for slot in slots(module)}
    if wrong := sorted(wanted.keys() ^ tensors.keys()):
        raise WeightsError(f"the weights do not fit the head of {name}: {wrong[0]} is missing in one of the two.")
    for key, slot in wanted.items():
        if tuple(tensors[key].shape) != slot.native_shape:
            raise WeightsError(
                f"the weights do not fit the head of {name}: {key} has shape {tuple(tensors[key].shape)}, and "
                f"{slot.native_shape} is needed."
            )
    return {slot.path: slot.read(tensors[key]) for key, slot in wanted.items()}


def put(module: nnx.Module, arrays: Mapping[Path, np.ndarray], seed: int) -> None:
    """Set variables of a module, abstract or not, from arrays by path. Random streams start from `seed`.

    Raises:
        WeightsError: An abstract variable gets no value.
    """
    state = nnx.to_flat_state(nnx.state(module))
    filled = []
    for index, (path, variable) in enumerate(state):
        value = variable.get_value()
        if path in arrays:
            value = jnp.asarray(np.asarray(arrays[path]), dtype=jnp.float32)
        elif isinstance(variable, nnx.RngKey):
            value = jax.random.fold_in(jax.random.key(seed), index)
        elif isinstance(variable, nnx.RngCount):
            value = jnp.zeros((), jnp.uint32)
        elif isinstance(value, jax.ShapeDtypeStruct):
            raise WeightsError(f"{dotted(path)} got no value from the weights.")
        filled.append((path, variable.replace(value)))
    nnx.update(module, nnx.from_flat_state(filled))
