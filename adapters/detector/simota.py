"""SimOTA: which predictions are to find which object, told by what they are already good at (arXiv:2107.08430, section
2.1, after arXiv:2103.14259), with shapes that do not depend on the objects.

Constants and geometry are those of YOLOX's releases 0.1.0 to 0.3.0, with which the published weights were made. Its
later code differs: a radius of 1.5 strides whether or not the point is in the box, and a penalty of 1e6.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.boxes import distances, pairwise_iou

RADIUS = 2.5
PENALTY = 1e5
MOST = 10


class Prices(NamedTuple):
    """What each match would cost.

    Attributes:
        overlap: IoU of each prediction with each box, (m, n). cost: the same shape; infinite where there can be no
            match, because the box pads the array or the point is no candidate.
    """

    overlap: Array
    cost: Array


def _inside(ltrb: Array) -> Array:
    return jnp.min(ltrb, axis=-1) > 0


def prices(
    found: Array,
    logits: Array,
    objectness: Array,
    points: Array,
    strides: Array,
    boxes: Array,
    labels: Array,
    valid: Array,
) -> Prices:
    """Cost of each prediction for each box: that of its class, 3 times -log of the IoU, and a penalty unless its point
    is both inside the box and closer than 2.5 strides to the box's centre along either axis.

    A point is a candidate where it is inside any box, or that close to the centre of any.

    Args:
        found: predicted boxes (n, 4). logits, objectness: (n, classes), (n,). points, strides: (n, 2) as x, y, (n,).
        boxes, labels, valid: (m, 4), (m,), (m,).
    """
    boxes = jnp.where(valid[:, None], boxes.astype(jnp.float32), 0.0)
    inside = _inside(distances(points[None], boxes[:, None])) & valid[:, None]
    centre, reach = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, RADIUS * strides[None, :, None]
    around = jnp.concatenate([centre - reach, centre + reach], axis=-1)
    close = _inside(distances(points[None], around)) & valid[:, None]
    candidate = jnp.any(inside | close, axis=0)

    overlap = pairwise_iou(boxes, found)
    p = jnp.sqrt(jax.nn.sigmoid(logits.astype(jnp.float32)) * jax.nn.sigmoid(objectness.astype(jnp.float32))[:, None])
    # A logarithm of zero counts as -100, which is torch's rule.
    yes, no = (jnp.maximum(log, -100.0) for log in (jnp.log(p), jnp.log1p(-p)))
    hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    exact = lax.Precision.HIGHEST
    of_class = -jnp.matmul(hot, yes.T, precision=exact) - jnp.matmul(1 - hot, no.T, precision=exact)
    cost = of_class - 3 * jnp.log(overlap + 1e-8) + jnp.where(inside & close, 0.0, PENALTY)
    return Prices(overlap, jnp.where(candidate[None] & valid[:, None], cost, jnp.inf))


def match(overlap: Array, cost: Array) -> Array:
    """The box that each prediction is to find: `Prices` (m, n) -> (n,) int32, -1 for none.

    A box takes as many predictions as its ten best overlaps add up to, rounded down and at least one, at the lowest
    cost, of equal ones the first. A prediction that several boxes take goes to the box where its cost is lowest.
    """
    possible, most = jnp.isfinite(cost), min(MOST, cost.shape[1])
    best, _ = lax.top_k(jnp.where(possible, overlap, 0.0), most)
    wanted = jnp.maximum(jnp.sum(best, axis=1).astype(jnp.int32), 1)
    lowest, index = lax.top_k(-cost, most)
    taken = (jnp.arange(most)[None] < wanted[:, None]) & jnp.isfinite(lowest)
    rows = jnp.arange(len(cost))[:, None]
    taken_by = jnp.zeros(cost.shape, bool).at[rows, index].set(taken)
    times = jnp.sum(taken_by, axis=0)
    chosen = jnp.where(times > 1, jnp.argmin(cost, axis=0), jnp.argmax(taken_by, axis=0))
    return jnp.where(times > 0, chosen, -1).astype(jnp.int32)
