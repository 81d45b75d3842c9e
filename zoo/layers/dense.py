"""Convolution by the library, and as a matrix product."""

from __future__ import annotations

from jax import Array, lax

from zoo.layers.windows import Pads

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def library_conv(
    x: Array, kernel: Array, groups: int, stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> Array:
    """XLA's own convolution: x (b, h, w, c), kernel (kh, kw, c / groups, o) -> (b, h', w', o)."""
    return lax.conv_general_dilated(
        x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )


def patch_product(x: Array, kernel: Array) -> Array:
    """A convolution without padding whose windows do not overlap, as a matrix product of patches: on CPU one and a half
    to four times as fast. x (b, h, w, c), kernel (p, q, c, o) -> (b, h // p, w // q, o)."""
    (high, wide, channels, outputs), batch = kernel.shape, x.shape[0]
    rows, columns = x.shape[1] // high, x.shape[2] // wide
    patches = x[:, : rows * high, : columns * wide].reshape(batch, rows, high, columns, wide, channels)
    flat = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, high * wide * channels)
    return flat @ kernel.reshape(-1, outputs)
