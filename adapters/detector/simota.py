"""SimOTA label assignment: match predictions to objects by what the network already predicts, with static shapes.

Papers: arXiv:2107.08430, section 2.1, after OTA, arXiv:2103.14259. Constants and geometry are those of YOLOX 0.1.0 to
0.3.0, which made the published weights. Later code differs: a radius of 1.5 strides whether or not the point is in the
box, and a penalty of 1e6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.boxes import distances, pairwise_iou

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Num

RADIUS = 2.5
"""Largest distance of a candidate from the centre of a box along each axis, in strides."""
PENALTY = 1e5
"""Cost of a point that is not both inside a box and close to its centre."""
MOST = 10
"""Number of best IoUs whose sum gives the number of predictions of a box."""


class Prices(NamedTuple):
    """The cost of each match of a box with a prediction.

    Attributes:
        overlap: IoU of each box with each prediction.
        cost: infinite where no match is possible, because the box is padding or the point is no candidate.
    """

    overlap: Float[Array, "m n"]
    cost: Float[Array, "m n"]


def _inside(ltrb: Float[Array, "*n 4"]) -> Bool[Array, "*n"]:
    return jnp.min(ltrb, axis=-1) > 0


def prices(
    predicted: Float[Array, "n 4"],
    logits: Float[Array, "n classes"],
    objectness: Float[Array, " n"],
    points: Float[Array, "n 2"],
    strides: Float[Array, " n"],
    boxes: Num[Array, "m 4"],
    labels: Integer[Array, " m"],
    valid: Bool[Array, " m"],
) -> Prices:
    """Return the cost of each prediction for each box.

    The cost is the classification loss, plus 3 times -log IoU, plus a penalty unless the point is both inside the box
    and within 2.5 strides of its centre along each axis. A point is a candidate if it is inside any box, or that close
    to the centre of any.

    Args:
        predicted: predicted boxes.
        logits: of the classes.
        objectness: logits.
        points: x, y in pixels.
        strides: in pixels.
        boxes: true boxes.
        labels: their classes.
        valid: False for padding.
    """
    boxes = jnp.where(valid[:, None], boxes.astype(jnp.float32), 0.0)
    inside = _inside(distances(points[None], boxes[:, None])) & valid[:, None]
    centre, reach = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, RADIUS * strides[None, :, None]
    around = jnp.concatenate([centre - reach, centre + reach], axis=-1)
    close = _inside(distances(points[None], around)) & valid[:, None]
    candidate = jnp.any(inside | close, axis=0)

    overlap = pairwise_iou(boxes, predicted)
    p = jnp.sqrt(jax.nn.sigmoid(logits.astype(jnp.float32)) * jax.nn.sigmoid(objectness.astype(jnp.float32))[:, None])
    # A logarithm of zero counts as -100, which is torch's rule.
    yes, no = (jnp.maximum(log, -100.0) for log in (jnp.log(p), jnp.log1p(-p)))
    hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    exact = lax.Precision.HIGHEST
    of_class = -jnp.matmul(hot, yes.T, precision=exact) - jnp.matmul(1 - hot, no.T, precision=exact)
    cost = of_class - 3 * jnp.log(overlap + 1e-8) + jnp.where(inside & close, 0.0, PENALTY)
    return Prices(overlap, jnp.where(candidate[None] & valid[:, None], cost, jnp.inf))


def match(overlap: Float[Array, "m n"], cost: Float[Array, "m n"]) -> Integer[Array, " n"]:
    """Return the index of the box that each prediction is matched to, int32; -1 for none.

    A box takes its k predictions of lowest cost, where k is the sum of its ten best IoUs, rounded down and at least 1.
    A prediction that several boxes take goes to the one with the lowest cost. The first of equal costs counts.

    Args:
        overlap: see `Prices`.
        cost: see `Prices`.
    """
    # "Dynamic k" (OTA, section 3.3): where many predictions already overlap a box, it can have many positives; early
    # in training, or for a small box, the sum is below 2 and it gets a single one.
    # k differs by box, but shapes must not. Every box ranks its ten cheapest predictions, and `taken` keeps the first
    # k of them. Ten is enough, because k is a sum of ten IoUs.
    possible, most = jnp.isfinite(cost), min(MOST, cost.shape[1])
    best, _ = lax.top_k(jnp.where(possible, overlap, 0.0), most)
    counts = jnp.maximum(jnp.sum(best, axis=1).astype(jnp.int32), 1)
    lowest, index = lax.top_k(-cost, most)
    taken = (jnp.arange(most)[None] < counts[:, None]) & jnp.isfinite(lowest)
    rows = jnp.arange(len(cost))[:, None]
    taken_by = jnp.zeros(cost.shape, bool).at[rows, index].set(taken)
    times = jnp.sum(taken_by, axis=0)
    chosen = jnp.where(times > 1, jnp.argmin(cost, axis=0), jnp.argmax(taken_by, axis=0))
    return jnp.where(times > 0, chosen, -1).astype(jnp.int32)
