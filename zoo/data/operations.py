"""Augmentation operations: each changes the geometry of an image, its colours, or both.

Random resized crops as in Szegedy et al., 2015 (https://arxiv.org/abs/1409.4842); random erasing, Zhong et al., 2017
(https://arxiv.org/abs/1708.04896).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from zoo.registry.parts import Point
from zoo.targets.spatial.base import Geometry

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, for channels in RGB order


class Draws(NamedTuple):
    """Random numbers of one image, uniform in [0, 1). All are drawn at once, since each draw costs compile time."""

    area: jax.Array
    ratio: jax.Array
    top: jax.Array
    left: jax.Array
    flip: jax.Array
    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    erase: jax.Array
    erase_area: jax.Array
    erase_ratio: jax.Array
    erase_top: jax.Array
    erase_left: jax.Array


class Chance(NamedTuple):
    """Source of randomness for an operation: the same for its geometry and its change of colours.

    Attributes:
        key: random key for this operation and image.
        draws: random numbers for zoo's own operations, drawn for all of them at once.
    """

    key: jax.Array
    draws: Draws


@dataclass(frozen=True)
class Operation:
    """Base class of operations: frozen dataclasses of their settings. Equal operations share a compiled program.

    Both methods run for one image inside a compiled program, so they must not depend on concrete values of arrays.
    """

    geometric: ClassVar[bool] = False
    """Whether `geometry` may return one, so that objects may move."""
    beyond: ClassVar[bool] = False
    """Whether the geometry may reach outside the image."""
    covers: ClassVar[bool] = False
    """Whether `colour` also changes the filled area outside the image."""

    def geometry(self, chance: Chance, size: Any) -> Geometry | None:
        """Return the crop of an image of `size` (height, width); None for the whole image."""
        return None

    def colour(self, chance: Chance, pixels: jax.Array) -> jax.Array:
        """Return the image (h, w, c) in [0, 1] with changed colours; objects must not move."""
        return pixels


OPERATIONS = Point("augment.operation", "augmentation", Operation)
"""Operations by name (`augment="auto+NAME"`), zoo's and those of other plugins."""


@dataclass(frozen=True)
class Crop(Operation):
    """Random resized crop, perhaps mirrored.

    Attributes:
        hflip: as in `Augment`.
        scale: as in `Augment`.
        ratio: as in `Augment`.
    """

    hflip: bool
    scale: tuple[float, float]
    ratio: tuple[float, float]

    geometric = True

    def geometry(self, chance: Chance, size: Any) -> Geometry:
        draw = chance.draws
        # A crop of at most the image's area may still be too long for one side; it is then shortened to that side.
        # A crop of more than the image's area is meant to reach outside, and stays as it is.
        if self.scale[1] > 1:
            area = jnp.exp(_between(draw.area, *map(math.log, self.scale)))
            longest = jnp.where(area > 1, jnp.inf, 1.0)
        else:
            area, longest = _between(draw.area, *self.scale), jnp.ones(())
        # The square root divides the aspect ratio evenly between both sides, so that the area stays the same.
        root = jnp.exp(_between(draw.ratio, *map(math.log, self.ratio)) / 2)
        height = size[0] * jnp.minimum(jnp.sqrt(area) / root, longest)
        width = size[1] * jnp.minimum(jnp.sqrt(area) * root, longest)
        return Geometry(
            draw.top * (size[0] - height), draw.left * (size[1] - width), height, width, (draw.flip < 0.5) & self.hflip
        )


@dataclass(frozen=True)
class Colours(Operation):
    """Colour jitter: brightness, contrast, saturation and hue, in this order.

    Attributes:
        color: as in `Augment`.
        hue: as in `Augment`.
    """

    color: float
    hue: float

    def colour(self, chance: Chance, pixels: jax.Array) -> jax.Array:
        draw = chance.draws
        low, high = 1 - self.color, 1 + self.color
        colored = pixels.shape[-1] == 3
        if self.color:
            pixels = jnp.clip(pixels * _between(draw.brightness, low, high), 0, 1)
            mean = (_luma(pixels) if colored else pixels).mean()
            pixels = jnp.clip(mean + _between(draw.contrast, low, high) * (pixels - mean), 0, 1)
        if self.color and colored:
            gray = _luma(pixels)
            pixels = jnp.clip(gray + _between(draw.saturation, low, high) * (pixels - gray), 0, 1)
        if self.hue and colored:
            angle = _between(draw.hue, -self.hue, self.hue) * 2 * jnp.pi
            pixels = jnp.clip(_turn_hue(pixels, angle), 0, 1)
        return pixels


@dataclass(frozen=True)
class Erasing(Operation):
    """Random erasing: noise in a rectangle with 2 % to 33 % of the area and an aspect ratio of 0.3 to 3.3.

    Attributes:
        probability: that an image gets such a rectangle.
    """

    probability: float

    covers = True

    def colour(self, chance: Chance, pixels: jax.Array) -> jax.Array:
        draw = chance.draws
        height, width = pixels.shape[:2]
        root = jnp.exp(_between(draw.erase_ratio, math.log(0.3), math.log(3.3)) / 2)
        side = jnp.sqrt(_between(draw.erase_area, 0.02, 0.33) * height * width)
        sides = jnp.minimum(side * root, height), jnp.minimum(side / root, width)
        hit = rectangle((height, width), *sides, draw.erase_top, draw.erase_left) & (draw.erase < self.probability)
        return jnp.where(hit[..., None], random.uniform(random.fold_in(chance.key, 1), pixels.shape), pixels)


ERASING = Erasing(0.25)
"""The operation that `augment="auto+erasing"` adds."""


def composed(at: Geometry, then: Geometry, size: tuple[int, int]) -> Geometry:
    """Compose two crops: return the crop of the input that equals `at`, resized to `size`, followed by `then`.

    Composing the geometries means that pixels are resampled only once, which is faster and blurs less.

    Args:
        at: first crop, in pixels of the input image.
        then: second crop, in pixels of the result of the first.
        size: height and width of the result of the first.
    """
    # A pixel of the first result is `across` by `down` input pixels. If the first crop is mirrored, the second one
    # counts its columns from the right edge. Two mirrorings cancel out.
    across, down = at.width / size[1], at.height / size[0]
    left = jnp.where(at.flip, size[1] - then.left - then.width, then.left)
    return Geometry(
        at.top + then.top * down,
        at.left + left * across,
        then.height * down,
        then.width * across,
        jnp.logical_xor(at.flip, then.flip),
    )


def _between(uniform: jax.Array, low: float, high: float) -> jax.Array:
    return low + uniform * (high - low)


def _luma(pixels: jax.Array) -> jax.Array:
    """Return the grey values (h, w, 1)."""
    return pixels @ jnp.array(_LUMA, pixels.dtype)[:, None]


def _turn_hue(pixels: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotate colours about the grey axis by `angle` (Rodrigues' formula), then shift them to keep their luma."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    cross = jnp.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], jnp.float32)
    turn = cos * jnp.eye(3) + (1 - cos) / 3 + sin / jnp.sqrt(3.0) * cross
    luma = jnp.array(_LUMA, jnp.float32)
    # Rotation and shift are combined in one matrix: separate passes over the pixels take three times as long.
    return pixels @ (turn + (luma - luma @ turn)[None]).T


def rectangle(
    shape: tuple[int, int], height: jax.Array, width: jax.Array, top: jax.Array, left: jax.Array
) -> jax.Array:
    """Return a mask (h, w) of a rectangle, with its size rounded to whole pixels.

    Args:
        shape: height and width of the mask.
        height: of the rectangle.
        width: of the rectangle.
        top: vertical position in [0, 1), as a share of the free room.
        left: horizontal position in [0, 1).
    """
    height, width = jnp.round(height), jnp.round(width)
    first_y, first_x = jnp.floor(top * (shape[0] - height + 1)), jnp.floor(left * (shape[1] - width + 1))
    y, x = jnp.arange(shape[0], dtype=height.dtype)[:, None], jnp.arange(shape[1], dtype=width.dtype)[None, :]
    return (y >= first_y) & (y < first_y + height) & (x >= first_x) & (x < first_x + width)
