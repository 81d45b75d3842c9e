"""Residual networks: the two blocks, stages of them, and the network of four stages that families configure.

Papers: Deep Residual Learning, arXiv:1512.03385; Aggregated Residual Transformations, arXiv:1611.05431; Bag of Tricks
(the deep stem and averaged shortcut), arXiv:1812.01187. Names are those of torchvision and timm, and as there, the
stride of a bottleneck is on its 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx
from jax import Array

from zoo.blocks.squeeze import SqueezeExciteFc
from zoo.blocks.transformer import drop_path_rates
from zoo.layers import AvgPool, BatchNorm, Chain, Conv, DropPath, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.spec import Stage

if TYPE_CHECKING:
    from jaxtyping import Float

Shortcut = Callable[[Array], Array]


def squeeze_excite(channels: int, ratio: float, rngs: nnx.Rngs) -> SqueezeExciteFc | None:
    """Return squeeze-and-excitation to `ratio` of the channels, rounded to a multiple of 8, or None for ratio 0."""
    return SqueezeExciteFc(channels, max(8, int(channels * ratio + 4) // 8 * 8), rngs=rngs) if ratio else None


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut.

    As in torchvision, it supports neither groups nor another base width.

    Args:
        inputs: channels of the input.
        width: channels of the output.
        stride: of the first convolution.
        shortcut: changes the input to the shape of the output; None adds the input as it is.
        groups: must be 1; here so that both blocks are built alike.
        base_width: must be 64; here so that both blocks are built alike.
        rate: of stochastic depth.
        squeeze: fraction of the channels that squeeze-and-excitation keeps, 0 for none.
        last_scale: initial scale of the last norm. With 0 the block starts as its shortcut (arXiv:1706.02677,
            section 5.1).
        dilations: of the two convolutions.
        rngs: random keys of the parameters.
    """

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
            raise ValueError(
                f"got groups {groups} and base width {base_width}; a basic block accepts only groups 1 and base width "
                "64. Use Bottleneck for others."
            )
        first, second = dilations
        self.conv1 = Conv(inputs, width, 3, stride, first, dilation=first, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, 1, second, dilation=second, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(width, scale_init=last_scale, rngs=rngs)
        self.se = squeeze_excite(width, squeeze, rngs)
        self.downsample = shortcut
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = self.drop_path(y if self.se is None else self.se(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """A 1x1, an optionally grouped 3x3 and a widening 1x1 convolution, and a shortcut.

    The last norm starts at 0, so the block starts as its shortcut (arXiv:1706.02677, section 5.1).

    Args:
        inputs: channels of the input.
        width: a quarter of the channels of the output.
        stride: of the 3x3 convolution.
        shortcut: changes the input to the shape of the output; None adds the input as it is.
        groups: of the 3x3 convolution.
        base_width: channels of a group at a `width` of 64.
        rate: of stochastic depth.
        squeeze: fraction of the channels that squeeze-and-excitation keeps, 0 for none.
        dilations: the first is that of the 3x3 convolution.
        rngs: random keys of the parameters.
    """

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = self.drop_path(y if self.se is None else self.se(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]


def projection(
    inputs: int, outputs: int, stride: int, averaged: bool, rngs: nnx.Rngs, *, dilated: bool = False
) -> Chain:
    """Return the shortcut that changes the shape.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        stride: of the shortcut.
        averaged: pool first and convolve at stride 1 (the shortcut of ResNet-D).
        rngs: random keys of the parameters.
        dilated: whether the stage has dilation instead of a stride. Then the pool has stride 1 and pads with zeros, as
            in timm.
    """
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
    """Return a chain of blocks, of which the first changes stride and channels.

    Args:
        block: type of the blocks.
        inputs: channels of the input.
        width: of the blocks.
        stride: of the first block.
        shortcut: builds the first block's shortcut from (inputs, outputs, stride).
        rates: of stochastic depth, one for each block.
        rngs: random keys of the parameters.
        dilations: before and after the place, inside the first block, where a stride was replaced by dilation.
        **kwargs: further arguments of every block.
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
        block: type of the blocks.
        depths: number of blocks in each stage.
        groups: of the bottlenecks' 3x3 convolutions.
        base_width: channels of a group at a width of 64.
        squeeze: fraction of the channels that squeeze-and-excitation keeps, 0 for none.
        deep_stem: three 3x3 convolutions instead of one of 7x7, and averaged shortcuts.
        learned_pool: start the first stage with a 3x3 convolution of stride 2 instead of max pooling.
        in_channels: channels of the images.
        drop_path_rate: rate of stochastic depth of the last block.
        output_stride: largest stride of a stage, see `zoo.registry.spec.OUTPUT_STRIDE`.
        rngs: random keys of the parameters.
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
            # A stride beyond the limit becomes a dilation of everything after it.
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
    """Return the stages of a `ResidualNet`."""
    opening = ("maxpool",) if learned_pool else ()
    layers = [(f"layer{i + 1}", 64 * 2**i * block.expansion, 4 * 2**i) for i in range(4)]
    return (
        Stage("stem", 64, 2, modules=("conv1", "bn1")),
        *(Stage(n, c, s, modules=(*(opening if n == "layer1" else ()), n)) for n, c, s in layers),
    )
