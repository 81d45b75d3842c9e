"""Building blocks of decoders. Modules are numbered like those of torch's Sequential."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.dense.resize import resize_bilinear
from zoo.layers import BatchNorm, Chain, Conv, GroupNorm, Normal

if TYPE_CHECKING:
    from jaxtyping import Float

Norm = Literal["batch", "group"]


class Decoded(NamedTuple):
    """The result of a decoder.

    Attributes:
        logits: logits at the decoder's stride.
        levels: intermediate maps for deep supervision; may be empty.
    """

    logits: Float[Array, "b h w classes"]
    levels: Sequence[Float[Array, "b _h _w _c"]] = ()


@dataclass(frozen=True)
class Maps:
    """The inputs of a decoder.

    Attributes:
        channels: channels of its maps, finest first.
        strides: their strides.
    """

    channels: tuple[int, ...]
    strides: tuple[float, ...]


def norm_of(kind: Norm, channels: int, rngs: nnx.Rngs) -> BatchNorm | GroupNorm:
    """Return a batch norm, or a group norm of at most 32 groups with at least four channels each."""
    if kind == "batch":
        return BatchNorm(channels, rngs=rngs)
    groups = max(n for n in range(1, min(32, max(channels // 4, 1)) + 1) if channels % n == 0)
    return GroupNorm(groups, channels, rngs=rngs)


def conv_norm(
    inputs: int, outputs: int, kernel: int, norm: Norm, *, dilation: int = 1, rngs: nnx.Rngs, more: Sequence[Any] = ()
) -> Chain:
    """Return a convolution of stride 1 without bias, a norm, a ReLU and the layers of `more`."""
    pad = kernel // 2 * dilation
    conv = Conv(inputs, outputs, kernel, 1, pad, dilation=dilation, bias=False, rngs=rngs)
    return Chain([conv, norm_of(norm, outputs, rngs), jax.nn.relu, *more])


def separable_conv(
    inputs: int, outputs: int, norm: Norm, *, dilation: int = 1, rngs: nnx.Rngs, more: Sequence[Any] = ()
) -> Chain:
    """Return a depthwise separable 3x3 convolution (arXiv:1802.02611, section 3.1), a norm, a ReLU and `more`."""
    depthwise = Conv(inputs, inputs, 3, 1, dilation, dilation=dilation, groups=inputs, bias=False, rngs=rngs)
    pointwise = Conv(inputs, outputs, 1, bias=False, rngs=rngs)
    return Chain([Chain([depthwise, pointwise]), norm_of(norm, outputs, rngs), jax.nn.relu, *more])


def dropout(rate: float, rngs: nnx.Rngs, *, channels: bool = False) -> list[Callable[[Array], Array]]:
    """Return dropout of single values, or of whole channels with `channels`; no layer for a rate of 0."""
    return [nnx.Dropout(rate, broadcast_dims=(1, 2) if channels else (), rngs=rngs)] if rate else []


def classifier(inputs: int, classes: int, kernel: int = 1, *, rngs: nnx.Rngs) -> Conv:
    """Return the convolution from a map to logits. Its initial weights are small, so that classes start out equal."""
    init = Normal(0.1 / math.sqrt(kernel * kernel * inputs))
    return Conv(inputs, classes, kernel, 1, kernel // 2, kernel_init=init, rngs=rngs)


def fcn_head(inputs: int, width: int, classes: int, norm: Norm, rate: float, rngs: nnx.Rngs) -> Chain:
    """Return torchvision's FCN head: a 3x3 convolution, dropout and the classifier.

    Args:
        inputs: channels of the map.
        width: channels of the convolution; 0 for a quarter of `inputs`, at least 8.
        classes: number of classes.
        norm: normalisation of the convolution.
        rate: dropout rate.
        rngs: source of the initial weights.
    """
    width = width or max(inputs // 4, 8)
    # Without dropout an identity takes its place, so that the classifier has the same index as in torchvision.
    after = [*(dropout(rate, rngs) or [_same]), classifier(width, classes, rngs=rngs)]
    return conv_norm(inputs, width, 3, norm, rngs=rngs, more=after)


def _same(x: Array) -> Array:
    return x


def size_of(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    """Return the (height, width) of a map."""
    return x.shape[1], x.shape[2]


def side_by_side(maps: Sequence[Float[Array, "b _h _w _c"]]) -> Float[Array, "b h w c"]:
    """Concatenate the channels of maps after resizing all to the size of the first, which is the finest."""
    first, *others = maps
    return jnp.concatenate([first, *(resize_bilinear(x, size_of(first)) for x in others)], axis=-1) if others else first
