"""YOLOX against the published one: keys, levels, outputs, losses, detections."""

from __future__ import annotations

import json
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy_programs
import parity_kit as kit
import pytest
import seeded
from flax import nnx
from jax import Array
from PIL import Image

from zoo.adapters.detector import yolox
from zoo.adapters.detector.layouts import YOLOX
from zoo.adapters.detector.published import MODELS as PUBLISHED
from zoo.dense.points import grid_points
from zoo.dense.pyramid import pyramid_stages
from zoo.errors import ConfigError
from zoo.models.backbone import abstract, run_stages
from zoo.weights.mapping import locate, slots

GOLDEN = json.loads((Path(__file__).parent / "golden" / "yolox.json").read_text())
RUN, VARIANTS = GOLDEN["run"], GOLDEN["variants"]
MODELS = {model.name: model for model in PUBLISHED}
COMPUTED = [name for name, golden in VARIANTS.items() if "outputs" in golden]
EACH = [pytest.param(name, marks=[pytest.mark.exhaustive] * bool(i)) for i, name in enumerate(COMPUTED)]
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# The published detectors -------------------------------------------------------------------------------------------


class Top(nnx.Module):
    """Neck and head, as the detector has them."""

    def __init__(self, name: str, classes: int, *, rngs: nnx.Rngs):
        config, stages = MODELS[name].config, pyramid_stages(kit.backbones()[MODELS[name].backbone])
        channels, strides = [stage.channels for stage in stages], [stage.stride for stage in stages]
        width, depth, separable = (config[key] for key in ("width", "depth", "separable"))
        self.neck = yolox.PAFPN(channels, strides, width, depth=depth, separable=separable, rngs=rngs)
        self.head = yolox.Head(self.neck.strides, self.neck.channels, classes, separable=separable, rngs=rngs)


class Detector(nnx.Module):
    def __init__(self, name: str, classes: int):
        self.backbone = abstract(kit.backbones()[MODELS[name].backbone])
        self.head = nnx.eval_shape(lambda: Top(name, classes, rngs=nnx.Rngs(0)))


def checkpoint_names(detector: Detector) -> dict[str, Any]:
    """Name in the published file -> slot."""
    return {locate(slot.name, YOLOX).names[0]: slot for slot in slots(detector)}


def levels_and_outputs(
    graphdef: nnx.GraphDef[Detector], state: nnx.State, x: Array
) -> tuple[list[Array], dict[str, Any]]:
    """Levels and outputs for images in pixels."""
    detector = nnx.merge(graphdef, state)
    levels = detector.head.neck(list(run_stages(detector.backbone, x, ["dark3", "dark4", "dark5"]).values()))
    return levels, detector.head.head(levels)


run = jax.jit(levels_and_outputs, static_argnums=0)


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
def on_formula(name: str, dtype: Any = jnp.float32) -> tuple[list[Array], dict[str, Any]]:
    """Levels and outputs for the golden's images; in double precision, where JAX allows it, evaluated with NumPy."""
    graphdef, state = loaded(name)
    state = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    images = 64 * seeded.images(len(RUN["targets"]), *RUN["size"])
    if dtype == jnp.float64:
        return numpy_programs.evaluate(partial(levels_and_outputs, graphdef), state, images.astype(dtype))
    return run(graphdef, state, jnp.asarray(images, dtype))


def arrays_of(name: str, dtype: Any) -> dict[str, np.ndarray]:
    levels, outputs = on_formula(name, dtype)
    arrays = {f"level {i}": level for i, level in enumerate(levels)} | outputs
    return {key: np.asarray(arrays[key]) for key in VARIANTS[name]["outputs"]}


decode = jax.jit(yolox.decode, static_argnames=("pre_nms_threshold", "nms_iou", "max_detections"))
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


@pytest.mark.parametrize("name", EACH)
def test_every_level_and_output_equals_the_reference(name: str) -> None:
    """In double precision, and in single precision up to what rounding does: with these weights the last image, that of
    the highest contrast, makes it a hundred times as large as the others do, so that a single element may pass 1e-4."""
    with jax.enable_x64(True):
        exact = arrays_of(name, jnp.float64)
    assert all(values.dtype == np.float64 for values in exact.values())
    found = {key: seeded.error(exact[key], wanted) for key, wanted in VARIANTS[name]["outputs"].items()}
    assert {key: error for key, error in found.items() if error >= kit.TOLERANCE} == {}
    for key, values in arrays_of(name, jnp.float32).items():
        off = np.abs(values - exact[key]) / exact[key].std()
        assert off[:-1].max() < kit.TOLERANCE > np.sqrt(np.mean(off**2)), key


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
    found = decode(on_formula(name)[1], tuple(RUN["size"]), pre_nms_threshold=RUN["score"], nms_iou=RUN["overlap"])
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
    found = decode(outputs, jnp.asarray([[height, width]]), pre_nms_threshold=RUN["score"], nms_iou=RUN["overlap"])
    assert_detections(found, wanted["detections"], 0)


# Predicting --------------------------------------------------------------------------------------------------------


def test_a_box_is_read_from_its_cell_and_cut_at_the_border() -> None:
    points = grid_points([(4, 4), (2, 2)], [(8, 8), (16, 16)], 0.5)
    outputs: dict[str, Any] = {"points": points, "strides": [np.full(16, 8.0), np.full(4, 16.0)]}
    outputs |= {name: jnp.zeros((1, 20, n)) for name, n in (("cls_preds", 3), ("reg_preds", 4))}
    outputs["obj_preds"] = jnp.full((1, 20, 1), -20.0)
    for at, raw in ((0, (0.5, 0.5, math.log(2), 0.0)), (19, (1.0, 0.0, math.log(1.5), -math.log(2)))):
        outputs["reg_preds"] = outputs["reg_preds"].at[0, at].set(jnp.array(raw))
        outputs["obj_preds"] = outputs["obj_preds"].at[0, at].set(20.0 - at)
        outputs["cls_preds"] = outputs["cls_preds"].at[0, at].set(jnp.array([3.0, 4.0, -9.0]))
    found = decode(outputs, jnp.array([[30, 28]]), max_detections=4)
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
        head = yolox.Head(neck.strides, neck.channels, 3, rngs=nnx.Rngs(0))
        levels = neck(maps_of(sizes, channels, jnp.bfloat16))
        return levels, head(levels), neck.strides

    levels, outputs, _ = jax.eval_shape(build)
    assert [level.shape for level in levels] == [
        (1, *size, c) for size, c in zip([*sizes, *made], [8, 16, 32], strict=True)
    ]
    assert all(level.dtype == jnp.bfloat16 for level in levels)
    count = sum(h * w for h, w in [*sizes, *made])
    assert [outputs[n].shape[1:] for n in ("cls_preds", "reg_preds", "obj_preds")] == [(count, n) for n in (3, 4, 1)]


def test_points_follow_the_declared_strides() -> None:
    head = nnx.eval_shape(lambda: yolox.Head([14, 28], 4, 3, separable=True, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(head)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

    @jax.jit
    def places(state: nnx.State) -> dict[str, Any]:
        outputs = nnx.merge(graphdef, state)(maps_of([(2, 3), (1, 2)], [4, 4]))
        return {name: outputs[name] for name in ("points", "strides")}

    found = places(state)
    assert found["points"][0].tolist() == [[7, 7], [21, 7], [35, 7], [7, 21], [21, 21], [35, 21]]


def test_every_position_starts_at_the_prior() -> None:
    head = yolox.Head([8], 4, 3, prior=0.02, rngs=nnx.Rngs(0))
    for conv in (head.cls_preds[0], head.obj_preds[0]):
        np.testing.assert_allclose(jax.nn.sigmoid(conv.bias[...]), 0.02, rtol=1e-5)
    assert not head.reg_preds[0].bias[...].any()


def test_every_parameter_of_a_head_learns() -> None:
    head = yolox.Head([8.0], 4, 3, l1=True, rngs=nnx.Rngs(0))
    truth = padded([{"boxes": [[2, 2, 20, 22]], "labels": [1]}], 2)
    maps = [jnp.sin(jnp.arange(64, dtype=jnp.float32)).reshape(1, 4, 4, 4)]

    @nnx.jit
    def gradients(head: yolox.Head) -> nnx.State:
        return nnx.grad(lambda head: jnp.mean(sum(head.losses(maps, truth).values())))(head)

    found = {".".join(map(str, path)): np.asarray(g.get_value()) for path, g in nnx.to_flat_state(gradients(head))}
    assert len(found) == 3 * 5 + 6, "five blocks of three arrays, three convolutions of two"
    assert [name for name, g in found.items() if not (np.isfinite(g).all() and g.any())] == []


def test_a_match_that_does_not_overlap_its_truth_is_drawn_to_it() -> None:
    """Every position predicts a box far away, so that all overlaps are 0: SimOTA still matches one of them."""
    target = padded([{"boxes": [[2, 2, 20, 22]], "labels": [1]}], 2)
    outputs = {
        "cls_preds": jnp.zeros((1, 16, 3)),
        "obj_preds": jnp.zeros((1, 16, 1)),
        "reg_preds": jnp.broadcast_to(jnp.array([9.0, -9.0, -3.0, 12.0]), (1, 16, 4)),
        "points": [jnp.stack(jnp.meshgrid(*[jnp.arange(4.0, 32, 8)] * 2), -1).reshape(-1, 2)],
        "strides": [jnp.full(16, 8.0)],
    }

    @jax.jit
    def moved(raw: Array) -> tuple[Array, Array]:
        def loss(raw: Array) -> Array:
            return jnp.sum(yolox.losses(outputs | {"reg_preds": raw}, target)["reg_preds"])

        return jax.value_and_grad(loss)(raw)

    value, gradient = moved(outputs["reg_preds"])
    assert value == pytest.approx(5), "the value is that of the IoU alone"
    (row,) = np.flatnonzero(np.any(np.asarray(gradient[0]) != 0, axis=-1))
    assert np.sign(gradient[0, row]).tolist() == [1, -1, -1, 1], "each output goes towards its truth"


@pytest.mark.parametrize(("channels", "strides"), [([1] * 4, [4, 8, 16, 32]), ([1, 2], [8, 16, 32]), ([], [])])
def test_a_pyramid_of_other_maps_is_refused(channels: Any, strides: Any) -> None:
    with pytest.raises(ConfigError, match="one to three maps"):
        yolox.PAFPN(channels, strides, rngs=nnx.Rngs(0))


def test_a_head_needs_channels_for_each_level() -> None:
    with pytest.raises(ConfigError, match="got 2 numbers of channels for 3 levels"):
        yolox.Head([8, 16, 32], [4, 4], 3, rngs=nnx.Rngs(0))
