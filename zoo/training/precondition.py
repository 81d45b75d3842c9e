"""Preconditioned head: train its affine maps as if their inputs were standardised, without changing the model.

The scale of features differs between backbones by factors of ten, and between channels of one backbone by more. A
learning rate that suits one backbone makes another diverge, or barely train. For inputs with mean m and standard
deviation s, the map x -> x W + b equals the map x' -> x' W' + b' of standardised inputs x' = (x - m) / s, where
W' = s W and b' = b + m W. The optimizer receives the gradients of W' and b'; its updates are converted back to W and b.
The model itself keeps W and b, so saved and exported models need no standardisation.
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
"""Factor on the initial kernel of a new head, so small that a few steps overcome it."""
FLOOR = 1e-3
"""Added to each standard deviation, as a share of their mean, so that constant channels are not blown up."""


class Preconditioned(NamedTuple):
    """State of a preconditioned optimizer.

    Attributes:
        inner: state of the wrapped optimizer.
        statistics: map name -> (mean, standard deviation) of its inputs, both (in,).
    """

    inner: Any
    statistics: dict[str, tuple[Array, Array]]


def affine_maps(model: Model, assignment: Assignment) -> dict[str, Path]:
    """Return the trained affine maps of the head that read features directly: path in the head -> path in the model."""
    paths = {name: ("head", *name.split(".")) for name in model.head.reads()}  # type: ignore[attr-defined]
    return {name: path for name, path in paths.items() if assignment.trains((*path, "kernel"))}


def precondition(
    optimizer: optax.GradientTransformation, maps: Mapping[str, Path]
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optimizer so that it sees the parameters of maps of standardised inputs.

    Until `with_statistics` is called, the mean is 0 and the deviation 1.

    Args:
        optimizer: the optimizer to wrap.
        maps: name -> path of the module with the map's `kernel` (..., in, out) and, perhaps, `bias` (out,).
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
        grads, values = dict(nnx.to_flat_state(gradients)), dict(nnx.to_flat_state(params))
        # To the standardised map. From W = W' / s and b = b' - m W, the chain rule gives
        # dL/dW' = (dL/dW - m dL/db) / s and dL/db' = dL/db. Weight decay acts on the values, so they are converted too.
        for name, path in maps.items():
            mean, deviation = (_column(v) for v in state.statistics[name])
            kernel, bias = (*path, "kernel"), (*path, "bias")
            slope = grads[kernel].get_value()
            if bias in grads:
                slope = slope - mean * grads[bias].get_value().reshape(1, -1)
                offset = jnp.sum(mean * values[kernel].get_value(), axis=tuple(range(slope.ndim - 1)))
                values[bias] = values[bias].replace(values[bias].get_value() + offset)
            grads[kernel] = grads[kernel].replace(slope / deviation)
            values[kernel] = values[kernel].replace(values[kernel].get_value() * deviation)
        updates, inner = optimizer.update(_state(grads), state.inner, _state(values), **extra)
        # Back: both conversions are linear, so changes are converted like values: W = W' / s and b = b' - m W.
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
    """Return the state with the statistics of features.

    Feature maps are averaged over each image first, because a classifier reads the features of whole images.

    Args:
        state: the state.
        features: map name -> inputs of the map, (images, ..., in).
    """
    statistics = {}
    for name, values in features.items():
        pooled = values.reshape(len(values), -1, values.shape[-1]).mean(axis=1, dtype=np.float64)
        mean, deviation = pooled.mean(axis=0), pooled.std(axis=0)
        floor = max(FLOOR * float(deviation.mean()), 1e-6)
        statistics[name] = (jnp.asarray(mean, jnp.float32), jnp.asarray(deviation + floor, jnp.float32))
    return Preconditioned(state.inner, state.statistics | statistics)


def started(params: nnx.State, state: Preconditioned, maps: Mapping[str, Path]) -> nnx.State:
    """Return the parameters with the initial values of new maps converted.

    The initial kernel, times `START`, is taken as W' of the standardised map, and the bias as b'. The first outputs are
    then small and centred, whatever the scale of the features.

    Args:
        params: the parameters, with untrained maps.
        state: the state, after `with_statistics`.
        maps: the maps, see `precondition`.
    """
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
