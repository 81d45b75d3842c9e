"""Activations that end a network, where their form is given by a paper or a checkpoint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def recoverable_relu(x: Array) -> Array:
    """ReLU for outputs: below zero, the gradient still passes where it raises the input.

    The values are those of `jax.nn.relu`. As the last operation of a network, a plain ReLU can lose an output for
    ever: where a channel is negative at every position that the loss reads, nothing has a gradient any more that could
    raise it. Gradients that would lower the input further are dropped, so that it does not run away below zero.
    """
    return jax.nn.relu(x)


def _forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x > 0


def _backward(positive: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(positive, gradient, jnp.minimum(gradient, 0)),)


recoverable_relu.defvjp(_forward, _backward)
