"""Mixup and cutmix: mix each image of a batch with another one, on the device.

Mixup: Zhang et al., 2017 (https://arxiv.org/abs/1710.09412); cutmix: Yun et al., 2019
(https://arxiv.org/abs/1905.04899).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import random

from zoo.data.operations import rectangle


def mix(mixup: float, cutmix: float, key: jax.Array, image: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Mix each image with another one of the batch. With both mixup and cutmix, each image gets one of them.

    Args:
        mixup: concentration of the Beta distribution of the mixing weight, 0 for no mixup.
        cutmix: the same for cutmix, whose weight is the share of the image outside the rectangle.
        key: random key of this step.
        image: the images (b, h, w, c).

    Returns:
        (the mixed images, (partner int32 (b,), weight of the image itself float32 (b,))).
    """
    partner_key, choice_key, mixup_key, cutmix_key, place_key = random.split(key, 5)
    b, height, width, _ = image.shape
    partner = random.permutation(partner_key, b).astype(jnp.int32)
    other = image[partner]
    blend = _beta(mixup_key, mixup, b) if mixup else jnp.ones(b)
    weight, keep = blend, blend[:, None, None, None]
    if cutmix:
        side = jnp.sqrt(1 - _beta(cutmix_key, cutmix, b))
        place = random.uniform(place_key, (2, b))
        inside = jax.vmap(partial(rectangle, (height, width)))(side * height, side * width, *place)
        cut = random.bernoulli(choice_key, 0.5 if mixup else 1.0, (b,))
        outside = 1 - inside.astype(jnp.float32)
        keep = jnp.where(cut[:, None, None, None], outside[..., None], keep)
        # The weight is the actual share of kept pixels, not the drawn one: rectangles are rounded to whole pixels.
        weight = jnp.where(cut, outside.mean((1, 2)), blend)
    return keep * image + (1 - keep) * other, (partner, weight)


def _beta(key: jax.Array, concentration: float, count: int) -> jax.Array:
    """Draw `count` numbers from Beta(a, a).

    If x and y are Gamma(a) then x / (x + y) = sigmoid(log x - log y) is Beta(a, a). Drawing both in one call compiles
    in half the time of `random.beta`.
    """
    first, second = random.loggamma(key, concentration, (2, count))
    return jax.nn.sigmoid(first - second)
