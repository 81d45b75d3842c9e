"""From maps of prepared images to the pixels of the originals: bilinear, between the centres of positions.

Sampling on a grid is a product with a matrix along either axis. The matrices are made on the device from where the
originals lie (`zoo.data.transform.Frame`), so that images of many sizes share one program.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

BAND = 1 << 21
"""Numbers that are computed at once, where pixels are many."""


def sampling(places: Array, count: int) -> Array:
    """Matrix (n, count) that samples `count` positions linearly at `places` (n,), in positions from the centre of the
    first; outside, the nearest one counts."""
    at = jnp.clip(places, 0, count - 1).reshape(-1, 1)
    return jnp.maximum(0.0, 1 - jnp.abs(at - jnp.arange(count, dtype=jnp.float32).reshape(1, -1)))


def places_in(frame: Array, axis: int, count: int, prepared: int, positions: int) -> Array:
    """Where the first `count` pixels of an original lie in a map of its prepared image along an axis (0: down), in
    positions from the centre of the first, (count,).

    Args:
        frame: (6,), see `zoo.data.transform.Frame`. prepared: pixels of the prepared image. positions: of the map.
    """
    pixels = (jnp.arange(count, dtype=jnp.float32) + 0.5) * frame[axis] + frame[2 + axis]
    return pixels * (positions / prepared) - 0.5


def labels_at(logits: Array, frame: Array, prepared: tuple[int, int], room: tuple[int, int]) -> Array:
    """The class of every pixel of an original, uint8 (height, width), of one image.

    Args:
        logits: (h, w, c). frame: (6,), how the prepared image of `prepared` pixels shows the original.
        room: (height, width) of the result; what lies beyond the original is of no meaning.
    """
    height, width = room
    rows, columns, classes = logits.shape
    across = sampling(places_in(frame, 1, width, prepared[1], columns), columns)
    wide = jnp.einsum("hwc,Ww->hcW", logits.astype(jnp.float32), across)
    band = max(min(BAND // (width * classes), height), 1)
    down = sampling(places_in(frame, 0, -(-height // band) * band, prepared[0], rows), rows)

    def labels(part: Array) -> Array:
        return jnp.argmax(jnp.einsum("Hh,hcW->HcW", part, wide), 1).astype(jnp.uint8)

    return lax.map(labels, down.reshape(-1, band, rows)).reshape(-1, width)[:height]


def batch_labels_at(logits: Array, frames: Array, prepared: tuple[int, int], room: tuple[int, int]) -> Array:
    """The same for each image of a batch, one after the other: (b, h, w, c), (b, 6) -> uint8 (b, height, width)."""
    one = partial(labels_at, prepared=prepared, room=room)
    return lax.map(lambda both: one(*both), (logits, frames))


labels_of_one = jax.jit(labels_at, static_argnames=("prepared", "room"))
