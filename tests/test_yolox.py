"""YOLOX against the published one, and its assignment against a slow reference written as the paper reads."""

from __future__ import annotations

import json
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_kit as kit
import pytest
import seeded
from flax import nnx
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from jax import Array
from PIL import Image
from zoo.adapters.detector import simota, yolox

from zoo.backbone import abstract, run_stages
from zoo.dense.points import grid_points
from zoo.dense.pyramid import pyramid_stages
from zoo.errors import ConfigError
from zoo.weights.mapping import locate, slots

GOLDEN = json.loads((Path(__file__).parent / "golden" / "yolox.json").read_text())
RUN, VARIANTS = GOLDEN["run"], GOLDEN["variants"]
COMPUTED = [name for name, golden in VARIANTS.items() if "outputs" in golden]
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# The published detectors -------------------------------------------------------------------------------------------


class Top(nnx.Module):
    """Neck and head, as the detector has them."""

    def __init__(self, name: str, classes: int, *, rngs: nnx.Rngs):
        backbone, depth, separable = yolox.VARIANTS[name]
        stages = pyramid_stages(kit.backbones()[backbone])
        channels, strides = [stage.channels for stage in stages], [stage.stride for stage in stages]
        self.neck = yolox.PAFPN(channels, strides, channels[0], depth=depth, separable=separable, rngs=rngs)
        self.head = yolox.Head(self.neck.strides, self.neck.channels, classes, separable=separable, rngs=rngs)


class Detector(nnx.Module):
    def __init__(self, name: str, classes: int):
        self.backbone = abstract(kit.backbones()[yolox.VARIANTS[name][0]])
        self.head = nnx.eval_shape(lambda: Top(name, classes, rngs=nnx.Rngs(0)))


def checkpoint_names(detector: Detector) -> dict[str, Any]:
    """Name in the published file -> slot."""
    return {locate(slot.name, yolox.CHECKPOINT_PATHS).names[0]: slot for slot in slots(detector)}


@partial(jax.jit, static_argnums=0)
def run(graphdef: nnx.GraphDef[Detector], state: nnx.State, x: Array) -> tuple[list[Array], dict[str, Any]]:
    """Levels and outputs for images in pixels."""
    detector = nnx.merge(graphdef, state)
    levels = detector.head.neck(list(run_stages(detector.backbone, x, ["dark3", "dark4", "dark5"]).values()))
    return levels, detector.head.head(levels)


@cache
def loaded(name: str) -> tuple[nnx.GraphDef[Detector], nnx.State]:
    """A detector with name-seeded weights."""
    detector = Detector(name, RUN["classes"])
    named = checkpoint_names(detector)
    tensors = seeded.tensors({n: slot.native_shape for n, slot in named.items()}, VARIANTS[name]["scales"])
    nodes = dict(nnx.iter_graph(detector))
    for n, slot in named.items():
        nodes[slot.path].set_value(jnp.asarray(slot.read(tensors[n])))
    detector.eval()
    return nnx.split(detector)


@cache
def on_formula(name: str) -> tuple[list[Array], dict[str, Any]]:
    return run(*loaded(name), jnp.asarray(64 * seeded.images(len(RUN["targets"]), *RUN["size"])))


decode = jax.jit(yolox.decode, static_argnames=("score", "overlap", "count"))
losses = jax.jit(yolox.losses, static_argnames="l1")


def padded(targets: list[dict[str, Any]], count: int) -> dict[str, Array]:
    boxes, labels = np.zeros((len(targets), count, 4), np.float32), np.zeros((len(targets), count), np.int32)
    valid = np.zeros((len(targets), count), bool)
    for i, target in enumerate(targets):
        n = len(target["boxes"])
        boxes[i, :n], labels[i, :n], valid[i, :n] = np.reshape(target["boxes"], (n, 4)), target["labels"], True
    return {"boxes": jnp.asarray(boxes), "labels": jnp.asarray(labels), "box_valid": jnp.asarray(valid)}


def assert_detections(found: dict[str, Any], wanted: dict[str, Any], row: int) -> None:
    count = len(wanted["scores"])
    assert count > 20
    assert found["valid"][row].tolist() == [True] * count + [False] * (100 - count)
    assert found["labels"][row][:count].tolist() == wanted["labels"]
    np.testing.assert_allclose(found["scores"][row][:count], wanted["scores"], atol=1e-5)
    np.testing.assert_allclose(found["boxes"][row][:count], wanted["boxes"], atol=5e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_key_of_the_published_checkpoint_has_its_place(name: str) -> None:
    named = checkpoint_names(Detector(name, 80))
    assert seeded.digest({n: slot.native_shape for n, slot in named.items()}) == VARIANTS[name]["keys"]


@pytest.mark.parametrize("name", COMPUTED)
def test_every_level_and_output_equals_the_reference(name: str) -> None:
    levels, outputs = on_formula(name)
    arrays = {f"level {i}": level for i, level in enumerate(levels)} | outputs
    wanted = VARIANTS[name]["outputs"]
    found = {key: seeded.error(np.asarray(arrays[key]), wanted[key]) for key in wanted}
    assert {key: error for key, error in found.items() if error >= kit.TOLERANCE} == {}


@pytest.mark.parametrize("name", COMPUTED)
def test_losses_equal_the_published_ones(name: str) -> None:
    found = losses(on_formula(name)[1], padded(RUN["targets"], 8), l1=True)
    wanted = VARIANTS[name]["losses"]
    for key, values in found.items():
        assert values.shape == (len(RUN["targets"]),)
        assert float(values.mean()) == pytest.approx(wanted[key], rel=kit.TOLERANCE), key
    assert found["reg_preds"][1] == found["cls_preds"][1] == found["l1"][1] == 0 < found["obj_preds"][1]


@pytest.mark.parametrize("name", COMPUTED)
def test_detections_equal_the_reference(name: str) -> None:
    found = decode(on_formula(name)[1], tuple(RUN["size"]), score=RUN["score"], overlap=RUN["overlap"])
    for row, wanted in enumerate(VARIANTS[name]["detections"]):
        assert_detections(found, wanted, row)


def test_detections_on_a_photo_equal_the_reference(assets: Path) -> None:
    wanted = VARIANTS["yolox_nano"]["photo"]
    path = assets / "datasets" / "pennfudan" / "PNGImages" / wanted["file"]
    pixels = np.asarray(Image.open(path).convert("RGB"))[::2, ::2, ::-1]
    height, width = pixels.shape[:2]
    frame = np.full((1, *wanted["frame"], 3), 114, np.float32)
    frame[0, :height, :width] = pixels
    _, outputs = run(*loaded("yolox_nano"), jnp.asarray(frame))
    found = decode(outputs, jnp.asarray([[height, width]]), score=RUN["score"], overlap=RUN["overlap"])
    assert_detections(found, wanted["detections"], 0)


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
    targets = padded([{"boxes": boxes, "labels": [0, 2]}] * 2, TRUTHS) | {"valid": jnp.ones(2, bool)}
    outputs = outputs_of(np.random.default_rng(3), 2, 0.1)
    for step in range(300):
        _, gradients = learn(outputs, targets)
        outputs |= {name: outputs[name] - 0.5 / (1 + 0.1 * step) * g for name, g in gradients.items()}
    found = decode(outputs, (32, 32), score=0.3, overlap=0.65)
    for kept, labels, rows in zip(*(np.asarray(found[name]) for name in ("valid", "labels", "boxes")), strict=True):
        best = {int(label): box for label, box in zip(labels[kept][::-1], rows[kept][::-1], strict=True)}
        assert best.keys() == {0, 2}
        assert slow_iou(best[0], boxes[0]) > 0.9 and slow_iou(best[2], boxes[1]) > 0.9


# Predicting --------------------------------------------------------------------------------------------------------


def test_a_box_is_read_from_its_cell_and_cut_at_the_border() -> None:
    outputs = outputs_of(np.random.default_rng(0), 1, 0.0)
    outputs["obj_preds"] -= 20
    for at, raw in ((0, (0.5, 0.5, math.log(2), 0.0)), (19, (1.0, 0.0, math.log(1.5), -math.log(2)))):
        outputs["reg_preds"] = outputs["reg_preds"].at[0, at].set(jnp.array(raw))
        outputs["obj_preds"] = outputs["obj_preds"].at[0, at].set(20.0 - at)
        outputs["cls_preds"] = outputs["cls_preds"].at[0, at].set(jnp.array([3.0, 4.0, -9.0]))
    found = decode(outputs, jnp.array([[30, 28]]), count=4)
    assert found["valid"][0].tolist() == [True, True, False, False] and found["labels"][0, :2].tolist() == [1, 1]
    # The last cell of the second level begins at 16, 16; its box is 24 wide and 8 high around 32, 16.
    wanted = [[0, 0, 12, 8], [20, 12, 28, 20], [0] * 4, [0] * 4]
    np.testing.assert_allclose(found["boxes"][0], wanted, atol=1e-4)
    chance = 1 / (1 + math.exp(-4))
    np.testing.assert_allclose(found["scores"][0, :2], [chance, chance / (1 + math.exp(-1))], rtol=1e-5)


# Neck and head -----------------------------------------------------------------------------------------------------


def maps_of(sizes: list[tuple[int, int]], channels: list[int], dtype: Any = jnp.float32) -> list[Array]:
    return [jnp.ones((1, *size, c), dtype) for size, c in zip(sizes, channels, strict=True)]


@pytest.mark.parametrize(
    ("sizes", "strides", "made"),
    [
        ([(9, 7), (4, 3), (1, 1)], [8, 16, 32], []),  # of a net that does not pad
        ([(5, 4), (3, 2), (2, 1)], [7, 14, 28], []),
        ([(9, 7), (5, 4)], [8, 16], [(3, 2)]),
        ([(9, 7)], [14], [(5, 4), (3, 2)]),
    ],
)
def test_levels_are_where_the_maps_are(sizes: Any, strides: Any, made: Any) -> None:
    channels = [3, 6, 5][: len(sizes)]

    def build() -> tuple[list[Array], dict[str, Any], Any]:
        neck = yolox.PAFPN(channels, strides, 8, rngs=nnx.Rngs(0))
        head = yolox.Head(neck.strides, neck.channels, CLASSES, rngs=nnx.Rngs(0))
        levels = neck(maps_of(sizes, channels, jnp.bfloat16))
        return levels, head(levels), neck.strides

    levels, outputs, _ = jax.eval_shape(build)
    assert [level.shape for level in levels] == [
        (1, *size, c) for size, c in zip([*sizes, *made], [8, 16, 32], strict=True)
    ]
    assert all(level.dtype == jnp.bfloat16 for level in levels)
    count = sum(h * w for h, w in [*sizes, *made])
    assert [outputs[n].shape[1:] for n in ("cls_preds", "reg_preds", "obj_preds")] == [
        (count, n) for n in (CLASSES, 4, 1)
    ]


def test_points_follow_the_declared_strides() -> None:
    head = nnx.eval_shape(lambda: yolox.Head([14, 28], 4, CLASSES, separable=True, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(head)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

    @jax.jit
    def places(state: nnx.State) -> dict[str, Any]:
        outputs = nnx.merge(graphdef, state)(maps_of([(2, 3), (1, 2)], [4, 4]))
        return {name: outputs[name] for name in ("points", "strides")}

    found = places(state)
    assert found["points"][0].tolist() == [[7, 7], [21, 7], [35, 7], [7, 21], [21, 21], [35, 21]]


def test_every_position_starts_at_the_prior() -> None:
    head = yolox.Head([8], 4, CLASSES, prior=0.02, rngs=nnx.Rngs(0))
    for conv in (head.cls_preds[0], head.obj_preds[0]):
        np.testing.assert_allclose(jax.nn.sigmoid(conv.bias[...]), 0.02, rtol=1e-5)
    assert not head.reg_preds[0].bias[...].any()


def test_every_parameter_of_a_head_learns() -> None:
    head = yolox.Head([8.0], 4, CLASSES, l1=True, rngs=nnx.Rngs(0))
    truth = padded([{"boxes": [[2, 2, 20, 22]], "labels": [1]}], 2)
    maps = [jnp.sin(jnp.arange(64, dtype=jnp.float32)).reshape(1, 4, 4, 4)]

    @nnx.jit
    def gradients(head: yolox.Head) -> nnx.State:
        return nnx.grad(lambda head: jnp.mean(head.training_losses(maps, truth, (32, 32))))(head)

    found = {".".join(map(str, path)): np.asarray(g.get_value()) for path, g in nnx.to_flat_state(gradients(head))}
    assert len(found) == 3 * 5 + 6, "five blocks of three arrays, three convolutions of two"
    assert [name for name, g in found.items() if not (np.isfinite(g).all() and g.any())] == []


@pytest.mark.parametrize(("channels", "strides"), [([1] * 4, [4, 8, 16, 32]), ([1, 2], [8, 16, 32]), ([], [])])
def test_a_pyramid_of_other_maps_is_refused(channels: Any, strides: Any) -> None:
    with pytest.raises(ConfigError, match="one to three maps"):
        yolox.PAFPN(channels, strides, rngs=nnx.Rngs(0))


def test_a_head_needs_channels_for_each_level() -> None:
    with pytest.raises(ConfigError, match="2 numbers of channels for 3 levels"):
        yolox.Head([8, 16, 32], [4, 4], CLASSES, rngs=nnx.Rngs(0))
