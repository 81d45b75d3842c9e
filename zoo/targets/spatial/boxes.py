"""`boxes`: x1 y1 x2 y2 in pixels, (b, m, 4), with `box_valid`, `labels` and `crowd` (b, m)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from zoo.targets.spatial.base import Batch, Geometry, Listed, Shown


class BoxArrays(Listed):
    """Boxes move with the pixels, are clipped at the border, and become invalid if too little of them remains."""

    name = "boxes"
    singular = "box"
    per_item = ("labels", "crowd")

    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        boxes = jax.vmap(partial(move_boxes, shown.size, shown.min_visible))(batch[name], at)
        return self._with_valid(name, batch, boxes)

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        boxes = batch[name].astype(jnp.float32)
        shift = jnp.broadcast_to(jnp.array([left, top, left, top], jnp.float32), boxes.shape)
        return self._with_valid(name, batch, clip_boxes(boxes - shift, *size))

    def _with_valid(self, name: str, batch: Batch, boxes: jax.Array) -> dict[str, jax.Array]:
        """Return the boxes and their valid mask; boxes without area are invalid."""
        valid = self.valid(name)
        return {name: boxes, **({valid: batch[valid] & (boxes[..., 2] > boxes[..., 0])} if valid in batch else {})}

    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        boxes = np.array(batch[name])
        x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
        turn = (flip[:, None] & ((x2 > x1) & (y2 > y1)))[..., None]  # padding rows stay zero
        return {name: np.where(turn, np.stack([width - x2, y1, width - x1, y2], -1), boxes)}


NATURE = BoxArrays()


def move_boxes(size: tuple[int, int], min_visible: float, boxes: jax.Array, at: Geometry) -> jax.Array:
    """Return boxes (m, 4) of the input image in pixels of the result, clipped at its border.

    Boxes with no area inside the result, or less than the share `min_visible` of their area, become all zeros.
    """
    height, width = size
    x1, y1, x2, y2 = jnp.moveaxis(boxes.astype(jnp.float32), -1, 0)
    x1, x2 = (x1 - at.left) * (width / at.width), (x2 - at.left) * (width / at.width)
    y1, y2 = (y1 - at.top) * (height / at.height), (y2 - at.top) * (height / at.height)
    x1, x2 = jnp.where(at.flip, width - x2, x1), jnp.where(at.flip, width - x1, x2)
    whole = jnp.stack([x1, y1, x2, y2], axis=-1)
    visible = clip_boxes(whole, height, width)
    if min_visible:
        visible = jnp.where(_area(visible) >= min_visible * _area(whole), visible, 0)
    return visible


def clip_boxes(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Return boxes (..., 4) clipped at the image's border; all zeros if no area is left."""
    limits = jnp.broadcast_to(jnp.array([width, height, width, height], jnp.float32), boxes.shape)
    clipped = jnp.clip(boxes, 0, limits)
    some = (clipped[..., 2:] > clipped[..., :2]).all(-1, keepdims=True)
    return jnp.where(some, clipped, 0)


def _area(boxes: jax.Array) -> jax.Array:
    """Return the areas of boxes, (..., 4) -> (..., 1)."""
    return jnp.prod(boxes[..., 2:] - boxes[..., :2], axis=-1, keepdims=True)
