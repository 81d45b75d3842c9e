"""Poly-1 (arXiv:2204.12511, equation 6): cross-entropy plus one minus the probability of the true class."""

import jax
import jax.numpy as jnp


def of_pixels(scene, shape):
    """The mean over the pixels that count, (b,). `scene`: see `zoo.dense.losses.Scene`."""
    log_p = jnp.sum(scene.true * scene.log_p, axis=1)
    per_pixel = (1 - jnp.exp(log_p) - log_p) * scene.counted
    return jnp.sum(per_pixel, axis=1) / jnp.maximum(jnp.sum(scene.counted, axis=1), 1)


def of_images(scores):
    """The loss of each image, (b,). `scores`: see `zoo.adapters.classifier.losses.Scores`."""
    log_p = jax.nn.log_softmax(scores.logits)
    return jnp.sum(scores.targets * (1 - jnp.exp(log_p) - log_p), axis=1)
