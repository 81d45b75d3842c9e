"""Operations that a user adds to an augmentation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from points_kit import MOVES, SIDE, assert_marks_fit, marked

from zoo.activations.cache import View
from zoo.data.augment import Augment, augment, augment_each, move_each
from zoo.data.operations import Chance, Colours, Crop, Erasing, Operation, composed
from zoo.targets.spatial.base import Geometry

PLAIN = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0)


@dataclass(frozen=True)
class Window(Operation):
    """A part of the image, as shares of its sides."""

    top: float
    left: float
    height: float
    width: float
    flip: bool = False

    geometric = True

    def geometry(self, chance: Chance, size: Any) -> Geometry:
        height, width = size
        places = self.top * height, self.left * width, self.height * height, self.width * width
        return Geometry(*(jnp.asarray(place, jnp.float32) for place in places), jnp.asarray(self.flip))


@dataclass(frozen=True)
class Further(Window):
    """The same, seen from farther away than the image reaches."""

    beyond = True


@dataclass(frozen=True)
class Shade(Operation):
    """Darker by chance."""

    most: float

    def colour(self, chance: Chance, pixels: jax.Array) -> jax.Array:
        return pixels * (1 - self.most * jax.random.uniform(chance.key))


@dataclass(frozen=True)
class Tint(Shade):
    """Of the same setting, and another class."""


def batch() -> dict[str, Any]:
    found = marked()
    mask = (found["image"][..., 0] > 0).astype(np.int32)
    return {name: jnp.asarray(value) for name, value in {**found, "mask": mask}.items()}


def test_the_fields_are_operations():
    assert Augment().operations == (Crop(True, (0.35, 1.0), (3 / 4, 4 / 3)), Colours(0.2, 0.0))
    assert Augment(erasing=0.5).operations[2:] == (Erasing(0.5),)
    assert Augment().then(Shade(0.5)).then(Tint(0.1)).operations[2:] == (Shade(0.5), Tint(0.1))


def test_a_window_shows_a_part_of_the_image():
    whole = batch()
    config = PLAIN.then(Window(0.25, 0.5, 0.5, 0.5, flip=True))
    out = augment(config, jax.random.key(0), whole, (24, 24), {**MOVES, "mask": "mask"})
    part = np.asarray(whole["image"])[:, 12:36, 24:48][:, :, ::-1]
    np.testing.assert_allclose(out["image"], part / np.float32(255), atol=1e-5)
    np.testing.assert_array_equal(out["mask"], np.asarray(whole["mask"])[:, 12:36, 24:48][:, :, ::-1])
    assert_marks_fit(out)
    twice = PLAIN.then(Window(0.0, 0.5, 1.0, 0.5), Window(0.25, 0.0, 0.5, 1.0, flip=True))
    again = augment(twice, jax.random.key(0), whole, (24, 24), MOVES)
    np.testing.assert_allclose(again["image"], out["image"], atol=1e-5)


def test_targets_move_as_all_operations_together():
    """Also where the crop before has mirrored the image, and where the last shows more than there is."""
    seen = 0
    for last in (Window(0.1, 0.2, 0.7, 0.6, flip=True), Further(-0.25, -0.5, 1.5, 1.75)):
        config = Augment(scale=(0.5, 1.0), color=0, fill=0).then(last)
        for seed in range(6):
            seen += assert_marks_fit(augment(config, jax.random.key(seed), batch(), (40, 56), MOVES))[0]
    assert seen > 80


def test_composing_with_all_of_the_result_changes_nothing():
    at = Geometry(*(jnp.asarray(place) for place in (3.0, 4.0, 20.0, 30.0)), jnp.asarray(True))
    same = composed(at, Geometry(*(jnp.asarray(place) for place in (0.0, 0.0, 8.0, 9.0)), jnp.asarray(False)), (8, 9))
    np.testing.assert_allclose([float(v) for v in same], [float(v) for v in at], rtol=1e-6)


def test_what_comes_before_is_as_without():
    """Random numbers of zoo's own operations do not depend on others; operations have chances of their own."""
    bright = {"image": jnp.full((16, 8, 8, 3), 200, jnp.uint8)}
    config, key = Augment(scale=(0.5, 1.0), color=0.2), jax.random.key(1)
    alone = augment(config, key, bright, 8)["image"]
    shaded = augment(config.then(Shade(0.5)), key, bright, 8)["image"]
    one = np.asarray(shaded / alone)[:, 0, 0, 0]
    assert one.min() >= 0.5 - 1e-3 and one.max() <= 1 and one.std() > 0.05
    np.testing.assert_allclose(np.asarray(shaded / alone).std((1, 2, 3)), 0, atol=1e-5)
    both = np.asarray(augment(config.then(Shade(0.5), Shade(0.5)), key, bright, 8)["image"] / alone)[:, 0, 0, 0]
    assert np.abs(both - one * one).max() > 0.01 and (both <= one + 1e-6).all()
    empty = augment(PLAIN.then(Further(0, -1.0, 1.0, 3.0), Shade(1.0)), key, bright, 8)["image"]
    np.testing.assert_allclose(empty[:, :, 0], 114 / 255, atol=1e-5)  # what is filled in keeps its colour


def test_targets_move_without_images():
    """As with them: views of images whose features are cached have none."""

    @dataclass(frozen=True)
    class Coloured(Operation):
        def colour(self, chance: Chance, pixels: jax.Array) -> jax.Array:
            return pixels @ jnp.eye(3)  # three channels alone

    config = Augment(scale=(0.5, 1.6)).then(Window(0.1, 0.2, 0.7, 0.6, flip=True), Coloured())
    whole, keys, moves = batch(), jax.random.split(jax.random.key(2), 6), {**MOVES, "mask": "mask"}
    found = move_each(config, keys, {n: v for n, v in whole.items() if n != "image"}, SIDE, moves)
    wanted = augment_each(config, keys, whole, SIDE, moves)
    assert set(found) == {"points", "point_valid", "mask"}
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-4)


def test_whether_things_move():
    assert not PLAIN.then(Shade(0.5)).geometric and PLAIN.then(Window(0, 0, 1, 1)).geometric
    assert not Augment().then(Shade(0.5)).beyond and Augment().then(Further(0, 0, 1, 1)).beyond


def test_descriptions_tell_operations_apart():
    assert "called" not in asdict(Augment()), "descriptions of others stay as they are"
    shade, tint = PLAIN.then(Shade(0.5)), PLAIN.then(Tint(0.5))
    texts = {json.dumps(View(number=1, augmentation=one).facts()) for one in (PLAIN, shade, tint)}
    assert len(texts) == 3 and shade != tint and hash(shade) != hash(tint)
