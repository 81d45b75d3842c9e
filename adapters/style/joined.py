"""A decoder for AdaIN that reads the encoder's maps at every size.

Huang and Belongie (arXiv:1703.06868) decode the deepest map alone. This needs an encoder whose deep maps still hold
every pixel, such as VGG's 512 channels for 8x8 pixels; from SqueezeNet's 32 channels for as many pixels only a blurred
image can be decoded. Here each map, after AdaIN, is concatenated where the decoder has reached its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.style.nets import enlarged_conv
from zoo.layers import Conv, Normal

if TYPE_CHECKING:
    from jaxtyping import Float

START, QUIET = 0.5, 0.05
"""Bias and gain of the last layer, so that the first images are close to mid-grey: with random ones, large gradients
would kill ReLUs for good."""


def _conv(inputs: int, outputs: int, kernel: int, rngs: nnx.Rngs, gain: float = 1.0) -> Conv:
    return Conv(inputs, outputs, kernel, kernel_init=Normal(gain * (2 / (kernel**2 * inputs)) ** 0.5), rngs=rngs)


class Residual(nnx.Module):
    """A residual block of two convolutions without norms, which would remove the statistics of the style."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(channels, channels, 3, rngs)
        self.conv2 = _conv(channels, channels, 3, rngs, gain=0.3)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        size = (x.shape[1], x.shape[2])
        return x + enlarged_conv(self.conv2, jax.nn.relu(enlarged_conv(self.conv1, x, size)), size)


class JoinedDecoder(nnx.Module):
    """A decoder from maps of several sizes to an image in [0, 1].

    Args:
        channels: channels of the maps, from the deepest.
        widths: channels of the decoder at the size of each map, and of one more level if the image is larger than the
            largest map.
        blocks: number of residual blocks at the size of the deepest map.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], blocks: int, *, rngs: nnx.Rngs) -> None:
        self.narrow = nnx.List(_conv(a, b, 1, rngs) for a, b in zip(channels, widths, strict=False))
        self.blocks = nnx.List(Residual(widths[0], rngs=rngs) for _ in range(blocks))
        self.grow = nnx.List(_conv(a, b, 3, rngs) for a, b in zip(widths, widths[1:], strict=False))
        joined = [2 * width if i < len(channels) else width for i, width in enumerate(widths)]
        self.join = nnx.List(_conv(a, b, 3, rngs) for a, b in zip(joined[1:], widths[1:], strict=True))
        self.last = _conv(widths[-1], 3, 3, rngs, gain=QUIET)
        self.last.bias = nnx.Param(jnp.full((3,), START, jnp.float32))

    def __call__(
        self, maps: Sequence[Float[Array, "b _h _w _c"]], sizes: Sequence[tuple[int, int]]
    ) -> Float[Array, "b H W 3"]:
        """Return the image.

        Args:
            maps: the maps after AdaIN, from the deepest.
            sizes: (height, width) of each level but the deepest; the last is that of the image.
        """
        narrow = [jax.nn.relu(conv(x)) for conv, x in zip(self.narrow, maps, strict=True)]
        x = narrow[0]
        for block in self.blocks:
            x = block(x)
        for i, (grow, join) in enumerate(zip(self.grow, self.join, strict=True), start=1):
            size = sizes[i - 1]
            x = jax.nn.relu(enlarged_conv(grow, x, size))
            x = jnp.concatenate([x, narrow[i]], axis=-1) if i < len(narrow) else x
            x = jax.nn.relu(enlarged_conv(join, x, size))
        return enlarged_conv(self.last, x, sizes[-1])
