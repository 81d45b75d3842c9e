"""Normalisation layers, with statistics in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from zoo.errors import ConfigError

_valid: ContextVar[Array | None] = ContextVar("valid", default=None)


@contextmanager
def statistics_of(valid: Array) -> Iterator[None]:
    """Context in which batch statistics count only the images where `valid`, bool (b,), is true.

    The other images are copies that fill up a batch, which would distort the statistics. A context variable carries the
    mask, so layers inside a network need not pass it along. It applies to arrays with one row for each image.
    """
    token = _valid.set(valid)
    try:
        yield
    finally:
        _valid.reset(token)


class BatchNorm(nnx.Module):
    """Batch normalisation over all but the last axis (arXiv:1502.03167), with torch's conventions.

    In training, the batch is normalised with its biased variance, and the running variance is updated with the unbiased
    one: running = (1 - momentum) * running + momentum * batch. `use_running_average` selects evaluation mode.

    Args:
        channels: size of the last axis.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics (torch's convention).
        scale_init: initial value of the scale.
        rngs: not used.
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, scale_init: float = 1.0, rngs: nnx.Rngs
    ):
        del rngs  # taken so that every layer is built alike
        self.scale = nnx.Param(jnp.full((channels,), scale_init, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((channels,), jnp.float32))
        self.eps = eps
        self.momentum = momentum
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(x)
        factor = lax.rsqrt(var + self.eps) * self.scale[...]
        shift = self.bias[...] - mean * factor
        last = (1,) * (x.ndim - 1) + (-1,)
        return x * factor.astype(x.dtype).reshape(last) + shift.astype(x.dtype).reshape(last)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        valid, share, count = _valid.get(), None, jnp.float32(math.prod(x.shape[:-1]))
        if valid is not None and len(valid) == len(x):
            images = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1)
            # The mean of x * share over all rows is the mean of x over the valid ones.
            share = valid.astype(jnp.float32).reshape(-1, *(1,) * len(axes)) * (len(x) / images)
            count = count * (images / len(x))

        def averaged(x: Array) -> Array:
            return jnp.mean(x if share is None else x * share, axes)

        mean = averaged(x)
        var = averaged(jnp.square(x - mean.reshape((1,) * len(axes) + (-1,))))
        unbiased = var * (count / jnp.maximum(count - 1, 1))
        keep = 1 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + self.momentum * lax.stop_gradient(unbiased)
        return mean, var


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (arXiv:1607.06450) with the biased variance; statistics in float32.

    It also serves as the norm over the channels of a map, because channels are last here.
    """

    def __init__(self, channels: int, *, eps: float, rngs: nnx.Rngs):
        del rngs  # taken so that every layer is built alike
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        y = centred * lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + self.eps)
        last = (1,) * (x.ndim - 1) + (-1,)
        return (y * self.scale[...].reshape(last) + self.bias[...].reshape(last)).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group normalisation (arXiv:1803.08494): over the positions of an image and a group of neighbouring channels.

    It uses the biased variance, with statistics in float32. (b, ..., c) -> (b, ..., c).

    Args:
        groups: number of groups.
        channels: size of the last axis, a multiple of `groups`.
        eps: added to the variance.
        rngs: not used.
    Raises:
        ConfigError: if `groups` does not divide `channels`.
    """

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
        del rngs  # taken so that every layer is built alike
        if groups < 1 or channels % groups:
            raise ConfigError(
                f"{channels} channels cannot be divided into {groups} groups. Give a number that divides {channels}."
            )
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.groups, self.eps = groups, eps

    def _group_means(self, x: Array) -> Array:
        """Return the mean over positions and group, repeated for each channel: (b, 1, ..., c)."""
        # Sum over positions first: that follows the order in memory, where channels are last.
        channels = jnp.mean(x, tuple(range(1, x.ndim - 1)))
        means = jnp.mean(channels.reshape(len(x), self.groups, -1), axis=-1)
        repeated = jnp.repeat(means, x.shape[-1] // self.groups, axis=-1)
        return repeated.reshape(len(x), *(1,) * (x.ndim - 2), -1)

    def __call__(self, x: Array) -> Array:
        wide = x.astype(jnp.float32)
        centred = wide - self._group_means(wide)
        y = centred * lax.rsqrt(self._group_means(jnp.square(centred)) + self.eps)
        last = (1,) * (x.ndim - 1) + (-1,)
        return (y * self.scale[...].reshape(last) + self.bias[...].reshape(last)).astype(x.dtype)
