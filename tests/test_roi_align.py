"""RoIAlign against torchvision, and against a slow reference written as the paper reads."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from zoo.dense.roi_align import region_levels, roi_align

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rcnn.json").read_text())["regions"]
STRIDES = (4, 8, 16, 32)
SIZES = ((9, 12), (5, 6), (3, 3), (2, 1))
"""Of maps, odd and not halves of one another."""
BINS, CHANNELS, COUNT = 3, 2, 5
pytestmark = pytest.mark.usefixtures("strict_dtypes")

read = jax.jit(partial(roi_align, strides=STRIDES))
read_small = jax.jit(partial(roi_align, strides=STRIDES, bins=BINS))


@jax.jit
def gradient(maps: list[Array], boxes: Array, wanted: Array) -> list[Array]:
    """With respect to the maps, of the sum of what is read times `wanted`."""
    return jax.grad(lambda maps: jnp.sum(roi_align(maps, boxes, STRIDES, bins=BINS) * wanted))(maps)


def small_maps() -> list[np.ndarray]:
    return [seeded.generator(f"map {size}").standard_normal((2, *size, CHANNELS), np.float32) for size in SIZES]


# A slow reference --------------------------------------------------------------------------------------------------


def slow_level(box: np.ndarray) -> int:
    """arXiv:1612.03144, eq. 1."""
    area = max(float(box[2] - box[0]), 0) * max(float(box[3] - box[1]), 0)
    return 0 if not area else min(max(math.floor(4 + math.log2(math.sqrt(area) / 224) + 1e-6), 2), 5) - 2


def slow_corners(place: float, length: int) -> list[tuple[int, float]]:
    place = min(max(place, 0.0), length - 1)
    below = math.floor(place)
    return [(below, 1 - (place - below)), (min(below + 1, length - 1), place - below)]


def slow_weights(box: np.ndarray) -> tuple[int, list[tuple[int, int, int, int, float]]]:
    """Level of a region, and (row of bins, column of bins, y, x, weight) of everything that is read."""
    level = slow_level(box)
    (height, width), stride = SIZES[level], STRIDES[level]
    x1, y1, x2, y2 = (float(v) / stride for v in box)
    found = []
    for i in range(BINS):
        for j in range(BINS):
            for a in (0.25, 0.75):
                for b in (0.25, 0.75):
                    y = y1 + (i + a) * max(y2 - y1, 1) / BINS
                    x = x1 + (j + b) * max(x2 - x1, 1) / BINS
                    for row, of_y in slow_corners(y, height):
                        for column, of_x in slow_corners(x, width):
                            found.append((i, j, row, column, of_y * of_x / 4))
    return level, found


coordinates = st.sampled_from([0.0, 0.5, 3.0, 4.0, 7.75, 16.0, 21.3, 35.9, 48.0])
some_boxes = st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), min_size=COUNT, max_size=COUNT)


def upright(boxes: list[tuple[float, ...]]) -> np.ndarray:
    corners = np.array([boxes, boxes[::-1]], np.float32)
    return np.concatenate(
        [np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])], -1
    )


@settings(max_examples=30, deadline=None)
@given(some_boxes)
def test_regions_and_their_gradient_equal_a_slow_reference(boxes: list[tuple[float, ...]]) -> None:
    regions, maps = upright(boxes), small_maps()
    wanted = np.zeros((2, COUNT, BINS, BINS, CHANNELS))
    factors = seeded.generator("factors").standard_normal(wanted.shape, np.float32)
    gradients = [np.zeros(x.shape) for x in maps]
    for image in range(2):
        for n, box in enumerate(regions[image]):
            level, weights = slow_weights(box)
            for i, j, row, column, weight in weights:
                wanted[image, n, i, j] += weight * maps[level][image, row, column]
                gradients[level][image, row, column] += weight * factors[image, n, i, j]
    np.testing.assert_allclose(read_small(maps, regions), wanted, atol=1e-4)
    for found, slow in zip(gradient(maps, regions, factors), gradients, strict=True):
        np.testing.assert_allclose(found, slow, atol=2e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 1000, width=32), min_size=4, max_size=4))
def test_levels_are_those_of_the_equation(sides: list[float]) -> None:
    boxes = np.array([[0, 0, sides[0], sides[1]], [3, 3, 3 + sides[2], 3 + sides[3]]], np.float32)
    near_a_limit = [abs(math.log2(math.sqrt(np.prod(b[2:] - b[:2])) / 224) % 1 - 0.5) > 0.4999 for b in boxes]
    found = region_levels(jnp.asarray(boxes), STRIDES)
    assert all(limit or level == slow_level(b) for limit, level, b in zip(near_a_limit, found, boxes, strict=True))


def test_limits_between_levels_belong_to_the_coarser_one() -> None:
    sides = [111.99, 112, 223.99, 224, 447.99, 448, 5000, 0, -1]
    boxes = jnp.array([[7, 7, 7 + side, 7 + side] for side in sides], jnp.float32)
    assert region_levels(boxes, STRIDES).tolist() == [0, 1, 1, 2, 2, 3, 3, 0, 0]
    # A level is chosen by its declared stride: 14 pixels of a plain transformer's tokens, and half and twice that.
    squares = jnp.array([[0, 0, side, side] for side in (195, 197, 391, 393)], jnp.float32)
    assert region_levels(squares, (7, 14, 28)).tolist() == [0, 1, 1, 2]
    assert region_levels(squares, (16,)).tolist() == [0, 0, 0, 0]


# torchvision -------------------------------------------------------------------------------------------------------


def test_regions_and_their_gradients_equal_torchvisions() -> None:
    maps = [jnp.asarray(seeded.images(2, GOLDEN["size"][0] // s, GOLDEN["size"][1] // s, 8)) for s in STRIDES]
    boxes = jnp.asarray(np.array([GOLDEN["boxes"], GOLDEN["boxes"][::-1]], np.float32))
    found = np.asarray(read(maps, boxes))
    assert seeded.error(found.reshape(-1, *found.shape[2:]), GOLDEN["output"]) < 1e-4
    gradients = jax.jit(jax.grad(lambda maps: jnp.sum(jnp.square(roi_align(maps, boxes, STRIDES)))))(maps)
    for one, wanted in zip(gradients, GOLDEN["gradients"], strict=True):
        assert seeded.error(np.asarray(one), wanted) < 1e-4


# Shapes and dtypes -------------------------------------------------------------------------------------------------


def test_what_is_no_box_is_finite_and_boxes_have_no_gradient() -> None:
    maps = [jnp.asarray(x) for x in small_maps()]
    boxes = jnp.array([[0, 0, 0, 0], [9, 9, 3, 3], [-1e6, -1e6, 1e6, 1e6], [1e9, 1e9, 1e9, 1e9]], jnp.float32)
    both = jnp.stack([boxes, boxes])
    assert np.isfinite(read_small(maps, both)).all()
    by_box = jax.jit(jax.grad(lambda boxes: jnp.sum(jnp.square(roi_align(maps, boxes, STRIDES, bins=BINS)))))(both)
    assert not by_box.any()


def test_maps_keep_their_dtype_and_sums_are_of_float32() -> None:
    exact = [jnp.asarray(x, jnp.bfloat16) for x in small_maps()]
    boxes = jnp.array([[[1.3, 2.7, 33.1, 30.9]]] * 2, jnp.float32)
    found = read_small(exact, boxes)
    assert found.dtype == jnp.bfloat16
    wanted = read_small([x.astype(jnp.float32) for x in exact], boxes)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=2**-8)
    gradients = gradient(exact, boxes, jnp.ones(found.shape, jnp.bfloat16))
    # Each bin has a weight of one, wherever it is read.
    assert sum(float(g.astype(jnp.float32).sum()) for g in gradients) == pytest.approx(2 * BINS**2 * CHANNELS, rel=1e-2)


def test_many_regions_are_scattered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of bins is that are added at a time, the last part being filled up or not."""
    maps = [jnp.asarray(x) for x in small_maps()]
    corners = seeded.generator("boxes").uniform(0, 24, (2, 7, 4)).astype(np.float32)
    corners[..., 2:] += corners[..., :2]

    def by(bins: int) -> list[Array]:
        monkeypatch.setattr("zoo.dense.roi_align._BINS_AT_ONCE", {"cpu": bins, "default": bins})
        return jax.jit(jax.grad(lambda maps: jnp.sum(jnp.square(roi_align(maps, corners, STRIDES, bins=BINS)))))(maps)

    whole = by(2 * 7 * BINS**2)
    for bins in (17, 126, 1000):
        for one, other in zip(by(bins), whole, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
