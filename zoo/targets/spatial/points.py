"""`points`: x y in pixels, (b, n, 2), with `point_valid` (b, n)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from zoo.targets.spatial.base import Batch, Geometry, Listed, Shown


class PointArrays(Listed):
    """Points move with the pixels; those that are no longer seen become zero and are no longer valid.

    The centre of the first pixel is (0.5, 0.5). A point keeps its row: where rows are sides of a body (a left and a
    right eye), a mirrored image shows them exchanged, and `hflip` should be off.
    """

    name = "points"
    singular = "point"

    def required(self, name: str) -> tuple[str, ...]:
        # A point that is no longer seen has no coordinates of its own to tell it by, as a box without area has.
        return (self.valid(name),)

    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        height, width = shown.size
        left, top, across, down, flip = (
            value[:, None] for value in (at.left, at.top, width / at.width, height / at.height, at.flip)
        )
        x, y = jnp.moveaxis(batch[name].astype(jnp.float32), -1, 0)
        x, y = (x - left) * across, (y - top) * down
        return self._seen(name, batch, jnp.where(flip, width - x, x), y, shown.size)

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        x, y = jnp.moveaxis(batch[name].astype(jnp.float32), -1, 0)
        return self._seen(name, batch, x - left, y - top, size)

    def _seen(self, name: str, batch: Batch, x: jax.Array, y: jax.Array, size: tuple[int, int]) -> dict[str, jax.Array]:
        inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
        valid = batch[self.valid(name)] & inside
        return {name: jnp.where(valid[..., None], jnp.stack([x, y], axis=-1), 0), self.valid(name): valid}

    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        points = np.array(batch[name])
        there = flip[:, None] & np.asarray(batch[self.valid(name)])
        turned = np.stack([width - points[..., 0], points[..., 1]], axis=-1)
        return {name: np.where(there[..., None], turned, points)}


NATURE = PointArrays()
