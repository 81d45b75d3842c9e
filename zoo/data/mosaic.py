"""Four images in one, as in Bochkovskiy et al., 2020 (https://arxiv.org/abs/2004.10934, fig. 3), with the seams on a
grid."""

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
        ConfigError: nothing in the batch moves, e.g. boxes or a mask: one label cannot tell of four images.
    """
    found = movers(batch, moves)
    if not found:
        raise ConfigError("a mosaic needs boxes or masks; set mosaic to 0 for targets that speak of a whole image.")
    b, height, width, _ = batch["image"].shape
    dice, choice = random.split(key)
    joined = random.bernoulli(dice, share, (b,))
    rows = jnp.concatenate([jnp.arange(b)[:, None], random.randint(choice, (b, 3), 0, b)], axis=1)
    shown = jnp.concatenate([jnp.ones((b, 1), bool), jnp.broadcast_to(joined[:, None], (b, 3))], axis=1)
    out = dict(batch)
    out["image"] = tiled(jnp.where(shown[:, :, None, None, None], batch["image"][rows], fill.reshape(1, 1, 1, 1, -1)))
    for name, mover in found:
        out |= mover.joined(name, batch, rows, shown, (height, width), mask_fill)
    return out, joined
