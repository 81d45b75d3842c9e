"""Necks: from a backbone's maps to a pyramid of maps with equally many channels.

Feature Pyramid Networks, arXiv:1612.03144, with the extra levels of arXiv:1708.02002; the simple pyramid for plain
transformers, arXiv:2203.16527, section 3. Names are torchvision's and detectron2's. A neck maps a list of maps
(b, h, w, c), finest first, to such a list; its `strides` say how many pixels a position of each stands for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
from flax import nnx
from jax import Array

from zoo.blocks.transformer import gelu
from zoo.dense.resize import resize_nearest
from zoo.errors import ConfigError
from zoo.layers import Chain, Conv, ConvTranspose, LayerNorm, MaxPool, Normal

Source = Literal["pyramid", "map", "pool"]


def unit_variance(inputs: int) -> Normal:
    """Initialiser of a convolution that no ReLU follows: variance 1 / fan-in, which is that of torch's
    `kaiming_uniform_(a=1)`."""
    return Normal(math.sqrt(1 / inputs))


class ExtraLevels(nnx.Module):
    """Coarser levels on top of a pyramid, each half as large as the one below: a 3x3 convolution of stride 2, after a
    ReLU but for the first. They are called by the level's number, `p6` and `p7` above a stride of 32."""

    def __init__(self, inputs: int, width: int, strides: Sequence[float], *, rngs: nnx.Rngs):
        self.names = tuple(f"p{round(math.log2(stride))}" for stride in strides)
        for name in self.names:
            conv = Conv(inputs, width, 3, 2, 1, kernel_init=unit_variance(9 * inputs), rngs=rngs)
            setattr(self, name, conv)
            inputs = width

    def __call__(self, x: Array) -> list[Array]:
        levels: list[Array] = []
        for name in self.names:
            levels.append(getattr(self, name)(jax.nn.relu(levels[-1]) if levels else x))
        return levels


@dataclass(frozen=True)
class Subsampled:
    """Coarser levels without parameters: every second position of the level below, `count` times."""

    count: int

    def __call__(self, x: Array) -> list[Array]:
        return [x[:, :: 2**i, :: 2**i] for i in range(1, self.count + 1)]


def _above(last: float, count: int) -> tuple[float, ...]:
    return tuple(last * 2**i for i in range(1, count + 1))


def _extra_levels(
    source: Source, inputs: int, width: int, strides: Sequence[float], rngs: nnx.Rngs
) -> ExtraLevels | Subsampled:
    return Subsampled(len(strides)) if source == "pool" else ExtraLevels(inputs, width, strides, rngs=rngs)


class FPN(nnx.Module):
    """Top-down pathway and lateral connections (arXiv:1612.03144, figure 3).

    A coarser map is enlarged to the real size of the next finer one, whatever the two are: maps of nets that do not pad
    are not halves of one another.

    Args:
        channels, strides: of the maps it is given, finest first.
        width: channels of the pyramid.
        extra: levels on top of them.
        source: what the extra levels are made of: the coarsest level of the `pyramid`, or the coarsest `map` given (in
            either case with convolutions, arXiv:1708.02002), or by taking every second position, `pool`, without
            parameters (arXiv:1612.03144, section 4.1).
        smooth: whether a 3x3 convolution follows the sum of each level.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        width: int = 256,
        *,
        extra: int = 2,
        source: Source = "pyramid",
        smooth: bool = True,
        rngs: nnx.Rngs,
    ):
        if not channels or len(channels) != len(strides):
            raise ConfigError(
                f"a pyramid of {len(channels)} maps with {len(strides)} strides: give one stride for each."
            )
        self.inner_blocks = nnx.List(
            Chain([Conv(inputs, width, 1, kernel_init=unit_variance(inputs), rngs=rngs)]) for inputs in channels
        )
        self.layer_blocks = nnx.List(
            Chain([Conv(width, width, 3, 1, 1, kernel_init=unit_variance(9 * width), rngs=rngs)])
            for _ in (channels if smooth else ())
        )
        above = _above(strides[-1], extra)
        inputs = channels[-1] if source == "map" else width
        self.extra_blocks = _extra_levels(source, inputs, width, above, rngs)
        self.source = source
        self.width, self.strides = width, (*strides, *above)

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        inner = [block(x) for block, x in zip(self.inner_blocks, maps, strict=True)]
        for i in reversed(range(len(inner) - 1)):
            inner[i] = inner[i] + resize_nearest(inner[i + 1], (inner[i].shape[1], inner[i].shape[2]))
        levels = [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)] if self.layer_blocks else inner
        return levels + self.extra_blocks(maps[-1] if self.source == "map" else levels[-1])


class NormedConv(Conv):
    """A convolution without bias, then a layer norm of its output's channels, `norm`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, *, rngs: nnx.Rngs):
        init = unit_variance(kernel * kernel * inputs)
        super().__init__(inputs, outputs, kernel, 1, padding, bias=False, kernel_init=init, rngs=rngs)
        self.norm = LayerNorm(outputs, eps=1e-6, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        return self.norm(super().__call__(x))


def _scaled(inputs: int, power: int, rngs: nnx.Rngs) -> tuple[list, int]:
    """Layers that make a map 2 ** power times as large, and how many channels they give."""
    if power <= 0:
        return [MaxPool(2, 2) for _ in range(-power)], inputs
    layers: list = []
    for i in range(power):
        layers += [LayerNorm(inputs, eps=1e-6, rngs=rngs), gelu] if i else []
        init = unit_variance(inputs)
        layers.append(ConvTranspose(inputs, inputs // 2, 2, kernel_init=init, rngs=rngs))
        inputs //= 2
    return layers, inputs


class SimplePyramid(nnx.Module):
    """Levels of one map, of a plain transformer's tokens (arXiv:2203.16527, figure 2c): enlarged by transposed
    convolutions, as it is, or made smaller by pooling; then a 1x1 and a 3x3 convolution, each with a layer norm.

    Each level's scale is the power of two that comes nearest to the wanted stride; its real stride, which `strides`
    tells, follows from the declared one: tokens of 14 pixels give 7, 14 and 28 for 8, 16 and 32. Modules are called by
    the level's number, `simfp_3` for a stride of 8.

    Args:
        channels, stride: of the map. wanted: strides of the levels, finest first.
        width: channels of the pyramid.
        extra: levels on top of them, as in `FPN`; `pyramid` or `pool`.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        wanted: Sequence[int] = (8, 16, 32),
        width: int = 256,
        *,
        extra: int = 2,
        source: Literal["pyramid", "pool"] = "pyramid",
        rngs: nnx.Rngs,
    ):
        powers = [round(math.log2(stride / level)) for level in wanted]
        if len(set(powers)) != len(powers) or powers != sorted(powers, reverse=True):
            raise ConfigError(f"levels of strides {list(wanted)} cannot be told apart on tokens of {stride} pixels.")
        strides = [stride / 2**power for power in powers]
        self.names = tuple(f"simfp_{round(math.log2(level))}" for level in strides)
        for name, power in zip(self.names, powers, strict=True):
            layers, inputs = _scaled(channels, power, rngs)
            smooth = [NormedConv(inputs, width, 1, 0, rngs=rngs), NormedConv(width, width, 3, 1, rngs=rngs)]
            setattr(self, name, Chain([*layers, *smooth]))
        above = _above(strides[-1], extra)
        self.extra_blocks = _extra_levels(source, width, width, above, rngs)
        self.width, self.strides = width, (*strides, *above)

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        """Pyramid of the one map in `maps`."""
        (x,) = maps
        levels = [getattr(self, name)(x) for name in self.names]
        return levels + self.extra_blocks(levels[-1])
