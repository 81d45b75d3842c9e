"""Initialisers that draw on the host."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

_SHAPES_ONLY = ContextVar("_SHAPES_ONLY", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Let initialisers return zeros. For tracing a constructor whose values are thrown away: tracing the random numbers
    takes half of the time."""
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


@dataclass(frozen=True)
class Normal:
    """Initialiser: normal with standard deviation `std`, cut off at two of them where `truncated`.

    Given a real key it draws on the host with numpy, since jax would compile a program for every shape (20 s for a
    MobileNet); under a trace it is jax's own. Either way the key alone decides the values.
    """

    std: float
    truncated: bool = False

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        if _SHAPES_ONLY.get():
            return jnp.zeros(tuple(shape), dtype)
        if isinstance(key, jax.core.Tracer):
            draw = partial(jax.random.truncated_normal, lower=-2, upper=2) if self.truncated else jax.random.normal
            return draw(key, shape=tuple(shape), dtype=dtype) * jnp.asarray(self.std, dtype)
        random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        values = random.standard_normal(tuple(shape), np.float32)
        if self.truncated:
            while (outside := np.abs(values) > 2).any():
                values[outside] = random.standard_normal(int(outside.sum()), np.float32)
        return jnp.asarray(values * np.float32(self.std), dtype)


@dataclass(frozen=True)
class HeNormal:
    """Initialiser for a convolution (kh, kw, in / groups, out) before a ReLU: variance 2 / fan-out
    (arXiv:1502.01852, eq. 14), where an input reaches out / groups outputs."""

    groups: int = 1

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        fan_out = math.prod(shape[:-2]) * shape[-1] / self.groups
        return Normal(math.sqrt(2 / fan_out))(key, shape, dtype)
