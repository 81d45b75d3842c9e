"""The contract of a spatial nature, and the geometry that it applies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError

Batch = Mapping[str, Any]


class Geometry(NamedTuple):
    """Which part of an image is seen: a rectangle in input pixels, then perhaps mirrored. Scalars, one image; or (b,),
    those of a batch."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    flip: jax.Array


class Shown(NamedTuple):
    """What all augmented images of a batch have in common.

    Attributes:
        size: height and width of the results, in pixels.
        beyond: whether more than the image may be seen, so that something must be filled in.
        mask_fill: the value of a mask there.
        min_visible: things of which a smaller share is left are no longer valid.
    """

    size: tuple[int, int]
    beyond: bool = False
    mask_fill: int = 255
    min_visible: float = 0.0


def source_pixels(size: tuple[int, int], at: Geometry) -> tuple[jax.Array, jax.Array]:
    """Where the centres of a result's rows (h,) and columns (w,) lie in the input image."""
    columns = jnp.arange(size[1], dtype=jnp.float32)
    columns = jnp.where(at.flip, size[1] - 1 - columns, columns)
    y = at.top + (jnp.arange(size[0], dtype=jnp.float32) + 0.5) * at.height / size[0]
    return y, at.left + (columns + 0.5) * at.width / size[1]


class Spatial(ABC):
    """How an array of a batch moves with the pixels.

    Methods get the array's name and the batch, and return what they change: the array, and perhaps companions. `moved`,
    `cropped` and `joined` run inside a compiled program; `mirrored` runs on the host.
    """

    name: str = ""
    """What `Training.moves` calls it."""

    def companions(self, name: str) -> tuple[str, ...]:
        """Return the names of arrays that belong to the array `name`, where a batch has them."""
        return ()

    def required(self, name: str) -> tuple[str, ...]:
        """Return those of the companions that a batch must have."""
        return ()

    @abstractmethod
    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        """Return the arrays after each image was cropped, resized and perhaps mirrored, as `at` (b,) says."""

    @abstractmethod
    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        """Return the arrays, of images `width` pixels wide of which those are mirrored where `flip` (b,) says so."""

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        """Return the arrays after a part of `size` was cut out of all images, at the same place."""

        def full(value: int) -> jax.Array:
            return jnp.full(len(batch[name]), value, jnp.float32)

        at = Geometry(full(top), full(left), full(size[0]), full(size[1]), jnp.zeros(len(batch[name]), bool))
        return self.moved(name, batch, at, Shown(size))

    def joined(
        self, name: str, batch: Batch, rows: jax.Array, there: jax.Array, size: tuple[int, int], fill: int
    ) -> dict[str, jax.Array]:
        """Return the arrays of mosaics of four images of `size`, from the upper left to the lower right: the images
        `rows` (b, 4) of the batch, where they are `there` (b, 4). `fill` is a mask's value elsewhere.

        Raises:
            ConfigError: this nature has no mosaics.
        """
        raise ConfigError(f"{name} cannot be put together in a mosaic; set mosaic to 0.")


class Listed(Spatial):
    """Several things an image, one a row: (b, m, k). An array `<singular>_valid` (b, m) tells those that are there from
    rows that only fill up.

    Attributes:
        singular: of the name, for the array that is called like the nature; others have `<name>_valid`.
        per_item: names of further arrays (b, m) about each thing in that array.
    """

    singular: ClassVar[str]
    per_item: ClassVar[tuple[str, ...]] = ()

    def valid(self, name: str) -> str:
        """Return the name of the array (b, m) that tells which rows count."""
        return f"{self.singular if name == self.name else name}_valid"

    def companions(self, name: str) -> tuple[str, ...]:
        return (self.valid(name), *(self.per_item if name == self.name else ()))

    def joined(
        self, name: str, batch: Batch, rows: jax.Array, there: jax.Array, size: tuple[int, int], fill: int
    ) -> dict[str, jax.Array]:
        # Nothing is cut off: there are entries of 4 m.
        places = batch[name]
        b, m, coordinates = places.shape
        height, width = size
        corners = [[0, 0], [width, 0], [0, height], [width, height]]
        offset = jnp.array([corner * (coordinates // 2) for corner in corners], jnp.float32)
        moved = places.astype(jnp.float32)[rows] + offset[None, :, None]
        found = {name: jnp.where(there[:, :, None, None], moved, 0).reshape(b, 4 * m, coordinates)}
        for other in self.companions(name):
            if other in batch:
                values = batch[other][rows]
                found[other] = jnp.where(there[:, :, None], values, jnp.zeros((), values.dtype)).reshape(b, 4 * m)
        return found
