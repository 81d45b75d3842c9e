"""Anchor boxes at every position of a feature pyramid, and the box coding relative to them.

Source: Faster R-CNN, arXiv:1506.01497, section 3.1. Rounding and order are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from zoo.dense.points import grid_points

if TYPE_CHECKING:
    from jaxtyping import Float, Num

Weights = tuple[float, float, float, float]
LARGEST_GROWTH = math.log(1000 / 16)
"""Largest log growth of a side that `decode` accepts, 62.5 times the anchor's side, so that exp cannot overflow."""


def cell_anchors(side: float, ratios: Sequence[float]) -> Float[np.ndarray, "ratios 4"]:
    """Return the anchors of one position, centred on the origin, float32, with corners rounded to whole pixels.

    Args:
        side: square root of the anchors' area, in pixels.
        ratios: height / width of each anchor.
    """
    heights = np.sqrt(np.asarray(ratios, np.float32))
    half = np.stack([1 / heights, heights], axis=1) * np.float32(side) / 2
    return np.round(np.concatenate([-half, half], axis=1)).astype(np.float32)


def grid_anchors(
    sizes: Sequence[tuple[int, int]],
    steps: Sequence[tuple[float, float]],
    sides: Sequence[float],
    ratios: Sequence[float],
) -> list[Float[np.ndarray, "_n 4"]]:
    """Return the height * width * ratios anchors of each pyramid level, float32.

    They are ordered row by row, with all ratios of one position together.

    Args:
        sizes: (height, width) of each level's map.
        steps: pixels from one position to the next on each level, (down, right).
        sides: anchor side of each level, in pixels.
        ratios: height / width of the anchors at each position.
    """
    levels = []
    for points, side in zip(grid_points(sizes, steps), sides, strict=True):
        centres = np.concatenate([points, points], axis=1)
        levels.append((centres[:, None] + cell_anchors(side, ratios)[None]).reshape(-1, 4))
    return levels


def _centre_and_sides(boxes: Num[Array, "*n 4"]) -> tuple[Float[Array, "*n 2"], Float[Array, "*n 2"]]:
    boxes = boxes.astype(jnp.float32)
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def _per_axis(weights: Weights, like: Array) -> tuple[Array, Array]:
    values = jnp.asarray(weights, jnp.float32).reshape((1,) * (like.ndim - 1) + (4,))
    return values[..., :2], values[..., 2:]


def encode(
    boxes: Num[Array, "*n 4"], anchors: Num[Array, "*n 4"], weights: Weights = (1, 1, 1, 1)
) -> Float[Array, "*n 4"]:
    """Return the regression targets that `decode` turns back into the boxes (arXiv:1506.01497, eq. 2).

    The first two are the shift of the centre in units of the anchor's sides, the last two the logarithm of the ratio of
    the sides. Boxes and anchors without area give finite numbers without meaning.

    Args:
        boxes: true boxes.
        anchors: the anchor that each box is assigned to.
        weights: factors on (x, y, width, height), which bring the targets to a similar scale.
    """
    (centre, sides), (from_centre, from_sides) = _centre_and_sides(boxes), _centre_and_sides(anchors)
    # Padding rows have no area: replace their sides before dividing, so that gradients stay finite too.
    sides, from_sides = (jnp.where(s > 0, s, 1.0) for s in (sides, from_sides))
    shift, growth = _per_axis(weights, boxes)
    return jnp.concatenate([shift * (centre - from_centre) / from_sides, growth * jnp.log(sides / from_sides)], axis=-1)


def decode(
    codes: Num[Array, "*n 4"], anchors: Num[Array, "*n 4"], weights: Weights = (1, 1, 1, 1)
) -> Float[Array, "*n 4"]:
    """Return the boxes, float32, that regression outputs stand for: the inverse of `encode`.

    Args:
        codes: regression outputs.
        anchors: the anchor that each output belongs to.
        weights: the same factors as in `encode`.
    """
    codes = codes.astype(jnp.float32)
    from_centre, from_sides = _centre_and_sides(anchors)
    shift, growth = _per_axis(weights, codes)
    centre = codes[..., :2] / shift * from_sides + from_centre
    half = 0.5 * jnp.exp(jnp.minimum(codes[..., 2:] / growth, LARGEST_GROWTH)) * from_sides
    return jnp.concatenate([centre - half, centre + half], axis=-1)
