"""Initialisers that draw random numbers on the host."""

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
    """Context in which initialisers return zeros.

    Use it to trace a constructor for its shapes only: tracing the random numbers takes half of the time.
    """
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


@dataclass(frozen=True)
class Normal:
    """Normal initialiser.

    With a concrete key it draws on the host with NumPy, because JAX would compile a program for every shape (20 s for a
    MobileNet). Under a trace it uses JAX. In both cases the key alone determines the values.

    Attributes:
        std: standard deviation.
        truncated: redraw values beyond two standard deviations.
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
    """Initialiser of a convolution (kh, kw, in / groups, out) before a ReLU: variance 2 / fan-out.

    Source: arXiv:1502.01852, eq. 14. In a grouped convolution, an input reaches out / groups outputs.

    Attributes:
        groups: of the convolution.
    """

    groups: int = 1

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        fan_out = math.prod(shape[:-2]) * shape[-1] / self.groups
        return Normal(math.sqrt(2 / fan_out))(key, shape, dtype)
