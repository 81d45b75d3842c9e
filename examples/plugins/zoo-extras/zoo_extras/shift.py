"""An augmentation: shift the image by up to a tenth of its sides, with grey where nothing is left."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from zoo.data.operations import Operation
from zoo.targets.spatial.base import Geometry


@dataclass(frozen=True)
class Shift(Operation):
    """Random shift.

    Attributes:
        share: Largest shift, as a share of each side.
    """

    share: float = 0.1

    geometric = True
    beyond = True

    def geometry(self, chance, size):
        down, right = jax.random.uniform(chance.key, (2,), minval=-self.share, maxval=self.share)
        one = jnp.ones(())
        return Geometry(down * size[0], right * size[1], one * size[0], one * size[1], jnp.zeros((), bool))


SHIFT = Shift()
