"""Activations for the last layer of a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def recoverable_relu(x: Array) -> Array:
    """ReLU for outputs: below zero, gradients that raise the input still pass.

    The values are those of `jax.nn.relu`. A plain ReLU at the end of a network can lose an output for ever: if a
    channel is negative at every position that the loss reads, no gradient can raise it again. Gradients that would
    lower a negative input further are dropped, so that it does not drift away from zero.
    """
    return jax.nn.relu(x)


def _forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x > 0


def _backward(positive: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(positive, gradient, jnp.minimum(gradient, 0)),)


recoverable_relu.defvjp(_forward, _backward)
