"""The losses of the classifier: an extension point, filled with cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from zoo.registry.spec import Part
from zoo.registry.sums import SumPoint

if TYPE_CHECKING:
    from jaxtyping import Float


class Scores(NamedTuple):
    """The inputs of every loss.

    Attributes:
        logits: logits of the classes.
        targets: target probabilities of the classes, after label smoothing and mixing. Those of an image sum to 1
            unless `multi_label`.
        weights: class weights.
        multi_label: whether an image may have several labels, so that each class is a binary problem.
    """

    logits: Float[Array, "b classes"]
    targets: Float[Array, "b classes"]
    weights: Float[Array, " classes"]
    multi_label: bool


Loss = Callable[[Scores], Array]
"""Function that returns the loss of each image, (b,)."""

LOSSES: SumPoint[Loss] = SumPoint("classifier.loss", "classification loss")


def cross_entropy(scores: Scores) -> Float[Array, " b"]:
    """Return softmax cross-entropy or, with several labels per image, sigmoid cross-entropy averaged over classes."""
    weights = scores.weights.reshape(1, -1)
    if scores.multi_label:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores.logits, scores.targets) * weights, axis=-1)
    # As in torch: each class's target probability is multiplied by its class weight, also for soft targets.
    return -jnp.sum(scores.targets * weights * jax.nn.log_softmax(scores.logits), axis=-1)


def parts() -> list[Part]:
    """Return the registry rows of the built-in losses."""
    summary = "Cross-entropy with class weights: softmax, or sigmoid when images have several labels."
    return [Part(LOSSES.name, "ce", cross_entropy, summary)]
