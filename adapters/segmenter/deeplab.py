"""DeepLabV3, DeepLabV3+ and FCN: decoders for dilated backbones.

Papers: Rethinking Atrous Convolution (DeepLabV3), arXiv:1706.05587; Encoder-Decoder with Atrous Separable Convolution
(DeepLabV3+), arXiv:1802.02611; Fully Convolutional Networks, arXiv:1411.4038. Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.parts import (
    Decoded,
    Maps,
    Norm,
    classifier,
    conv_norm,
    dropout,
    fcn_head,
    separable_conv,
    side_by_side,
)
from zoo.layers import Chain

if TYPE_CHECKING:
    from jaxtyping import Float

RATES = (12, 24, 36)
"""Dilation rates of the three convolutions of ASPP on a map of stride 8 (arXiv:1706.05587, section 4)."""
LOW = 48
"""Channels that the finer map is reduced to (arXiv:1802.02611, section 4.1)."""


class ImagePooling(Chain):
    """Global average pooling and a convolution, broadcast to every position."""

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w width"]:
        y = super().__call__(x)
        return jnp.broadcast_to(y, (*x.shape[:3], y.shape[3]))


def _mean(x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
    return jnp.mean(x, (1, 2), keepdims=True)


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling (arXiv:1706.05587, figure 5).

    A 1x1 convolution, convolutions of several dilation rates and image pooling are concatenated and projected.

    Args:
        inputs: channels of the map.
        width: channels of each branch and of the result.
        rates: dilation rates.
        norm: normalisation of the convolutions.
        rate: dropout rate after the projection.
        separable: whether the dilated convolutions are depthwise separable.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        rates: Sequence[int],
        norm: Norm,
        rate: float,
        *,
        separable: bool = False,
        rngs: nnx.Rngs,
    ):
        def dilated(dilation: int) -> Chain:
            if separable:
                return separable_conv(inputs, width, norm, dilation=dilation, rngs=rngs)
            return conv_norm(inputs, width, 3, norm, dilation=dilation, rngs=rngs)

        pooled = ImagePooling([_mean, *conv_norm(inputs, width, 1, norm, rngs=rngs)])
        self.convs = nnx.List([conv_norm(inputs, width, 1, norm, rngs=rngs), *map(dilated, rates), pooled])
        self.project = conv_norm(len(self.convs) * width, width, 1, norm, rngs=rngs, more=dropout(rate, rngs))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w width"]:
        return self.project(jnp.concatenate([conv(x) for conv in self.convs], axis=-1))


class DeepLabV3(Chain):
    """ASPP on the last maps, a 3x3 convolution and the classifier."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        context = ASPP(sum(maps.channels), width, RATES, norm, rate, rngs=rngs)
        last = classifier(width, classes, rngs=rngs)
        super().__init__([context, *conv_norm(width, width, 3, norm, rngs=rngs), last])

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:  # type: ignore[override]
        return Decoded(super().__call__(side_by_side(maps)))


class DeepLabV3Plus(nnx.Module):
    """ASPP on the last maps, concatenated with a finer map, then two separable convolutions and the classifier.

    The dilation rates are scaled to the stride of the maps that ASPP reads.
    """

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        first = min(1, len(maps.strides) - 1)  # a backbone with a single map uses it for both
        rates = [max(1, round(each * 8 / maps.strides[first])) for each in RATES]
        low = min(LOW, width)
        self.aspp = ASPP(sum(maps.channels[first:]), width, rates, norm, rate, separable=True, rngs=rngs)
        self.low = conv_norm(maps.channels[0], low, 1, norm, rngs=rngs)
        self.fuse = Chain(
            [
                separable_conv(low + width, width, norm, rngs=rngs),
                separable_conv(width, width, norm, rngs=rngs),
            ]
        )
        self.classifier = classifier(width, classes, rngs=rngs)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        fine, coarse = self.low(maps[0]), self.aspp(side_by_side(maps[1:] or maps))
        return Decoded(self.classifier(self.fuse(side_by_side([fine, coarse]))))


class FCN(Chain):
    """A 3x3 convolution and the classifier on the last maps."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        super().__init__([*fcn_head(sum(maps.channels), width, classes, norm, rate, rngs)])

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:  # type: ignore[override]
        return Decoded(super().__call__(side_by_side(maps)))
