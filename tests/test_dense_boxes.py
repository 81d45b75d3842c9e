"""Boxes and non-maximum suppression against slow, obvious references."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.dense import boxes as bx
from zoo.dense.nms import detections, nms, top_candidates

COUNT = 10
examples = settings(max_examples=150, deadline=None, database=None, derandomize=True)
# Few different numbers: ties, identical boxes, touching boxes and empty boxes all come up.
corner = st.integers(0, 6).map(float)
box = st.tuples(corner, corner, corner, corner).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
some_boxes = st.lists(box, min_size=COUNT, max_size=COUNT).map(lambda rows: np.array(rows, np.float32))
some_scores = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=COUNT, max_size=COUNT).map(
    lambda row: np.array(row, np.float32)
)
some_labels = st.lists(st.integers(0, 2), min_size=COUNT, max_size=COUNT).map(lambda row: np.array(row, np.int32))
some_flags = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).map(lambda row: np.array(row, bool))


def slow_iou(a: Any, b: Any, *, generalised: bool = False) -> float:
    """By counting: the corners are whole numbers."""

    def pixels(box: Any) -> set[tuple[int, int]]:
        return {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}

    shared, union = pixels(a) & pixels(b), pixels(a) | pixels(b)
    value = len(shared) / len(union) if union else 0.0
    if not generalised:
        return value
    hull = pixels((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    return value - ((len(hull) - len(union)) / len(hull) if hull else 0.0)


def slow_nms(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, valid: np.ndarray, threshold: float
) -> list[int]:
    left = sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *rest = left
        kept.append(int(best))
        left = [i for i in rest if labels[i] != labels[best] or slow_iou(boxes[best], boxes[i]) <= threshold]
    return kept


# Overlaps ----------------------------------------------------------------------------------------------------------

pairwise = jax.jit(lambda a, b: (bx.pairwise_iou(a, b), bx.giou(a[:, None], b[None]), bx.iou(a, b), bx.giou(a, b)))


@examples
@given(some_boxes, some_boxes)
def test_overlaps_equal_counted_pixels(a: np.ndarray, b: np.ndarray) -> None:
    found = pairwise(a, b)
    for values, generalised in zip(found, (False, True, False, True), strict=True):
        if values.ndim == 2:
            wanted = np.array([[slow_iou(p, q, generalised=generalised) for q in b] for p in a])
        else:
            wanted = np.array([slow_iou(p, q, generalised=generalised) for p, q in zip(a, b, strict=True)])
        np.testing.assert_allclose(values, wanted, atol=1e-6)


@jax.jit
def gradients(a: jax.Array, b: jax.Array) -> Any:
    return jax.grad(lambda a, b: jnp.sum(bx.giou(a[:, None], b[None])) + jnp.sum(bx.pairwise_iou(a, b)), (0, 1))(a, b)


@examples
@given(some_boxes, some_boxes)
def test_gradients_of_overlaps_are_finite(a: np.ndarray, b: np.ndarray) -> None:
    a[0] = b[0] = 0  # a padded row
    a[1] = b[1]
    for gradient in gradients(a, b):
        assert np.isfinite(gradient).all()


def test_apart_boxes_move_towards_each_other_by_giou_only() -> None:
    a, b = jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[4.0, 0.0, 6.0, 2.0]])
    by_iou, by_giou = (jax.grad(lambda a, f=f: jnp.sum(f(a, b)))(a) for f in (bx.iou, bx.giou))
    assert not by_iou.any()
    assert by_giou[0, 2] > 0


def test_overlaps_are_computed_in_float32() -> None:
    a = jnp.array([[0, 0, 300, 300]], jnp.bfloat16)
    b = jnp.array([[0, 0, 302, 302]], jnp.bfloat16)
    for function in (bx.iou, bx.giou, bx.pairwise_iou):
        assert function(a, b).dtype == jnp.float32
    assert float(bx.iou(a, b)[0]) == pytest.approx(300**2 / 302**2, rel=1e-6)
    assert bx.area(a).dtype == jnp.float32 and float(bx.area(a)[0]) == 90000


def test_inverted_boxes_have_no_area_and_overlap_nothing() -> None:
    inverted, whole = jnp.array([[4.0, 4.0, 1.0, 1.0]]), jnp.array([[0.0, 0.0, 5.0, 5.0]])
    assert bx.area(inverted)[0] == 0 and bx.iou(inverted, whole)[0] == 0


# Coordinates -------------------------------------------------------------------------------------------------------


def test_boxes_are_cut_at_the_border_of_all_images_or_of_each() -> None:
    boxes = jnp.array([[[-3.0, -2.0, 50.0, 40.0]], [[1.0, 2.0, 3.0, 4.0]]])
    assert bx.clip(boxes, (30, 20)).tolist() == [[[0, 0, 20, 30]], [[1, 2, 3, 4]]]
    each = jnp.array([[30, 20], [3, 2]])
    assert bx.clip(boxes, each).tolist() == [[[0, 0, 20, 30]], [[1, 2, 2, 3]]]


def test_distances_and_boxes_are_each_others_reverse() -> None:
    points, boxes = jnp.array([[4.0, 5.0], [0.0, 0.0]]), jnp.array([[1.0, 3.0, 10.0, 6.0], [1.0, 1.0, 2.0, 2.0]])
    ltrb = bx.distances(points, boxes)
    assert ltrb.tolist() == [[3, 2, 6, 1], [-1, -1, 2, 2]]
    assert np.array_equal(bx.from_distances(points, ltrb), boxes)


# Suppression -------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("threshold", "count"))
def suppress(
    boxes: Any, scores: Any, labels: Any, valid: Any, *, threshold: float, count: int
) -> tuple[jax.Array, jax.Array]:
    return nms(boxes, scores, labels, valid, threshold=threshold, count=count)


@examples
@given(some_boxes, some_scores, some_labels, some_flags, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_suppression_equals_greedy(boxes: Any, scores: Any, labels: Any, valid: Any, threshold: float) -> None:
    wanted = slow_nms(boxes, scores, labels, valid, threshold)
    for count in (4, COUNT, COUNT + 3):
        index, found = suppress(boxes, scores, labels, valid, threshold=threshold, count=count)
        assert np.asarray(index)[np.asarray(found)].tolist() == wanted[:count]
        assert not np.asarray(index)[~np.asarray(found)].any()


def test_suppression_of_hundreds_of_boxes_equals_greedy() -> None:
    random = np.random.default_rng(0)
    corners = random.integers(0, 60, (400, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, (400, 2))], axis=1).astype(np.float32)
    scores = random.integers(0, 100, 400).astype(np.float32)  # many ties
    labels = random.integers(0, 3, 400).astype(np.int32)
    valid = random.random(400) < 0.9
    index, found = suppress(boxes, scores, labels, valid, threshold=0.5, count=100)
    assert found.all()
    assert index.tolist() == slow_nms(boxes, scores, labels, valid, 0.5)[:100]


def test_what_is_not_a_number_is_never_kept() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [5, 5, 6, 6]], np.float32)
    scores = np.array([np.nan, 0.5, np.inf], np.float32)
    index, found = suppress(boxes, scores, np.zeros(3, np.int32), np.ones(3, bool), threshold=0.5, count=3)
    assert found.tolist() == [True, False, False] and index[0] == 1


six_detections = jax.jit(partial(detections, threshold=0.5, count=6))


@examples
@given(some_boxes, some_scores, some_labels, some_flags)
def test_a_batch_is_suppressed_image_by_image(boxes: Any, scores: Any, labels: Any, valid: Any) -> None:
    pair = [np.stack([x, x[::-1]]) for x in (boxes, scores, labels, valid)]
    pair[3][1] = False
    found = six_detections(*pair)
    wanted = slow_nms(boxes, scores, labels, valid, 0.5)[:6]
    n = len(wanted)
    assert found["valid"][0].tolist() == [True] * n + [False] * (6 - n)
    for name, given_ones in (("boxes", boxes), ("scores", scores), ("labels", labels)):
        assert np.array_equal(found[name][0][:n], given_ones[wanted])
        assert not found[name][0][n:].any()
        assert not found[name][1].any(), "no box of the second image is valid"
    assert not found["valid"][1].any() and found["labels"].dtype == jnp.int32


# Candidates --------------------------------------------------------------------------------------------------------


candidates = jax.jit(top_candidates, static_argnums=(1, 2))


@examples
@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=12, max_size=12), st.sampled_from([3, 12, 20]))
def test_candidates_are_the_best_above_the_threshold(values: list[float], count: int) -> None:
    scores = np.array(values, np.float32).reshape(4, 3)
    found = candidates(scores, 0.2, count)
    order = sorted(range(12), key=lambda i: (-values[i], i))
    wanted = [divmod(i, 3) for i in order if values[i] > 0.2][:count]
    assert len(found.scores) == min(count, 12)
    assert [*zip(found.points.tolist(), found.labels.tolist(), strict=True)][: len(wanted)] == wanted
    assert found.valid.tolist() == [True] * len(wanted) + [False] * (len(found.valid) - len(wanted))
    assert not np.isfinite(found.scores[len(wanted) :]).any()
