"""What makes a picture look like another: content, Gram and statistics losses, total variation, and AdaIN.

Features are maps (b, h, w, c); every loss is one number for each image, (b,), in float32. Content and Gram loss: Gatys
et al., arXiv:1508.06576, eq. 1 and 4, as means in place of sums; statistics loss and AdaIN: Huang and Belongie,
arXiv:1703.06868, eq. 8 and 13; total variation: Johnson et al., arXiv:1603.08155, section 3.2.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

EPS = 1e-5
"""Added to variances before their root (arXiv:1703.06868, section 3.1)."""


def gram(features: Array, mask: Array | None = None) -> Array:
    """Which channels are active together: (b, h, w, c) -> (b, c, c), divided by places and channels.

    Args:
        mask: share of each place, (b, h, w, 1): only what lies under it counts (arXiv:1611.07865, eq. 3).
    """
    x = features.astype(jnp.float32)
    places = jnp.float32(x.shape[1] * x.shape[2])
    if mask is not None:
        x = x * mask
        places = jnp.maximum(jnp.sum(jnp.square(mask), axis=(1, 2, 3)), 1e-6).reshape(-1, 1, 1)
    flat = x.reshape(x.shape[0], -1, x.shape[3])
    return jnp.einsum("bnc,bnd->bcd", flat, flat) / (places * x.shape[3])


def statistics(features: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel over the image, both (b, 1, 1, c)."""
    x = features.astype(jnp.float32)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
    return mean, jnp.sqrt(variance + EPS)


def adain(content: Array, style: tuple[Array, Array], own: tuple[Array, Array] | None = None) -> Array:
    """Content features with the style's mean and deviation in each channel.

    Args:
        style: what `statistics` gives for the style's features, (b, 1, 1, c) or (1, 1, 1, c).
        own: the content's own statistics, where the map is but a part of the picture.
    """
    mean, deviation = own or statistics(content)
    return (content.astype(jnp.float32) - mean) / deviation * style[1] + style[0]


def _mean(x: Array) -> Array:
    """Over all axes but the first."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def squared_error(x: Array, target: Array) -> Array:
    """Mean squared difference: the content loss for features, the style loss for Gram matrices."""
    return _mean(jnp.square(x.astype(jnp.float32) - target.astype(jnp.float32)))


def statistics_loss(features: Array, target: tuple[Array, Array]) -> Array:
    """Squared differences of the channels' means and of their deviations, each averaged over channels."""
    mean, deviation = statistics(features)
    return squared_error(mean, target[0]) + squared_error(deviation, target[1])


def total_variation(pixels: Array) -> Array:
    """Mean squared difference of neighbouring pixels, along either axis, summed over the two axes."""
    x = pixels.astype(jnp.float32)
    return _mean(jnp.square(x[:, 1:] - x[:, :-1])) + _mean(jnp.square(x[:, :, 1:] - x[:, :, :-1]))


def energy(*targets: Array) -> Array:
    """Mean square of each target, summed: a loss divided by it is a share. Backbones differ in the size of their
    features by factors of ten, and layers of one by more; shares let one set of weights do for all."""
    total = sum(_mean(jnp.square(target.astype(jnp.float32))) for target in targets)
    return jnp.maximum(jnp.asarray(total), 1e-12)
