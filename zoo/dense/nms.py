"""From scored boxes to detections, with static shapes.

Every function works under jit on one image. Use `jax.vmap` for a batch, or `detections` for the usual case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from zoo.dense.boxes import iou, pairwise_iou

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Num, Shaped


class Candidates(NamedTuple):
    """The best-scoring (point, class) pairs of a level.

    Attributes:
        points: index of the point.
        labels: index of the class.
        scores: score of the pair.
        valid: False for the rows that only fill up the array.
    """

    points: Integer[Array, " n"]
    labels: Integer[Array, " n"]
    scores: Float[Array, " n"]
    valid: Bool[Array, " n"]


def top_candidates(scores: Float[Array, "points classes"], threshold: float, count: int) -> Candidates:
    """Return the best (point, class) pairs, best first; equal scores keep their order.

    There are `count` of them, or all pairs where they are fewer. Pairs whose score does not exceed `threshold` are not
    valid.
    """
    points, classes = scores.shape
    flat = scores.astype(jnp.float32).reshape(-1)
    best, index = lax.top_k(jnp.where(flat > threshold, flat, -jnp.inf), min(count, points * classes))
    return Candidates(index // classes, index % classes, best, best > -jnp.inf)


def nms(
    boxes: Num[Array, "n 4"],
    scores: Num[Array, " n"],
    labels: Integer[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    threshold: float,
    count: int,
) -> tuple[Integer[Array, " count"], Bool[Array, " count"]]:
    """Apply greedy non-maximum suppression among boxes of the same label.

    Args:
        boxes: candidate boxes.
        scores: their scores. Of equal scores the first box wins; a box with a score that is not finite is never kept
            and suppresses nothing.
        labels: their classes.
        valid: boxes that are not valid are never kept and suppress nothing.
        threshold: IoU above which a kept box suppresses others of its label.
        count: most boxes to keep.
    Returns:
        The index of each kept box in order of score, int32, and whether that place holds a box.
    """
    boxes, scores = boxes.astype(jnp.float32), scores.astype(jnp.float32)
    # Shapes are static under jit, so nothing is removed: a box that was kept or suppressed gets the score -inf, and
    # each of `count` rounds takes the best that is left. Once only -inf is left, the places stay empty.
    alive = jnp.where(valid & jnp.isfinite(scores), scores, -jnp.inf)

    def keep_best(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        alive, index, filled = state
        best = jnp.argmax(alive).astype(jnp.int32)
        any_left = alive[best] > -jnp.inf
        overlaps = (iou(boxes[best][None], boxes) > threshold) & (labels == labels[best])
        dropped = overlaps | (jnp.arange(len(alive)) == best)
        return jnp.where(dropped, -jnp.inf, alive), index.at[i].set(best), filled.at[i].set(any_left)

    start = (alive, jnp.zeros(count, jnp.int32), jnp.zeros(count, bool))
    _, index, filled = lax.fori_loop(0, count, keep_best, start)
    return jnp.where(filled, index, 0), filled


def survivors(boxes: Num[Array, "n 4"], valid: Bool[Array, " n"], *, threshold: float) -> Bool[Array, " n"]:
    """Return which boxes greedy non-maximum suppression keeps.

    The result equals `nms` without a limit on the number of boxes. For a thousand boxes it is eight times as fast.

    Args:
        boxes: sorted by score, best first.
        valid: boxes that are not valid are not kept and suppress nothing.
        threshold: IoU above which a kept box suppresses later ones.
    """
    # `drops[i, j]`: box i, if kept, suppresses the later box j. Every round decides all boxes at once from the round
    # before, until nothing changes. A box depends on earlier ones only, so the first k are final after k rounds and the
    # fixed point is the greedy result. Chains of suppression are short: ten or twenty rounds are usual.
    order = jnp.arange(len(boxes))
    drops = (pairwise_iou(boxes, boxes) > threshold) & (order[:, None] < order[None])

    def judged(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        again = valid & ~jnp.any(drops & kept[:, None], axis=0)
        return again, jnp.any(again != kept)

    return lax.while_loop(lambda state: state[1], judged, (valid, jnp.array(True)))[0]


def detections(
    boxes: Num[Array, "b n 4"],
    scores: Num[Array, "b n"],
    labels: Integer[Array, "b n"],
    valid: Bool[Array, "b n"],
    *,
    threshold: float,
    count: int,
) -> dict[str, Shaped[Array, "b count *box"]]:
    """Apply `nms` to the candidates of each image of a batch.

    Args:
        boxes: candidate boxes.
        scores: their scores.
        labels: their classes.
        valid: False for candidates to leave out.
        threshold: IoU above which a kept box suppresses others of its label.
        count: most detections of an image.
    Returns:
        `boxes` (b, count, 4), `scores` (b, count), `labels` (b, count) int32 and `valid` (b, count), best first, with
        zeros where not valid.
    """

    def one(boxes: Array, scores: Array, labels: Array, valid: Array) -> dict[str, Array]:
        index, filled = nms(boxes, scores, labels, valid, threshold=threshold, count=count)
        return {
            "boxes": jnp.where(filled[:, None], boxes[index].astype(jnp.float32), 0.0),
            "scores": jnp.where(filled, scores[index].astype(jnp.float32), 0.0),
            "labels": jnp.where(filled, labels[index].astype(jnp.int32), 0),
            "valid": filled,
        }

    return jax.vmap(one)(boxes, scores, labels, valid)
