"""Residual nets: the two blocks, stages of them, and the net of four stages that families fill with numbers.

Papers: Deep Residual Learning, arXiv:1512.03385; Aggregated Residual Transformations, arXiv:1611.05431; Bag of Tricks
(the deep stem and averaged shortcut), arXiv:1812.01187. The stride of a bottleneck is on its 3x3 convolution, as in
torchvision and timm, whose names these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import Array

from zoo.blocks.squeeze import SqueezeExciteFc
from zoo.blocks.transformer import drop_path_rates
from zoo.layers import AvgPool, BatchNorm, Chain, Conv, DropPath, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.spec import Stage

Shortcut = Callable[[Array], Array]


def squeeze_excite(channels: int, ratio: float, rngs: nnx.Rngs) -> SqueezeExciteFc | None:
    """Squeeze-and-excitation to `ratio` of the channels, rounded to a multiple of 8; None for a ratio of 0."""
    return SqueezeExciteFc(channels, max(8, int(channels * ratio + 4) // 8 * 8), rngs=rngs) if ratio else None


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions, each with a dilation, and a shortcut. With a `last_scale` of 0 the block starts as its
    shortcut (arXiv:1706.02677, section 5.1). As in torchvision, it has neither groups nor another base width."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut | None,
        *,
        groups: int = 1,
        base_width: int = 64,
        rate: float = 0.0,
        squeeze: float = 0.0,
        last_scale: float = 0.0,
        dilations: tuple[int, int] = (1, 1),
        rngs: nnx.Rngs,
    ):
        if (groups, base_width) != (1, 64):
            raise ValueError(f"a basic block has groups 1 and base width 64, not {groups} and {base_width}.")
        first, second = dilations
        self.conv1 = Conv(inputs, width, 3, stride, first, dilation=first, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, 1, second, dilation=second, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(width, scale_init=last_scale, rngs=rngs)
        self.se = squeeze_excite(width, squeeze, rngs)
        self.downsample = shortcut
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = self.drop_path(y if self.se is None else self.se(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """1x1 down, 3x3, which may be grouped, 1x1 up by four, and a shortcut; it starts as its shortcut."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut | None,
        *,
        groups: int = 1,
        base_width: int = 64,
        rate: float = 0.0,
        squeeze: float = 0.0,
        dilations: tuple[int, int] = (1, 1),
        rngs: nnx.Rngs,
    ):
        inner, dilation = width * base_width // 64 * groups, dilations[0]
        self.conv1 = Conv(inputs, inner, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(inner, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, stride, dilation, dilation=dilation, groups=groups, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(inner, rngs=rngs)
        self.conv3 = Conv(inner, width * 4, 1, bias=False, rngs=rngs)
        self.bn3 = BatchNorm(width * 4, scale_init=0.0, rngs=rngs)
        self.se = squeeze_excite(width * 4, squeeze, rngs)
        self.downsample = shortcut
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = self.drop_path(y if self.se is None else self.se(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]


def projection(
    inputs: int, outputs: int, stride: int, averaged: bool, rngs: nnx.Rngs, *, dilated: bool = False
) -> Chain:
    """The shortcut that changes shape. `averaged` pools first and then convolves at stride 1 (the `d` shortcut); where
    the stage is dilated, over the same windows at every place, with zeros beyond the border, as timm does."""
    conv = Conv(inputs, outputs, 1, 1 if averaged else stride, bias=False, rngs=rngs)
    layers = [conv, BatchNorm(outputs, rngs=rngs)]
    if not averaged:
        return Chain(layers)
    pool = AvgPool(2, 1, "same") if dilated else AvgPool(stride, stride, ceil_mode=True, count_padding=False)
    return Chain([pool, *layers])


def residual_stage(
    block: Block,
    inputs: int,
    width: int,
    stride: int,
    shortcut: Callable[[int, int, int], Shortcut],
    rates: Iterable[float],
    rngs: nnx.Rngs,
    dilations: tuple[int, int] = (1, 1),
    **kwargs: Any,
) -> Chain:
    """A block for each of `rates`; the first changes stride and channels, and takes a shortcut that does so too.

    Args:
        dilations: of what comes before the place where a stride was left out, which is inside of the first block, and
            of what comes after it.
    """
    outputs = width * block.expansion
    first, *rest = rates
    through = shortcut(inputs, outputs, stride) if stride != 1 or inputs != outputs else None
    blocks = [block(inputs, width, stride, through, rate=first, dilations=dilations, rngs=rngs, **kwargs)]
    kwargs["dilations"] = dilations[1:] * 2
    return Chain([*blocks, *(block(outputs, width, 1, None, rate=rate, rngs=rngs, **kwargs) for rate in rest)])


class ResidualNet(Backbone):
    """Four stages of residual blocks after a stem of stride 2.

    Args:
        groups, base_width: of the bottlenecks' 3x3 convolutions.
        squeeze: share of the channels that squeeze-and-excitation keeps, 0 for none.
        deep_stem: three 3x3 convolutions for one of 7x7, and averaged shortcuts.
        learned_pool: a 3x3 convolution opens the first stage; otherwise it is pooling. Either halves the sides.
        output_stride: that no stage goes beyond, see `zoo.registry.spec.OUTPUT_STRIDE`.
    """

    conv1: Chain | Conv
    layer1: Chain
    layer2: Chain
    layer3: Chain
    layer4: Chain

    def __init__(
        self,
        block: Block,
        depths: tuple[int, ...],
        *,
        groups: int = 1,
        base_width: int = 64,
        squeeze: float = 0.0,
        deep_stem: bool = False,
        learned_pool: bool = False,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        rngs: nnx.Rngs,
    ):
        if deep_stem:
            sizes = ((in_channels, 32, 2), (32, 32, 1))
            inner = [
                layer
                for a, b, s in sizes
                for layer in (Conv(a, b, 3, s, 1, bias=False, rngs=rngs), BatchNorm(b, rngs=rngs), jax.nn.relu)
            ]
            self.conv1 = Chain([*inner, Conv(32, 64, 3, 1, 1, bias=False, rngs=rngs)])
        else:
            self.conv1 = Conv(in_channels, 64, 7, 2, 3, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(64, rngs=rngs)
        reduce = [Conv(64, 64, 3, 2, 1, bias=False, rngs=rngs), BatchNorm(64, rngs=rngs)] if learned_pool else []
        self.maxpool = Chain([*reduce, jax.nn.relu]) if learned_pool else MaxPool(3, 2, 1)
        rates, inputs = drop_path_rates(drop_path_rate, sum(depths)), 64
        at, dilation = 2, 1
        for index, depth in enumerate(depths):
            width, stride = 64 * 2**index, 1 if index == 0 else 2
            before, at = dilation, at * 2
            if at > output_stride:
                dilation, stride = dilation * stride, 1
            shortcut = partial(projection, averaged=deep_stem, dilated=dilation > 1, rngs=rngs)
            kwargs: dict[str, Any] = {"groups": groups, "base_width": base_width, "squeeze": squeeze}
            kwargs["dilations"] = (before, dilation)
            stage = residual_stage(block, inputs, width, stride, shortcut, rates[:depth], rngs, **kwargs)
            setattr(self, f"layer{index + 1}", stage)
            inputs, rates = width * block.expansion, rates[depth:]

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": lambda x: jax.nn.relu(self.bn1(self.conv1(x))),
            "layer1": lambda x: self.layer1(self.maxpool(x)),
            "layer2": self.layer2,
            "layer3": self.layer3,
            "layer4": self.layer4,
        }


def residual_stages(block: Block, *, learned_pool: bool = False) -> tuple[Stage, ...]:
    """The stages of a `ResidualNet`."""
    opening = ("maxpool",) if learned_pool else ()
    layers = [(f"layer{i + 1}", 64 * 2**i * block.expansion, 4 * 2**i) for i in range(4)]
    return (
        Stage("stem", 64, 2, modules=("conv1", "bn1")),
        *(Stage(n, c, s, modules=(*(opening if n == "layer1" else ()), n)) for n, c, s in layers),
    )
