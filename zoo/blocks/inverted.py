"""Blocks around a depthwise convolution, and the net that rows of them make.

An inverted residual (arXiv:1801.04381) widens a map by a 1x1 convolution, filters each channel of the wide map, and
projects it back without an activation. The other blocks leave steps out or merge them. What all blocks of a net have in
common is its `Style`; a line of a paper's table is a `Row`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Chain, Conv, DropPath
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.spec import Stage

Activation = Callable[[Array], Array]


def round_channels(channels: float, divisor: int = 8, *, least: float = 0.9) -> int:
    """The nearest multiple of `divisor`, never less than `least` of `channels` (MobileNetV2's reference code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * channels else rounded


def identity(x: Array) -> Array:
    """x itself."""
    return x


@dataclass(frozen=True)
class Style:
    """What all blocks of a net have in common.

    Attributes:
        act: the activation. eps: of every batch norm.
        padding: `torch` pads by half the kernel, `same` by TensorFlow's rule.
        squeeze: (channels of a block's input, of its wide map, rngs) -> what weighs the wide map's channels.
        pool: halves a map after the activation, in place of the stride of a block's convolution.
        dilation: of every kernel.
    """

    act: Activation = jax.nn.relu
    eps: float = 1e-5
    padding: Literal["torch", "same"] = "torch"
    squeeze: Callable[[int, int, nnx.Rngs], nnx.Module] | None = None
    pool: Activation | None = None
    dilation: int = 1

    def conv(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, rngs: nnx.Rngs
    ) -> Conv:
        """A convolution without bias."""
        padding: Literal["same"] | int = "same" if self.padding == "same" else kernel // 2 * self.dilation
        return Conv(
            inputs, outputs, kernel, stride, padding, dilation=self.dilation, groups=groups, bias=False, rngs=rngs
        )

    def step(self, stride: int) -> tuple[int, Activation]:
        """(stride of the convolution, what follows its activation)."""
        return (1, self.pool) if self.pool is not None and stride > 1 else (stride, identity)

    def norm(self, channels: int, rngs: nnx.Rngs) -> BatchNorm:
        """The batch norm after a convolution."""
        return BatchNorm(channels, eps=self.eps, rngs=rngs)

    def weigh(self, wanted: bool, inputs: int, wide: int, rngs: nnx.Rngs) -> nnx.Module | None:
        """Squeeze-and-excitation of a wide map, where a row wants it."""
        if not wanted:
            return None
        assert self.squeeze is not None
        return self.squeeze(inputs, wide, rngs)


class ConvBnAct(nnx.Module):
    """One convolution, norm and activation; with `skip` the input is added where shapes allow it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        skip: bool = False,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        stride_here, self.pool = style.step(stride)
        self.conv = style.conv(inputs, outputs, kernel, stride_here, rngs=rngs)
        self.bn1 = style.norm(outputs, rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)
        self.act, self.residual = style.act, skip and stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = self.pool(self.act(self.bn1(self.conv(x))))
        return x + self.drop_path(y) if self.residual else y


class DepthwiseSeparable(nnx.Module):
    """Depthwise convolution, then a 1x1 (arXiv:1704.04861): linear with a shortcut, or `last_act` and none."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        squeeze: bool = False,
        last_act: bool = False,
        act: Activation | None = None,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        stride_here, self.pool = style.step(stride)
        self.conv_dw = style.conv(inputs, inputs, kernel, stride_here, groups=inputs, rngs=rngs)
        self.bn1 = style.norm(inputs, rngs)
        self.se = style.weigh(squeeze, inputs, inputs, rngs)
        self.conv_pw = style.conv(inputs, outputs, rngs=rngs)
        self.bn2 = style.norm(outputs, rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)
        self.act = act or style.act
        self.last_act = self.act if last_act else identity
        self.residual = stride == 1 and inputs == outputs and not last_act

    def __call__(self, x: Array) -> Array:
        y = self.pool(self.act(self.bn1(self.conv_dw(x))))
        y = y if self.se is None else self.se(y)
        y = self.last_act(self.bn2(self.conv_pw(y)))
        return x + self.drop_path(y) if self.residual else y


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection (arXiv:1801.04381, table 1)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        expansion: float = 6,
        squeeze: bool = False,
        act: Activation | None = None,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        wide = round_channels(inputs * expansion)
        stride_here, self.pool = style.step(stride)
        self.conv_pw = style.conv(inputs, wide, rngs=rngs)
        self.bn1 = style.norm(wide, rngs)
        self.conv_dw = style.conv(wide, wide, kernel, stride_here, groups=wide, rngs=rngs)
        self.bn2 = style.norm(wide, rngs)
        self.se = style.weigh(squeeze, inputs, wide, rngs)
        self.conv_pwl = style.conv(wide, outputs, rngs=rngs)
        self.bn3 = style.norm(outputs, rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)
        self.act, self.residual = act or style.act, stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = self.act(self.bn1(self.conv_pw(x)))
        y = self.pool(self.act(self.bn2(self.conv_dw(y))))
        y = y if self.se is None else self.se(y)
        y = self.bn3(self.conv_pwl(y))
        return x + self.drop_path(y) if self.residual else y


class EdgeResidual(nnx.Module):
    """An inverted residual whose expansion and depthwise convolution are one full convolution (`fused`)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        expansion: float = 4,
        squeeze: bool = False,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        wide = round_channels(inputs * expansion)
        stride_here, self.pool = style.step(stride)
        self.conv_exp = style.conv(inputs, wide, kernel, stride_here, rngs=rngs)
        self.bn1 = style.norm(wide, rngs)
        self.se = style.weigh(squeeze, inputs, wide, rngs)
        self.conv_pwl = style.conv(wide, outputs, rngs=rngs)
        self.bn2 = style.norm(outputs, rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)
        self.act, self.residual = style.act, stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = self.pool(self.act(self.bn1(self.conv_exp(x))))
        y = y if self.se is None else self.se(y)
        y = self.bn2(self.conv_pwl(y))
        return x + self.drop_path(y) if self.residual else y


class ConvNorm(nnx.Module):
    """Convolution and norm, `conv` and `bn`, and where given an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        depthwise: bool = False,
        act: Activation = identity,
        rngs: nnx.Rngs,
    ):
        stride_here, self.pool = style.step(stride)
        self.conv = style.conv(inputs, outputs, kernel, stride_here, groups=inputs if depthwise else 1, rngs=rngs)
        self.bn = style.norm(outputs, rngs)
        self.act = act

    def __call__(self, x: Array) -> Array:
        return self.pool(self.act(self.bn(self.conv(x))))


class UniversalInvertedResidual(nnx.Module):
    """An inverted residual with an optional depthwise convolution before the expansion (size `start`) and an optional
    one between expansion and projection (size `kernel`); 0 leaves it out (arXiv:2404.10518, figure 4)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        style: Style,
        *,
        start: int = 0,
        expansion: float = 4,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ):
        wide = round_channels(inputs * expansion)
        first = 1 if kernel else stride  # the later of the two has the stride
        self.dw_start = ConvNorm(inputs, inputs, start, first, style, depthwise=True, rngs=rngs) if start else identity
        self.pw_exp = ConvNorm(inputs, wide, 1, 1, style, act=style.act, rngs=rngs)
        self.dw_mid = (
            ConvNorm(wide, wide, kernel, stride, style, depthwise=True, act=style.act, rngs=rngs)
            if kernel
            else identity
        )
        self.pw_proj = ConvNorm(wide, outputs, 1, 1, style, rngs=rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return x + self.drop_path(y) if self.residual else y


@dataclass(frozen=True)
class Row:
    """`repeats` blocks with `channels` outputs, as a line of a paper's table says them; the first has the stride.

    `block(inputs, outputs, kernel, stride, style, drop_path=, rngs=, **args)` makes one of them.
    """

    block: Callable[..., nnx.Module]
    repeats: int
    kernel: int
    stride: int
    channels: int
    args: Mapping[str, Any] = field(default_factory=dict)


Rows = Sequence[Sequence[Row]]
"""The rows of each stage."""


def blocks_of(stages: Rows) -> Iterator[tuple[str, Row]]:
    """(path below the backbone, row) of every block, in order."""
    for index, rows in enumerate(stages):
        flat = [row for row in rows for _ in range(row.repeats)]
        yield from ((f"blocks.{index}.{i}", row) for i, row in enumerate(flat))


def declared(stages: Rows, stem: int, head: int = 0) -> tuple[Stage, ...]:
    """What `InvertedNet` says of itself: channels of the stem, of the rows, and of the head, if it has one."""
    found, stride = [Stage("stem", stem, 2, modules=("conv_stem", "bn1"))], 2
    for index, rows in enumerate(stages):
        for row in rows:
            stride *= row.stride
        found.append(Stage(f"blocks.{index}", rows[-1].channels, stride, modules=(f"blocks.{index}",)))
    if head:
        found.append(Stage("head", head, stride, modules=("conv_head", "bn2")))
    return tuple(found)


class InvertedNet(Backbone):
    """A 3x3 stem of stride 2, stages of rows of blocks, and, with `head`, a 1x1 convolution that widens the last map.

    The rate of stochastic depth grows with the blocks from 0 towards `drop_path_rate`. No stage goes beyond
    `output_stride`, see `zoo.registry.spec.OUTPUT_STRIDE`.
    """

    def __init__(
        self,
        stages: Rows,
        stem: int,
        head: int,
        style: Style,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        rngs: nnx.Rngs,
    ):
        self.conv_stem = style.conv(in_channels, stem, 3, 2, rngs=rngs)
        self.bn1 = style.norm(stem, rngs)
        total, done, inputs, made, at, dilation = sum(1 for _ in blocks_of(stages)), 0, stem, [], 2, 1
        for rows in stages:
            chain = []
            for row in rows:
                for i in range(row.repeats):
                    rate, stride, here = drop_path_rate * done / total, row.stride if i == 0 else 1, dilation
                    at *= stride
                    if at > output_stride and stride > 1:  # what follows is dilated, but not yet this kernel
                        stride, dilation = 1, dilation * stride
                    dilated = replace(style, dilation=here)
                    chain.append(
                        row.block(
                            inputs, row.channels, row.kernel, stride, dilated, drop_path=rate, rngs=rngs, **row.args
                        )
                    )
                    inputs, done = row.channels, done + 1
            made.append(Chain(chain))
        self.blocks = nnx.List(made)
        self.act, self.widens = style.act, head > 0
        if head:
            self.conv_head = style.conv(inputs, head, rngs=rngs)
            self.bn2 = style.norm(head, rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        found: dict[str, StageFunction] = {"stem": lambda x: self.act(self.bn1(self.conv_stem(x)))}
        found |= {f"blocks.{i}": chain for i, chain in enumerate(self.blocks)}
        if self.widens:
            found["head"] = lambda x: self.act(self.bn2(self.conv_head(x)))
        return found
