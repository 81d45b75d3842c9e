"""Boxes as arrays (..., 4): x1, y1, x2, y2 in pixels, from the upper left corner of the image.

Everything is computed in float32, whatever comes in, and every gradient is finite: a quotient is taken of numbers that
were made harmless first where its divisor is zero, because a gradient flows through the branch that is not chosen too,
and zero times infinity is not a number. So boxes that pad an array to a fixed length need no care.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def _quotient(part: Array, whole: Array) -> Array:
    """part / whole, and 0 where `whole` is not positive, with a gradient of 0 there."""
    positive = whole > 0
    return jnp.where(positive, part, 0.0) / jnp.where(positive, whole, 1.0)


def _area(low: Array, high: Array) -> Array:
    sides = jnp.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def area(boxes: Array) -> Array:
    """Pixels inside: (..., 4) -> (...); 0 for an inverted box."""
    boxes = boxes.astype(jnp.float32)
    return _area(boxes[..., :2], boxes[..., 2:])


def _overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Areas of intersection and union."""
    shared = _area(jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:]))
    return shared, area(a) + area(b) - shared


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes one by one: (..., 4), (..., 4) -> (...) in [0, 1]; sizes of 1 are repeated."""
    return _quotient(*_overlap(a.astype(jnp.float32), b.astype(jnp.float32)))


def giou(a: Array, b: Array) -> Array:
    """Generalised IoU, one by one, in [-1, 1]: IoU less the share of the smallest enclosing box that neither covers
    (arXiv:1902.09630, algorithm 1). Its gradient also moves boxes that do not overlap."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    shared, union = _overlap(a, b)
    hull = _area(jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:]))
    return _quotient(shared, union) - _quotient(hull - union, hull)


def pairwise_iou(a: Array, b: Array) -> Array:
    """IoU of every box with every other: (..., n, 4), (..., m, 4) -> (..., n, m)."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def clip(boxes: Array, size: Sequence[float] | Array) -> Array:
    """Boxes (..., n, 4) cut at the image's border; `size` is (height, width) of all, or (..., 2) of each image."""
    size = jnp.asarray(size, jnp.float32)
    limits = jnp.concatenate([size[..., ::-1]] * 2, axis=-1)
    limits = limits.reshape((1,) * (boxes.ndim - 1) + (4,)) if limits.ndim == 1 else limits[..., None, :]
    return jnp.clip(boxes.astype(jnp.float32), 0.0, limits)


def distances(points: Array, boxes: Array) -> Array:
    """How far a box's left, top, right and bottom are from a point in it: (..., 2) as x, y, (..., 4) -> (..., 4);
    negative on the sides that the point lies beyond."""
    points, boxes = points.astype(jnp.float32), boxes.astype(jnp.float32)
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def from_distances(points: Array, ltrb: Array) -> Array:
    """The reverse of `distances`: (..., 2), (..., 4) -> boxes (..., 4)."""
    points, ltrb = points.astype(jnp.float32), ltrb.astype(jnp.float32)
    return jnp.concatenate([points - ltrb[..., :2], points + ltrb[..., 2:]], axis=-1)
