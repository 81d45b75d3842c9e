"""The two networks that paint: Johnson's transform net, and the decoder that mirrors an encoder.

Johnson et al., arXiv:1603.08155 with instance normalisation (arXiv:1607.08022); attribute names are those of PyTorch's
examples. The decoder is that of Huang and Belongie, arXiv:1703.06868, section 6.1: reflect padding, nearest upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from zoo.layers import Conv, LayerNorm, Normal, dense_conv

Padding = Literal["reflect", "same"]
Upsample = Literal["nearest", "transposed"]
Output = Literal["residual", "linear", "tanh"]
Statistics = list[tuple[Array, Array]]

RESIDUAL = 0.1
"""What one unit of a `residual` output adds to a pixel in [0, 1]: large enough to be learnt in a few hundred steps."""
THIN = 8
"""Outputs below which a convolution is computed by `thin_conv`."""
WIDE = 32
"""Inputs and outputs from which on a 3x3 convolution is computed by `wide_conv`."""

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# An upsampled 3-tap convolution as one of 2 taps on the small input, for even and odd outputs: (phase, tap, weight).
# Nearest: output 2i sees inputs i-1, i, i and output 2i+1 sees i, i, i+1. Transposed: input i times the kernel is added
# at 2i, which with TensorFlow's `SAME` is where the kernel begins.
_TAPS = {
    "nearest": np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32),
    "transposed": np.array([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]], np.float32),
}


def reflected(x: Array, pad: int) -> Array:
    """(b, h, w, c) with `pad` mirrored pixels on each side."""
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else x


def doubled_conv(x: Array, kernel: Array, how: Upsample) -> Array:
    """Upsampling by two and a 3x3 convolution as one: (b, h, w, in), (3, 3, in, out) -> (b, 2h, 2w, out).

    The enlarged map is never made: each of the four outputs of a place sees 2x2 inputs with summed weights, which is
    less than half the work. Reflect padding of an enlarged map repeats the small one's border.
    """
    taps = jnp.asarray(_TAPS[how], x.dtype)
    inputs, outputs = kernel.shape[2:]
    small = jnp.einsum("pta,qub,abio->tuipqo", taps, taps, kernel.astype(x.dtype)).reshape(2, 2, inputs, 4 * outputs)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge" if how == "nearest" else "constant")
    y = lax.conv_general_dilated(padded, small, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    h, w = x.shape[1:3]
    y = y.reshape(*y.shape[:3], 2, 2, outputs)
    rows = [jnp.stack([y[:, p : p + h, q : q + w, p, q] for q in (0, 1)], axis=3) for p in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(x.shape[0], 2 * h, 2 * w, outputs)


def _by_columns(x: Array, kernel: Array) -> Array:
    """A convolution down the columns with an output for each column of the kernel, then these shifted and added."""
    high, wide, inputs, outputs = kernel.shape
    tall = kernel.transpose(0, 2, 1, 3).reshape(high, 1, inputs, wide * outputs)
    y = lax.conv_general_dilated(x, tall, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    y = y.reshape(*y.shape[:3], wide, outputs)
    side = x.shape[2] - wide + 1
    return reduce(jnp.add, (y[:, :, i : i + side, i] for i in range(wide)))


def _dense(x: Array, kernel: Array) -> Array:
    return dense_conv(x, kernel, (1, 1), ((0, 0), (0, 0)), (1, 1))


def _library(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)


@jax.custom_vjp
def thin_conv(x: Array, kernel: Array) -> Array:
    """A convolution without padding that has few outputs, such as a picture's three colours: (b, h, w, in),
    (kh, kw, in, out) -> (b, h', w', out). XLA's CPU backend fills its vectors with outputs; with more of them at a time
    a 9x9 kernel is six times as fast. The gradient is the library's."""
    return lax.platform_dependent(x, kernel, cpu=_by_columns, default=_library)


def _thin_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return thin_conv(x, kernel), (x, kernel)


def _thin_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return jax.vjp(_library, *saved)[1](g)


thin_conv.defvjp(_thin_forward, _thin_backward)


# arXiv:1509.09308, section 4.1: four taps' worth of products for two outputs of a 3-tap filter.
_FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def _by_tiles(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution by Winograd's minimal filtering F(2x2, 3x3): tiles of 4x4 inputs give 2x2 outputs by 16 matrix
    products in place of 36, and XLA's CPU backend multiplies matrices faster than it convolves."""
    batch, height, width = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    high, wide = (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2
    filters = jnp.einsum("pa,qb,abio->pqio", _FILTER, _FILTER, kernel)

    def spread(d: list[Array]) -> list[Array]:
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def gathered(m: list[Array]) -> list[Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    rows = spread([x[:, i : i + 2 * high - 1 : 2] for i in range(4)])
    tiles = [spread([row[:, :, i : i + 2 * wide - 1 : 2] for i in range(4)]) for row in rows]
    # One product for each of the 16 places: as one batched product they are slower.
    products = [
        gathered([(tile.reshape(-1, tile.shape[-1]) @ filters[p, q]) for q, tile in enumerate(row)])
        for p, row in enumerate(tiles)
    ]
    found = [gathered([row[j] for row in products]) for j in (0, 1)]  # by column, then row of the 2x2 outputs
    shape = (batch, high, wide, kernel.shape[3])
    pairs = [jnp.stack([found[j][i].reshape(shape) for j in (0, 1)], axis=3) for i in (0, 1)]
    y = jnp.stack(pairs, axis=2).reshape(batch, 2 * high, 2 * wide, kernel.shape[3])
    return y[:, :height, :width]


@jax.custom_vjp
def wide_conv(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution without padding that has many inputs and outputs: (b, h, w, in), (3, 3, in, out) ->
    (b, h - 2, w - 2, out), on CPU four times as fast as XLA's."""
    return lax.platform_dependent(x, kernel, cpu=_by_tiles, default=_library)


def _wide_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return wide_conv(x, kernel), (x, kernel)


def _wide_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    slope = wide_conv(jnp.pad(g, ((0, 0), (2, 2), (2, 2), (0, 0))), turned)
    return slope, jax.vjp(lambda k: _dense(x, k), kernel)[1](g)[0]


wide_conv.defvjp(_wide_forward, _wide_backward)


def convolved(conv: Conv, x: Array) -> Array:
    """A convolution of stride 1 on a map that has its padding already, in the way that suits its widths."""
    kernel = conv.kernel[...].astype(x.dtype)
    if conv.out_features < THIN:
        return _with_bias(conv, thin_conv(x, kernel), x.dtype)
    wide = kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= WIDE
    # The sums of Winograd's filtering would lose digits in half precision.
    y = wide_conv(x, kernel) if wide and x.dtype == jnp.float32 else _dense(x, kernel)
    return _with_bias(conv, y, x.dtype)


def fitted(x: Array, size: tuple[int, int]) -> Array:
    """A map (b, h, w, c) at another size by repeating or cutting its borders, as much on either side: its places stay
    where they are, also where they are but a part of a larger map."""
    for axis, side in zip((1, 2), size, strict=True):
        missing = side - x.shape[axis]
        if missing > 0:
            pads = [(0, 0)] * 4
            pads[axis] = (missing // 2, missing - missing // 2)
            x = jnp.pad(x, pads, mode="edge")
        elif missing < 0:
            x = lax.slice_in_dim(x, -missing // 2, -missing // 2 + side, axis=axis)
    return x


class InstanceNorm(LayerNorm):
    """Each channel of each image to mean 0 and deviation 1 over its places, then scaled and shifted."""

    def __call__(self, x: Array, given: tuple[Array, Array] | None = None) -> Array:
        wide = x.astype(jnp.float32)
        mean, variance = given if given is not None else self.statistics(x)
        factor = lax.rsqrt(variance + self.eps) * self.scale[...].reshape(1, 1, 1, -1)
        return ((wide - mean) * factor + self.bias[...].reshape(1, 1, 1, -1)).astype(x.dtype)

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance over the places, (b, 1, 1, c)."""
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
        return mean, jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)


class ConvLayer(nnx.Module):
    """A convolution (`conv2d`) that keeps the size, or halves it with stride 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, padding: Padding, rngs: nnx.Rngs
    ) -> None:
        self.stride, self.pad, self.mode = stride, kernel // 2, padding
        init = Normal(1 / (kernel * inputs**0.5))
        self.conv2d = Conv(
            inputs, outputs, kernel, stride, "same" if padding == "same" else 0, kernel_init=init, rngs=rngs
        )

    def __call__(self, x: Array) -> Array:
        if self.mode == "reflect":
            x = reflected(x, self.pad)
        if self.stride > 1:
            return self.conv2d(x)
        if self.mode == "same":
            x = jnp.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)))
        return convolved(self.conv2d, x)


class UpLayer(nnx.Module):
    """Upsampling by two and a 3x3 convolution (`conv2d`)."""

    def __init__(self, inputs: int, outputs: int, *, how: Upsample, rngs: nnx.Rngs) -> None:
        self.how = how
        self.conv2d = Conv(inputs, outputs, 3, kernel_init=Normal(1 / (3 * inputs**0.5)), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return _with_bias(self.conv2d, doubled_conv(x, self.conv2d.kernel[...], self.how), x.dtype)


class Residual(nnx.Module):
    """Two convolutions with norms beside the identity."""

    def __init__(self, channels: int, *, padding: Padding, eps: float, rngs: nnx.Rngs) -> None:
        self.conv1 = ConvLayer(channels, channels, 3, padding=padding, rngs=rngs)
        self.in1 = InstanceNorm(channels, eps=eps, rngs=rngs)
        self.conv2 = ConvLayer(channels, channels, 3, padding=padding, rngs=rngs)
        self.in2 = InstanceNorm(channels, eps=eps, rngs=rngs)


class TransformNet(nnx.Module):
    """A picture (b, h, w, 3) in [0, 1] -> the same in another style.

    Two strided convolutions, residual blocks, two upsamplings. What differs between published networks is an argument,
    and travels with the weights.

    Args:
        width: channels of the first layer. blocks: residual blocks.
        padding: `reflect`, or zeros as TensorFlow's `SAME`. upsample: nearest, or TensorFlow's transposed convolution.
        output: `linear`; `tanh` of a normalised last layer, 150 times it about mid-grey; or `residual`: what the last
            layer says, times `RESIDUAL`, is added to the picture, so that an untrained network changes nothing.
        eps: of the norms.
    """

    def __init__(
        self, width: int, blocks: int, padding: Padding, upsample: Upsample, output: Output, eps: float, *,
        rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.output, self.blocks = output, blocks
        self.conv1 = ConvLayer(3, width, 9, padding=padding, rngs=rngs)
        self.in1 = InstanceNorm(width, eps=eps, rngs=rngs)
        self.conv2 = ConvLayer(width, 2 * width, 3, 2, padding=padding, rngs=rngs)
        self.in2 = InstanceNorm(2 * width, eps=eps, rngs=rngs)
        self.conv3 = ConvLayer(2 * width, 4 * width, 3, 2, padding=padding, rngs=rngs)
        self.in3 = InstanceNorm(4 * width, eps=eps, rngs=rngs)
        for i in range(1, blocks + 1):
            setattr(self, f"res{i}", Residual(4 * width, padding=padding, eps=eps, rngs=rngs))
        self.deconv1 = UpLayer(4 * width, 2 * width, how=upsample, rngs=rngs)
        self.in4 = InstanceNorm(2 * width, eps=eps, rngs=rngs)
        self.deconv2 = UpLayer(2 * width, width, how=upsample, rngs=rngs)
        self.in5 = InstanceNorm(width, eps=eps, rngs=rngs)
        self.deconv3 = ConvLayer(width, 3, 9, padding=padding, rngs=rngs)
        if output == "residual":
            self.deconv3.conv2d.kernel = nnx.Param(jnp.zeros_like(self.deconv3.conv2d.kernel[...]))
        self.in6 = InstanceNorm(3, eps=eps, rngs=rngs) if output == "tanh" else None

    def __call__(self, pixels: Array, given: Statistics | None = None) -> Array:
        return self.run(pixels, given)[0]

    def run(self, pixels: Array, given: Statistics | None = None) -> tuple[Array, Statistics]:
        """The picture, and mean and variance that each norm saw, in order. `given` ones are used in place of the
        picture's own: so a part of a picture is painted like the whole (arXiv:2103.11784)."""
        seen: Statistics = []

        def norm(module: InstanceNorm, x: Array) -> Array:
            seen.append(given[len(seen)] if given is not None else module.statistics(x))
            return module(x, seen[-1])

        h, w = pixels.shape[1:3]
        # Two halvings and two doublings must come back to the same size.
        x = jnp.pad(pixels, ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)), mode="edge")
        x = jax.nn.relu(norm(self.in1, self.conv1(x * 255)))
        x = jax.nn.relu(norm(self.in2, self.conv2(x)))
        x = jax.nn.relu(norm(self.in3, self.conv3(x)))
        for i in range(1, self.blocks + 1):
            block = getattr(self, f"res{i}")
            y = jax.nn.relu(norm(block.in1, block.conv1(x)))
            x = x + norm(block.in2, block.conv2(y))
        x = jax.nn.relu(norm(self.in4, self.deconv1(x)))
        x = jax.nn.relu(norm(self.in5, self.deconv2(x)))
        x = self.deconv3(x)
        if self.in6 is not None:
            x = jnp.tanh(norm(self.in6, x)) * 150 + 127.5
        x = x[:, :h, :w]
        return (pixels + RESIDUAL * x if self.output == "residual" else x / 255), seen


class Decoder(nnx.Module):
    """From an encoder's deepest map back to a picture in [0, 1]: convolutions (`convs`) in the mirrored order, each but
    the last followed by a ReLU, and before the first of a level the map is enlarged to that level's size.

    Args:
        levels: channels of each convolution's input, level by level from the deepest; the last gives 3.
    """

    def __init__(self, levels: Sequence[Sequence[int]], *, rngs: nnx.Rngs) -> None:
        widths = [width for level in levels for width in level] + [3]
        self.lengths = tuple(len(level) for level in levels)
        self.convs = nnx.List(
            Conv(a, b, 3, kernel_init=Normal((2 / (9 * a)) ** 0.5), rngs=rngs)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        # Pictures begin near mid-grey: a wild first picture has gradients that leave ReLUs dead for good.
        last = self.convs[-1]
        last.bias = nnx.Param(jnp.full((3,), 0.5, jnp.float32))
        last.kernel = nnx.Param(last.kernel[...] * 0.05)

    def __call__(self, x: Array, sizes: Sequence[tuple[int, int]]) -> Array:
        """`sizes` are (height, width) of each level but the deepest, the picture's last."""
        index, last = 0, len(self.convs) - 1
        for level, length in enumerate(self.lengths):
            for position in range(length):
                conv = self.convs[index]
                size = sizes[level - 1] if level and not position else x.shape[1:3]
                x = enlarged_conv(conv, x, (size[0], size[1]))
                x = x if index == last else jax.nn.relu(x)
                index += 1
        return x


def enlarged_conv(conv: Conv, x: Array, size: tuple[int, int]) -> Array:
    """A 3x3 convolution of a map that is first enlarged, by a whole number, to about `size`, and fitted to it."""
    factor = max(round(side / n) for side, n in zip(size, x.shape[1:3], strict=True))
    if factor < 2:
        return convolved(conv, reflected(fitted(x, size), 1))
    if factor > 2:
        x = jnp.repeat(jnp.repeat(x, factor // 2, axis=1), factor // 2, axis=2)
    return fitted(_with_bias(conv, doubled_conv(x, conv.kernel[...], "nearest"), x.dtype), size)


def _with_bias(conv: Conv, y: Array, dtype: DTypeLike) -> Array:
    return y if conv.bias is None else y + conv.bias[...].astype(dtype).reshape(1, 1, 1, -1)
