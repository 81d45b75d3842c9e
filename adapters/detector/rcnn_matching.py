"""Which boxes a two-stage detector learns from: matched with the truth, then sampled; all on one image.

Faster R-CNN, arXiv:1506.01497, section 3.1.2; thresholds and ties are torchvision's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.boxes import pairwise_iou

BACKGROUND, UNDECIDED = -1, -2
"""What `match` says of a box that shows no object, and of one that may or may not."""


def match(boxes: Array, truth: Array, shown: Array, *, high: float, low: float, best: bool) -> Array:
    """The object that each box shows: (n,) int32, index in the truth, `BACKGROUND` or `UNDECIDED`.

    It is the one with the greatest IoU, the first of equal ones, where that is `high` or more; below `low` it is the
    background. With `best`, boxes whose IoU with some object no other box exceeds show something, too: the object
    that they overlap most, which need not be that one. An object that no box touches is nobody's.

    Args:
        boxes: (n, 4). truth, shown: (m, 4), (m,): objects, and which of them are more than padding.
    """
    # Both maxima, and what equals them, must be of the same numbers: computed twice they may differ in the last bit.
    overlaps = lax.optimization_barrier(jnp.where(shown[:, None], pairwise_iou(truth, boxes), -1.0))
    greatest, nearest = jnp.max(overlaps, axis=0), jnp.argmax(overlaps, axis=0).astype(jnp.int32)
    found = jnp.where(greatest >= high, nearest, jnp.where(greatest < low, BACKGROUND, UNDECIDED))
    if best:
        of_object = jnp.max(overlaps, axis=1, keepdims=True)
        found = jnp.where(jnp.any((overlaps == of_object) & (of_object > 0), axis=0), nearest, found)
    return found.astype(jnp.int32)


class Sample(NamedTuple):
    """Which boxes were drawn, (count,) int32, and whether there is one there (count,)."""

    chosen: Array
    valid: Array


def _drawn(key: Array, among: Array, count: int) -> Sample:
    """`count` of the boxes marked in `among` (n,), or all where they are fewer, at random."""
    lots = jnp.where(among, jax.random.uniform(key, among.shape), -1.0)
    best, index = lax.top_k(lots, min(count, len(among)))
    return Sample(index.astype(jnp.int32), best >= 0)


def sample(key: Array, positive: Array, negative: Array, *, count: int, fraction: float) -> Sample:
    """At most `count` boxes at random, at most `fraction` of them `positive` (n,), and `negative` (n,) ones in the
    place of missing positive ones; the positive ones first. There are min(count, n) places."""
    of_objects, others = (
        _drawn(key, among, most)
        for key, among, most in zip(
            jax.random.split(key), (positive, negative), (int(count * fraction), count), strict=True
        )
    )
    index, valid = (jnp.concatenate(pair) for pair in zip(of_objects, others, strict=True))
    # Of equal numbers top_k takes the first: those that are there move together, the positive ones before the others.
    _, places = lax.top_k(valid.astype(jnp.float32), min(count, len(positive)))
    return Sample(index[places], valid[places])


def smooth_l1(found: Array, wanted: Array, beta: float = 1 / 9) -> Array:
    """Half the squared distance over `beta` below `beta`, the distance less half of `beta` above it
    (arXiv:1504.08083, eq. 3), of each number."""
    distance = jnp.abs(found - wanted)
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def averaged(sums: Array, sampled: Array, counted: Array) -> Array:
    """Sums over each image's samples, (b,), times (images / samples in the whole batch): their mean over the images is
    the batch's sum over its samples, as torchvision divides. Only images that are `counted` (b,) are images."""
    share = jnp.sum(counted) / jnp.maximum(jnp.sum(jnp.where(counted, sampled, 0)), 1)
    return jnp.where(counted, sums, 0.0) * share
