"""Anchors: boxes of a few shapes at every position of a pyramid, and boxes written relative to them.

Faster R-CNN, arXiv:1506.01497, section 3.1; rounding and order are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from zoo.dense.points import grid_points

Weights = tuple[float, float, float, float]
LARGEST_GROWTH = math.log(1000 / 16)
"""A side becomes at most 62.5 times as long as its anchor's, whatever is predicted: exp must not overflow."""


def cell_anchors(side: float, ratios: Sequence[float]) -> np.ndarray:
    """Boxes around the origin with an area of about side² and these ratios of height to width, (ratios, 4) float32,
    their corners rounded to whole pixels."""
    heights = np.sqrt(np.asarray(ratios, np.float32))
    half = np.stack([1 / heights, heights], axis=1) * np.float32(side) / 2
    return np.round(np.concatenate([-half, half], axis=1)).astype(np.float32)


def grid_anchors(
    sizes: Sequence[tuple[int, int]],
    steps: Sequence[tuple[float, float]],
    sides: Sequence[float],
    ratios: Sequence[float],
) -> list[np.ndarray]:
    """The anchors of each level, (height * width * ratios, 4) float32: row by row, at a position one of each ratio.

    Args:
        sizes, steps: of the levels' maps, see `zoo.dense.points.grid_points`. sides: the anchors' size on each level.
    """
    levels = []
    for points, side in zip(grid_points(sizes, steps), sides, strict=True):
        centres = np.concatenate([points, points], axis=1)
        levels.append((centres[:, None] + cell_anchors(side, ratios)[None]).reshape(-1, 4))
    return levels


def _centre_and_sides(boxes: Array) -> tuple[Array, Array]:
    boxes = boxes.astype(jnp.float32)
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def _per_axis(weights: Weights, like: Array) -> tuple[Array, Array]:
    values = jnp.asarray(weights, jnp.float32).reshape((1,) * (like.ndim - 1) + (4,))
    return values[..., :2], values[..., 2:]


def encode(boxes: Array, anchors: Array, weights: Weights = (1, 1, 1, 1)) -> Array:
    """What a regressor is to say of an anchor so that `decode` gives the box: (..., 4), (..., 4) -> (..., 4), the shift
    of the centre in the anchor's sides and the logarithm of each side's growth (arXiv:1506.01497, eq. 2).

    Boxes and anchors without area give finite numbers that mean nothing.
    """
    (centre, sides), (from_centre, from_sides) = _centre_and_sides(boxes), _centre_and_sides(anchors)
    sides, from_sides = (jnp.where(s > 0, s, 1.0) for s in (sides, from_sides))
    shift, growth = _per_axis(weights, boxes)
    return jnp.concatenate([shift * (centre - from_centre) / from_sides, growth * jnp.log(sides / from_sides)], axis=-1)


def decode(codes: Array, anchors: Array, weights: Weights = (1, 1, 1, 1)) -> Array:
    """Boxes from what a regressor says of anchors, the reverse of `encode`: (..., 4), (..., 4) -> (..., 4) float32."""
    codes = codes.astype(jnp.float32)
    from_centre, from_sides = _centre_and_sides(anchors)
    shift, growth = _per_axis(weights, codes)
    centre = codes[..., :2] / shift * from_sides + from_centre
    half = 0.5 * jnp.exp(jnp.minimum(codes[..., 2:] / growth, LARGEST_GROWTH)) * from_sides
    return jnp.concatenate([centre - half, centre + half], axis=-1)
