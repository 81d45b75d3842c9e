"""Boxes under augmentation: they move with the pixels, vanish when too little of them is seen, and join in a mosaic.

Mosaic as in Bochkovskiy et al., 2020 (https://arxiv.org/abs/2004.10934, fig. 3), with the seams on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from zoo.errors import ConfigError

PER_BOX = ("labels", "box_valid", "crowd")
"""Entries of a batch, (b, m), that say something about each of its boxes."""


class Geometry(NamedTuple):
    """Which part of an image is seen: a rectangle in input pixels, then perhaps mirrored. Scalars, one image."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    flip: jax.Array


def source_pixels(size: tuple[int, int], at: Geometry) -> tuple[jax.Array, jax.Array]:
    """Where the centres of a result's rows (h,) and columns (w,) lie in the input image."""
    columns = jnp.arange(size[1], dtype=jnp.float32)
    columns = jnp.where(at.flip, size[1] - 1 - columns, columns)
    y = at.top + (jnp.arange(size[0], dtype=jnp.float32) + 0.5) * at.height / size[0]
    return y, at.left + (columns + 0.5) * at.width / size[1]


def move_boxes(size: tuple[int, int], min_visible: float, boxes: jax.Array, at: Geometry) -> jax.Array:
    """Boxes (m, 4) of the input image in pixels of the result, cut at its border; all zeros for those of which no
    area, or less than `min_visible` of their area, is inside."""
    height, width = size
    x1, y1, x2, y2 = jnp.moveaxis(boxes.astype(jnp.float32), -1, 0)
    x1, x2 = (x1 - at.left) * (width / at.width), (x2 - at.left) * (width / at.width)
    y1, y2 = (y1 - at.top) * (height / at.height), (y2 - at.top) * (height / at.height)
    x1, x2 = jnp.where(at.flip, width - x2, x1), jnp.where(at.flip, width - x1, x2)
    whole = jnp.stack([x1, y1, x2, y2], axis=-1)
    seen = clip_boxes(whole, height, width)
    if min_visible:
        seen = jnp.where(_area(seen) >= min_visible * _area(whole), seen, 0)
    return seen


def _area(boxes: jax.Array) -> jax.Array:
    """(..., 4) -> (..., 1)."""
    return jnp.prod(boxes[..., 2:] - boxes[..., :2], axis=-1, keepdims=True)


def clip_boxes(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Boxes (..., 4) cut at the image's border; all zeros where no area is left."""
    limits = jnp.broadcast_to(jnp.array([width, height, width, height], jnp.float32), boxes.shape)
    clipped = jnp.clip(boxes, 0, limits)
    some = (clipped[..., 2:] > clipped[..., :2]).all(-1, keepdims=True)
    return jnp.where(some, clipped, 0)


def with_boxes(batch: Mapping[str, Any], boxes: jax.Array) -> dict[str, Any]:
    """The batch with its boxes moved; what has no area any more is not valid."""
    valid = {"box_valid": batch["box_valid"] & (boxes[..., 2] > boxes[..., 0])} if "box_valid" in batch else {}
    return {**batch, "boxes": boxes, **valid}


def mosaic(
    key: jax.Array, batch: Mapping[str, Any], share: float, fill: jax.Array, mask_fill: int
) -> tuple[dict[str, Any], jax.Array]:
    """Images (b, 2H, 2W, c) of four each: the row's own at the upper left, and three that are drawn from the batch.

    No box is cut off: there are room for and entries of 4m. Rows that the dice leave alone are their own image beside
    `fill`, since all rows have one shape.

    Args:
        batch: as for `zoo.data.augment.augment`. A `mask` must hold class numbers, those of instances would collide.
        share: probability of a mosaic, for each row.
        fill: uint8 (c,).

    Returns:
        (the batch, whether each row became a mosaic (b,)).

    Raises:
        ConfigError: there are neither boxes nor a mask: one label cannot tell of four images.
    """
    if "boxes" not in batch and "mask" not in batch:
        raise ConfigError("a mosaic needs boxes or masks; set mosaic to 0 for targets that speak of a whole image.")
    b, height, width, _ = batch["image"].shape
    dice, choice = random.split(key)
    joined = random.bernoulli(dice, share, (b,))
    rows = jnp.concatenate([jnp.arange(b)[:, None], random.randint(choice, (b, 3), 0, b)], axis=1)
    shown = jnp.concatenate([jnp.ones((b, 1), bool), jnp.broadcast_to(joined[:, None], (b, 3))], axis=1)
    out = dict(batch)
    out["image"] = _tiled(jnp.where(shown[:, :, None, None, None], batch["image"][rows], fill.reshape(1, 1, 1, 1, -1)))
    if "mask" in batch:
        mask = batch["mask"]
        out["mask"] = _tiled(jnp.where(shown[:, :, None, None], mask[rows], jnp.asarray(mask_fill, mask.dtype)))
    if "boxes" in batch:
        m = batch["boxes"].shape[1]
        offset = jnp.array(
            [[0, 0, 0, 0], [width, 0, width, 0], [0, height, 0, height], [width, height] * 2], jnp.float32
        )
        boxes = batch["boxes"].astype(jnp.float32)[rows] + offset[None, :, None]
        out["boxes"] = jnp.where(shown[:, :, None, None], boxes, 0).reshape(b, 4 * m, 4)
        for name in PER_BOX:
            if name in batch:
                values = batch[name][rows]
                out[name] = jnp.where(shown[:, :, None], values, jnp.zeros((), values.dtype)).reshape(b, 4 * m)
    return out, joined


def _tiled(four: jax.Array) -> jax.Array:
    """(b, 4, H, W, ...) -> (b, 2H, 2W, ...): two rows of two."""
    upper, lower = (jnp.concatenate([four[:, i], four[:, i + 1]], axis=2) for i in (0, 2))
    return jnp.concatenate([upper, lower], axis=1)
