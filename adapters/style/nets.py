"""The networks of style transfer: Johnson's transform net, and the AdaIN decoder that mirrors the encoder.

The transform net is that of Johnson et al., arXiv:1603.08155, with instance normalisation (arXiv:1607.08022) and the
attribute names of PyTorch's examples. The decoder is that of Huang and Belongie, arXiv:1703.06868, section 6.1, with
reflection padding and nearest-neighbour upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from zoo.layers import Conv, LayerNorm, Normal, dense_conv

if TYPE_CHECKING:
    from jaxtyping import Float

Padding = Literal["reflect", "same"]
Upsample = Literal["nearest", "transposed"]
Output = Literal["residual", "linear", "tanh"]
Statistics = list[tuple[Array, Array]]
"""Mean and variance of each normalisation layer, in order, each (b, 1, 1, c)."""

RESIDUAL = 0.1
"""Factor of a `residual` output, which is added to pixels in [0, 1]: large enough to train in a few hundred steps."""
THIN = 8
"""Convolutions with fewer outputs are computed by `thin_conv`."""
WIDE = 32
"""3x3 convolutions with at least as many inputs and outputs are computed by `wide_conv`."""

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# A 3-tap convolution after upsampling by two equals a 2-tap convolution on the small input, with other weights for even
# and odd outputs: (phase, tap, weight). Nearest: output 2i reads inputs i-1, i, i, and output 2i+1 reads i, i, i+1.
# Transposed: input i times the kernel is added at 2i, where the kernel begins in TensorFlow's `SAME` padding.
_TAPS = {
    "nearest": np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32),
    "transposed": np.array([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]], np.float32),
}


def reflected(x: Float[Array, "b h w c"], pad: int) -> Float[Array, "b H W c"]:
    """Pad each side by `pad` mirrored pixels."""
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else x


def doubled_conv(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], how: Upsample
) -> Float[Array, "b 2*h 2*w o"]:
    """Upsample by two and convolve with a 3x3 kernel in one step.

    The upsampled map is never computed: each of the four outputs of a position reads 2x2 inputs with summed weights,
    which is less than half the work. Reflection padding of an upsampled map repeats the border of the small one.
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


def _by_columns(x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "b H W o"]:
    """Convolve along columns, with one output per column of the kernel; then shift these outputs and add them."""
    high, wide, inputs, outputs = kernel.shape
    tall = kernel.transpose(0, 2, 1, 3).reshape(high, 1, inputs, wide * outputs)
    y = lax.conv_general_dilated(x, tall, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    y = y.reshape(*y.shape[:3], wide, outputs)
    side = x.shape[2] - wide + 1
    return reduce(jnp.add, (y[:, :, i : i + side, i] for i in range(wide)))


def _dense(x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "b H W o"]:
    return dense_conv(x, kernel, (1, 1), ((0, 0), (0, 0)), (1, 1))


def _library(x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "b H W o"]:
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)


@jax.custom_vjp
def thin_conv(x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "b H W o"]:
    """Convolve without padding, fast on CPU for few outputs, such as the three colours of an image.

    XLA's CPU backend vectorises over outputs. With an output for every column of the kernel the vectors are full, and a
    9x9 kernel is six times as fast. The gradient is XLA's own.
    """
    return lax.platform_dependent(x, kernel, cpu=_by_columns, default=_library)


def _thin_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return thin_conv(x, kernel), (x, kernel)


def _thin_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return jax.vjp(_library, *saved)[1](g)


thin_conv.defvjp(_thin_forward, _thin_backward)


# Winograd's minimal filtering F(2, 3) computes two outputs of a 3-tap filter with four products instead of six
# (arXiv:1509.09308, section 4.1): y = A^T [(G g) * (B^T d)] for inputs d and filter g. This is G; `spread` below
# multiplies by B^T, and `gathered` by A^T. In two dimensions each is applied along both axes.
_FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def _by_tiles(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h-2 w-2 o"]:
    """Convolve with a 3x3 kernel by Winograd's F(2x2, 3x3).

    Tiles of 4x4 inputs give 2x2 outputs by 16 matrix products instead of 36, and XLA's CPU backend multiplies matrices
    faster than it convolves.
    """
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
    # A product for each of the 16 positions in a tile: a single batched product is slower.
    products = [
        gathered([(tile.reshape(-1, tile.shape[-1]) @ filters[p, q]) for q, tile in enumerate(row)])
        for p, row in enumerate(tiles)
    ]
    outputs = [gathered([row[j] for row in products]) for j in (0, 1)]  # by column, then row of the 2x2 outputs
    shape = (batch, high, wide, kernel.shape[3])
    pairs = [jnp.stack([outputs[j][i].reshape(shape) for j in (0, 1)], axis=3) for i in (0, 1)]
    y = jnp.stack(pairs, axis=2).reshape(batch, 2 * high, 2 * wide, kernel.shape[3])
    return y[:, :height, :width]


@jax.custom_vjp
def wide_conv(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h-2 w-2 o"]:
    """Convolve with a 3x3 kernel without padding; with many inputs and outputs four times as fast as XLA's on CPU."""
    return lax.platform_dependent(x, kernel, cpu=_by_tiles, default=_library)


def _wide_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return wide_conv(x, kernel), (x, kernel)


def _wide_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # The input gradient of a convolution is again one: of the padded output gradient with the kernel rotated by 180
    # degrees and its input and output channels swapped. So it runs through the fast form as well. The kernel gradient
    # sums over all positions, for which tiles have no advantage; `dense_conv` has a fast one.
    x, kernel = saved
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    slope = wide_conv(jnp.pad(g, ((0, 0), (2, 2), (2, 2), (0, 0))), turned)
    return slope, jax.vjp(lambda k: _dense(x, k), kernel)[1](g)[0]


wide_conv.defvjp(_wide_forward, _wide_backward)


def convolved(conv: Conv, x: Float[Array, "b h w i"]) -> Float[Array, "b H W o"]:
    """Apply a convolution of stride 1 to a padded map, by the algorithm that is fastest for its widths."""
    kernel = conv.kernel[...].astype(x.dtype)
    if conv.out_features < THIN:
        return _with_bias(conv, thin_conv(x, kernel), x.dtype)
    wide = kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= WIDE
    # Winograd's filtering adds and subtracts inputs before it multiplies, which loses digits in half precision.
    y = wide_conv(x, kernel) if wide and x.dtype == jnp.float32 else _dense(x, kernel)
    return _with_bias(conv, y, x.dtype)


def fitted(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b H W c"]:
    """Bring a map to another size by repeating or cutting its borders equally on both sides.

    Resampling would move positions, and tiles of a large image would no longer match.
    """
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
    """Normalise each channel of each image to mean 0 and standard deviation 1, then scale and shift it."""

    def __call__(self, x: Float[Array, "b h w c"], given: tuple[Array, Array] | None = None) -> Float[Array, "b h w c"]:
        wide = x.astype(jnp.float32)
        mean, variance = given if given is not None else self.statistics(x)
        factor = lax.rsqrt(variance + self.eps) * self.scale[...].reshape(1, 1, 1, -1)
        return ((wide - mean) * factor + self.bias[...].reshape(1, 1, 1, -1)).astype(x.dtype)

    def statistics(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b 1 1 c"], Float[Array, "b 1 1 c"]]:
        """Return mean and variance over the positions."""
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
        return mean, jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)


class ConvLayer(nnx.Module):
    """A convolution (`conv2d`) that keeps the size, or halves it with a stride of 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, padding: Padding, rngs: nnx.Rngs
    ) -> None:
        self.stride, self.pad, self.mode = stride, kernel // 2, padding
        init = Normal(1 / (kernel * inputs**0.5))
        self.conv2d = Conv(
            inputs, outputs, kernel, stride, "same" if padding == "same" else 0, kernel_init=init, rngs=rngs
        )

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b H W o"]:
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

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        return _with_bias(self.conv2d, doubled_conv(x, self.conv2d.kernel[...], self.how), x.dtype)


class Residual(nnx.Module):
    """The layers of a residual block: two convolutions with instance norms. `TransformNet.run` connects them."""

    def __init__(self, channels: int, *, padding: Padding, eps: float, rngs: nnx.Rngs) -> None:
        self.conv1 = ConvLayer(channels, channels, 3, padding=padding, rngs=rngs)
        self.in1 = InstanceNorm(channels, eps=eps, rngs=rngs)
        self.conv2 = ConvLayer(channels, channels, 3, padding=padding, rngs=rngs)
        self.in2 = InstanceNorm(channels, eps=eps, rngs=rngs)


class TransformNet(nnx.Module):
    """The network of fast style transfer, from images in [0, 1] to images of its style.

    It has two strided convolutions, residual blocks and two upsampling layers. Differences between published networks
    are arguments, which are stored with the weights.

    Args:
        width: channels of the first layer.
        blocks: number of residual blocks.
        padding: `reflect`, or zeros like TensorFlow's `SAME`.
        upsample: nearest neighbour, or TensorFlow's transposed convolution.
        output: `linear`; `tanh` of a normalised last layer, times 150 and centred on mid-grey; or `residual`: the last
            layer times `RESIDUAL` is added to the image, so that an untrained network changes nothing.
        eps: epsilon of the norms.
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

    def __call__(self, pixels: Float[Array, "b h w 3"], given: Statistics | None = None) -> Float[Array, "b h w 3"]:
        return self.run(pixels, given)[0]

    def run(
        self, pixels: Float[Array, "b h w 3"], given: Statistics | None = None
    ) -> tuple[Float[Array, "b h w 3"], Statistics]:
        """Return the painted images and the statistics that their norms used.

        Args:
            pixels: images in [0, 1].
            given: statistics to use instead of the images' own. With those of the whole image, a tile is painted like
                the whole (arXiv:2103.11784).
        """
        used: Statistics = []

        def norm(module: InstanceNorm, x: Array) -> Array:
            used.append(given[len(used)] if given is not None else module.statistics(x))
            return module(x, used[-1])

        h, w = pixels.shape[1:3]
        # A multiple of 4, so that halving twice and doubling twice gives the same size.
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
        return (pixels + RESIDUAL * x if self.output == "residual" else x / 255), used


class Decoder(nnx.Module):
    """The decoder of AdaIN, from the deepest map of an encoder to an image in [0, 1].

    It has the convolutions (`convs`) of the encoder in reverse order, with a ReLU after each but the last. Before the
    first convolution of a level the map is upsampled to the size of that level.

    Args:
        levels: input channels of each convolution, level by level from the deepest; the last one has 3 outputs.
    """

    def __init__(self, levels: Sequence[Sequence[int]], *, rngs: nnx.Rngs) -> None:
        widths = [width for level in levels for width in level] + [3]
        self.lengths = tuple(len(level) for level in levels)
        self.convs = nnx.List(
            Conv(a, b, 3, kernel_init=Normal((2 / (9 * a)) ** 0.5), rngs=rngs)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        # The first images are close to mid-grey: with random ones, large gradients would kill ReLUs for good.
        last = self.convs[-1]
        last.bias = nnx.Param(jnp.full((3,), 0.5, jnp.float32))
        last.kernel = nnx.Param(last.kernel[...] * 0.05)

    def __call__(self, x: Float[Array, "b h w c"], sizes: Sequence[tuple[int, int]]) -> Float[Array, "b H W 3"]:
        """Return the image.

        Args:
            x: the deepest map.
            sizes: (height, width) of each level but the deepest; the last is that of the image.
        """
        index, last = 0, len(self.convs) - 1
        for level, length in enumerate(self.lengths):
            for position in range(length):
                conv = self.convs[index]
                size = sizes[level - 1] if level and not position else x.shape[1:3]
                x = enlarged_conv(conv, x, (size[0], size[1]))
                x = x if index == last else jax.nn.relu(x)
                index += 1
        return x


def enlarged_conv(conv: Conv, x: Float[Array, "b h w i"], size: tuple[int, int]) -> Float[Array, "b H W o"]:
    """Upsample a map by a whole number to about `size`, apply a 3x3 convolution, and fit the result to `size`."""
    factor = max(round(side / n) for side, n in zip(size, x.shape[1:3], strict=True))
    if factor < 2:
        return convolved(conv, reflected(fitted(x, size), 1))
    if factor > 2:
        x = jnp.repeat(jnp.repeat(x, factor // 2, axis=1), factor // 2, axis=2)
    return fitted(_with_bias(conv, doubled_conv(x, conv.kernel[...], "nearest"), x.dtype), size)


def _with_bias(conv: Conv, y: Array, dtype: DTypeLike) -> Array:
    return y if conv.bias is None else y + conv.bias[...].astype(dtype).reshape(1, 1, 1, -1)
