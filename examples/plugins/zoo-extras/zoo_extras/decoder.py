"""A segmentation decoder: 1x1 convolutions of all maps, upsampled to the finest one and added up."""

from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.adapters.segmenter.decoders import Decoder
from zoo.adapters.segmenter.parts import Decoded, classifier, norm_of, size_of
from zoo.dense.resize import resize_bilinear
from zoo.layers import Conv


class Sum(nnx.Module):
    """Maps (b, h, w, c), finest first -> logits (b, h, w, classes) at the finest one's stride."""

    def __init__(self, maps, classes, *, width, norm, rate, rngs):
        self.lateral = nnx.List(Conv(channels, width, 1, rngs=rngs) for channels in maps.channels)
        self.norm = norm_of(norm, width, rngs)
        self.dropout = nnx.Dropout(rate, broadcast_dims=(1, 2), rngs=rngs)
        self.classifier = classifier(width, classes, rngs=rngs)

    def __call__(self, maps):
        size = size_of(maps[0])
        levels = (resize_bilinear(lateral(x), size) for lateral, x in zip(self.lateral, maps, strict=True))
        return Decoded(self.classifier(self.dropout(jax.nn.relu(self.norm(reduce(jnp.add, levels))))))


SUM = Decoder(Sum)
