"""Layers with the semantics of the checkpoints that zoo reads, on `flax.nnx`.

They differ from flax's own in three ways. Padding is written as torch writes it (a number, or `same` for TensorFlow's
rule). The arithmetic follows the input: parameters are kept in float32 and cast to the input's dtype, so a model runs
in bfloat16 by being given bfloat16 images; normalisation statistics are always computed in float32. And a depthwise
convolution is fast on CPU as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

Padding = int | tuple[int, int] | Literal["same"]
Pads = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@dataclass(frozen=True)
class Normal:
    """Initialiser: normal with standard deviation `std`, cut off at two of them where `truncated`.

    Given a real key it draws on the host with numpy, since jax would compile a program for every shape (20 s for a
    MobileNet); under a trace it is jax's own. Either way the key alone decides the values.
    """

    std: float
    truncated: bool = False

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
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


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """`value` for both image axes."""
    return (value, value) if isinstance(value, int) else value


def resolve_padding(
    padding: Padding,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Pads:
    """((top, bottom), (left, right)) in pixels for an input of `size`.

    `same` is TensorFlow's rule: output side = ceil(side / stride), an odd pixel of padding goes to the bottom or right.
    """
    if padding == "same":
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, stride, extent, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)  # type: ignore[return-value]
    vertical, horizontal = pair(padding)
    return (vertical, vertical), (horizontal, horizontal)


class Conv(nnx.Conv):
    """2-D convolution, (b, h, w, in) -> (b, h', w', out); kernel (kh, kw, in / groups, out)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        *,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        kernel_init: Callable[..., Array] | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            pair(kernel_size),
            strides=pair(stride),
            kernel_dilation=pair(dilation),
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init or HeNormal(groups),
            rngs=rngs,
        )
        self.torch_padding = padding
        self.stride, self.dilation = pair(stride), pair(dilation)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        kernel = self.kernel[...].astype(x.dtype)
        stride, dilation, groups = self.stride, self.dilation, self.feature_group_count
        size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
        pads = resolve_padding(self.torch_padding, size, window, stride, dilation)
        unpadded = groups == 1 and pads == ((0, 0), (0, 0))
        if window == (1, 1) and unpadded:
            # A matrix product: the same numbers, and on CPU two to five times faster, its gradients above all.
            y = x[:, :: stride[0], :: stride[1]] @ kernel[0, 0]
        elif window in (stride, size) and unpadded and dilation == (1, 1):
            y = patch_product(x, kernel)
        elif groups == self.in_features == self.out_features and groups > 1 and dilation == (1, 1):
            y = depthwise_conv(x, kernel, stride, pads)
        elif groups > 1:
            y = grouped_conv(x, kernel, groups, stride, pads, dilation)
        else:
            y = _library_conv(x, kernel, groups, stride, pads, dilation)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(1, 1, 1, -1)


def _library_conv(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> Array:
    return lax.conv_general_dilated(
        x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )


_GROUPED_WIDTH = 32
"""Input channels that small groups are put together to, on CPU."""


def _conv_by_parts(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> Array:
    """A grouped convolution as dense ones, each over as many groups as make up `_GROUPED_WIDTH` channels, with zeros
    between channels of different groups."""
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    merged = max((n for n in range(1, groups + 1) if groups % n == 0 and n * inputs <= _GROUPED_WIDTH), default=1)
    same = np.arange(merged * inputs)[:, None] // inputs == np.arange(merged * outputs)[None] // outputs
    mask = same[None, None].astype(kernel.dtype)
    parts = []
    for i in range(groups // merged):
        channels, filters = (slice(i * merged * n, (i + 1) * merged * n) for n in (inputs, outputs))
        dense = jnp.tile(kernel[..., filters], (1, 1, merged, 1)) * mask
        parts.append(_library_conv(x[..., channels], dense, 1, stride, pads, dilation))
    return jnp.concatenate(parts, axis=-1)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))  # so that outside of any other program it is compiled once
def _grouped_by_platform(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> Array:
    rest = (groups, stride, pads, dilation)
    return lax.platform_dependent(
        x, kernel, cpu=lambda x, k: _conv_by_parts(x, k, *rest), default=lambda x, k: _library_conv(x, k, *rest)
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def grouped_conv(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> Array:
    """Grouped convolution: x (b, h, w, c), kernel (kh, kw, c / groups, o) -> (b, h', w', o).

    XLA's CPU backend runs it through a generic loop, two to five times slower than dense convolutions of parts that do
    up to eight times the work, and its gradient ten to seventy times slower.
    """
    return _grouped_by_platform(x, kernel, groups, stride, pads, dilation)


def _grouped_forward(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
):
    return grouped_conv(x, kernel, groups, stride, pads, dilation), (x, kernel)


def _grouped_backward(
    groups: int,
    stride: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    saved: tuple[Array, Array],
    g: Array,
):
    def gradient(function: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        return lambda x, k, g: jax.vjp(lambda x, k: function(x, k, groups, stride, pads, dilation), x, k)[1](g)

    return lax.platform_dependent(*saved, g, cpu=gradient(_conv_by_parts), default=gradient(_library_conv))


grouped_conv.defvjp(_grouped_forward, _grouped_backward)


def patch_product(x: Array, kernel: Array) -> Array:
    """A convolution without padding whose windows do not overlap, as a matrix product of patches: on CPU one and a half
    to four times as fast. x (b, h, w, c), kernel (p, q, c, o) -> (b, h // p, w // q, o)."""
    (high, wide, channels, outputs), batch = kernel.shape, x.shape[0]
    rows, columns = x.shape[1] // high, x.shape[2] // wide
    patches = x[:, : rows * high, : columns * wide].reshape(batch, rows, high, columns, wide, channels)
    flat = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, high * wide * channels)
    return flat @ kernel.reshape(-1, outputs)


def _library_depthwise(x: Array, kernel: Array, stride: tuple[int, int], pads: Pads) -> Array:
    return lax.conv_general_dilated(
        x, kernel, stride, pads, dimension_numbers=_DIMENSIONS, feature_group_count=x.shape[-1]
    )


def _tap_slices(
    x: Array, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, fill: float = 0.0
) -> Iterator[tuple[int, int, Array]]:
    """For each kernel tap, the (b, h', w', c) view of the input, padded with `fill`, that it multiplies."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.array(fill, x.dtype))
    (h, w), (sh, sw) = size, stride
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            limit = (x.shape[0], i + (h - 1) * sh + 1, j + (w - 1) * sw + 1, x.shape[3])
            yield i, j, lax.slice(padded, (0, i, j, 0), limit, (1, sh, sw, 1))


def _outputs(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> tuple[int, int]:
    """(height, width) of what a window gives on a padded image of `size`."""
    sides = zip(size, kernel, stride, pads, strict=True)
    return tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in sides)  # type: ignore[return-value]


def _shifted_sum(x: Array, kernel: Array, stride: tuple[int, int], pads: Pads) -> Array:
    """Depthwise convolution as the sum of shifted inputs times taps: one fused loop on CPU."""
    taps = (kernel.shape[0], kernel.shape[1])
    size = _outputs((x.shape[1], x.shape[2]), taps, stride, pads)
    total = None
    for i, j, piece in _tap_slices(x, size, taps, stride, pads):
        term = piece * kernel[i, j, 0].reshape(1, 1, 1, -1)
        total = term if total is None else total + term
    assert total is not None
    return total


def _shifted_sum_input_grad(
    g: Array, shape: Sequence[int], kernel: Array, stride: tuple[int, int], pads: Pads
) -> Array:
    """Gradient with respect to the input: the stride-1 shifted sum of the dilated cotangent, taps reversed."""
    edges = []
    for side, n, k, s, (low, _) in zip(g.shape[1:3], shape[1:3], kernel.shape[:2], stride, pads, strict=True):
        dilated = (side - 1) * s + 1
        before = k - 1 - low
        edges.append((before, n + k - 1 - dilated - before, s - 1))
    zero = jnp.zeros((), g.dtype)
    spread = lax.pad(g, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return _shifted_sum(spread, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))


def _shifted_sum_kernel_grad(x: Array, g: Array, kernel: Array, stride: tuple[int, int], pads: Pads) -> Array:
    """Gradient with respect to the taps. Rows are added up one by one, keeping width and channels, because XLA's CPU
    backend does not vectorise a reduction of a product of shifted slices (five times slower)."""
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    (batch, height, width, channels), (down, across) = g.shape, stride

    def add_row(sums: tuple[Array, ...], row: Array) -> tuple[tuple[Array, ...], None]:
        cotangent = lax.dynamic_index_in_dim(g, row, 1, keepdims=False)
        lines = [lax.dynamic_index_in_dim(padded, row * down + i, 1, keepdims=False) for i in range(kernel.shape[0])]
        stop = (width - 1) * across + 1
        pieces = (lax.slice(lines[i], (0, j, 0), (batch, j + stop, channels), (1, across, 1)) for i, j in taps)
        return tuple(total + piece * cotangent for total, piece in zip(sums, pieces, strict=True)), None

    start = (jnp.zeros((batch, width, channels), g.dtype),) * len(taps)
    sums, _ = lax.scan(add_row, start, jnp.arange(height))
    return jnp.stack([jnp.sum(total, axis=(0, 1)) for total in sums]).reshape(kernel.shape)


@partial(jax.jit, static_argnums=(2, 3))  # so that outside of any other program it is compiled once, not tap by tap
def _depthwise_by_platform(x: Array, kernel: Array, stride: tuple[int, int], pads: Pads) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: _shifted_sum(x, k, stride, pads),
        default=lambda x, k: _library_depthwise(x, k, stride, pads),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(x: Array, kernel: Array, stride: tuple[int, int], pads: Pads) -> Array:
    """Depthwise convolution: x (b, h, w, c), kernel (kh, kw, 1, c) -> (b, h', w', c).

    XLA's CPU backend runs grouped convolutions through a generic loop that is some 60 times slower than the sum of
    shifted slices; GPU and TPU have kernels of their own. The choice is made when the program is lowered, so that one
    traced program serves every platform.
    """
    return _depthwise_by_platform(x, kernel, stride, pads)


def _depthwise_forward(x: Array, kernel: Array, stride: tuple[int, int], pads: Pads):
    return depthwise_conv(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(stride: tuple[int, int], pads: Pads, saved: tuple[Array, Array], g: Array):
    x, kernel = saved

    def on_cpu(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        return (
            _shifted_sum_input_grad(g, x.shape, kernel, stride, pads),
            _shifted_sum_kernel_grad(x, g, kernel, stride, pads),
        )

    def elsewhere(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, k: _library_depthwise(x, k, stride, pads), x, kernel)[1](g)

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=elsewhere)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


class BatchNorm(nnx.Module):
    """Batch normalisation over all but the last axis (arXiv:1502.03167), with torch's conventions.

    In training the batch is normalised with its biased variance and the running variance is updated with the unbiased
    one: running = (1 - momentum) * running + momentum * batch. `use_running_average` selects evaluation mode.
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
        mean = jnp.mean(x, axes)
        var = jnp.mean(jnp.square(x - mean.reshape((1,) * len(axes) + (-1,))), axes)
        count = math.prod(x.shape[:-1])
        unbiased = var * (count / max(count - 1, 1))
        keep = 1 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + self.momentum * lax.stop_gradient(unbiased)
        return mean, var


class LayerNorm(nnx.Module):
    """Normalisation of the last axis (arXiv:1607.06450) with the biased variance; statistics in float32.

    Where the checkpoint has a norm over the channels of a map, this is it: channels are last here.
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


class DropPath(nnx.Dropout):
    """Stochastic depth (arXiv:1603.09382): in training the whole of an image's residual branch is dropped with
    probability `rate`, else scaled by 1 / (1 - rate). The identity in evaluation, or with rate 0."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        super().__init__(rate, rngs=rngs if rate else None)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        if self.rate == 0 or self.deterministic:
            return x
        return x * super().__call__(jnp.ones((x.shape[0],) + (1,) * (x.ndim - 1), x.dtype))


class Linear(nnx.Linear):
    """Affine map of the last axis: (..., in) -> (..., out); kernel (in, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        kernel_init: Callable[..., Array] = Normal(0.02, truncated=True),
        rngs: nnx.Rngs,
    ):
        super().__init__(in_features, out_features, use_bias=bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Chain(nnx.List):
    """Modules and plain functions applied in order; parameters are numbered as torch numbers a Sequential."""

    def __call__(self, x: Array) -> Array:
        for layer in self:
            x = layer(x)
        return x


def _pool_padding(x: Array, window: int, stride: int, padding: Padding, ceil_mode: bool) -> Pads:
    """Padding for a pooling window. With `ceil_mode` a last, partial window is added at the bottom and right, unless it
    would start outside the input and its left padding (torch's rule)."""
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), pair(window), pair(stride))
    if not ceil_mode:
        return pads
    grown = []
    for n, (low, high) in zip(x.shape[1:3], pads, strict=True):
        steps = -(-(n + low + high - window) // stride)
        if steps * stride >= n + low:
            steps -= 1
        grown.append((low, max(steps * stride + window - n - low, 0)))
    return tuple(grown)  # type: ignore[return-value]


PoolKind = Literal["max", "sum"]
_POOLS = {"max": (-math.inf, lax.max), "sum": (0.0, lax.add)}


def _library_pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    fill, combine = _POOLS[kind]
    start = np.array(fill, x.dtype)  # a traced one would hide from JAX what this is, which has a gradient
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, start, combine, shape, strides, ((0, 0), *pads, (0, 0)))


def _shifted_pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    fill, combine = _POOLS[kind]
    size = _outputs((x.shape[1], x.shape[2]), pair(window), pair(stride), pads)
    pieces = (piece for _, _, piece in _tap_slices(x, size, pair(window), pair(stride), pads, fill))
    return reduce(combine, pieces)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))  # so that outside of any other program it is compiled once
def _pool_by_platform(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    return lax.platform_dependent(
        x,
        cpu=lambda x: _shifted_pool(x, kind, window, stride, pads),
        default=lambda x: _library_pool(x, kind, window, stride, pads),
    )


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads) -> Array:
    """Maximum or sum over square windows. On CPU the shifted inputs are combined, which XLA fuses: two to nine times as
    fast as its window reduction. The gradient is the library's, which gives a tie to the first."""
    return _pool_by_platform(x, kind, window, stride, pads)


def _pool_forward(x: Array, kind: PoolKind, window: int, stride: int, pads: Pads):
    return _pool(x, kind, window, stride, pads), x


def _pool_backward(kind: PoolKind, window: int, stride: int, pads: Pads, x: Array, g: Array):
    return jax.vjp(lambda x: _library_pool(x, kind, window, stride, pads), x)[1](g)


_pool.defvjp(_pool_forward, _pool_backward)


def max_pool(x: Array, window: int, stride: int, padding: Padding = 0, *, ceil_mode: bool = False) -> Array:
    """Maximum over square windows: (b, h, w, c) -> (b, h', w', c); padding never wins."""
    return _pool(x, "max", window, stride, _pool_padding(x, window, stride, padding, ceil_mode))


def avg_pool(
    x: Array, window: int, stride: int, padding: Padding = 0, *, ceil_mode: bool = False, count_padding: bool = True
) -> Array:
    """Mean over square windows: (b, h, w, c) -> (b, h', w', c).

    Args:
        count_padding: divide by the window's area also where it overlaps the padding (torch's `count_include_pad`).
            The partial windows that `ceil_mode` adds never count what lies beyond the padding.
    """
    pads = _pool_padding(x, window, stride, padding, ceil_mode)
    total = _pool(x, "sum", window, stride, pads)
    ones = jnp.ones((1, x.shape[1], x.shape[2], 1), x.dtype)
    if count_padding:
        inner = resolve_padding(padding, (x.shape[1], x.shape[2]), pair(window), pair(stride))
        ones = jnp.pad(ones, ((0, 0), *inner, (0, 0)), constant_values=1)
        pads = tuple((p[0] - q[0], p[1] - q[1]) for p, q in zip(pads, inner, strict=True))  # type: ignore[assignment]
    return total / _library_pool(ones, "sum", window, stride, pads)


@dataclass(frozen=True)
class MaxPool:
    """`max_pool` as a member of a `Chain`."""

    window: int
    stride: int
    padding: Padding = 0
    ceil_mode: bool = False

    def __call__(self, x: Array) -> Array:
        return max_pool(x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode)


@dataclass(frozen=True)
class AvgPool:
    """`avg_pool` as a member of a `Chain`."""

    window: int
    stride: int
    padding: Padding = 0
    ceil_mode: bool = False
    count_padding: bool = True

    def __call__(self, x: Array) -> Array:
        return avg_pool(
            x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode, count_padding=self.count_padding
        )


def global_avg_pool(x: Array) -> Array:
    """Mean over the image: (b, h, w, c) -> (b, c)."""
    return jnp.mean(x, axis=(1, 2))
