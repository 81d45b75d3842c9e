"""Depthwise convolution that is fast on CPU too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.layers.dense import library_conv
from zoo.layers.windows import Pads, extent, output_size, tap_slices

Pair = tuple[int, int]


def _library(x: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair) -> Array:
    return library_conv(x, kernel, x.shape[-1], stride, pads, dilation)


def _shifted_sum(x: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair) -> Array:
    """Compute a depthwise convolution as the sum of shifted inputs times taps, which XLA fuses into one loop on CPU."""
    taps = (kernel.shape[0], kernel.shape[1])
    size = output_size((x.shape[1], x.shape[2]), extent(taps, dilation), stride, pads)
    total = None
    for i, j, piece in tap_slices(x, size, taps, stride, pads, dilation=dilation):
        term = piece * kernel[i, j, 0].reshape(1, 1, 1, -1)
        total = term if total is None else total + term
    assert total is not None
    return total


def _shifted_sum_input_grad(
    g: Array, shape: Sequence[int], kernel: Array, stride: Pair, pads: Pads, dilation: Pair
) -> Array:
    """Return the gradient with respect to the input.

    It is a shifted sum of stride 1 over the cotangent, with the taps reversed. The cotangent is spread by the stride,
    with zeros in between, and padded so that the result has the size of the input.
    """
    edges, extents = [], extent((kernel.shape[0], kernel.shape[1]), dilation)
    for side, n, e, s, (low, _) in zip(g.shape[1:3], shape[1:3], extents, stride, pads, strict=True):
        before = e - 1 - low
        edges.append((before, n + e - 1 - ((side - 1) * s + 1) - before, s - 1))
    zero = jnp.zeros((), g.dtype)
    spread = lax.pad(g, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return _shifted_sum(spread, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)), dilation)


def _shifted_sum_kernel_grad(x: Array, g: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair) -> Array:
    """Return the gradient with respect to the taps.

    Rows are summed one by one, keeping width and channels, because XLA's CPU backend does not vectorise a reduction of
    a product of shifted slices (five times slower).
    """
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    (batch, height, width, channels), (down, across) = g.shape, stride

    def add_row(sums: tuple[Array, ...], row: Array) -> tuple[tuple[Array, ...], None]:
        cotangent = lax.dynamic_index_in_dim(g, row, 1, keepdims=False)
        starts = (i * dilation[0] for i in range(kernel.shape[0]))
        lines = [lax.dynamic_index_in_dim(padded, row * down + i, 1, keepdims=False) for i in starts]
        stop = (width - 1) * across + 1
        places = ((i, j * dilation[1]) for i, j in taps)
        pieces = (lax.slice(lines[i], (0, j, 0), (batch, j + stop, channels), (1, across, 1)) for i, j in places)
        return tuple(total + piece * cotangent for total, piece in zip(sums, pieces, strict=True)), None

    start = (jnp.zeros((batch, width, channels), g.dtype),) * len(taps)
    sums, _ = lax.scan(add_row, start, jnp.arange(height))
    return jnp.stack([jnp.sum(total, axis=(0, 1)) for total in sums]).reshape(kernel.shape)


@partial(jax.jit, static_argnums=(2, 3, 4))  # outside of another jit, compile it as a whole and not tap by tap
def _depthwise_by_platform(x: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: _shifted_sum(x, k, stride, pads, dilation),
        default=lambda x, k: _library(x, k, stride, pads, dilation),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_conv(x: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair = (1, 1)) -> Array:
    """Depthwise convolution: x (b, h, w, c), kernel (kh, kw, 1, c) -> (b, h', w', c).

    XLA's CPU backend runs grouped convolutions through a generic loop that is about 60 times slower than the sum of
    shifted slices. GPU and TPU have fast kernels for them. The choice is made at lowering time, so one traced program
    works on every platform.
    """
    return _depthwise_by_platform(x, kernel, stride, pads, dilation)


def _depthwise_forward(x: Array, kernel: Array, stride: Pair, pads: Pads, dilation: Pair):
    return depthwise_conv(x, kernel, stride, pads, dilation), (x, kernel)


def _depthwise_backward(stride: Pair, pads: Pads, dilation: Pair, saved: tuple[Array, Array], g: Array):
    x, kernel = saved

    def on_cpu(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        return (
            _shifted_sum_input_grad(g, x.shape, kernel, stride, pads, dilation),
            _shifted_sum_kernel_grad(x, g, kernel, stride, pads, dilation),
        )

    def elsewhere(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, k: _library(x, k, stride, pads, dilation), x, kernel)[1](g)

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=elsewhere)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)
