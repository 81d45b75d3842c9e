"""FCOS against torchvision, and against a slow reference written as the paper reads."""

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

from zoo.adapters.detector import fcos
from zoo.adapters.detector.layouts import TORCHVISION
from zoo.dense.necks import FPN
from zoo.dense.points import grid_points, map_steps
from zoo.dense.pyramid import pyramid_stages
from zoo.errors import ConfigError
from zoo.models.backbone import run_stages

FILE = json.loads((Path(__file__).parent / "golden" / "fcos.json").read_text())
GOLDEN = FILE["fcos_resnet50_fpn"]
STAGES = pyramid_stages(kit.SPEC)
TOLERANCE = 1e-4
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# torchvision -------------------------------------------------------------------------------------------------------


class Top(nnx.Module):
    """Neck and head, as the detector has them."""

    def __init__(self, classes: int, *, steps: Any = "declared", rngs: nnx.Rngs):
        self.neck = FPN([stage.channels for stage in STAGES], [stage.stride for stage in STAGES], rngs=rngs)
        self.head = fcos.Head(self.neck.strides, self.neck.width, classes, steps=steps, rngs=rngs)


@cache
def loaded() -> tuple[nnx.GraphDef[kit.Detector], nnx.State]:
    """torchvision's detector with name-seeded weights."""
    detector = kit.abstract(partial(Top, GOLDEN["classes"]))
    kit.fill(detector, TORCHVISION, GOLDEN["scales"])
    return nnx.split(detector)


@partial(jax.jit, static_argnums=(0, 3))
def run(
    graphdef: nnx.GraphDef[kit.Detector], state: nnx.State, x: Array, steps: str
) -> tuple[list[Array], dict[str, Any]]:
    """Levels and outputs for normalised images."""
    detector = nnx.merge(graphdef, state)
    detector.head.head.steps = steps
    found = run_stages(detector.backbone, x, [stage.name for stage in STAGES])
    levels = detector.head.neck(list(found.values()))
    return levels, detector.head.head(levels)


@cache
def on_formula() -> tuple[list[Array], dict[str, Any]]:
    return run(*loaded(), jnp.asarray(seeded.images(2, *GOLDEN["formula"]["size"])), "declared")


@pytest.mark.parametrize(("classes", "key"), [(GOLDEN["classes"], "keys"), (91, "published_keys")])
def test_every_key_of_torchvisions_checkpoint_has_its_place(classes: int, key: str) -> None:
    assert kit.digest(kit.abstract(partial(Top, classes)), TORCHVISION) == GOLDEN[key]


def test_every_level_and_output_equals_torchvisions() -> None:
    levels, outputs = on_formula()
    wanted = GOLDEN["formula"]
    found = {
        f"level {i}": seeded.error(np.asarray(x), y)
        for i, (x, y) in enumerate(zip(levels, wanted["levels"], strict=True))
    }
    found |= {name: seeded.error(np.asarray(outputs[name]), y) for name, y in wanted["outputs"].items()}
    assert {name: error for name, error in found.items() if error >= TOLERANCE} == {}


def test_losses_equal_torchvisions() -> None:
    _, outputs = on_formula()
    found = jax.jit(fcos.losses)(outputs, kit.padded(GOLDEN["formula"]["targets"], 9))
    for name, wanted in GOLDEN["formula"]["losses"].items():
        assert float(found[name].mean()) == pytest.approx(wanted, rel=TOLERANCE), name
        assert found[name].shape == (2,)
    assert found["bbox_regression"][1] == found["bbox_ctrness"][1] == 0 < found["classification"][1]


def test_detections_equal_torchvisions() -> None:
    _, outputs = on_formula()
    found = jax.jit(fcos.decode, static_argnums=1)(outputs, tuple(GOLDEN["formula"]["size"]))
    for row, wanted in enumerate(GOLDEN["formula"]["detections"]):
        kit.assert_detections(found, wanted, row)


def test_detections_on_a_real_photo_equal_torchvisions(assets: Path) -> None:
    wanted = GOLDEN["photo"]
    _, outputs = run(*loaded(), kit.photo(assets, wanted), "floor")
    size = jnp.asarray([wanted["size"]])
    kit.assert_detections(jax.jit(fcos.decode)(outputs, size), wanted["detections"], 0)


def test_positions_are_torchvisions_where_it_rounds_strides() -> None:
    size = FILE["points"]["size"]
    strides = (8, 16, 32, 64, 128)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    points = np.concatenate(grid_points(sizes, map_steps(sizes, strides, "floor")))
    assert seeded.error(points, FILE["points"]["centres"]) < 1e-6


# A slow reference --------------------------------------------------------------------------------------------------

STRIDES, SIZE, CLASSES, BOXES = (7, 14, 28), (56, 42), 3, 5
SIZES = [tuple(-(-side // stride) for side in SIZE) for stride in STRIDES]
POINTS = [
    (x * s, y * s, level)
    for level, (s, (h, w)) in enumerate(zip(STRIDES, SIZES, strict=True))
    for y in range(h)
    for x in range(w)
]


def slow_assignment(boxes: Any) -> list[int]:
    found = []
    for x, y, level in POINTS:
        stride = STRIDES[level]
        low = 0 if level == 0 else 4 * stride
        high = math.inf if level == len(STRIDES) - 1 else 8 * stride
        best, smallest = -1, math.inf
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            centred = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * stride
            # In steps of 8, as float32 has them next to 1e8.
            size = float(np.float32(1e8)) - float(np.float32(1e8 - (x2 - x1) * (y2 - y1)))
            if centred and min(sides) > 0 and low < max(sides) < high and size < smallest:
                best, smallest = i, size
        found.append(best)
    return found


def slow_losses(outputs: dict[str, np.ndarray], truth: list[tuple[Any, Any]]) -> dict[str, list[float]]:
    """Sums for each image, over the positives of the batch."""
    sums: dict[str, list[float]] = {"classification": [], "bbox_regression": [], "bbox_ctrness": []}
    positives = 0
    for image, (boxes, labels) in enumerate(truth):
        focal = regression = central = 0.0
        for p, matched in enumerate(slow_assignment(boxes)):
            x, y, level = POINTS[p]
            for k in range(CLASSES):
                chance = 1 / (1 + math.exp(-float(outputs["cls_logits"][image, p, k])))
                hit = matched >= 0 and labels[matched] == k
                focal += (
                    -0.25 * (1 - chance) ** 2 * math.log(chance) if hit else -0.75 * chance**2 * math.log(1 - chance)
                )
            if matched < 0:
                continue
            positives += 1
            x1, y1, x2, y2 = boxes[matched]
            left, top, right, bottom = (float(v) * STRIDES[level] for v in outputs["bbox_regression"][image, p])
            a1, b1, a2, b2 = x - left, y - top, x + right, y + bottom
            shared = max(0, min(a2, x2) - max(a1, x1)) * max(0, min(b2, y2) - max(b1, y1))
            union = (a2 - a1) * (b2 - b1) + (x2 - x1) * (y2 - y1) - shared
            hull = (max(a2, x2) - min(a1, x1)) * (max(b2, y2) - min(b1, y1))
            regression += 1 - (shared / union - (hull - union) / hull)
            across, down = sorted((x - x1, x2 - x)), sorted((y - y1, y2 - y))
            wanted = math.sqrt(across[0] / across[1] * down[0] / down[1])
            chance = 1 / (1 + math.exp(-float(outputs["bbox_ctrness"][image, p, 0])))
            central -= wanted * math.log(chance) + (1 - wanted) * math.log(1 - chance)
        for name, value in zip(sums, (focal, regression, central), strict=True):
            sums[name].append(value)
    return {name: [value / max(1, positives) for value in values] for name, values in sums.items()}


def random_outputs(images: int) -> dict[str, Any]:
    random = seeded.generator("fcos outputs")
    count = len(POINTS)
    return {
        "cls_logits": random.normal(size=(images, count, CLASSES)).astype(np.float32),
        "bbox_regression": np.abs(random.normal(size=(images, count, 4))).astype(np.float32),
        "bbox_ctrness": random.normal(size=(images, count, 1)).astype(np.float32),
        "points": grid_points(SIZES, [(s, s) for s in STRIDES]),  # type: ignore[arg-type]
        "strides": [np.full(h * w, s, np.float32) for s, (h, w) in zip(STRIDES, SIZES, strict=True)],
    }


OUTPUTS = random_outputs(2)
# Multiples of half a pixel, many of them on a position or a stride from it, so that ties and borders come up.
side = st.one_of(st.integers(0, 8).map(lambda n: 7.0 * n), st.integers(0, 112).map(lambda n: n / 2))
box = st.tuples(side, side, side, side).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 0.5, max(b[1], b[3]) + 0.5)
)
image = st.lists(st.tuples(box, st.integers(0, CLASSES - 1)), max_size=BOXES).map(
    lambda rows: ([b for b, _ in rows], [label for _, label in rows])
)
examples = settings(max_examples=60, deadline=None, database=None, derandomize=True)


@jax.jit
def matched(boxes: Array, valid: Array) -> Array:
    strides = jnp.concatenate([jnp.asarray(level) for level in OUTPUTS["strides"]])
    counts = [len(level) for level in OUTPUTS["strides"]]
    lower = jnp.where(jnp.arange(len(POINTS)) < counts[0], 0, 4 * strides)
    upper = jnp.where(jnp.arange(len(POINTS)) >= len(POINTS) - counts[-1], jnp.inf, 8 * strides)
    return fcos.assign(jnp.concatenate(OUTPUTS["points"]), strides, lower, upper, boxes, valid)


def truth(*images: tuple[Any, Any]) -> dict[str, Array]:
    return kit.padded([{"boxes": boxes, "labels": labels} for boxes, labels in images], BOXES)


@settings(examples, max_examples=200)
@given(image)
def test_assignment_equals_the_slow_one(one: tuple[Any, Any]) -> None:
    targets = truth(one)
    assert matched(targets["boxes"][0], targets["box_valid"][0]).tolist() == slow_assignment(one[0])


@pytest.mark.parametrize(
    ("boxes", "seen"),
    [
        ([], set()),
        ([(15, 15, 16, 16)], set()),  # between the positions of every level
        ([(13, 13, 15, 15)], {0}),  # smaller than a cell, on a position
        ([(0, 0, 20, 20), (0, 0, 20, 20)], {0}),  # the same box twice: the first
        ([(0, 0, 40, 40), (20, 20, 36, 36)], {0, 1}),  # one in another: the smaller where both may be
        ([(0, 0, 21, 20), (21, 0, 42, 20)], {0, 1}),  # touching
        ([(-100, -100, 142, 156)], {0}),  # larger than the image: the last level alone
    ],
)
def test_assignment_of_special_boxes(boxes: Any, seen: set[int]) -> None:
    targets = truth((boxes, [0] * len(boxes)))
    found = matched(targets["boxes"][0], targets["box_valid"][0]).tolist()
    assert found == slow_assignment(boxes)
    assert set(found) - {-1} == seen


compiled_losses = jax.jit(fcos.losses)
floats = ("cls_logits", "bbox_regression", "bbox_ctrness")


@jax.jit
def gradients(outputs: dict[str, Any], targets: dict[str, Array]) -> dict[str, Array]:
    def total(parts: dict[str, Array]) -> Array:
        found = fcos.losses({**outputs, **parts}, targets)
        return sum((jnp.mean(one) for one in found.values()), start=jnp.zeros(()))

    return jax.grad(total)({name: jnp.asarray(outputs[name]) for name in floats})


@examples
@given(image, image)
def test_losses_equal_the_slow_ones_and_have_finite_gradients(one: Any, other: Any) -> None:
    targets = truth(one, other)
    found, wanted = compiled_losses(OUTPUTS, targets), slow_losses(OUTPUTS, [one, other])
    for name, values in wanted.items():
        # Of two images: the mean of what is given is the sum of these.
        np.testing.assert_allclose(np.asarray(found[name]) / 2, values, rtol=2e-4, atol=1e-5)
    for gradient in gradients(OUTPUTS, targets).values():
        assert np.isfinite(gradient).all()


def test_losses_and_gradients_are_finite_where_nothing_is_there_or_predicted() -> None:
    nothing = {name: np.zeros_like(OUTPUTS[name]) for name in floats}
    extreme = {"cls_logits": OUTPUTS["cls_logits"] * 1e4, "bbox_ctrness": OUTPUTS["bbox_ctrness"] * 1e4}
    some = truth(([(0, 0, 20, 20)], [1]), ([], []))
    for targets in (truth(([], []), ([], [])), some, some | {"valid": jnp.zeros(2, bool)}):
        for outputs in (OUTPUTS, OUTPUTS | nothing, OUTPUTS | extreme):
            assert all(np.isfinite(one).all() for one in compiled_losses(outputs, targets).values())
            assert all(np.isfinite(one).all() for one in gradients(outputs, targets).values())


def test_centerness_and_its_gradient() -> None:
    sides = jnp.array([[1.0, 4.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 2.0, 3.0, 4.0]])
    inside = jnp.array([True, True, False, False])
    np.testing.assert_allclose(fcos.centerness(sides, inside), [math.sqrt(1 / 3), 1, 0, 0], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda sides: jnp.sum(fcos.centerness(sides, inside)))(sides)).all()


def test_images_that_only_fill_up_a_batch_change_nothing() -> None:
    first, filler = ([(0.0, 0.0, 20.0, 20.0)], [1]), ([(5.0, 5.0, 30.0, 40.0)], [2])
    alone = compiled_losses({**OUTPUTS, **{name: OUTPUTS[name][:1] for name in floats}}, truth(first))
    both = compiled_losses(OUTPUTS, truth(first, filler) | {"valid": jnp.array([True, False])})
    for name in alone:
        assert float(both[name][0]) == pytest.approx(float(alone[name][0]), rel=1e-5)


def test_what_pads_the_boxes_changes_nothing() -> None:
    one, other = ([(0.0, 0.0, 20.0, 20.0)], [1]), ([(5.0, 5.0, 30.0, 40.0)], [2])
    targets = truth(one, other)
    hidden = ~targets["box_valid"]
    junk = targets | {"boxes": jnp.where(hidden[..., None], jnp.nan, targets["boxes"])}
    junk["labels"] = jnp.where(hidden, 99, targets["labels"])
    for a, b in zip(compiled_losses(OUTPUTS, targets).values(), compiled_losses(OUTPUTS, junk).values(), strict=True):
        assert np.array_equal(a, b)


def test_losses_are_computed_in_float32() -> None:
    half = {**OUTPUTS, **{name: jnp.asarray(OUTPUTS[name], jnp.bfloat16) for name in floats}}
    targets = truth(([(0.0, 0.0, 20.0, 20.0)], [1]), ([], []))
    rounded = {**OUTPUTS, **{name: half[name].astype(jnp.float32) for name in floats}}
    for a, b in zip(compiled_losses(half, targets).values(), compiled_losses(rounded, targets).values(), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-6)


# The head ----------------------------------------------------------------------------------------------------------


def small_head(**options: Any) -> fcos.Head:
    return fcos.Head((8, 16), 16, CLASSES, convs=1, groups=4, rngs=nnx.Rngs(0), **options)


MAPS = [jnp.asarray(seeded.images(2, 5, 4, 16)), jnp.asarray(seeded.images(2, 3, 2, 16))]


def test_a_new_head_gives_every_class_its_prior() -> None:
    outputs = small_head(prior=0.05, width=8)(MAPS)
    assert {name: outputs[name].shape for name in floats} == {
        "cls_logits": (2, 26, 3),
        "bbox_regression": (2, 26, 4),
        "bbox_ctrness": (2, 26, 1),
    }
    np.testing.assert_allclose(jax.nn.sigmoid(outputs["cls_logits"]), 0.05, atol=0.01)
    assert [len(level) for level in outputs["points"]] == [20, 6]
    assert outputs["points"][1].tolist()[:3] == [[0, 0], [16, 0], [0, 16]]


def test_a_head_gives_the_three_terms_of_its_outputs() -> None:
    head, targets = small_head(), truth(([(0.0, 0.0, 20.0, 20.0)], [1]), ([], []))
    terms, expected = head.losses(MAPS, targets, (40, 32)), fcos.losses(head(MAPS), targets)
    assert list(terms) == ["classification", "bbox_regression", "bbox_ctrness"]
    for name, term in terms.items():
        assert term.shape == (2,)
        np.testing.assert_allclose(term, expected[name], rtol=1e-5)


@jax.jit
def one_step(graphdef_state: Any, targets: dict[str, Array]) -> tuple[Any, Array, Array]:
    """The head after a step of Adam's size, its gradient of `bbox_reg.bias` (4,), and its distances."""
    graphdef, state = graphdef_state

    def loss(state: nnx.State) -> tuple[Array, Array]:
        outputs = nnx.merge(graphdef, state)(MAPS)
        total = sum((jnp.mean(one) for one in fcos.losses(outputs, targets).values()), start=jnp.zeros(()))
        return total, outputs["bbox_regression"]

    gradient, distances = jax.grad(loss, has_aux=True)(state)
    moved = jax.tree.map(lambda value, g: value - 0.1 * jnp.sign(g), state, gradient)
    return (graphdef, moved), gradient["regression_head"]["bbox_reg"]["bias"][...], distances


@pytest.mark.parametrize("dead", [[0], [3], [0, 2], [1, 3], [0, 1, 2, 3]])
def test_a_side_whose_channel_is_negative_everywhere_comes_back(dead: list[int]) -> None:
    head, targets = small_head(), truth(([(0.0, 0.0, 20.0, 20.0)], [1]), ([(4.0, 6.0, 30.0, 30.0)], [0]))
    # Negative whatever the weights make of the maps, so that the ReLU gives 0 at every position.
    head.regression_head.bbox_reg.kernel[...] *= 0.1
    head.regression_head.bbox_reg.bias[...] = jnp.full(4, 1.0).at[jnp.array(dead)].set(-0.5)
    one = nnx.split(head)
    one, gradient, distances = one_step(one, targets)
    assert np.all(np.asarray(distances)[..., dead] == 0)
    assert np.all(np.asarray(gradient)[dead] < -1e-3), gradient
    for _ in range(10):
        one, _, distances = one_step(one, targets)
    assert np.all(np.asarray(distances).max(axis=(0, 1)) > 0), distances.max(axis=(0, 1))


def test_what_raises_a_dead_side_changes_no_loss() -> None:
    """A side of zero costs what GIoU says, and nothing beside it."""
    targets = truth(([(0, 0, 20, 20)], [1]), ([(5, 5, 30, 40)], [0]))
    shut = OUTPUTS | {"bbox_regression": OUTPUTS["bbox_regression"] * np.array([0, 1, 1, 0], np.float32)}
    found = compiled_losses(shut, targets)["bbox_regression"]
    wanted = slow_losses(shut, [([(0, 0, 20, 20)], [1]), ([(5, 5, 30, 40)], [0])])["bbox_regression"]
    np.testing.assert_allclose(np.asarray(found) / 2, wanted, rtol=2e-4)


decoded = jax.jit(
    fcos.decode, static_argnums=1, static_argnames=("pre_nms_threshold", "candidates", "nms_iou", "max_detections")
)


def test_nothing_is_found_where_no_score_is_high_enough() -> None:
    found = decoded(OUTPUTS | {"cls_logits": OUTPUTS["cls_logits"] - 50}, SIZE, max_detections=7)
    assert found["boxes"].shape == (2, 7, 4) and not any(np.any(value) for value in found.values())


def seen(rows: list[tuple[tuple[float, ...], int, float]], **options: Any) -> list[tuple[int, float]]:
    """(label, score) of what is found where positions of the first level predict these (box, label, score)."""
    outputs = {name: np.zeros_like(OUTPUTS[name][:1]) for name in floats}
    outputs["cls_logits"] -= 50
    outputs["bbox_ctrness"] += 50
    for i, (box, label, score) in enumerate(rows):
        x, y, _ = POINTS[i]
        outputs["cls_logits"][0, i, label] = math.log(score**2 / (1 - score**2))
        outputs["bbox_regression"][0, i] = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / STRIDES[0]
    found = decoded({**OUTPUTS, **outputs}, SIZE, **options)
    count = int(found["valid"].sum())
    scores = [round(score, 3) for score in found["scores"][0, :count].tolist()]
    return [*zip(found["labels"][0, :count].tolist(), scores, strict=True)]


def test_detections_follow_the_options() -> None:
    wide, less, more = (0, 0, 50, 50), (0, 0, 50, 29), (0, 0, 50, 31)  # of 0.58 and 0.62 of the first one's area
    assert seen([(wide, 1, 0.9), (less, 1, 0.8)]) == [(1, 0.9), (1, 0.8)]
    assert seen([(wide, 1, 0.9), (more, 1, 0.8)]) == [(1, 0.9)]
    assert seen([(more, 1, 0.8), (wide, 1, 0.9), (wide, 2, 0.7)]) == [(1, 0.9), (2, 0.7)]
    assert seen([(wide, 1, 0.9), (less, 1, 0.8)], nms_iou=0.5) == [(1, 0.9)]
    assert seen([(wide, 1, 0.19), (wide, 0, 0.21)]) == [(0, 0.21)]
    assert seen([(wide, 1, 0.19)], pre_nms_threshold=0.1) == [(1, 0.19)]
    many = [(wide, 0, 0.3), (wide, 1, 0.4), (wide, 2, 0.5)]
    assert seen(many, candidates=2) == [(2, 0.5), (1, 0.4)]
    assert seen(many, max_detections=1) == [(2, 0.5)]


def test_boxes_are_cut_at_each_images_border() -> None:
    sizes = jnp.array([[56, 42], [20, 30]])
    found = jax.jit(fcos.decode)(OUTPUTS, sizes)
    for boxes, (height, width) in zip(found["boxes"], sizes.tolist(), strict=True):
        assert boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
    assert found["boxes"][0, :, 2].max() > 30


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="20 channels cannot be divided into 32 groups"):
        fcos.Head((8,), 20, 2, rngs=nnx.Rngs(0))
