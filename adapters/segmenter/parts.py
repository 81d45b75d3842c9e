"""What decoders are made of. Modules are numbered as torch numbers a Sequential."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.dense.resize import resize_bilinear
from zoo.layers import BatchNorm, Chain, Conv, GroupNorm, Normal

Norm = Literal["batch", "group"]


class Decoded(NamedTuple):
    """What a decoder makes of maps.

    Attributes:
        logits: (b, h, w, classes) at the decoder's own stride.
        levels: maps on the way there, which deep supervision reads; may be none.
    """

    logits: Array
    levels: Sequence[Array] = ()


@dataclass(frozen=True)
class Maps:
    """What a decoder is given: channels and strides of its maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[float, ...]


def norm_of(kind: Norm, channels: int, rngs: nnx.Rngs) -> BatchNorm | GroupNorm:
    """A batch norm; or a group norm of at most 32 groups, with four channels or more in each."""
    if kind == "batch":
        return BatchNorm(channels, rngs=rngs)
    groups = max(n for n in range(1, min(32, max(channels // 4, 1)) + 1) if channels % n == 0)
    return GroupNorm(groups, channels, rngs=rngs)


def conv_norm(
    inputs: int, outputs: int, kernel: int, norm: Norm, *, dilation: int = 1, rngs: nnx.Rngs, more: Sequence[Any] = ()
) -> Chain:
    """A convolution that keeps the size, without bias; a norm; a ReLU; and what is to follow."""
    pad = kernel // 2 * dilation
    conv = Conv(inputs, outputs, kernel, 1, pad, dilation=dilation, bias=False, rngs=rngs)
    return Chain([conv, norm_of(norm, outputs, rngs), jax.nn.relu, *more])


def separable_conv(
    inputs: int, outputs: int, norm: Norm, *, dilation: int = 1, rngs: nnx.Rngs, more: Sequence[Any] = ()
) -> Chain:
    """A 3x3 convolution of each channel by itself and a 1x1 one (arXiv:1802.02611, section 3.1); a norm; a ReLU."""
    each = Conv(inputs, inputs, 3, 1, dilation, dilation=dilation, groups=inputs, bias=False, rngs=rngs)
    mixed = Conv(inputs, outputs, 1, bias=False, rngs=rngs)
    return Chain([Chain([each, mixed]), norm_of(norm, outputs, rngs), jax.nn.relu, *more])


def dropout(rate: float, rngs: nnx.Rngs, *, channels: bool = False) -> list[Callable[[Array], Array]]:
    """Dropout of single values, or of whole channels of an image; nothing for a rate of 0."""
    return [nnx.Dropout(rate, broadcast_dims=(1, 2) if channels else (), rngs=rngs)] if rate else []


def classifier(inputs: int, classes: int, kernel: int = 1, *, rngs: nnx.Rngs) -> Conv:
    """Logits from a map, small at first."""
    init = Normal(0.1 / math.sqrt(kernel * kernel * inputs))
    return Conv(inputs, classes, kernel, 1, kernel // 2, kernel_init=init, rngs=rngs)


def fcn_head(inputs: int, width: int, classes: int, norm: Norm, rate: float, rngs: nnx.Rngs) -> Chain:
    """3x3 convolution to `width` channels, by default to a quarter of them; dropout; classifier (torchvision's)."""
    width = width or max(inputs // 4, 8)
    # The place of the dropout is kept, so that the classifier has torchvision's number.
    after = [*(dropout(rate, rngs) or [_same]), classifier(width, classes, rngs=rngs)]
    return conv_norm(inputs, width, 3, norm, rngs=rngs, more=after)


def _same(x: Array) -> Array:
    return x


def size_of(x: Array) -> tuple[int, int]:
    """(height, width) of a map."""
    return x.shape[1], x.shape[2]


def side_by_side(maps: Sequence[Array]) -> Array:
    """Maps as one of all their channels, at the size of the first, which is the finest."""
    first, *others = maps
    return jnp.concatenate([first, *(resize_bilinear(x, size_of(first)) for x in others)], axis=-1) if others else first
