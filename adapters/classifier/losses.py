"""The losses of the classifier: an extension point, filled with cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from zoo.registry.spec import Part
from zoo.registry.sums import SumPoint


class Scores(NamedTuple):
    """What every loss is computed from.

    Attributes:
        logits: (b, classes).
        targets: Share of each class in an image's target (b, classes), after label smoothing and mixing of images. They
            sum to 1 unless an image may have several labels.
        weights: Of the classes, (classes,).
        multi_label: Whether an image may have several labels, so that each class is a yes or no of its own.
    """

    logits: Array
    targets: Array
    weights: Array
    multi_label: bool


Loss = Callable[[Scores], Array]
"""Returns the loss of each image, (b,)."""

LOSSES: SumPoint[Loss] = SumPoint("classifier.loss", "classification loss")


def cross_entropy(scores: Scores) -> Array:
    """Softmax cross-entropy; for several labels an image the mean sigmoid cross-entropy of the classes."""
    weights = scores.weights.reshape(1, -1)
    if scores.multi_label:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores.logits, scores.targets) * weights, axis=-1)
    # As in torch: the share of the target that lies on a class carries that class's weight.
    return -jnp.sum(scores.targets * weights * jax.nn.log_softmax(scores.logits), axis=-1)


def parts() -> list[Part]:
    """The rows of zoo's own losses."""
    summary = "Cross-entropy with the class weights: softmax, or sigmoid for several labels an image."
    return [Part(LOSSES.name, "ce", cross_entropy, summary)]
