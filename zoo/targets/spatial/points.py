"""`points`: x y in pixels, (b, n, 2), with `point_valid` (b, n)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from zoo.targets.spatial.base import Batch, Geometry, Listed, Shown


class PointArrays(Listed):
    """Points move with the pixels; points outside the result become zero and invalid.

    The centre of the first pixel is (0.5, 0.5). A point keeps its row. If rows are the left and right sides of a body
    (a left and a right eye), mirroring swaps their meaning, so `hflip` should be off.
    """

    name = "points"
    singular = "point"

    def required(self, name: str) -> tuple[str, ...]:
        # Unlike a box without area, an invalid point cannot be recognised by its coordinates.
        return (self.valid(name),)

    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        height, width = shown.size
        left, top, across, down, flip = (
            value[:, None] for value in (at.left, at.top, width / at.width, height / at.height, at.flip)
        )
        x, y = jnp.moveaxis(batch[name].astype(jnp.float32), -1, 0)
        x, y = (x - left) * across, (y - top) * down
        return self._with_valid(name, batch, jnp.where(flip, width - x, x), y, shown.size)

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        x, y = jnp.moveaxis(batch[name].astype(jnp.float32), -1, 0)
        return self._with_valid(name, batch, x - left, y - top, size)

    def _with_valid(
        self, name: str, batch: Batch, x: jax.Array, y: jax.Array, size: tuple[int, int]
    ) -> dict[str, jax.Array]:
        """Return the points and their valid mask; points outside an image of `size` are invalid."""
        inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
        valid = batch[self.valid(name)] & inside
        return {name: jnp.where(valid[..., None], jnp.stack([x, y], axis=-1), 0), self.valid(name): valid}

    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        points = np.array(batch[name])
        turn = flip[:, None] & np.asarray(batch[self.valid(name)])  # padding rows stay zero
        turned = np.stack([width - points[..., 0], points[..., 1]], axis=-1)
        return {name: np.where(turn[..., None], turned, points)}


NATURE = PointArrays()
