"""Losses of a class for every pixel, each for every image; a pixel of `IGNORE` counts in none of them.

Cross-entropy; focal loss, arXiv:1708.02002; soft Dice, arXiv:1606.04797; Tversky, arXiv:1706.05721; Lovász-softmax,
arXiv:1705.08790. All are computed in float32, and are 0 for an image of which no pixel counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.resize import bilinear_weights
from zoo.errors import ConfigError, unknown_name
from zoo.targets.masks import IGNORE

SMOOTH = 0.5
"""Pixels added to what is right, so that the overlap of two empty sets is a number, and one."""


class Scene(NamedTuple):
    """What every loss is computed from; n is the number of pixels.

    Attributes:
        log_p: logarithm of the probabilities, (b, c, n). true: one-hot classes, (b, c, n), 0 where no pixel counts.
        counted: which pixels count, float (b, n). weights: of the classes, (c,).
    """

    log_p: Array
    true: Array
    counted: Array
    weights: Array


class Shape(NamedTuple):
    """Numbers that losses have beside their name.

    Attributes:
        alpha, beta: what Tversky takes a false positive and a false negative for; Dice takes both for a half.
        gamma: power of the focal loss.
    """

    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 2.0


PLAIN = Shape()


def _mean(per_pixel: Array, scene: Scene) -> Array:
    """The mean over the pixels that count, (b, n) -> (b,)."""
    return jnp.sum(per_pixel * scene.counted, 1) / jnp.maximum(jnp.sum(scene.counted, 1), 1)


def _mean_present(per_class: Array, scene: Scene) -> Array:
    """The mean over the classes that there are in the image, (b, c) -> (b,)."""
    present = (jnp.sum(scene.true, 2) > 0).astype(jnp.float32)
    return jnp.sum(per_class * present, 1) / jnp.maximum(jnp.sum(present, 1), 1)


def _weighted(per_class: Array, scene: Scene) -> Array:
    """The true class's value with its weight, (b, c, n) -> (b, n)."""
    return jnp.sum(scene.weights.reshape(1, -1, 1) * scene.true * per_class, 1)


def cross_entropy(scene: Scene, shape: Shape) -> Array:
    """Mean of -w log p of the true class. The weights are no part of the mean: an image of one class keeps its own."""
    return _mean(-_weighted(scene.log_p, scene), scene)


def focal(scene: Scene, shape: Shape) -> Array:
    """Mean of -w (1 - p)^gamma log p of the true class (equation 4)."""
    # Away from 0, where a power below one has no slope.
    other = jnp.maximum(-jnp.expm1(scene.log_p), 1e-6)
    return _mean(-_weighted(other**shape.gamma * scene.log_p, scene), scene)


def _tversky(scene: Scene, alpha: float, beta: float) -> Array:
    p = jnp.exp(scene.log_p) * scene.counted[:, None]
    right, found, there = jnp.sum(p * scene.true, 2), jnp.sum(p, 2), jnp.sum(scene.true, 2)
    index = (right + SMOOTH) / (right + alpha * (found - right) + beta * (there - right) + SMOOTH)
    return _mean_present(1 - index, scene)


def dice(scene: Scene, shape: Shape) -> Array:
    """1 - (2 |P T| + 1) / (|P| + |T| + 1), the mean over the classes in the image."""
    return _tversky(scene, 0.5, 0.5)


def tversky(scene: Scene, shape: Shape) -> Array:
    """1 - |P T| / (|P T| + alpha |P - T| + beta |T - P|), smoothed as Dice, the mean over the classes in the image."""
    return _tversky(scene, shape.alpha, shape.beta)


def lovasz(scene: Scene, shape: Shape) -> Array:
    """The Lovász extension of 1 - IoU of each class in the image (equation 9, algorithm 1), and their mean."""
    p = jnp.exp(scene.log_p)
    errors = jnp.where(scene.counted[:, None] > 0, jnp.abs(scene.true - p), -1.0)  # what does not count comes last
    falling, true = lax.sort((-errors, scene.true), dimension=2, num_keys=1)
    there = jnp.sum(true, 2, keepdims=True)
    left = there - jnp.cumsum(true, 2)
    union = there + jnp.cumsum(1 - true, 2)
    jaccard = 1 - left / jnp.maximum(union, 1)
    slope = jnp.diff(jaccard, axis=2, prepend=0.0)
    return _mean_present(jnp.sum(jax.nn.relu(-falling) * lax.stop_gradient(slope), 2), scene)


LOSSES: Mapping[str, Callable[[Scene, Shape], Array]] = {
    "ce": cross_entropy,
    "focal": focal,
    "dice": dice,
    "tversky": tversky,
    "lovasz": lovasz,
}


def parsed(text: str) -> tuple[tuple[float, str], ...]:
    """The (weight, name) of each loss in a sum such as `ce+0.5*dice`. Raises `ConfigError` for what is no such sum."""
    found = []
    for part in text.replace(" ", "").split("+"):
        factor, times, name = part.rpartition("*")
        try:
            weight = float(factor) if times else 1.0
        except ValueError:
            weight = math.nan
        if name not in LOSSES:
            raise unknown_name("loss", name, LOSSES)
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"loss {part!r}: {factor!r} is no weight above 0; write e.g. ce+0.5*dice.")
        found.append((weight, name))
    if len({name for _, name in found}) < len(found):
        raise ConfigError(f"loss {text!r} names a loss twice; write its weight instead, e.g. 2*ce.")
    return tuple(found)


def class_maps(logits: Array, size: tuple[int, int]) -> Array:
    """Logits (b, h, w, c) at another size, with the classes first, (b, c, height, width), as sums over few classes are
    fast."""
    if (logits.shape[1], logits.shape[2]) == size:
        return jnp.moveaxis(logits, 3, 1)
    down, across = (bilinear_weights(logits.shape[axis + 1], side) for axis, side in enumerate(size))
    return jnp.einsum("Hh,bchW->bcHW", down, jnp.einsum("bhwc,Ww->bchW", logits, across))


def scene_of(logits: Array, mask: Array, weights: Sequence[float] = ()) -> Scene:
    """Logits (b, h, w, c) at the size of the mask (b, H, W) of classes, and what is true there."""
    height, width = mask.shape[1:]
    maps = class_maps(logits.astype(jnp.float32), (height, width)).reshape(*logits.shape[::3], height * width)
    classes = mask.reshape(mask.shape[0], 1, height * width).astype(jnp.int32)
    numbers = jnp.arange(logits.shape[3], dtype=jnp.int32).reshape(1, -1, 1)
    counted = (classes[:, 0] != IGNORE).astype(jnp.float32)
    factors = jnp.asarray(weights, jnp.float32) if weights else jnp.ones(logits.shape[3])
    return Scene(jax.nn.log_softmax(maps, 1), (classes == numbers).astype(jnp.float32), counted, factors)


def segmentation_losses(
    logits: Array,
    mask: Array,
    loss: str = "ce",
    *,
    weights: Sequence[float] = (),
    shape: Shape = PLAIN,
) -> dict[str, Array]:
    """The parts of a loss by name, each (b,) and with its factor.

    Args:
        logits: (b, h, w, c), brought to the size of the mask bilinearly. mask: (b, H, W), of classes and `IGNORE`.
        loss: a sum of names of `LOSSES` with factors, see `parsed`.
        weights: of the classes, for cross-entropy and focal loss.
    """
    scene = scene_of(logits, mask, weights)
    return {name: factor * LOSSES[name](scene, shape) for factor, name in parsed(loss)}
