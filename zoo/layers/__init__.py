"""Layers on `flax.nnx` with the semantics of the checkpoints that zoo reads.

They differ from flax's own layers in three ways:

- Padding is written as in torch: a number, or `same` for TensorFlow's rule.
- The arithmetic follows the dtype of the input. Parameters are stored in float32 and cast, so a model runs in bfloat16
  when it gets bfloat16 images. Normalisation statistics are always computed in float32.
- Depthwise and grouped convolutions, and the gradients of all convolutions, are fast on CPU too.
"""

from zoo.layers.activations import recoverable_relu
from zoo.layers.conv import Conv, ConvTranspose
from zoo.layers.dense import dense_conv, patch_product
from zoo.layers.depthwise import depthwise_conv
from zoo.layers.grouped import grouped_conv
from zoo.layers.initialisers import HeNormal, Normal
from zoo.layers.linear import Chain, DropPath, Linear
from zoo.layers.norms import BatchNorm, GroupNorm, LayerNorm, statistics_of
from zoo.layers.pools import AvgPool, MaxPool, avg_pool, global_avg_pool, max_pool
from zoo.layers.windows import Padding, Pads, pair, resolve_padding

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Chain",
    "Conv",
    "ConvTranspose",
    "DropPath",
    "GroupNorm",
    "HeNormal",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "Normal",
    "Padding",
    "Pads",
    "avg_pool",
    "dense_conv",
    "depthwise_conv",
    "global_avg_pool",
    "grouped_conv",
    "max_pool",
    "pair",
    "patch_product",
    "recoverable_relu",
    "resolve_padding",
    "statistics_of",
]
