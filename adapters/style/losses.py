"""Losses of style transfer: content, Gram matrices, channel statistics and total variation; and AdaIN.

Every loss is one number per image, in float32. Content and Gram loss: Gatys et al., arXiv:1508.06576, eq. 1 and 4, as
means instead of sums; statistics loss and AdaIN: Huang and Belongie, arXiv:1703.06868, eq. 8 and 13; total variation:
Johnson et al., arXiv:1603.08155, section 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float

    Maps = Float[Array, "b h w c"]
    PerImage = Float[Array, " b"]
    PerChannel = Float[Array, "b 1 1 c"]

EPS = 1e-5
"""Added to variances before the square root (arXiv:1703.06868, section 3.1)."""


def gram(features: Maps, mask: Float[Array, "b h w 1"] | None = None) -> Float[Array, "b c c"]:
    """Return the Gram matrices of feature maps, divided by the numbers of positions and channels.

    An entry says how strongly two channels are active together, wherever in the image that is: texture, not layout.

    Args:
        features: feature maps.
        mask: weight of each position in [0, 1]; the matrix describes only what lies under it (arXiv:1611.07865, eq. 3).
    """
    x = features.astype(jnp.float32)
    places = jnp.float32(x.shape[1] * x.shape[2])
    if mask is not None:
        # Features are multiplied by the mask, so their products have its square: dividing by the sum of squares keeps
        # the scale of the matrix independent of the size of the region.
        x = x * mask
        places = jnp.maximum(jnp.sum(jnp.square(mask), axis=(1, 2, 3)), 1e-6).reshape(-1, 1, 1)
    flat = x.reshape(x.shape[0], -1, x.shape[3])
    return jnp.einsum("bnc,bnd->bcd", flat, flat) / (places * x.shape[3])


def statistics(features: Maps) -> tuple[PerChannel, PerChannel]:
    """Return the mean and standard deviation of each channel over the image."""
    x = features.astype(jnp.float32)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
    return mean, jnp.sqrt(variance + EPS)


def adain(
    content: Maps, style: tuple[PerChannel, PerChannel], own: tuple[PerChannel, PerChannel] | None = None
) -> Maps:
    """Return content features with the mean and standard deviation of the style in each channel.

    Args:
        content: features of the content.
        style: `statistics` of the features of the style, one for each image or one for all.
        own: `statistics` of the content, if `content` is only a tile of the whole map.
    """
    # Channels are standardised one by one: means and variances are matched, covariances are not. Full whitening would
    # need an eigendecomposition of the covariance of every map.
    mean, deviation = own or statistics(content)
    return (content.astype(jnp.float32) - mean) / deviation * style[1] + style[0]


def _mean(x: Float[Array, "b ..."]) -> PerImage:
    """Return the mean over all axes but the first."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def squared_error(x: Float[Array, "b ..."], target: Float[Array, "b ..."]) -> PerImage:
    """Return the mean squared error: the content loss for features, the style loss for Gram matrices."""
    return _mean(jnp.square(x.astype(jnp.float32) - target.astype(jnp.float32)))


def statistics_loss(features: Maps, target: tuple[PerChannel, PerChannel]) -> PerImage:
    """Return the mean squared errors of channel means and of standard deviations, added."""
    mean, deviation = statistics(features)
    return squared_error(mean, target[0]) + squared_error(deviation, target[1])


def total_variation(pixels: Float[Array, "b h w 3"]) -> PerImage:
    """Return the mean squared difference of neighbouring pixels, summed over the two axes."""
    x = pixels.astype(jnp.float32)
    return _mean(jnp.square(x[:, 1:] - x[:, :-1])) + _mean(jnp.square(x[:, :, 1:] - x[:, :, :-1]))


def energy(*targets: Float[Array, "b ..."]) -> PerImage:
    """Return the mean squares of targets, summed. A loss divided by it is a relative error.

    The scale of features differs tenfold between backbones, and more between the layers of one. With relative errors
    the same loss weights work for all.
    """
    total = sum(_mean(jnp.square(target.astype(jnp.float32))) for target in targets)
    return jnp.maximum(jnp.asarray(total), 1e-12)
