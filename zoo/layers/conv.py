"""Convolution layers, which choose the fastest way to compute each case."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.layers.dense import dense_conv, patch_product
from zoo.layers.depthwise import depthwise_conv
from zoo.layers.grouped import grouped_conv
from zoo.layers.initialisers import HeNormal, Normal
from zoo.layers.windows import Padding, pair, resolve_padding


class Conv(nnx.Conv):
    """2-D convolution, (b, h, w, in) -> (b, h', w', out); kernel (kh, kw, in / groups, out)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        *,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        kernel_init: Callable[..., Array] | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            pair(kernel_size),
            strides=pair(stride),
            kernel_dilation=pair(dilation),
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init or HeNormal(groups),
            rngs=rngs,
        )
        self.torch_padding = padding
        self.stride, self.dilation = pair(stride), pair(dilation)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        kernel = self.kernel[...].astype(x.dtype)
        stride, dilation, groups = self.stride, self.dilation, self.feature_group_count
        size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
        pads = resolve_padding(self.torch_padding, size, window, stride, dilation)
        unpadded = groups == 1 and pads == ((0, 0), (0, 0))
        if window == (1, 1) and unpadded:
            # As a matrix product: the same values, and on CPU two to five times as fast, most of all the gradients.
            y = x[:, :: stride[0], :: stride[1]] @ kernel[0, 0]
        elif window in (stride, size) and unpadded and dilation == (1, 1):
            y = patch_product(x, kernel)
        elif groups == self.in_features == self.out_features and groups > 1:
            y = depthwise_conv(x, kernel, stride, pads, dilation)
        elif groups > 1:
            y = grouped_conv(x, kernel, groups, stride, pads, dilation)
        else:
            y = dense_conv(x, kernel, stride, pads, dilation)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(1, 1, 1, -1)


class ConvTranspose(nnx.Module):
    """2-D transposed convolution without overlapping windows: the stride is the side of the kernel.

    (b, h, w, in) -> (b, h * side, w * side, out); kernel (side, side, in, out).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        side: int,
        *,
        bias: bool = True,
        kernel_init: Callable[..., Array] | None = None,
        rngs: nnx.Rngs,
    ):
        # Windows do not overlap, so each output is a product with the input channels of one position: fan-in is `in`.
        init = kernel_init or Normal(math.sqrt(2 / in_channels))
        self.kernel = nnx.Param(init(rngs.params(), (side, side, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros((out_channels,), jnp.float32)) if bias else None

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...].astype(x.dtype)
        side, _, inputs, outputs = kernel.shape
        # Each position becomes a patch of side x side outputs by one matrix product; then the patches are laid out.
        patches = x @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
        batch, rows, columns, _ = x.shape
        y = patches.reshape(batch, rows, columns, side, side, outputs).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, rows * side, columns * side, outputs)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(1, 1, 1, -1)
