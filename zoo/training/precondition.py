"""Training affine maps as if their inputs were standardised, without changing the model.

Features of different backbones differ in size by factors of ten, and channels of one backbone by more; a learning rate
that suits one makes another diverge or crawl. With inputs of mean m and deviation s, the map x -> x W + b is the map
x' -> x' W' + b' of x' = (x - m) / s with W' = s W and b' = b + m W. The optimizer sees the gradients of W' and b', and
its updates are carried back to W and b. Saved models and exports never know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from zoo.models.model import Model
from zoo.training.rules import Assignment
from zoo.weights.mapping import Path

START = 0.2
"""What is left of the initial values: a few steps must be able to overcome them."""
FLOOR = 1e-3
"""Smallest deviation, as a share of the mean one: a channel that never moves must not be blown up."""


class Preconditioned(NamedTuple):
    """State: the optimizer's own, and (mean, deviation) of each map's inputs, both (in,)."""

    inner: Any
    statistics: dict[str, tuple[Array, Array]]


def affine_maps(model: Model, assignment: Assignment) -> dict[str, Path]:
    """Return the head's affine maps that read a reduced feature and train: path in the head -> path in the model."""
    paths = {name: ("head", *name.split(".")) for name in model.head.reads()}  # type: ignore[attr-defined]
    return {name: path for name, path in paths.items() if assignment.trains((*path, "kernel"))}


def precondition(
    optimizer: optax.GradientTransformation, maps: Mapping[str, Path]
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` working on standardised inputs.

    Args:
        maps: a name for each affine map -> path of the module that holds its `kernel` (..., in, out) and `bias`.
            Until `with_statistics` is called, inputs are taken to be standardised already.
    """

    def init(params: nnx.State) -> Preconditioned:
        flat = dict(nnx.to_flat_state(params))
        widths = {name: flat[(*path, "kernel")].get_value().shape[-2] for name, path in maps.items()}
        statistics = {name: (jnp.zeros(width), jnp.ones(width)) for name, width in widths.items()}
        return Preconditioned(optimizer.init(params), statistics)

    def update(
        gradients: nnx.State, state: Preconditioned, params: nnx.State | None = None, **extra: Any
    ) -> tuple[nnx.State, Preconditioned]:
        assert params is not None
        there, here = dict(nnx.to_flat_state(gradients)), dict(nnx.to_flat_state(params))
        for name, path in maps.items():
            mean, deviation = (_column(v) for v in state.statistics[name])
            kernel, bias = (*path, "kernel"), (*path, "bias")
            slope = there[kernel].get_value()
            if bias in there:
                slope = slope - mean * there[bias].get_value().reshape(1, -1)
                offset = jnp.sum(mean * here[kernel].get_value(), axis=tuple(range(slope.ndim - 1)))
                here[bias] = here[bias].replace(here[bias].get_value() + offset)
            there[kernel] = there[kernel].replace(slope / deviation)
            here[kernel] = here[kernel].replace(here[kernel].get_value() * deviation)
        updates, inner = optimizer.update(_state(there), state.inner, _state(here), **extra)
        back = dict(nnx.to_flat_state(updates))
        for name, path in maps.items():
            mean, deviation = (_column(v) for v in state.statistics[name])
            kernel, bias = (*path, "kernel"), (*path, "bias")
            change = back[kernel].get_value() / deviation
            back[kernel] = back[kernel].replace(change)
            if bias in back:
                shift = jnp.sum(mean * change, axis=tuple(range(change.ndim - 1)))
                back[bias] = back[bias].replace(back[bias].get_value() - shift)
        return _state(back), Preconditioned(inner, state.statistics)

    return optax.GradientTransformationExtraArgs(init, update)


def with_statistics(state: Preconditioned, features: Mapping[str, np.ndarray]) -> Preconditioned:
    """The state for inputs that look like `features`: map name -> (images, ..., in). Maps are averaged over the image
    first, because it is the image's features that a class is told by."""
    statistics = {}
    for name, values in features.items():
        pooled = values.reshape(len(values), -1, values.shape[-1]).mean(axis=1, dtype=np.float64)
        mean, deviation = pooled.mean(axis=0), pooled.std(axis=0)
        floor = max(FLOOR * float(deviation.mean()), 1e-6)
        statistics[name] = (jnp.asarray(mean, jnp.float32), jnp.asarray(deviation + floor, jnp.float32))
    return Preconditioned(state.inner, state.statistics | statistics)


def started(params: nnx.State, state: Preconditioned, maps: Mapping[str, Path]) -> nnx.State:
    """Untrained maps, whose initial values are then meant for standardised inputs: the first outputs are small and
    centred, whatever the size of the features."""
    flat = dict(nnx.to_flat_state(params))
    for name, path in maps.items():
        kernel, bias = (*path, "kernel"), (*path, "bias")
        value = flat[kernel].get_value()
        mean, deviation = (v.reshape((1,) * (value.ndim - 2) + (-1, 1)) for v in state.statistics[name])
        value = START * value / deviation
        flat[kernel] = flat[kernel].replace(value)
        if bias in flat:
            shift = jnp.sum(mean * value, axis=tuple(range(value.ndim - 1)))
            flat[bias] = flat[bias].replace(flat[bias].get_value() - shift)
    return _state(flat)


def _column(values: Array) -> Array:
    return values.reshape(-1, 1)


def _state(flat: Mapping[Any, Any]) -> nnx.State:
    return nnx.from_flat_state(list(flat.items()))
