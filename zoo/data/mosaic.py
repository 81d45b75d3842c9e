"""Mosaic augmentation: four images in one (Bochkovskiy et al., 2020, https://arxiv.org/abs/2004.10934, fig. 3).

Unlike in the paper, the four images meet in the middle; the random crop of the result moves the seams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from zoo.errors import ConfigError
from zoo.targets.moves import MOVES, Moves, movers
from zoo.targets.spatial.mask import tiled


def mosaic(
    key: jax.Array, batch: Mapping[str, Any], share: float, fill: jax.Array, mask_fill: int, moves: Moves = MOVES
) -> tuple[dict[str, Any], jax.Array]:
    """Return images (b, 2H, 2W, c) of four each: the image itself at the upper left, and three drawn from the batch.

    No boxes are dropped: arrays with m rows get 4 m rows. Images that do not become a mosaic are placed at the upper
    left, and the rest is filled, since all images of a batch must have the same shape.

    Args:
        key: of this step.
        batch: as for `zoo.data.augment.augment`. A `mask` must hold class numbers: object numbers would collide.
        share: probability that an image becomes a mosaic.
        fill: colour of empty places, uint8 (c,).
        mask_fill: value of masks in empty places.
        moves: which arrays move with the pixels: name -> nature.

    Returns:
        (the batch, whether each image became a mosaic, bool (b,)).

    Raises:
        ConfigError: no array of the batch moves, e.g. boxes or a mask. A single label cannot describe four images.
    """
    moving_arrays = movers(batch, moves)
    if not moving_arrays:
        raise ConfigError("a mosaic needs boxes or masks; set mosaic to 0 for targets that describe a whole image.")
    b, height, width, _ = batch["image"].shape
    dice, choice = random.split(key)
    joined = random.bernoulli(dice, share, (b,))
    # Four image indexes for each result, the image's own first. The other three are shown only in a mosaic.
    rows = jnp.concatenate([jnp.arange(b)[:, None], random.randint(choice, (b, 3), 0, b)], axis=1)
    shown = jnp.concatenate([jnp.ones((b, 1), bool), jnp.broadcast_to(joined[:, None], (b, 3))], axis=1)
    out = dict(batch)
    out["image"] = tiled(jnp.where(shown[:, :, None, None, None], batch["image"][rows], fill.reshape(1, 1, 1, 1, -1)))
    for name, mover in moving_arrays:
        out |= mover.joined(name, batch, rows, shown, (height, width), mask_fill)
    return out, joined
