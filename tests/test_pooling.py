"""Pooling inside a compiled step: it has a gradient, and the gradient is that of the definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import avg_pool, max_pool


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_the_gradient_under_jit(pool, ceil_mode: bool):
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 2))

    def total(x: jax.Array) -> jax.Array:
        y = pool(x, 3, 2, 1, ceil_mode=ceil_mode)
        return jnp.sum(y * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))

    found = np.asarray(jax.jit(jax.grad(total))(x))
    # Both are piecewise linear: a finite difference is exact up to rounding.
    for at in [(0, 0, 0, 0), (0, 2, 3, 1), (0, 5, 5, 0), (0, 4, 1, 1)]:
        step = jnp.zeros_like(x).at[at].set(1e-3)
        assert found[at] == pytest.approx(float(total(x + step) - total(x - step)) / 2e-3, abs=2e-2)
