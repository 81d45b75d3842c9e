"""Faster R-CNN against torchvision, and against a slow reference written as the papers read."""

from __future__ import annotations

import json
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import detector_kit as kit
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from zoo.adapters.detector import rcnn
from zoo.adapters.detector.rcnn_matching import match, sample, smooth_l1
from zoo.adapters.detector.rcnn_rpn import RPN
from zoo.dense import anchors as coder
from zoo.dense.necks import FPN
from zoo.dense.nms import nms, survivors
from zoo.dense.points import map_steps
from zoo.dense.pyramid import pyramid_stages
from zoo.models.backbone import run_stages

FILE = json.loads((Path(__file__).parent / "golden" / "rcnn.json").read_text())
GOLDEN = FILE["fasterrcnn_resnet50_fpn"]
STAGES = pyramid_stages(kit.SPEC, (4, 8, 16, 32))
TOLERANCE = 1e-4
EVERYTHING = 10**6
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# torchvision -------------------------------------------------------------------------------------------------------


class Top(nnx.Module):
    """Neck and head, as the detector has them."""

    def __init__(self, classes: int, *, rngs: nnx.Rngs):
        channels, strides = [stage.channels for stage in STAGES], [stage.stride for stage in STAGES]
        self.neck = FPN(channels, strides, extra=1, source="pool", rngs=rngs)
        self.head = rcnn.Head(
            self.neck.strides,
            self.neck.width,
            classes,
            anchor_samples=EVERYTHING,
            samples=EVERYTHING,
            **GOLDEN["options"],
            rngs=rngs,
        )


@cache
def loaded() -> tuple[nnx.GraphDef[kit.Detector], nnx.State, nnx.State]:
    """torchvision's detector with name-seeded weights."""
    detector = kit.abstract(partial(Top, GOLDEN["classes"]))
    kit.fill(detector, rcnn.TORCHVISION, GOLDEN["scales"], GOLDEN["gains"])
    detector.head.head.rngs = nnx.Rngs(0).sampling.fork()
    return nnx.split(detector, nnx.Param, ...)


@partial(jax.jit, static_argnums=0)
def pyramid(graphdef: Any, params: nnx.State, rest: nnx.State, x: Array) -> list[Array]:
    """Levels for normalised images."""
    detector = nnx.merge(graphdef, params, rest)
    found = run_stages(detector.backbone, x, [stage.name for stage in STAGES])
    return detector.head.neck(list(found.values()))


@partial(jax.jit, static_argnums=0)
def detect(
    graphdef: Any, params: nnx.State, rest: nnx.State, levels: list[Array], size: Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and detections."""
    outputs = nnx.merge(graphdef, params, rest).head.head(levels, size)
    return outputs, rcnn.decode(outputs, size)


@cache
def on_formula() -> tuple[list[Array], dict[str, Any], dict[str, Any]]:
    levels = pyramid(*loaded(), jnp.asarray(seeded.images(2, *GOLDEN["formula"]["size"])))
    return levels, *detect(*loaded(), levels, jnp.array([GOLDEN["formula"]["size"]] * 2))


@pytest.mark.parametrize(("classes", "key"), [(GOLDEN["classes"], "keys"), (90, "published_keys")])
def test_every_key_of_torchvisions_checkpoint_has_its_place(classes: int, key: str) -> None:
    """The published one has 91 outputs: 90 classes, and the background."""
    assert kit.digest(kit.abstract(partial(Top, classes)), rcnn.TORCHVISION) == GOLDEN[key]


def test_older_names_differ_where_torchvision_renames_them() -> None:
    detector = kit.abstract(partial(Top, 1))
    now, then = (list(kit.checkpoint_names(detector, layout)) for layout in (rcnn.TORCHVISION, rcnn.PUBLISHED))
    renamed = {new: old for new, old in zip(now, then, strict=True) if new != old}
    # As `FeaturePyramidNetwork` and `RPNHead` do for files of version 1: without the numbers of what wraps them.
    inside = [f"backbone.fpn.{part}_blocks.{i}" for part in ("inner", "layer") for i in range(4)]
    wanted = {f"{path}.0.{leaf}": f"{path}.{leaf}" for path in inside for leaf in ("weight", "bias")}
    wanted |= {f"rpn.head.conv.0.0.{leaf}": f"rpn.head.conv.{leaf}" for leaf in ("weight", "bias")}
    assert renamed == wanted


def test_levels_and_first_stage_equal_torchvisions() -> None:
    levels, outputs, _ = on_formula()
    wanted = GOLDEN["formula"]
    found = {
        f"level {i}": seeded.error(np.asarray(x), y)
        for i, (x, y) in enumerate(zip(levels, wanted["levels"], strict=True))
    }
    sizes = [x.shape[1:3] for x in levels]
    starts = np.cumsum([0, *(3 * h * w for h, w in sizes)])
    for i, (h, w) in enumerate(sizes):
        part = slice(int(starts[i]), int(starts[i + 1]))
        logits = np.asarray(outputs["objectness"][:, part]).reshape(2, h, w, 3)
        codes = np.asarray(outputs["rpn_regression"][:, part]).reshape(2, h, w, 12)
        found[f"objectness {i}"] = seeded.error(logits, wanted["outputs"][f"objectness {i}"])
        found[f"rpn_regression {i}"] = seeded.error(codes, wanted["outputs"][f"rpn_regression {i}"])
    found["proposals"] = seeded.error(np.asarray(outputs["proposals"]), wanted["outputs"]["proposals"])
    assert outputs["proposal_valid"].all()
    assert {name: error for name, error in found.items() if not error < TOLERANCE} == {}


def test_second_stage_equals_torchvisions_on_fixed_regions() -> None:
    levels, *_ = on_formula()
    regions = jnp.asarray([FILE["regions"]["boxes"]] * 2, jnp.float32)
    logits, codes = jax.jit(lambda detector: detector.head.head.roi_heads(levels, regions))(nnx.merge(*loaded()))
    wanted = GOLDEN["formula"]["outputs"]
    assert seeded.error(np.asarray(logits), wanted["class_logits"]) < TOLERANCE
    assert seeded.error(np.asarray(codes), wanted["box_regression"]) < TOLERANCE


def test_losses_equal_torchvisions_where_nothing_is_left_to_chance() -> None:
    """With samples for every anchor and proposal."""
    levels, *_ = on_formula()
    head, size = nnx.merge(*loaded()).head.head, tuple(GOLDEN["formula"]["size"])
    targets = kit.padded(GOLDEN["formula"]["targets"], 9)
    found = jax.jit(lambda head: head.losses(levels, targets, size))(head)
    for name, wanted in GOLDEN["formula"]["losses"].items():
        assert float(found[name].mean()) == pytest.approx(wanted, rel=TOLERANCE), name
        assert found[name].shape == (2,)
    assert found["loss_rpn_box_reg"][1] == found["loss_box_reg"][1] == 0 < found["loss_classifier"][1]


def test_detections_equal_torchvisions() -> None:
    *_, found = on_formula()
    for row, wanted in enumerate(GOLDEN["formula"]["detections"]):
        kit.assert_detections(found, wanted, row, scores=TOLERANCE)


def test_detections_on_a_real_photo_equal_torchvisions(assets: Path) -> None:
    wanted = GOLDEN["photo"]
    graphdef, params, rest = loaded()
    detector = nnx.merge(graphdef, params, rest)
    detector.head.head.steps = "floor"
    graphdef, params, rest = nnx.split(detector, nnx.Param, ...)
    levels = pyramid(graphdef, params, rest, kit.photo(assets, wanted))
    _, found = detect(graphdef, params, rest, levels, jnp.array([wanted["size"]]))
    kit.assert_detections(found, wanted["detections"], 0, scores=TOLERANCE)


def test_anchors_are_torchvisions_where_it_rounds_strides() -> None:
    size, strides = FILE["anchors"]["size"], (4, 8, 16, 32, 64)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    found = {
        steps: coder.grid_anchors(sizes, map_steps(sizes, strides, steps), [8 * s for s in strides], (0.5, 1, 2))
        for steps in ("declared", "floor")
    }
    assert seeded.error(np.concatenate(found["floor"]), FILE["anchors"]["boxes"]) < 1e-6
    different = [not np.array_equal(*pair) for pair in zip(*found.values(), strict=True)]
    assert different == [False, False, False, False, True], "416 pixels are 7 positions of 59, or of 64"


# Boxes relative to anchors -----------------------------------------------------------------------------------------

examples = settings(max_examples=60, deadline=None, database=None, derandomize=True)
coordinate = st.integers(0, 80).map(lambda n: n / 2)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 0.5, max(b[1], b[3]) + 0.5)
)
some_boxes = st.lists(box, min_size=6, max_size=6).map(lambda rows: np.array(rows, np.float32))
there_and_back = jax.jit(lambda a, b, w: (coder.encode(a, b, w), coder.decode(coder.encode(a, b, w), b, w)))


@examples
@given(some_boxes, some_boxes)
def test_codes_are_those_of_the_paper_and_give_the_boxes_again(boxes: np.ndarray, anchors: np.ndarray) -> None:
    codes, again = there_and_back(boxes, anchors, rcnn.CODE_WEIGHTS)
    for code, (x1, y1, x2, y2), (a1, b1, a2, b2) in zip(np.asarray(codes), boxes, anchors, strict=True):
        wanted = [
            10 * ((x1 + x2) / 2 - (a1 + a2) / 2) / (a2 - a1),
            10 * ((y1 + y2) / 2 - (b1 + b2) / 2) / (b2 - b1),
            5 * math.log((x2 - x1) / (a2 - a1)),
            5 * math.log((y2 - y1) / (b2 - b1)),
        ]
        np.testing.assert_allclose(code, wanted, rtol=1e-4, atol=1e-5)
    # But for sides that would grow by more than the limit.
    grown = np.max((boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2]), axis=1) > 1000 / 16
    np.testing.assert_allclose(np.asarray(again)[~grown], boxes[~grown], atol=1e-3)


def test_sides_grow_by_no_more_than_the_limit() -> None:
    anchor = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    found = coder.decode(jnp.array([[0.0, 0.0, 1e4, -1e4]]), anchor)
    np.testing.assert_allclose(found, [[8 - 500, 8, 8 + 500, 8]], rtol=1e-5)
    assert np.isfinite(coder.encode(jnp.zeros((1, 4)), jnp.zeros((1, 4)))).all()


def test_losses_of_distances_are_square_near_zero() -> None:
    found = smooth_l1(jnp.array([0.0, 0.1, -0.1, 1.0, -3.0]), jnp.zeros(5))
    np.testing.assert_allclose(found, [0, 0.045, 0.045, 1 - 1 / 18, 3 - 1 / 18], rtol=1e-5)


# Suppression -------------------------------------------------------------------------------------------------------


@jax.jit
def both_ways(boxes: Array, valid: Array) -> tuple[Array, Array, Array]:
    scores = -jnp.arange(len(boxes), dtype=jnp.float32)
    labels = jnp.zeros(len(boxes), jnp.int32)
    return survivors(boxes, valid, threshold=0.3), *nms(boxes, scores, labels, valid, threshold=0.3, count=len(boxes))


@examples
@given(st.lists(st.tuples(box, st.booleans()), min_size=12, max_size=12))
def test_survivors_are_those_of_greedy_suppression(rows: list[tuple[Any, bool]]) -> None:
    boxes, valid = np.array([b for b, _ in rows], np.float32), np.array([v for _, v in rows])
    kept, index, found = (np.asarray(x) for x in both_ways(boxes, valid))
    assert np.flatnonzero(kept).tolist() == index[found].tolist()


def test_a_chain_of_boxes_that_drop_one_another_is_judged_in_order() -> None:
    left = np.arange(40, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 2.5, 0 * left + 1], axis=1)  # each overlaps its neighbours by 0.43
    kept, *_ = both_ways(boxes, np.ones(40, bool))
    assert kept.tolist() == [True, False] * 20


# Matching and sampling ---------------------------------------------------------------------------------------------


def slow_iou(a: Any, b: Any) -> np.float32:
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return np.float32(wide * high) / np.float32(union)


def slow_match(boxes: Any, truth: Any, high: float, low: float, best: bool) -> list[int]:
    if not len(truth):
        return [-1] * len(boxes)
    overlaps = np.array([[slow_iou(t, b) for b in boxes] for t in truth])
    found = []
    for n in range(len(boxes)):
        greatest, nearest = overlaps[:, n].max(), int(overlaps[:, n].argmax())
        found.append(nearest if greatest >= high else -1 if greatest < low else -2)
        if best and any(row[n] == row.max() > 0 for row in overlaps):
            found[n] = nearest
    return found


matched = jax.jit(match, static_argnames=("high", "low", "best"))


@settings(examples, max_examples=150)
@given(
    st.lists(box, min_size=9, max_size=9),
    st.lists(box, max_size=4),
    st.sampled_from([(0.7, 0.3, True), (0.5, 0.5, False), (0.25, 0.25, True)]),
)
def test_matches_equal_the_slow_ones(boxes: Any, truth: Any, rules: tuple[float, float, bool]) -> None:
    # Boxes of the truth among the others, so that there are exact hits and ties.
    boxes = [*boxes, *(truth or boxes)[:1] * 3]
    padded = kit.padded([{"boxes": truth, "labels": [0] * len(truth)}], 5)
    high, low, best = rules
    found = matched(
        jnp.asarray(boxes, jnp.float32), padded["boxes"][0], padded["box_valid"][0], high=high, low=low, best=best
    )
    assert found.tolist() == slow_match(boxes, truth, *rules)


def test_an_object_that_no_box_touches_is_nobodys() -> None:
    boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0]])
    far, shown = jnp.array([[50.0, 50.0, 60.0, 60.0]]), jnp.array([True])
    assert matched(boxes, far, shown, high=0.7, low=0.3, best=True).tolist() == [-1, -1]


drawn = jax.jit(sample, static_argnames=("count", "fraction"))


@examples
@given(
    st.lists(st.sampled_from([-1, 0, 1]), min_size=10, max_size=10),
    st.sampled_from([(4, 0.5), (8, 0.25), (10, 0.5), (100, 0.5), (3, 0.25)]),
    st.integers(0, 100),
)
def test_samples_are_as_many_as_torchvisions_and_of_the_right_kind(kinds: Any, rules: Any, seed: int) -> None:
    count, fraction = rules
    kinds = np.array(kinds)
    found = drawn(jax.random.key(seed), kinds > 0, kinds == 0, count=count, fraction=fraction)
    chosen = np.asarray(found.chosen)[np.asarray(found.valid)]
    positive = min((kinds > 0).sum(), int(count * fraction))
    negative = min((kinds == 0).sum(), count - positive)
    assert kinds[chosen].tolist() == [1] * positive + [0] * negative
    assert len(set(chosen.tolist())) == len(chosen) and len(found.valid) == min(count, 10)
    assert found.valid.tolist() == sorted(found.valid.tolist(), reverse=True)


def test_every_box_is_as_likely_to_be_drawn() -> None:
    kinds = jnp.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, -1])
    keys = jax.random.split(jax.random.key(1), 4000)
    found = jax.jit(jax.vmap(lambda key: sample(key, kinds > 0, kinds == 0, count=5, fraction=0.4)))(keys)
    share = np.bincount(np.asarray(found.chosen)[np.asarray(found.valid)], minlength=11) / 4000
    np.testing.assert_allclose(share, [0.5] * 4 + [0.5] * 6 + [0], atol=0.04)
    # And independently: the first two of four are drawn together in one sixth of the draws.
    both = (found.chosen[:, :2] < 2).all(axis=1).mean()
    assert float(both) == pytest.approx(1 / 6, abs=0.03)


# Losses ------------------------------------------------------------------------------------------------------------

CLASSES, BOXES, SIZE = 3, 4, (20, 24)
STRIDES = (4, 8)
MAPS = [jnp.asarray(seeded.images(2, SIZE[0] // 4, SIZE[1] // 4, 8)), jnp.asarray(seeded.images(2, 3, 3, 8))]
SMALL = {"bins": 2, "width": 8, "candidates": 12, "proposals": 10}


def small_head(**options: Any) -> rcnn.Head:
    head = rcnn.Head(STRIDES, 8, CLASSES, rngs=nnx.Rngs(3), **{**SMALL, **options})
    # As if trained for a while: outputs of about one.
    for path, leaf in nnx.to_flat_state(nnx.state(head, nnx.Param)):
        if path[-1] == "kernel":
            value = leaf.get_value()
            leaf.set_value(value * (1 / (float(jnp.std(value)) * math.sqrt(math.prod(value.shape[:-1])))))
    head.eval()
    return head


@cache
def heads() -> dict[str, tuple[Any, nnx.State]]:
    return {
        "all": nnx.split(small_head(anchor_samples=EVERYTHING, samples=EVERYTHING)),
        "few": nnx.split(small_head(anchor_samples=9, samples=6)),
    }


@partial(jax.jit, static_argnums=0)
def losses_of(graphdef: Any, state: nnx.State, targets: dict[str, Array]) -> dict[str, Array]:
    return nnx.merge(graphdef, state).losses(MAPS, targets, SIZE)


@partial(jax.jit, static_argnums=0)
def gradients_of(graphdef: Any, state: nnx.State, maps: list[Array], targets: dict[str, Array]) -> Any:
    head = nnx.merge(graphdef, state)
    params, rest = nnx.split_state(nnx.state(head), nnx.Param, ...)

    def loss(params: nnx.State, maps: list[Array]) -> Array:
        return jnp.sum(sum(nnx.merge(graphdef, params, rest, copy=True).losses(maps, targets, SIZE).values()))

    return jax.grad(loss, (0, 1))(params, maps)


@partial(jax.jit, static_argnums=0)
def outputs_of(graphdef: Any, state: nnx.State, truth: Array) -> dict[str, Any]:
    """Of both stages; the second one's of the proposals and of the truth, which is among them in training."""
    head = nnx.merge(graphdef, state)
    outputs = head(MAPS, SIZE)
    regions = jnp.concatenate([outputs["proposals"], truth], axis=1)
    logits, codes = head.roi_heads(MAPS, regions)
    return outputs | {"regions": regions, "logits": logits, "codes": codes}


def draws(kinds: list[list[int]], row: int, count: int, fraction: float) -> list[list[int]]:
    """What is drawn of each image in evaluation, where the key is always the same. Rows: 0 anchors, 1 regions."""
    keys = jax.random.split(jax.random.key(0), (2, len(kinds)))[row]
    found = []
    for key, kind in zip(keys, np.array(kinds), strict=True):
        one = drawn(key, kind >= 0, kind == -1, count=count, fraction=fraction)
        found.append(np.asarray(one.chosen)[np.asarray(one.valid)].tolist())
    return found


def slow_smooth(found: Any, wanted: Any) -> float:
    gaps = [abs(float(a) - float(b)) for a, b in zip(found, wanted, strict=True)]
    return sum(4.5 * gap**2 if gap < 1 / 9 else gap - 1 / 18 for gap in gaps)


def slow_codes(truth: Any, anchor: Any, weights: tuple[float, ...]) -> list[float]:
    (x1, y1, x2, y2), (a1, b1, a2, b2) = ([float(v) for v in one] for one in (truth, anchor))
    return [
        weights[0] * (x1 + x2 - a1 - a2) / 2 / (a2 - a1),
        weights[1] * (y1 + y2 - b1 - b2) / 2 / (b2 - b1),
        weights[2] * math.log((x2 - x1) / (a2 - a1)),
        weights[3] * math.log((y2 - y1) / (b2 - b1)),
    ]


def slow_losses(
    outputs: dict[str, Any], truth: list[tuple[Any, Any]], anchor_samples: int, samples: int
) -> dict[str, float]:
    """As torchvision divides: by all that was sampled in the batch."""
    numbers = {name: np.asarray(value, np.float64) for name, value in outputs.items() if name != "anchors"}
    anchors = np.concatenate([np.asarray(level) for level in outputs["anchors"]])
    sums = {"loss_objectness": 0.0, "loss_rpn_box_reg": 0.0, "loss_classifier": 0.0, "loss_box_reg": 0.0}
    kinds = [slow_match(anchors, boxes, 0.7, 0.3, True) for boxes, _ in truth]
    chosen = draws(kinds, 0, anchor_samples, 0.5)
    first = max(1, sum(map(len, chosen)))
    for image, (boxes, _) in enumerate(truth):
        for n in chosen[image]:
            logit, hit = numbers["objectness"][image, n], kinds[image][n] >= 0
            sums["loss_objectness"] += math.log1p(math.exp(-logit if hit else logit)) / first
            if hit:
                wanted = slow_codes(boxes[kinds[image][n]], anchors[n], (1, 1, 1, 1))
                sums["loss_rpn_box_reg"] += slow_smooth(numbers["rpn_regression"][image, n], wanted) / first

    there = np.asarray(outputs["proposal_valid"], bool)
    kinds = []
    for image, (boxes, _) in enumerate(truth):
        shown = [*there[image], *[True] * len(boxes), *[False] * (BOXES - len(boxes))]
        regions = np.asarray(outputs["regions"][image])
        of_regions = slow_match(
            [r if s else (0, 0, 1, 1) for r, s in zip(regions, shown, strict=True)], boxes, 0.5, 0.5, False
        )
        kinds.append([kind if s else -2 for kind, s in zip(of_regions, shown, strict=True)])
    chosen = draws(kinds, 1, samples, 0.25)
    second = max(1, sum(map(len, chosen)))
    for image, (boxes, labels) in enumerate(truth):
        for n in chosen[image]:
            logits, kind = numbers["logits"][image, n], kinds[image][n]
            output = labels[kind] + 1 if kind >= 0 else 0
            sums["loss_classifier"] += (math.log(np.exp(logits).sum()) - logits[output]) / second
            if kind >= 0:
                wanted = slow_codes(boxes[kind], numbers["regions"][image, n], rcnn.CODE_WEIGHTS)
                sums["loss_box_reg"] += slow_smooth(numbers["codes"][image, n, output], wanted) / second
    return sums


image = st.lists(st.tuples(box, st.integers(0, CLASSES - 1)), max_size=BOXES).map(
    lambda rows: (np.array([b for b, _ in rows], np.float32).reshape(-1, 4), [label for _, label in rows])
)


def truth(*images: tuple[Any, Any]) -> dict[str, Array]:
    return kit.padded([{"boxes": boxes, "labels": labels} for boxes, labels in images], BOXES)


def counted(*images: tuple[Any, Any]) -> dict[str, Array]:
    """The truth of a batch that no image only fills up."""
    return truth(*images) | {"valid": jnp.ones(len(images), bool)}


@pytest.mark.parametrize(("which", "counts"), [("all", (EVERYTHING, EVERYTHING)), ("few", (9, 6))])
@settings(examples, max_examples=40)
@given(image, image)
def test_losses_equal_the_slow_ones(which: str, counts: tuple[int, int], one: Any, other: Any) -> None:
    targets = counted(one, other)
    found = losses_of(*heads()[which], targets)
    wanted = slow_losses(outputs_of(*heads()[which], targets["boxes"]), [one, other], *counts)
    for name, value in wanted.items():
        np.testing.assert_allclose(np.asarray(found[name]).mean(), value, rtol=1e-3, atol=1e-4, err_msg=name)


ONE, OTHER = (np.array([[0, 0, 20, 18], [3, 3, 9, 8]]), [1, 2]), (np.array([[5, 5, 22, 19]]), [0])
NOBODY: tuple[Any, Any] = (np.zeros((0, 4)), [])


def test_losses_and_gradients_are_finite_whatever_the_boxes_are() -> None:
    some, head = counted(ONE, NOBODY), heads()["few"]
    strange = np.array([[3, 3, 3, 9], [30, 30, 20, 20], [-50, -50, -40, -40], [0, 0, 1e6, 1e6]])
    hidden = ~some["box_valid"]
    junk = {**some, "boxes": jnp.where(hidden[..., None], jnp.nan, some["boxes"])}
    junk["labels"] = jnp.where(hidden, 99, some["labels"])
    nothing = some | {"valid": jnp.zeros(2, bool)}
    for targets in (some, junk, nothing, counted(NOBODY, NOBODY), counted((strange, [0, 1, 2, 0]), NOBODY)):
        assert all(np.isfinite(one).all() for one in losses_of(*head, targets).values())
        assert all(np.isfinite(one).all() for one in jax.tree.leaves(gradients_of(*head, MAPS, targets)))
    assert not any(np.any(one) for one in losses_of(*head, nothing).values())
    for a, b in zip(*(losses_of(*head, one).values() for one in (some, junk)), strict=True):
        assert np.array_equal(a, b), "what pads the boxes changes nothing"


def test_every_parameter_and_every_map_learns() -> None:
    of_head, of_maps = gradients_of(*heads()["few"], MAPS, counted(ONE, OTHER))
    still = [path for path, leaf in nnx.to_flat_state(of_head) if not np.any(leaf.get_value())]
    assert still == [] and all(np.any(one) for one in of_maps)


def test_images_that_only_fill_up_a_batch_change_nothing() -> None:
    targets = truth(ONE, OTHER) | {"valid": jnp.array([True, False])}
    found = losses_of(*heads()["all"], targets)
    wanted = slow_losses(outputs_of(*heads()["all"], targets["boxes"]), [ONE], EVERYTHING, EVERYTHING)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], [value, 0], rtol=1e-3, atol=1e-4)


def test_the_loss_in_training_is_drawn_anew_each_time() -> None:
    head = nnx.merge(*heads()["few"])
    targets = truth(ONE, OTHER)

    @nnx.jit
    def loss(head: rcnn.Head) -> Array:
        return sum(head.losses(MAPS, targets, SIZE).values())

    total = loss(head)
    assert np.array_equal(loss(head), total), "evaluation is not left to chance"
    head.train()
    values = [float(loss(head).sum()) for _ in range(2)]
    assert len({*values, float(total.sum())}) == 3


def test_another_truth_needs_no_other_program() -> None:
    graphdef, state = heads()["few"]
    losses_of(graphdef, state, counted(ONE, NOBODY))
    size = losses_of._cache_size()
    for images in ((OTHER, ONE), (NOBODY, NOBODY), (NOBODY, OTHER)):
        losses_of(graphdef, state, counted(*images))
    assert losses_of._cache_size() == size


# The head ----------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def predicted(graphdef: Any, state: nnx.State, maps: list[Array], size: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    outputs = nnx.merge(graphdef, state)(maps, size)
    return outputs, rcnn.decode(outputs, size, max_detections=7)


def test_boxes_are_cut_at_each_images_border() -> None:
    sizes = jnp.array([SIZE, (9, 15)])
    outputs, found = predicted(*heads()["all"], MAPS, sizes)
    for boxes in (outputs["proposals"], found["boxes"]):
        for one, (height, width) in zip(boxes, sizes.tolist(), strict=True):
            assert one.min() >= 0 and one[:, 2].max() <= width and one[:, 3].max() <= height
        assert boxes[0, :, 2].max() > 15
    assert found["boxes"].shape == (2, 7, 4) and found["valid"].any(axis=1).all()


def test_nothing_is_found_where_no_score_is_high_enough() -> None:
    outputs, _ = predicted(*heads()["all"], MAPS, jnp.array([SIZE] * 2))
    background = outputs["class_logits"].at[..., 0].add(50)
    found = jax.jit(partial(rcnn.decode, size=SIZE))(outputs | {"class_logits": background})
    assert found["boxes"].shape == (2, 100, 4) and not any(np.any(value) for value in found.values())
    nowhere = outputs | {"proposal_valid": jnp.zeros_like(outputs["proposal_valid"])}
    assert not any(np.any(value) for value in jax.jit(partial(rcnn.decode, size=SIZE))(nowhere).values())


def test_slivers_are_not_detected() -> None:
    corner = jnp.array([[0.0, 0.0, 8.0, 8.0], [10.0, 0.0, 10.009, 8.0], [0.0, 10.0, 8.0, 10.011]])
    outputs = {
        "proposals": corner[None],
        "proposal_valid": jnp.ones((1, 3), bool),
        "class_logits": jnp.zeros((1, 3, 2)),
        "box_regression": jnp.zeros((1, 3, 2, 4)),
    }
    found = jax.jit(partial(rcnn.decode, size=SIZE, max_detections=3))(outputs)
    assert found["valid"].tolist() == [[True, True, False]]
    np.testing.assert_allclose(found["boxes"][0, :2], corner[jnp.array([0, 2])], atol=1e-5)


def test_proposals_have_no_gradient() -> None:
    graphdef, state = heads()["few"]
    found = jax.jit(jax.grad(lambda maps: jnp.sum(nnx.merge(graphdef, state)(maps, SIZE)["proposals"])))(MAPS)
    assert not any(np.any(one) for one in found)


def test_maps_that_are_not_halves_and_strides_that_are_no_powers_of_two_serve() -> None:
    """Inception's 35, 17 and 8 positions of 299 pixels, and 14 pixels of a plain transformer's tokens."""
    for strides, sides, extent in (((8, 16, 32, 64), (35, 17, 8, 4), 299), ((7, 14, 28, 56), (16, 8, 4, 2), 112)):
        head = rcnn.Head(strides, 8, 2, bins=2, width=8, candidates=50, proposals=30, rngs=nnx.Rngs(0))
        maps = [jnp.asarray(seeded.images(1, side, side, 8)) for side in sides]
        outputs = jax.jit(lambda head, maps, extent=extent: head(maps, (extent, extent)))(head, maps)
        centres = [np.asarray(a[:, :2] + a[:, 2:]) / 2 for a in outputs["anchors"]]
        for stride, side, at in zip(strides, sides, centres, strict=True):
            assert at.max() == stride * (side - 1) and len(at) == 3 * side * side
        assert outputs["class_logits"].shape == (1, 30, 3) and np.isfinite(outputs["class_logits"]).all()


def test_the_number_of_proposals_follows_the_size_of_the_image() -> None:
    strides = (4, 8, 16, 32, 64)

    def count(side: int, **options: Any) -> int:
        def found() -> Array:
            maps = [jnp.zeros((1, side // s, side // s, 8)) for s in strides]
            return rcnn.Head(strides, 8, 2, width=8, rngs=nnx.Rngs(0), **options)(maps)["proposals"]

        return nnx.eval_shape(found).shape[1]

    assert [count(side) for side in (128, 320, 640, 1280)] == [100, 160, 640, 1000]
    assert count(128, proposals=17) == 17
    # There are no more than the levels have anchors, and candidates of each.
    assert count(64, proposals=1000, candidates=50) == 50 + 50 + 48 + 12 + 3
    assert count(64, proposals=5000) == 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)


def test_training_has_numbers_of_its_own_where_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    propose = RPN.proposals

    def noted(self: RPN, *args: Any, candidates: int, count: int) -> Any:
        seen.append((candidates, count))
        return propose(self, *args, candidates=candidates, count=count)

    monkeypatch.setattr(RPN, "proposals", noted)
    for options in ({}, {"training_candidates": 20, "training_proposals": 30}):
        head = rcnn.Head(STRIDES, 8, CLASSES, rngs=nnx.Rngs(0), **SMALL, **options)
        head.eval()
        nnx.eval_shape(lambda head=head: head(MAPS)["proposals"])
        nnx.eval_shape(lambda head=head: head.losses(MAPS, truth(ONE, OTHER)))
    assert seen == [(12, 10), (12, 10), (12, 10), (20, 30)]
