"""Blocks around a depthwise convolution, and the network that rows of them make.

An inverted residual (arXiv:1801.04381) widens a map by a 1x1 convolution, filters each channel of the wide map, and
projects it back without an activation. The other blocks leave steps out or merge them. `Style` holds what all blocks of
a network share; a `Row` is one line of a paper's table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import jax
from flax import nnx
from jax import Array

from zoo.layers import BatchNorm, Chain, Conv, DropPath
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.spec import Stage

if TYPE_CHECKING:
    from jaxtyping import Float

Activation = Callable[[Array], Array]


def round_channels(channels: float, divisor: int = 8, *, least: float = 0.9) -> int:
    """Round to the nearest multiple of `divisor` that is at least `least` times `channels`.

    As in MobileNetV2's reference code.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * channels else rounded


def identity(x: Array) -> Array:
    """Return x."""
    return x


@dataclass(frozen=True)
class Style:
    """Settings that all blocks of a network share.

    Attributes:
        act: the activation.
        eps: of every batch norm.
        padding: `torch` pads by half the kernel, `same` by TensorFlow's rule.
        squeeze: builds squeeze-and-excitation from (channels of the block's input, channels of its wide map, rngs).
        pool: halves a map after the activation, instead of a stride in the convolution.
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
        """Return a convolution without bias."""
        padding: Literal["same"] | int = "same" if self.padding == "same" else kernel // 2 * self.dilation
        return Conv(
            inputs, outputs, kernel, stride, padding, dilation=self.dilation, groups=groups, bias=False, rngs=rngs
        )

    def step(self, stride: int) -> tuple[int, Activation]:
        """Return the stride of the convolution, and the function that follows its activation."""
        return (1, self.pool) if self.pool is not None and stride > 1 else (stride, identity)

    def norm(self, channels: int, rngs: nnx.Rngs) -> BatchNorm:
        """Return the batch norm after a convolution."""
        return BatchNorm(channels, eps=self.eps, rngs=rngs)

    def weigh(self, enabled: bool, inputs: int, wide: int, rngs: nnx.Rngs) -> nnx.Module | None:
        """Return the squeeze-and-excitation of a wide map, or None where it is not enabled."""
        if not enabled:
            return None
        assert self.squeeze is not None
        return self.squeeze(inputs, wide, rngs)


class ConvBnAct(nnx.Module):
    """One convolution, norm and activation; with `skip`, the input is added if the shapes are equal."""

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = self.pool(self.act(self.bn1(self.conv(x))))
        return x + self.drop_path(y) if self.residual else y


class DepthwiseSeparable(nnx.Module):
    """A depthwise convolution, then a 1x1 convolution (arXiv:1704.04861).

    The last layer is linear with a shortcut, or, with `last_act`, has an activation and no shortcut.
    """

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = self.act(self.bn1(self.conv_pw(x)))
        y = self.pool(self.act(self.bn2(self.conv_dw(y))))
        y = y if self.se is None else self.se(y)
        y = self.bn3(self.conv_pwl(y))
        return x + self.drop_path(y) if self.residual else y


class EdgeResidual(nnx.Module):
    """An inverted residual with one full convolution for expansion and depthwise convolution (`fused`)."""

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = self.pool(self.act(self.bn1(self.conv_exp(x))))
        y = y if self.se is None else self.se(y)
        y = self.bn2(self.conv_pwl(y))
        return x + self.drop_path(y) if self.residual else y


class ConvNorm(nnx.Module):
    """A convolution and batch norm, `conv` and `bn`, with an optional activation."""

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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        return self.pool(self.act(self.bn(self.conv(x))))


class UniversalInvertedResidual(nnx.Module):
    """An inverted residual with two optional depthwise convolutions (arXiv:2404.10518, figure 4).

    One of size `start` precedes the expansion, one of size `kernel` stands between expansion and projection; a size of
    0 leaves it out.
    """

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
        first = 1 if kernel else stride  # the last depthwise convolution has the stride
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

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w outputs"]:
        y = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return x + self.drop_path(y) if self.residual else y


@dataclass(frozen=True)
class Row:
    """One line of a paper's table: equal blocks, of which the first has the stride.

    Attributes:
        block: builds a block from (inputs, outputs, kernel, stride, style, drop_path=, rngs=, **args).
        repeats: number of blocks.
        kernel: side of the kernels.
        stride: of the first block.
        channels: of each block's output.
        args: further keyword arguments of `block`.
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
    """Yield (path below the backbone, row) of every block, in order."""
    for index, rows in enumerate(stages):
        flat = [row for row in rows for _ in range(row.repeats)]
        yield from ((f"blocks.{index}.{i}", row) for i, row in enumerate(flat))


def declared(stages: Rows, stem: int, head: int = 0) -> tuple[Stage, ...]:
    """Return the stages of an `InvertedNet`.

    Args:
        stages: rows of each stage.
        stem: channels of the stem.
        head: channels of the head; 0 for none.
    """
    declared_stages, stride = [Stage("stem", stem, 2, modules=("conv_stem", "bn1"))], 2
    for index, rows in enumerate(stages):
        for row in rows:
            stride *= row.stride
        declared_stages.append(Stage(f"blocks.{index}", rows[-1].channels, stride, modules=(f"blocks.{index}",)))
    if head:
        declared_stages.append(Stage("head", head, stride, modules=("conv_head", "bn2")))
    return tuple(declared_stages)


class InvertedNet(Backbone):
    """A 3x3 stem of stride 2, stages of rows of blocks, and optionally a 1x1 convolution that widens the last map.

    Args:
        stages: rows of each stage.
        stem: channels of the stem.
        head: channels of the last 1x1 convolution; 0 for none.
        style: what all blocks share.
        in_channels: channels of the images.
        drop_path_rate: rate of stochastic depth, which grows with the blocks from 0 towards this value.
        output_stride: largest stride of a stage, see `zoo.registry.spec.OUTPUT_STRIDE`.
        rngs: random keys of the parameters.
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
                    # A stride beyond the limit becomes a dilation of the kernels that follow. The kernel at that place
                    # still sees the finer map at its old spacing, so it keeps the dilation from before.
                    if at > output_stride and stride > 1:
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
        functions: dict[str, StageFunction] = {"stem": lambda x: self.act(self.bn1(self.conv_stem(x)))}
        functions |= {f"blocks.{i}": chain for i, chain in enumerate(self.blocks)}
        if self.widens:
            functions["head"] = lambda x: self.act(self.bn2(self.conv_head(x)))
        return functions
