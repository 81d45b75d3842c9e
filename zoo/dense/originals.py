"""Resample maps of preprocessed images to the pixels of the original images, bilinearly.

Bilinear sampling on a grid is a matrix product along each axis. The matrices are computed on the device from the
placement of the original in the preprocessed image (`zoo.data.transform.Frame`). So images of many sizes share one
compiled program.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

if TYPE_CHECKING:
    from jaxtyping import Float, Num, UInt8

BAND = 1 << 21
"""Largest number of class scores that are computed at once."""


def sampling(places: Float[Array, " n"], count: int) -> Float[Array, "n count"]:
    """Return the matrix that interpolates linearly between the `count` positions of a map.

    Args:
        places: coordinates to sample at, where 0 is the centre of the first position. Beyond the border the nearest
            position counts.
        count: positions of the map along this axis.
    """
    at = jnp.clip(places, 0, count - 1).reshape(-1, 1)
    return jnp.maximum(0.0, 1 - jnp.abs(at - jnp.arange(count, dtype=jnp.float32).reshape(1, -1)))


def places_in(frame: Num[Array, " 6"], axis: int, count: int, prepared: int, positions: int) -> Float[Array, " count"]:
    """Return the coordinates of an original's first `count` pixels in a map of its preprocessed image.

    Coordinates count positions of the map from the centre of the first.

    Args:
        frame: placement of the original, see `zoo.data.transform.Frame`.
        axis: 0 for down, 1 for right.
        count: number of pixels.
        prepared: side of the preprocessed image along the axis, in pixels.
        positions: side of the map along the axis.
    """
    # Pixel centres lie at half-integers: move into the preprocessed image, scale to the map, and back to centres.
    pixels = (jnp.arange(count, dtype=jnp.float32) + 0.5) * frame[axis] + frame[2 + axis]
    return pixels * (positions / prepared) - 0.5


def labels_at(
    logits: Num[Array, "h w c"], frame: Num[Array, " 6"], prepared: tuple[int, int], room: tuple[int, int]
) -> UInt8[Array, "height width"]:
    """Return the predicted class of every pixel of one original image.

    Args:
        logits: class scores on the preprocessed image.
        frame: placement of the original, see `zoo.data.transform.Frame`.
        prepared: (height, width) of the preprocessed image.
        room: (height, width) of the result, at least that of the original. Values beyond the original are meaningless.
    """
    height, width = room
    rows, columns, classes = logits.shape
    across = sampling(places_in(frame, 1, width, prepared[1], columns), columns)
    wide = jnp.einsum("hwc,Ww->hcW", logits.astype(jnp.float32), across)
    # A band of rows at a time: the scores of all classes at full resolution would not fit in memory for large images.
    band = max(min(BAND // (width * classes), height), 1)
    down = sampling(places_in(frame, 0, -(-height // band) * band, prepared[0], rows), rows)

    def labels(part: Array) -> Array:
        return jnp.argmax(jnp.einsum("Hh,hcW->HcW", part, wide), 1).astype(jnp.uint8)

    return lax.map(labels, down.reshape(-1, band, rows)).reshape(-1, width)[:height]


def batch_labels_at(
    logits: Num[Array, "b h w c"], frames: Num[Array, "b 6"], prepared: tuple[int, int], room: tuple[int, int]
) -> UInt8[Array, "b height width"]:
    """Return `labels_at` of each image of a batch, computed one after the other."""
    one = partial(labels_at, prepared=prepared, room=room)
    return lax.map(lambda both: one(*both), (logits, frames))


labels_of_one = jax.jit(labels_at, static_argnames=("prepared", "room"))
