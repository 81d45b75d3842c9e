"""U-Net: upsampling from the coarsest map to the image's resolution, with skip connections to the finer maps.

Paper: U-Net, arXiv:1505.04597. Blocks, widths and parameter names are those of segmentation_models.pytorch, which also
takes any backbone as the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.parts import Decoded, Maps, Norm, classifier, conv_norm, dropout, size_of
from zoo.dense.resize import resize_nearest
from zoo.layers import Chain

if TYPE_CHECKING:
    from jaxtyping import Float

LEAST = 8
"""Fewest channels of a block."""


class Block(nnx.Module):
    """Upsample, concatenate the finer map if there is one, and convolve twice.

    Args:
        inputs: channels of the coarser map.
        skip: channels of the finer map; 0 for none.
        outputs: channels of the result.
        norm: normalisation of the convolutions.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, norm: Norm, *, rngs: nnx.Rngs):
        self.conv1 = conv_norm(inputs + skip, outputs, 3, norm, rngs=rngs)
        self.conv2 = conv_norm(outputs, outputs, 3, norm, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], skip: Float[Array, "b H W s"] | None
    ) -> Float[Array, "b H W outputs"]:
        rows, columns = size_of(x)
        x = resize_nearest(x, (2 * rows, 2 * columns) if skip is None else size_of(skip))
        return self.conv2(self.conv1(x if skip is None else jnp.concatenate([x, skip], axis=-1)))


class UNet(nnx.Module):
    """A block for each finer map, then blocks without skip connections down to a stride below 2.

    A map with more than twice the channels that the decoder has at its stride is first projected to that many. Such
    maps would cost most of the time, and where the backbone has no normalisation, as in SqueezeNet, their values are
    tens of times larger than the decoder's, which are then hardly seen beside them.

    Args:
        maps: channels and strides of the inputs.
        classes: number of classes.
        width: channels at stride 16; half as many at half the stride (256, 128, 64, 32, 16).
        norm: normalisation of the convolutions.
        rate: dropout rate before the classifier.
    """

    def __init__(self, maps: Maps, classes: int, *, width: int, norm: Norm, rate: float, rngs: nnx.Rngs):
        maps, self.projections = _projected(maps, width, norm, rngs)
        *finer, last = maps.strides
        strides = [*reversed(finer)]
        finest = strides[-1] if strides else last
        strides += [finest / 2**i for i in range(1, math.floor(math.log2(finest)) + 1)]
        skips = [*reversed(maps.channels[:-1])] + [0] * (len(strides) - len(finer))
        inputs, blocks = maps.channels[-1], []
        self.widths = tuple(_channels(width, stride) for stride in strides)
        for skip, outputs in zip(skips, self.widths, strict=True):
            blocks.append(Block(inputs, skip, outputs, norm, rngs=rngs))
            inputs = outputs
        self.blocks = nnx.List(blocks)
        self.dropout = nnx.List(dropout(rate, rngs, channels=True))
        self.classifier = classifier(inputs, classes, 3, rngs=rngs)
        self.level_channels = tuple(self.widths[-4:-1])

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> Decoded:
        *finer, x = (project(x) for project, x in zip(self.projections, maps, strict=True))
        levels = []
        skips = [*reversed(finer)] + [None] * (len(self.blocks) - len(finer))
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
            levels.append(x)
        for layer in self.dropout:
            x = layer(x)
        return Decoded(self.classifier(x), levels[-4:-1])


def _channels(width: int, stride: float) -> int:
    """Return the channels of a decoder of this width at a stride."""
    return max(LEAST, int(width * 2.0 ** round(math.log2(stride / 16))))


def _projected(maps: Maps, width: int, norm: Norm, rngs: nnx.Rngs) -> tuple[Maps, nnx.List[Chain]]:
    """Return the maps after the projections of the wide ones, and the projections, which are empty for the others."""
    channels, projections = [], []
    for inputs, stride in zip(maps.channels, maps.strides, strict=True):
        outputs = _channels(width, stride)
        wide = inputs > 2 * outputs
        projections.append(conv_norm(inputs, outputs, 1, norm, rngs=rngs) if wide else Chain([]))
        channels.append(outputs if wide else inputs)
    return replace(maps, channels=tuple(channels)), nnx.List(projections)
