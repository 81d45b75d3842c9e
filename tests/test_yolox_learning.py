"""SimOTA and YOLOX's losses against slow references written as the paper reads."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from jax import Array

from zoo.adapters.detector import simota, yolox
from zoo.dense.points import grid_points

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Assignment --------------------------------------------------------------------------------------------------------

SIZES, STRIDES = [(4, 4), (2, 2)], [8.0, 16.0]
POINTS = np.concatenate(grid_points(SIZES, [(s, s) for s in STRIDES], 0.5))
STEPS = np.repeat(np.array(STRIDES, np.float32), [16, 4])
COUNT, TRUTHS, CLASSES = len(POINTS), 5, 3
examples = settings(max_examples=120, deadline=None, database=None, derandomize=True)
# Few different numbers: ties, touching, identical, empty and outlying boxes all come up, and borders through points.
corner = st.sampled_from([-8.0, 0.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0])
box = st.tuples(corner, corner, corner, corner).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
logit = st.sampled_from([-40.0, -2.0, 0.0, 1.0, 3.0, 40.0])


def rows(element: Any, count: int, dtype: Any = np.float32) -> Any:
    return st.lists(element, min_size=count, max_size=count).map(lambda values: np.array(values, dtype))


truths = st.tuples(
    rows(box, TRUTHS), rows(st.integers(0, CLASSES - 1), TRUTHS, np.int32), rows(st.booleans(), TRUTHS, bool)
)


def slow_iou(a: Any, b: Any) -> float:
    wide, high = (max(0.0, float(min(a[i + 2], b[i + 2])) - float(max(a[i], b[i]))) for i in (0, 1))
    whole = sum(float(x[2] - x[0]) * float(x[3] - x[1]) for x in (a, b)) - wide * high
    return wide * high / whole if whole > 0 else 0.0


def slow_log(p: float) -> float:
    return max(math.log(p), -100.0) if p > 0 else -100.0


def slow_prices(
    found: Any, logits: Any, objectness: Any, boxes: Any, labels: Any, valid: Any
) -> tuple[np.ndarray, np.ndarray]:
    overlap = np.array([[slow_iou(box, other) for other in found] for box in boxes])
    inside, close = np.zeros((2, TRUTHS, COUNT), bool)
    for j, (x1, y1, x2, y2) in enumerate(boxes):
        for i, (x, y) in enumerate(POINTS):
            inside[j, i] = valid[j] and x1 < x < x2 and y1 < y < y2
            away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            close[j, i] = valid[j] and away < 2.5 * STEPS[i]
    cost = np.full((TRUTHS, COUNT), np.inf)
    for j in np.flatnonzero(valid):
        for i in np.flatnonzero((inside | close).any(0)):
            chances = [1 / (1 + math.exp(-float(z))) for z in (*logits[i], objectness[i])]
            p = [math.sqrt(chance * chances[-1]) for chance in chances[:-1]]
            of_class = -sum(slow_log(p[c] if c == labels[j] else 1 - p[c]) for c in range(CLASSES))
            cost[j, i] = of_class - 3 * math.log(overlap[j, i] + 1e-8)
            cost[j, i] += 0 if inside[j, i] and close[j, i] else 1e5
    return overlap, cost


def slow_match(overlap: np.ndarray, cost: np.ndarray) -> list[int]:
    takers: list[list[int]] = [[] for _ in range(cost.shape[1])]
    for j, row in enumerate(cost):
        possible = [i for i in range(len(row)) if row[i] < math.inf]
        best = sorted((float(overlap[j, i]) for i in possible), reverse=True)[:10]
        # Where a sum of thirds is a whole number its rounding decides, which nobody promises.
        exact = abs(sum(best) - round(sum(best))) > 1e-4 or all((64 * share).is_integer() for share in best)
        if not exact:
            reject()
        for i in sorted(possible, key=lambda i: (row[i], i))[: max(int(sum(best)), 1)]:
            takers[i].append(j)
    return [
        -1 if not by else by[0] if len(by) == 1 else min(range(len(cost)), key=lambda j: (cost[j, i], j))
        for i, by in enumerate(takers)
    ]


prices, match = jax.jit(simota.prices), jax.jit(simota.match)


@examples
@given(rows(box, COUNT), rows(st.tuples(*[logit] * CLASSES), COUNT), rows(logit, COUNT), truths)
def test_assignment_equals_a_slow_one(found: Any, logits: Any, objectness: Any, truth: Any) -> None:
    overlap, cost = map(np.asarray, prices(found, logits, objectness, POINTS, STEPS, *truth))
    wanted = slow_prices(found, logits, objectness, *truth)
    valid = truth[2]
    np.testing.assert_allclose(overlap[valid], wanted[0][valid], atol=1e-6)
    # A float32 near the penalty has steps of 0.008.
    np.testing.assert_allclose(cost, wanted[1], atol=2e-3, rtol=2e-7)
    assert match(overlap, cost).tolist() == slow_match(overlap, cost)


@examples
@given(
    rows(rows(st.sampled_from([0.0, 0.25, 0.5, 1.0]), COUNT), TRUTHS),
    rows(rows(st.sampled_from([1.0, 2.0, 3.0, math.inf]), COUNT), TRUTHS),
)
def test_matching_of_any_prices_equals_a_slow_one(overlap: Any, cost: Any) -> None:
    assert match(overlap, cost).tolist() == slow_match(overlap, cost)


def test_fewer_points_than_the_overlaps_that_are_summed() -> None:
    overlap, cost = np.full((2, 3), 0.75, np.float32), np.array([[1, 2, 3], [9, 1, 2]], np.float32)
    assert match(overlap, cost).tolist() == [0, 1, 1] == slow_match(overlap, cost)


# Learning ----------------------------------------------------------------------------------------------------------


def outputs_of(random: np.random.Generator, images: int, spread: float = 1.0) -> dict[str, Any]:
    def draw(*shape: int) -> Array:
        return jnp.asarray(spread * random.standard_normal(shape), jnp.float32)

    raw = {"cls_preds": draw(images, COUNT, CLASSES), "reg_preds": draw(images, COUNT, 4)}
    cuts = [SIZES[0][0] * SIZES[0][1]]
    levels = {"points": jnp.split(jnp.asarray(POINTS), cuts), "strides": jnp.split(jnp.asarray(STEPS), cuts)}
    return raw | {"obj_preds": draw(images, COUNT, 1)} | levels


def slow_losses(outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, list[float]]:
    raw, logits, objectness = (np.asarray(outputs[k], np.float64) for k in ("reg_preds", "cls_preds", "obj_preds"))

    def entropy(z: float, wanted: float) -> float:
        return math.log1p(math.exp(-abs(z))) + max(z, 0.0) - wanted * z

    sums: dict[str, list[float]] = {name: [] for name in ("reg_preds", "obj_preds", "cls_preds", "l1")}
    positives = 0
    for b in range(len(raw)):
        centre = POINTS + (raw[b, :, :2] - 0.5) * STEPS[:, None]
        half = np.exp(raw[b, :, 2:]) * STEPS[:, None] / 2
        found = np.concatenate([centre - half, centre + half], axis=1)
        truth = [targets[name][b] for name in ("boxes", "labels", "box_valid")]
        rounded = (np.float32(found), outputs["cls_preds"][b], outputs["obj_preds"][b, :, 0])
        matched = slow_match(*map(np.asarray, prices(*rounded, POINTS, STEPS, *truth)))
        total = dict.fromkeys(sums, 0.0)
        for i, j in enumerate(matched):
            total["obj_preds"] += entropy(objectness[b, i, 0], float(j >= 0))
            if j < 0:
                continue
            x1, y1, x2, y2 = map(float, truth[0][j])
            share = slow_iou(found[i], (x1, y1, x2, y2))
            total["reg_preds"] += 5 * (1 - share**2)
            for c in range(CLASSES):
                total["cls_preds"] += entropy(logits[b, i, c], share if c == truth[1][j] else 0.0)
            x, y = (x1 + x2) / 2 / STEPS[i] - (POINTS[i] / STEPS[i] - 0.5)[0], (y1 + y2) / 2 / STEPS[i]
            y -= (POINTS[i] / STEPS[i] - 0.5)[1]
            sides = [math.log(side / STEPS[i] + 1e-8) for side in (x2 - x1, y2 - y1)]
            total["l1"] += sum(abs(a - b) for a, b in zip(raw[b, i], (x, y, *sides), strict=True))
        positives += sum(j >= 0 for j in matched)
        for name, value in total.items():
            sums[name].append(value)
    return {name: [one * len(raw) / max(positives, 1) for one in values] for name, values in sums.items()}


def batch_of(*truth: Any, valid: tuple[bool, ...] = (True, True)) -> dict[str, Array]:
    names = ("boxes", "labels", "box_valid")
    stacked = {name: jnp.asarray(np.stack(one)) for name, one in zip(names, zip(*truth, strict=True), strict=True)}
    return stacked | {"valid": jnp.array(valid)}


NOTHING = (np.zeros((TRUTHS, 4), np.float32), np.zeros(TRUTHS, np.int32), np.zeros(TRUTHS, bool))
SOMETHING = (np.array([[2, 2, 20, 22]] * TRUTHS, np.float32), np.ones(TRUTHS, np.int32), np.arange(TRUTHS) < 1)


@jax.jit
def learn(outputs: dict[str, Any], targets: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Losses, and the gradients of their mean."""
    fixed = {name: outputs[name] for name in ("points", "strides")}

    def total(learned: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        parts = yolox.losses(learned | fixed, targets, l1=True)
        return jnp.mean(sum(parts.values(), start=jnp.zeros(()))), parts

    learned = {name: value for name, value in outputs.items() if name not in fixed}
    gradients, parts = jax.grad(total, has_aux=True)(learned)
    return parts, gradients


@settings(examples, max_examples=60)
@given(st.integers(0, 10**6), truths, truths)
def test_losses_equal_slow_ones(seed: int, first: Any, second: Any) -> None:
    outputs, targets = outputs_of(np.random.default_rng(seed), 2), batch_of(first, second)
    (found, _), wanted = learn(outputs, targets), slow_losses(outputs, targets)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@settings(examples, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 30.0, 1e4]), truths, truths)
def test_losses_and_gradients_are_finite(seed: int, spread: float, first: Any, second: Any) -> None:
    found = learn(outputs_of(np.random.default_rng(seed), 2, spread), batch_of(first, second))
    assert all(np.isfinite(array).all() for arrays in found for array in arrays.values())


def test_a_batch_without_boxes_teaches_that_there_is_no_object() -> None:
    found, gradients = learn(outputs_of(np.random.default_rng(0), 2), batch_of(NOTHING, NOTHING))
    assert not any(found[name].any() for name in ("reg_preds", "cls_preds", "l1"))
    assert not gradients["cls_preds"].any() and not gradients["reg_preds"].any()
    assert (np.asarray(gradients["obj_preds"]) > 0).all()


def test_images_that_fill_up_the_batch_are_not_counted() -> None:
    outputs = outputs_of(np.random.default_rng(1), 2)
    alone = {name: x if isinstance(x, list) else x[:1] for name, x in outputs.items()}
    wanted = slow_losses(alone, batch_of(SOMETHING, valid=(True,)))
    found, _ = learn(outputs, batch_of(SOMETHING, SOMETHING, valid=(True, False)))
    for name, (value,) in wanted.items():
        assert float(found[name][0]) == pytest.approx(value, rel=1e-4), name


def test_half_precision_outputs_give_full_precision_losses_and_boxes() -> None:
    outputs = outputs_of(np.random.default_rng(2), 2)
    half = {name: x if isinstance(x, list) else x.astype(jnp.bfloat16) for name, x in outputs.items()}
    found = jax.eval_shape(partial(yolox.losses, l1=True), half, batch_of(SOMETHING, NOTHING))
    kept = jax.eval_shape(partial(yolox.decode, size=(32, 32)), half)
    assert {x.dtype for x in [*found.values(), kept["boxes"], kept["scores"]]} == {jnp.dtype(jnp.float32)}


def test_the_least_loss_is_where_the_truth_is_detected() -> None:
    boxes = [[14.0, 12.0, 31.0, 30.0], [1.0, 2.0, 15.0, 14.0]]
    rows, labels = np.zeros((TRUTHS, 4), np.float32), np.array([0, 2, 0, 0, 0], np.int32)
    rows[:2] = boxes
    targets = batch_of(*[(rows, labels, np.arange(TRUTHS) < 2)] * 2)
    outputs = outputs_of(np.random.default_rng(3), 2, 0.1)
    for step in range(300):
        _, gradients = learn(outputs, targets)
        outputs |= {name: outputs[name] - 0.5 / (1 + 0.1 * step) * g for name, g in gradients.items()}
    found = jax.jit(partial(yolox.decode, size=(32, 32), pre_nms_threshold=0.3))(outputs)
    for kept, labels, rows in zip(*(np.asarray(found[name]) for name in ("valid", "labels", "boxes")), strict=True):
        best = {int(label): box for label, box in zip(labels[kept][::-1], rows[kept][::-1], strict=True)}
        assert best.keys() == {0, 2}
        assert slow_iou(best[0], boxes[0]) > 0.9 and slow_iou(best[2], boxes[1]) > 0.9
