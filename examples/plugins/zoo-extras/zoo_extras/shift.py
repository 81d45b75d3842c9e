"""An augmentation: the image is moved by up to a tenth of its sides. What moves out of it is lost; grey comes in."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from zoo.data.operations import Operation
from zoo.targets.spatial.base import Geometry


@dataclass(frozen=True)
class Shift(Operation):
    """Attributes: share: of each side that an image is moved by at most."""

    share: float = 0.1

    geometric = True
    beyond = True

    def geometry(self, chance, size):
        down, right = jax.random.uniform(chance.key, (2,), minval=-self.share, maxval=self.share)
        one = jnp.ones(())
        return Geometry(down * size[0], right * size[1], one * size[0], one * size[1], jnp.zeros((), bool))


SHIFT = Shift()
