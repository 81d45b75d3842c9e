"""Decoders on a top-down feature pyramid: the semantic branch of Panoptic FPN, and UPerNet.

Papers: Panoptic Feature Pyramid Networks, arXiv:1901.02446, section 3.1, with the widths of
segmentation_models.pytorch; Unified Perceptual Parsing, arXiv:1807.10221, with the pyramid pooling of PSPNet,
arXiv:1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.parts import Decoded, Maps, Norm, classifier, conv_norm, dropout, size_of
from zoo.dense.necks import FPN as Pyramid
from zoo.dense.resize import pool_to, resize_bilinear
from zoo.layers import Chain

if TYPE_CHECKING:
    from jaxtyping import Float

BINS = (1, 2, 3, 6)
"""Rows and columns that the coarsest map is pooled to (arXiv:1612.01105, section 3.2)."""


class FPN(nnx.Module):
    """The sum of the levels of a feature pyramid, after each is upsampled to the finest one's size.

    Convolutions and upsampling by one level alternate (arXiv:1901.02446, figure 3).

    Args:
        maps: channels and strides of the inputs.
        classes: number of classes.
        width: channels of the pyramid; the upsampling branches have half as many.
        norm: normalisation of the convolutions.
        rate: dropout rate before the classifier.
    """

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        inner = max(width // 2, 1)
        self.pyramid = Pyramid(maps.channels, maps.strides, width, extra=0, smooth=False, rngs=rngs)
        self.seg_blocks = nnx.List(
            nnx.List(conv_norm(inner if i else width, inner, 3, norm, rngs=rngs) for i in range(max(level, 1)))
            for level in range(len(maps.channels))
        )
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(inner, classes, rngs=rngs)
        self.level_channels = (width,) * (len(maps.channels) - 1)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        levels = self.pyramid(maps)
        sizes = [size_of(level) for level in levels]
        upsampled = []
        for level, (x, blocks) in enumerate(zip(levels, self.seg_blocks, strict=True)):
            for i, block in enumerate(blocks):
                x = block(x)
                if level:
                    x = resize_bilinear(x, sizes[level - 1 - i], align_corners=True)
            upsampled.append(x)
        x = reduce(jnp.add, reversed(upsampled))
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x), levels[1:])


class PyramidPooling(nnx.Module):
    """A map and its means over grids of several sizes, concatenated and mixed by a 3x3 convolution."""

    def __init__(self, inputs: int, width: int, norm: Norm, *, rngs: nnx.Rngs):
        self.blocks = nnx.List(conv_norm(inputs, width, 1, norm, rngs=rngs) for _ in BINS)
        self.out_conv = conv_norm(inputs + len(BINS) * width, width, 3, norm, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w width"]:
        size = size_of(x)
        pooled = [resize_bilinear(block(pool_to(x, (n, n))), size) for n, block in zip(BINS, self.blocks, strict=True)]
        return self.out_conv(jnp.concatenate([x, *pooled], axis=-1))


class UPerNet(nnx.Module):
    """Pyramid pooling of the coarsest map, a top-down pyramid, and a convolution on all its levels, concatenated."""

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        *finer, last = maps.channels
        self.psp = PyramidPooling(last, width, norm, rngs=rngs)
        self.lateral = nnx.List(conv_norm(inputs, width, 1, norm, rngs=rngs) for inputs in finer)
        self.smooth = nnx.List(conv_norm(width, width, 3, norm, rngs=rngs) for _ in finer)
        self.fusion = conv_norm(width * len(maps.channels), width, 3, norm, rngs=rngs)
        self.classifier = Chain([*dropout(rate, rngs, channels=True), classifier(width, classes, rngs=rngs)])

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        *finer, last = maps
        inner = [lateral(x) for lateral, x in zip(self.lateral, finer, strict=True)] + [self.psp(last)]
        for i in reversed(range(len(finer))):
            inner[i] = inner[i] + resize_bilinear(inner[i + 1], size_of(inner[i]))
        levels = [conv(x) for conv, x in zip(self.smooth, inner, strict=False)] + inner[-1:]
        size = size_of(levels[0])
        x = self.fusion(jnp.concatenate([resize_bilinear(level, size) for level in levels], axis=-1))
        return Decoded(self.classifier(x))
