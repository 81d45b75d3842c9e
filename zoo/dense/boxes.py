"""Bounding boxes as arrays (..., 4): x1, y1, x2, y2 in pixels from the upper left corner of the image.

Everything is computed in float32, whatever the input's dtype, and every gradient is finite. So boxes that pad an array
to a fixed length need no special care.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Num


def _quotient(part: Array, whole: Array) -> Array:
    """Return part / whole, or 0 with a gradient of 0 where `whole` is not positive."""
    # Both numbers are replaced before dividing: `where` also differentiates the branch that is not chosen, and there
    # zero times infinity would be NaN.
    positive = whole > 0
    return jnp.where(positive, part, 0.0) / jnp.where(positive, whole, 1.0)


def _area(low: Array, high: Array) -> Array:
    sides = jnp.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def area(boxes: Num[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Return the area of each box in pixels, 0 for an inverted box."""
    boxes = boxes.astype(jnp.float32)
    return _area(boxes[..., :2], boxes[..., 2:])


def _overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the areas of intersection and union."""
    shared = _area(jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:]))
    return shared, area(a) + area(b) - shared


def iou(a: Num[Array, "*#n 4"], b: Num[Array, "*#n 4"]) -> Float[Array, "*n"]:
    """Return the intersection over union of each pair of boxes, in [0, 1]. Leading axes broadcast."""
    return _quotient(*_overlap(a.astype(jnp.float32), b.astype(jnp.float32)))


def giou(a: Num[Array, "*#n 4"], b: Num[Array, "*#n 4"]) -> Float[Array, "*n"]:
    """Return the generalised IoU of each pair of boxes, in [-1, 1] (arXiv:1902.09630, algorithm 1).

    It is the IoU minus the fraction of the smallest enclosing box that neither box covers. Unlike that of IoU, its
    gradient also moves boxes that do not overlap.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    shared, union = _overlap(a, b)
    hull = _area(jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:]))
    return _quotient(shared, union) - _quotient(hull - union, hull)


def pairwise_iou(a: Num[Array, "*#b n 4"], b: Num[Array, "*#b m 4"]) -> Float[Array, "*b n m"]:
    """Return the IoU of every box in `a` with every box in `b`."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def clip(boxes: Num[Array, "*b n 4"], size: Sequence[float] | Array) -> Float[Array, "*b n 4"]:
    """Clip boxes at the border of the image.

    Args:
        boxes: in pixels.
        size: (height, width) of all images, or an array (..., 2) with that of each image.
    """
    size = jnp.asarray(size, jnp.float32)
    limits = jnp.concatenate([size[..., ::-1]] * 2, axis=-1)
    limits = limits.reshape((1,) * (boxes.ndim - 1) + (4,)) if limits.ndim == 1 else limits[..., None, :]
    return jnp.clip(boxes.astype(jnp.float32), 0.0, limits)


def distances(points: Num[Array, "*#n 2"], boxes: Num[Array, "*#n 4"]) -> Float[Array, "*n 4"]:
    """Return the distances from points (x, y) to the left, top, right and bottom of boxes, in pixels.

    A distance is negative where the point lies beyond that side.
    """
    points, boxes = points.astype(jnp.float32), boxes.astype(jnp.float32)
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def from_distances(points: Num[Array, "*#n 2"], ltrb: Num[Array, "*#n 4"]) -> Float[Array, "*n 4"]:
    """Return the boxes with these distances from points (x, y): the inverse of `distances`."""
    points, ltrb = points.astype(jnp.float32), ltrb.astype(jnp.float32)
    return jnp.concatenate([points - ltrb[..., :2], points + ltrb[..., 2:]], axis=-1)
