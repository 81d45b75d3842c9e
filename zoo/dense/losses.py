"""Semantic segmentation losses, one value for each image. Pixels of class `IGNORE` do not count.

Cross-entropy; focal loss, arXiv:1708.02002; soft Dice, arXiv:1606.04797; Tversky, arXiv:1706.05721; Lovász-softmax,
arXiv:1705.08790. All are computed in float32, and are 0 for an image without a pixel that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.resize import bilinear_weights
from zoo.targets.masks import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Float, Integer, Num

    PerImage = Float[Array, " b"]

SMOOTH = 0.5
"""Pixels added to the true positives of the overlap losses, so that two empty sets overlap perfectly."""


class Scene(NamedTuple):
    """The inputs of every loss, for n pixels.

    Attributes:
        log_p: logarithm of the predicted probabilities.
        true: one-hot true classes, all 0 where a pixel does not count.
        counted: 1 for pixels that count, else 0.
        weights: class weights.
    """

    log_p: Float[Array, "b c n"]
    true: Float[Array, "b c n"]
    counted: Float[Array, "b n"]
    weights: Float[Array, " c"]


class Shape(NamedTuple):
    """Parameters of the losses.

    Attributes:
        alpha: weight of false positives in the Tversky loss; Dice has 0.5.
        beta: weight of false negatives in the Tversky loss; Dice has 0.5.
        gamma: exponent of the focal loss.
    """

    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 2.0


PLAIN = Shape()
Loss = Callable[[Scene, Shape], Array]
"""A loss of each image, (b,)."""


def _mean(per_pixel: Float[Array, "b n"], scene: Scene) -> PerImage:
    """Return the mean over the pixels that count."""
    return jnp.sum(per_pixel * scene.counted, 1) / jnp.maximum(jnp.sum(scene.counted, 1), 1)


def _mean_present(per_class: Float[Array, "b c"], scene: Scene) -> PerImage:
    """Return the mean over the classes present in the image."""
    present = (jnp.sum(scene.true, 2) > 0).astype(jnp.float32)
    return jnp.sum(per_class * present, 1) / jnp.maximum(jnp.sum(present, 1), 1)


def _weighted(per_class: Float[Array, "b c n"], scene: Scene) -> Float[Array, "b n"]:
    """Return the value of the true class times its class weight."""
    return jnp.sum(scene.weights.reshape(1, -1, 1) * scene.true * per_class, 1)


def cross_entropy(scene: Scene, shape: Shape) -> PerImage:
    """Return the mean of -w log p of the true class.

    The mean is not divided by the weights, so an image of one class keeps the weight of that class.
    """
    return _mean(-_weighted(scene.log_p, scene), scene)


def focal(scene: Scene, shape: Shape) -> PerImage:
    """Return the mean of -w (1 - p)^gamma log p of the true class (equation 4)."""
    # Clipped, because the gradient of a power below one is infinite at 0.
    other = jnp.maximum(-jnp.expm1(scene.log_p), 1e-6)
    return _mean(-_weighted(other**shape.gamma * scene.log_p, scene), scene)


def _tversky(scene: Scene, alpha: float, beta: float) -> PerImage:
    p = jnp.exp(scene.log_p) * scene.counted[:, None]
    overlap, predicted, true = jnp.sum(p * scene.true, 2), jnp.sum(p, 2), jnp.sum(scene.true, 2)
    index = (overlap + SMOOTH) / (overlap + alpha * (predicted - overlap) + beta * (true - overlap) + SMOOTH)
    return _mean_present(1 - index, scene)


def dice(scene: Scene, shape: Shape) -> PerImage:
    """Return 1 - (2 |P T| + 1) / (|P| + |T| + 1), averaged over the classes in the image."""
    return _tversky(scene, 0.5, 0.5)


def tversky(scene: Scene, shape: Shape) -> PerImage:
    """Return 1 - |P T| / (|P T| + alpha |P - T| + beta |T - P|), averaged over the classes in the image.

    It is smoothed like Dice.
    """
    return _tversky(scene, shape.alpha, shape.beta)


def lovasz(scene: Scene, shape: Shape) -> PerImage:
    """Return the Lovász extension of 1 - IoU (equation 9, algorithm 1), averaged over the classes in the image."""
    # Sort pixels by error, largest first. `jaccard[i]` is 1 - IoU if the first i + 1 pixels were wrong and the rest
    # right; its increments weigh the errors. They depend on the order only, so no gradient passes through them.
    p = jnp.exp(scene.log_p)
    errors = jnp.where(scene.counted[:, None] > 0, jnp.abs(scene.true - p), -1.0)  # ignored pixels come last
    falling, true = lax.sort((-errors, scene.true), dimension=2, num_keys=1)
    positives = jnp.sum(true, 2, keepdims=True)
    left = positives - jnp.cumsum(true, 2)
    union = positives + jnp.cumsum(1 - true, 2)
    jaccard = 1 - left / jnp.maximum(union, 1)
    slope = jnp.diff(jaccard, axis=2, prepend=0.0)
    return _mean_present(jnp.sum(jax.nn.relu(-falling) * lax.stop_gradient(slope), 2), scene)


def class_maps(logits: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b c height width"]:
    """Resize logits bilinearly to `size` (height, width) and move the classes first, where sums over them are fast."""
    if (logits.shape[1], logits.shape[2]) == size:
        return jnp.moveaxis(logits, 3, 1)
    down, across = (bilinear_weights(logits.shape[axis + 1], side) for axis, side in enumerate(size))
    return jnp.einsum("Hh,bchW->bcHW", down, jnp.einsum("bhwc,Ww->bchW", logits, across))


def scene_of(logits: Num[Array, "b h w c"], mask: Integer[Array, "b H W"], weights: Sequence[float] = ()) -> Scene:
    """Return the inputs of the losses: logits resized to the size of the mask, and the true classes there."""
    height, width = mask.shape[1:]
    maps = class_maps(logits.astype(jnp.float32), (height, width)).reshape(*logits.shape[::3], height * width)
    classes = mask.reshape(mask.shape[0], 1, height * width).astype(jnp.int32)
    numbers = jnp.arange(logits.shape[3], dtype=jnp.int32).reshape(1, -1, 1)
    counted = (classes[:, 0] != IGNORE).astype(jnp.float32)
    factors = jnp.asarray(weights, jnp.float32) if weights else jnp.ones(logits.shape[3])
    return Scene(jax.nn.log_softmax(maps, 1), (classes == numbers).astype(jnp.float32), counted, factors)


def segmentation_losses(
    logits: Num[Array, "b h w c"],
    mask: Integer[Array, "b H W"],
    terms: Iterable[tuple[float, str, Loss]],
    *,
    weights: Sequence[float] = (),
    shape: Shape = PLAIN,
) -> dict[str, PerImage]:
    """Return the terms of a loss by name, each multiplied by its factor.

    Args:
        logits: resized bilinearly to the size of the mask.
        mask: class indices and `IGNORE`.
        terms: factor, name and function of each.
        weights: class weights for cross-entropy and focal loss; empty for equal ones.
        shape: parameters of the losses.
    """
    scene = scene_of(logits, mask, weights)
    return {name: factor * loss(scene, shape) for factor, name, loss in terms}
