"""`mask`: a number for every pixel, (b, H, W), with the size of the images."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from zoo.targets.spatial.base import Batch, Geometry, Shown, Spatial, source_pixels


class MaskArrays(Spatial):
    """Masks are resampled with nearest-neighbour interpolation.

    In a mosaic, a mask must hold class numbers: object numbers of different images would collide.
    """

    name = "mask"

    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        return {name: jax.vmap(partial(_move_mask, shown))(batch[name], at)}

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        return {name: batch[name][:, top : top + size[0], left : left + size[1]]}

    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        mask = np.asarray(batch[name])
        return {name: np.where(flip[:, None, None], mask[:, :, ::-1], mask)}

    def joined(
        self, name: str, batch: Batch, rows: jax.Array, there: jax.Array, size: tuple[int, int], fill: int
    ) -> dict[str, jax.Array]:
        mask = batch[name]
        return {name: tiled(jnp.where(there[:, :, None, None], mask[rows], jnp.asarray(fill, mask.dtype)))}


NATURE = MaskArrays()


def _move_mask(shown: Shown, mask: jax.Array, at: Geometry) -> jax.Array:
    """Resample a mask (H, W) of the input image to (h, w): each pixel has the value under its centre."""
    y, x = (jnp.floor(place).astype(jnp.int32) for place in source_pixels(shown.size, at))
    height, width = mask.shape
    moved = mask[jnp.clip(y, 0, height - 1)[:, None], jnp.clip(x, 0, width - 1)[None, :]]
    if not shown.beyond:
        return moved
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    return jnp.where(inside, moved, jnp.asarray(shown.mask_fill, mask.dtype))


def tiled(four: jax.Array) -> jax.Array:
    """Arrange four images in two rows of two: (b, 4, H, W, ...) -> (b, 2H, 2W, ...)."""
    upper, lower = (jnp.concatenate([four[:, i], four[:, i + 1]], axis=2) for i in (0, 2))
    return jnp.concatenate([upper, lower], axis=1)
