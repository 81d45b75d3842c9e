"""DeepLab's decoders, and the fully convolutional net that torchvision has on the same dilated backbones.

Papers: Rethinking Atrous Convolution (DeepLabV3), arXiv:1706.05587; Encoder-Decoder with Atrous Separable Convolution
(DeepLabV3+), arXiv:1802.02611; Fully Convolutional Networks, arXiv:1411.4038. Names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

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

RATES = (12, 24, 36)
"""How far apart the taps of the three dilated convolutions are, on a map of stride 8 (arXiv:1706.05587, section 4)."""
LOW = 48
"""Channels that the finer map is reduced to (arXiv:1802.02611, section 4.1)."""


class ImagePooling(Chain):
    """The mean over the image, convolved, at each position."""

    def __call__(self, x: Array) -> Array:
        y = super().__call__(x)
        return jnp.broadcast_to(y, (*x.shape[:3], y.shape[3]))


def _mean(x: Array) -> Array:
    return jnp.mean(x, (1, 2), keepdims=True)


class ASPP(nnx.Module):
    """Convolutions with taps at several distances, and the mean over the image, side by side (arXiv:1706.05587,
    figure 5)."""

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

    def __call__(self, x: Array) -> Array:
        return self.project(jnp.concatenate([conv(x) for conv in self.convs], axis=-1))


class DeepLabV3(Chain):
    """The context of the last maps, a 3x3 convolution, and the classifier."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        context = ASPP(sum(maps.channels), width, RATES, norm, rate, rngs=rngs)
        last = classifier(width, classes, rngs=rngs)
        super().__init__([context, *conv_norm(width, width, 3, norm, rngs=rngs), last])

    def __call__(self, maps: Sequence[Array]) -> Decoded:  # type: ignore[override]
        return Decoded(super().__call__(side_by_side(maps)))


class DeepLabV3Plus(nnx.Module):
    """The context of the last maps beside a finer map, with separable convolutions; rates follow the stride of what
    they are taken of."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        first = min(1, len(maps.strides) - 1)  # a net that has no finer map has its last one twice
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

    def __call__(self, maps: Sequence[Array]) -> Decoded:
        fine, coarse = self.low(maps[0]), self.aspp(side_by_side(maps[1:] or maps))
        return Decoded(self.classifier(self.fuse(side_by_side([fine, coarse]))))


class FCN(Chain):
    """A convolution and the classifier on the last maps."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        super().__init__([*fcn_head(sum(maps.channels), width, classes, norm, rate, rngs)])

    def __call__(self, maps: Sequence[Array]) -> Decoded:  # type: ignore[override]
        return Decoded(super().__call__(side_by_side(maps)))
