"""Match boxes with the truth of an image and sample those that a two-stage detector learns from.

Faster R-CNN, arXiv:1506.01497, section 3.1.2; thresholds and ties are torchvision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.boxes import pairwise_iou

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Key, Num

BACKGROUND, UNDECIDED = -1, -2
"""Values of `match` for a box on no object, and for one that is ignored because its IoU lies between the thresholds."""


def match(
    boxes: Num[Array, "n 4"],
    truth: Num[Array, "m 4"],
    truth_valid: Bool[Array, " m"],
    *,
    high: float,
    low: float,
    best: bool,
) -> Integer[Array, " n"]:
    """Return the object that each box is matched to, int32: its index in `truth`, `BACKGROUND` or `UNDECIDED`.

    A box is matched to the object of greatest IoU, the first of equal ones, if the IoU is at least `high`. Below `low`
    it is background. An object that no box touches is matched to none.

    Args:
        boxes: anchors or proposals.
        truth: true boxes.
        truth_valid: False for padding.
        high: IoU.
        low: IoU.
        best: whether the best boxes of each object are matched even below `high`.
    """
    # Both maxima, and what equals them, must be of the same numbers: computed twice they may differ in the last bit.
    overlaps = lax.optimization_barrier(jnp.where(truth_valid[:, None], pairwise_iou(truth, boxes), -1.0))
    greatest, nearest = jnp.max(overlaps, axis=0), jnp.argmax(overlaps, axis=0).astype(jnp.int32)
    matched = jnp.where(greatest >= high, nearest, jnp.where(greatest < low, BACKGROUND, UNDECIDED))
    if best:
        # So that each object has a positive, however little anchors overlap it. As in torchvision, such a box goes to
        # the object that it overlaps most, which may differ from the one it is best for.
        of_object = jnp.max(overlaps, axis=1, keepdims=True)
        matched = jnp.where(jnp.any((overlaps == of_object) & (of_object > 0), axis=0), nearest, matched)
    return matched.astype(jnp.int32)


class Sample(NamedTuple):
    """A random sample of boxes of fixed size.

    Attributes:
        chosen: indices of the boxes, int32.
        valid: which of them were drawn. The others fill up the array.
    """

    chosen: Integer[Array, " count"]
    valid: Bool[Array, " count"]


def _drawn(key: Key[Array, ""], among: Bool[Array, " n"], count: int) -> Sample:
    """Draw `count` of the boxes marked in `among`, or all if they are fewer."""
    # The `count` highest of one random number per box are a uniform sample without replacement, of static shape.
    lots = jnp.where(among, jax.random.uniform(key, among.shape), -1.0)
    best, index = lax.top_k(lots, min(count, len(among)))
    return Sample(index.astype(jnp.int32), best >= 0)


def sample(
    key: Key[Array, ""], positive: Bool[Array, " n"], negative: Bool[Array, " n"], *, count: int, fraction: float
) -> Sample:
    """Draw min(count, n) boxes, positive ones first. At most `fraction` of `count` are positive; negatives fill up."""
    of_objects, others = (
        _drawn(key, among, most)
        for key, among, most in zip(
            jax.random.split(key), (positive, negative), (int(count * fraction), count), strict=True
        )
    )
    index, valid = (jnp.concatenate(pair) for pair in zip(of_objects, others, strict=True))
    # Of equal numbers top_k takes the first: the valid boxes move to the front, positives before negatives.
    _, places = lax.top_k(valid.astype(jnp.float32), min(count, len(positive)))
    return Sample(index[places], valid[places])


def smooth_l1(predicted: Float[Array, "*n"], target: Float[Array, "*n"], beta: float = 1 / 9) -> Float[Array, "*n"]:
    """Return the smooth L1 loss of each number (arXiv:1504.08083, eq. 3): quadratic below `beta`, linear above."""
    distance = jnp.abs(predicted - target)
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def averaged(sums: Float[Array, " b"], sampled: Integer[Array, " b"], counted: Bool[Array, " b"]) -> Float[Array, " b"]:
    """Scale each image's sum over its samples by images / samples, both of the whole batch.

    The mean over images is then the batch's sum divided by its samples, as in torchvision.

    Args:
        sums: sum over the samples of each image.
        sampled: number of samples of each image.
        counted: False for images that only fill up the batch.
    """
    share = jnp.sum(counted) / jnp.maximum(jnp.sum(jnp.where(counted, sampled, 0)), 1)
    return jnp.where(counted, sums, 0.0) * share
