"""Losses and figures of masks: equal to slow, obvious ones, and defined where nothing counts."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zoo.adapters.segmenter.losses import LOSSES
from zoo.data.masks import IGNORE
from zoo.dense.losses import Shape, class_maps, segmentation_losses
from zoo.dense.originals import batch_labels_at
from zoo.dense.segmentation import TOLERANCE, SegmentationEvaluation, boundary_f1
from zoo.errors import ConfigError, UnknownNameError

CLASSES, SIZE = 3, (5, 6)
SHAPE = Shape(alpha=0.3, beta=0.7, gamma=2.0)
WEIGHTS = (0.5, 1.0, 2.0)

masks = hnp.arrays(np.uint8, (2, *SIZE), elements=st.sampled_from([0, 1, 2, IGNORE]))
seeds = st.integers(0, 2**32 - 1)


# Losses, pixel by pixel in float64 -------------------------------------------------------------------------------


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def slow(name: str, logits: np.ndarray, mask: np.ndarray) -> float:
    """A loss of one image, by its definition."""
    p = probabilities(logits.astype(np.float64)).reshape(-1, CLASSES)
    true = mask.ravel()
    kept = [i for i in range(len(true)) if true[i] != IGNORE]
    if not kept:
        return 0.0
    if name == "ce":
        return sum(-WEIGHTS[true[i]] * math.log(p[i, true[i]]) for i in kept) / len(kept)
    if name == "focal":
        values = ((1 - p[i, true[i]]) ** SHAPE.gamma * -WEIGHTS[true[i]] * math.log(p[i, true[i]]) for i in kept)
        return sum(values) / len(kept)
    per_class = []
    for k in range(CLASSES):
        there = {i for i in kept if true[i] == k}
        if not there:
            continue
        if name == "lovasz":
            errors = {i: 1 - p[i, k] if i in there else p[i, k] for i in kept}
            wrong: set[int] = set()
            value = before = 0.0
            for i in sorted(errors, key=lambda i: -errors[i]):
                wrong.add(i)
                after = len(wrong) / len(there | wrong)  # 1 - IoU, were just these pixels taken wrongly
                value, before = value + errors[i] * (after - before), after
        else:
            alpha, beta = (0.5, 0.5) if name == "dice" else (SHAPE.alpha, SHAPE.beta)
            right = sum(p[i, k] for i in there)
            false = sum(p[i, k] for i in kept if i not in there)
            missed = sum(1 - p[i, k] for i in there)
            value = 1 - (right + 0.5) / (right + alpha * false + beta * missed + 0.5)
        per_class.append(value)
    return float(np.mean(per_class))


@jax.jit
def every_loss(logits: jax.Array, mask: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    def total(logits: jax.Array) -> tuple[jax.Array, Any]:
        parts = segmentation_losses(logits, mask, LOSSES.terms("+".join(LOSSES)), weights=WEIGHTS, shape=SHAPE)
        return sum(jnp.sum(part) for part in parts.values()), parts

    (_, parts), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return parts, gradient


@given(mask=masks, seed=seeds, scale=st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=40, deadline=None)
def test_losses_are_those_of_slow_references(mask: np.ndarray, seed: int, scale: float) -> None:
    logits = (np.random.default_rng(seed).normal(size=(2, *SIZE, CLASSES)) * scale).astype(np.float32)
    parts, gradient = every_loss(logits, mask)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[mask == IGNORE].any()
    for name, values in parts.items():
        expected = [slow(name, *one) for one in zip(logits, mask, strict=True)]
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("fill", [0, 2, IGNORE], ids=["one class", "the other class", "nothing counted"])
@pytest.mark.parametrize("sure", [0.0, 80.0, -80.0])
def test_losses_and_gradients_are_finite_whatever_is_there(fill: int, sure: float) -> None:
    mask = np.full((2, *SIZE), fill, np.uint8)
    logits = np.zeros((2, *SIZE, CLASSES), np.float32)
    logits[..., 0] = sure
    parts, gradient = every_loss(logits, mask)
    assert np.isfinite(gradient).all() and all(np.isfinite(part).all() for part in parts.values())
    if fill == IGNORE:
        assert not np.asarray(gradient).any() and not any(np.asarray(part).any() for part in parts.values())


def test_the_lovasz_loss_of_sure_answers_is_one_minus_iou() -> None:
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 2, (2, 1, *SIZE)).astype(np.uint8)
    logits = 60.0 * (np.arange(2) == found[..., None]).astype(np.float32)
    ious = [((true == k) & (found == k)).sum() / ((true == k) | (found == k)).sum() for k in range(2)]
    loss = segmentation_losses(logits, true, LOSSES.terms("lovasz"))["lovasz"]
    np.testing.assert_allclose(loss, [1 - np.mean(ious)], atol=1e-5)


def test_a_sum_of_losses_has_its_factors() -> None:
    logits = np.random.default_rng(0).normal(size=(2, *SIZE, CLASSES)).astype(np.float32)
    mask = np.random.default_rng(1).integers(0, CLASSES, (2, *SIZE)).astype(np.uint8)
    parts = segmentation_losses(logits, mask, LOSSES.terms("ce + 0.5*dice"))
    alone = {name: segmentation_losses(logits, mask, LOSSES.terms(name))[name] for name in ("ce", "dice")}
    np.testing.assert_allclose(parts["ce"], alone["ce"], rtol=1e-6)
    np.testing.assert_allclose(parts["dice"], 0.5 * alone["dice"], rtol=1e-6)
    assert [term[:2] for term in LOSSES.terms("2*ce+lovasz")] == [(2.0, "ce"), (1.0, "lovasz")]


@pytest.mark.parametrize("text", ["0*ce", "-1*ce", "x*ce", "nan*ce", "inf*ce", "ce+ce"])
def test_losses_with_bad_factors_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="ce"):
        LOSSES.terms(text)


@pytest.mark.parametrize("text", ["", "dicee", "ce+", "0.5*", "ce-dice"])
def test_unknown_losses_are_refused(text: str) -> None:
    with pytest.raises(UnknownNameError, match="loss"):
        LOSSES.terms(text)


# Figures -----------------------------------------------------------------------------------------------------------


def slow_figures(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, Any]:
    """IoU, Dice and accuracy from sets of pixels."""
    true = {(n, i): int(v) for n, (mask, _) in enumerate(pairs) for i, v in enumerate(mask.ravel()) if v != IGNORE}
    found = {(n, i): int(v) for n, (_, mask) in enumerate(pairs) for i, v in enumerate(mask.ravel())}
    iou, dice = {}, {}
    for k in range(classes):
        a, b = {at for at, v in true.items() if v == k}, {at for at in true if found[at] == k}
        iou[k] = len(a & b) / len(a | b) if a | b else None
        dice[k] = 2 * len(a & b) / (len(a) + len(b)) if a | b else None
    known = [value for value in iou.values() if value is not None]
    right = sum(found[at] == v for at, v in true.items())
    return {
        "iou": iou,
        "dice": dice,
        "miou": float(np.mean(known)) if known else 0.0,
        "pixel_accuracy": right / max(len(true), 1),
    }


@given(true=masks, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_sets_of_pixels(true: np.ndarray, seed: int) -> None:
    found = np.random.default_rng(seed).integers(0, CLASSES, true.shape).astype(np.uint8)
    pairs = [*zip(true, found, strict=True)]
    evaluation = SegmentationEvaluation(("a", "b", "c"))
    for one in pairs:
        evaluation.add(*one)
    figures, expected = evaluation.compute(), slow_figures(pairs, CLASSES)
    for k, label in enumerate("abc"):
        row = figures["per_class"][label]
        assert row["iou"] == pytest.approx(expected["iou"][k]) and row["dice"] == pytest.approx(expected["dice"][k])
        assert row["pixels"] == (true == k).sum()
    assert figures["miou"] == pytest.approx(expected["miou"])
    assert figures["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])
    assert figures["images"] == 2 and "foreground_iou" not in figures


def test_the_foreground_of_two_classes_has_figures_of_its_own() -> None:
    evaluation = SegmentationEvaluation(("background", "person"))
    evaluation.add(np.array([[0, 0, 1, 1, IGNORE]], np.uint8), np.array([[0, 1, 1, 0, 1]], np.uint8))
    figures = evaluation.compute()
    assert figures["foreground_iou"] == pytest.approx(1 / 3) and figures["foreground_dice"] == pytest.approx(0.5)
    assert figures["miou"] == pytest.approx(1 / 3) and figures["per_class"]["person"]["iou"] == pytest.approx(1 / 3)


def test_counts_do_not_overflow() -> None:
    evaluation = SegmentationEvaluation(("a", "b"))
    evaluation.confusion[:] = 2**61
    evaluation.confusion[0, 1] = 0
    assert evaluation.compute()["miou"] == pytest.approx(0.5)
    evaluation.add(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))
    assert evaluation.confusion.dtype == np.int64 and evaluation.confusion[0, 0] == 2**61 + 9


def slow_boundary_f1(true: np.ndarray, found: np.ndarray, label: int) -> float | None:
    """By looking at every pixel's neighbours and at every pair of outline pixels."""
    lines = []
    for mask in (true, np.where(true == IGNORE, IGNORE, found)):
        line = []
        for y, x in np.ndindex(*mask.shape):
            if mask[y, x] != label:
                continue
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
                if inside and mask[v, u] not in (label, IGNORE):
                    line.append((y, x))
                    break
        lines.append(line)
    if not lines[0] and not lines[1]:
        return None
    if not lines[0] or not lines[1]:
        return 0.0
    limit = TOLERANCE * math.hypot(*true.shape)

    def share(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> float:
        return float(np.mean([any(math.dist(a, b) <= limit for b in other) for a in one]))

    recall, precision = share(lines[0], lines[1]), share(lines[1], lines[0])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("shape", [(30, 40), (150, 200)], ids=str)
def test_boundary_f1_is_that_of_every_pair_of_pixels(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: shape[0], : shape[1]]
    true, found = (
        (np.hypot(y - shape[0] / 2, x - shape[1] / 2 + off) < shape[0] / 3).astype(np.uint8) for off in (0, 1.5)
    )
    found[rng.random(shape) < 0.02] = 1
    true[:5, : shape[1] // 2] = IGNORE
    for label in (0, 1):
        value = boundary_f1(true, found, label)
        assert value == pytest.approx(slow_boundary_f1(true, found, label)) and 0.1 < value < 1
    assert boundary_f1(true, true.copy(), 1) == 1.0
    assert boundary_f1(np.zeros_like(true), found, 1) == 0.0
    assert boundary_f1(np.zeros_like(true), np.zeros_like(true), 0) is None
    assert boundary_f1(np.full_like(true, IGNORE), found, 1) is None


# Maps at another size ----------------------------------------------------------------------------------------------


def slow_bilinear(x: np.ndarray, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A map (h, w, c) at places counted from the centre of its first position."""
    out = np.zeros((len(places[0]), len(places[1]), x.shape[2]))
    for i, y in enumerate(np.clip(places[0], 0, x.shape[0] - 1)):
        for j, u in enumerate(np.clip(places[1], 0, x.shape[1] - 1)):
            top, left = min(int(y), x.shape[0] - 2), min(int(u), x.shape[1] - 2)
            a, b = y - top, u - left
            corners = x[top : top + 2, left : left + 2].astype(np.float64)
            out[i, j] = ((1 - a) * corners[0] + a * corners[1]).T @ np.array([1 - b, b])
    return out


@pytest.mark.parametrize("size", [(16, 24), (9, 13), (4, 6), (3, 4)], ids=str)
def test_maps_are_enlarged_between_centres(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    places = tuple((np.arange(n) + 0.5) * (m / n) - 0.5 for n, m in zip(size, x.shape[1:3], strict=True))
    expected = np.stack([slow_bilinear(one, places) for one in x])
    np.testing.assert_allclose(class_maps(x, size), expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 40])
def test_labels_of_originals_are_those_of_the_prepared_image(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through frames of two images of one batch, band by band, with the room left over."""
    monkeypatch.setattr("zoo.dense.originals.BAND", 1 << 10)
    logits = np.random.default_rng(0).normal(size=(2, 8, 10, classes)).astype(np.float32)
    prepared, room = (32, 40), (50, 61)
    frames = np.array([[0.7, 0.8, 0, 0, 40, 50], [0.64, 0.64, -3.0, 2.0, 50, 61]], np.float32)
    found = np.asarray(batch_labels_at(logits, frames, prepared, room))
    assert found.shape == (2, *room) and found.dtype == np.uint8
    for one, x, frame in zip(found, logits, frames, strict=True):
        height, width = frame[4:].astype(int)
        y, u = ((np.arange(n) + 0.5) * frame[i] + frame[2 + i] for i, n in enumerate((height, width)))
        values = slow_bilinear(x, (y * (8 / 32) - 0.5, u * (10 / 40) - 0.5))
        ordered = np.sort(values, -1)
        clear = ordered[..., -1] - ordered[..., -2] > 1e-4
        assert (one[:height, :width] == values.argmax(-1))[clear].all() and clear.mean() > 0.98
