"""Necks: from the maps of a backbone to a feature pyramid whose levels have the same number of channels.

Feature Pyramid Networks, arXiv:1612.03144, with the extra levels of arXiv:1708.02002; the simple pyramid for plain
transformers, arXiv:2203.16527, section 3. Names are those of torchvision and detectron2. A neck takes and returns a
list of maps (b, h, w, c), finest first. Its `strides` are the pixels for each position of the levels it returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
from flax import nnx
from jax import Array

from zoo.blocks.transformer import gelu
from zoo.dense.resize import resize_nearest
from zoo.errors import ConfigError
from zoo.layers import Chain, Conv, ConvTranspose, LayerNorm, MaxPool, Normal

if TYPE_CHECKING:
    from jaxtyping import Float

Source = Literal["pyramid", "map", "pool"]


def unit_variance(inputs: int) -> Normal:
    """Return the initialiser of a convolution without a ReLU after it: variance 1 / fan-in.

    The variance is that of torch's `kaiming_uniform_(a=1)`.
    """
    return Normal(math.sqrt(1 / inputs))


class ExtraLevels(nnx.Module):
    """Coarser levels on top of a pyramid, each from a 3x3 convolution of stride 2 on the level below.

    A ReLU precedes all of them but the first. They are named after the level's number: `p6` and `p7` above stride 32.

    Args:
        inputs: channels of the map below.
        width: channels of the levels.
        strides: of the levels, finest first.
    """

    def __init__(self, inputs: int, width: int, strides: Sequence[float], *, rngs: nnx.Rngs):
        self.names = tuple(f"p{round(math.log2(stride))}" for stride in strides)
        for name in self.names:
            conv = Conv(inputs, width, 3, 2, 1, kernel_init=unit_variance(9 * inputs), rngs=rngs)
            setattr(self, name, conv)
            inputs = width

    def __call__(self, x: Float[Array, "b h w inputs"]) -> list[Float[Array, "b _h _w width"]]:
        levels: list[Array] = []
        for name in self.names:
            levels.append(getattr(self, name)(jax.nn.relu(levels[-1]) if levels else x))
        return levels


@dataclass(frozen=True)
class Subsampled:
    """Coarser levels without parameters: every second position of the level below, `count` times."""

    count: int

    def __call__(self, x: Float[Array, "b h w width"]) -> list[Float[Array, "b _h _w width"]]:
        return [x[:, :: 2**i, :: 2**i] for i in range(1, self.count + 1)]


def _above(last: float, count: int) -> tuple[float, ...]:
    return tuple(last * 2**i for i in range(1, count + 1))


def _extra_levels(
    source: Source, inputs: int, width: int, strides: Sequence[float], rngs: nnx.Rngs
) -> ExtraLevels | Subsampled:
    return Subsampled(len(strides)) if source == "pool" else ExtraLevels(inputs, width, strides, rngs=rngs)


class FPN(nnx.Module):
    """Feature Pyramid Network: a top-down pathway with lateral connections (arXiv:1612.03144, figure 3).

    A coarser map is resized to the actual size of the next finer one: in networks without padding, the sides of maps
    are not halves of one another.

    Args:
        channels: of the input maps, finest first.
        strides: of the input maps, finest first.
        width: channels of the pyramid.
        extra: number of extra levels on top of the pyramid.
        source: input of the extra levels. `pyramid` is the coarsest level of the pyramid and `map` the coarsest input
            map, both with convolutions (arXiv:1708.02002). `pool` takes every second position of the coarsest level,
            without parameters (arXiv:1612.03144, section 4.1).
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
                f"got {len(channels)} maps and {len(strides)} strides for a pyramid. Give at least one map, and one "
                "stride for each."
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

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> list[Float[Array, "b _h _w width"]]:
        inner = [block(x) for block, x in zip(self.inner_blocks, maps, strict=True)]
        for i in reversed(range(len(inner) - 1)):
            inner[i] = inner[i] + resize_nearest(inner[i + 1], (inner[i].shape[1], inner[i].shape[2]))
        levels = [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)] if self.layer_blocks else inner
        return levels + self.extra_blocks(maps[-1] if self.source == "map" else levels[-1])


class NormedConv(Conv):
    """A convolution without bias, followed by a layer norm over the channels, `norm`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, *, rngs: nnx.Rngs):
        init = unit_variance(kernel * kernel * inputs)
        super().__init__(inputs, outputs, kernel, 1, padding, bias=False, kernel_init=init, rngs=rngs)
        self.norm = LayerNorm(outputs, eps=1e-6, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w _in"]) -> Float[Array, "b h w _out"]:  # type: ignore[override]
        return self.norm(super().__call__(x))


def _scaled(inputs: int, power: int, rngs: nnx.Rngs) -> tuple[list, int]:
    """Return layers that scale a map by 2 ** power, and the number of channels of their output."""
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
    """Pyramid from a single map, for the tokens of a plain transformer (arXiv:2203.16527, figure 2c).

    Each level is the map enlarged by transposed convolutions, unchanged, or max-pooled, followed by a 1x1 and a 3x3
    convolution, each with a layer norm. Levels differ from the map by a power of two, the one nearest to the wanted
    stride. Their actual strides are in `strides`: tokens of 14 pixels give 7, 14 and 28 for 8, 16 and 32. Modules are
    named after the level's number: `simfp_3` for stride 8.

    Args:
        channels: of the map.
        stride: of the map.
        wanted: strides of the levels, finest first.
        width: channels of the pyramid.
        extra: number of extra levels on top of the pyramid.
        source: input of the extra levels, as in `FPN`.
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
            raise ConfigError(
                f"strides {list(wanted)} do not give different levels, finest first, on tokens of {stride} pixels. "
                "Give increasing strides that are at least a factor of 2 apart."
            )
        strides = [stride / 2**power for power in powers]
        self.names = tuple(f"simfp_{round(math.log2(level))}" for level in strides)
        for name, power in zip(self.names, powers, strict=True):
            layers, inputs = _scaled(channels, power, rngs)
            smooth = [NormedConv(inputs, width, 1, 0, rngs=rngs), NormedConv(width, width, 3, 1, rngs=rngs)]
            setattr(self, name, Chain([*layers, *smooth]))
        above = _above(strides[-1], extra)
        self.extra_blocks = _extra_levels(source, width, width, above, rngs)
        self.width, self.strides = width, (*strides, *above)

    def __call__(self, maps: Sequence[Float[Array, "b h w c"]]) -> list[Float[Array, "b _h _w width"]]:
        """Return the pyramid of the single map in `maps`."""
        (x,) = maps
        levels = [getattr(self, name)(x) for name in self.names]
        return levels + self.extra_blocks(levels[-1])
