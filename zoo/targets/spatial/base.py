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
    """A crop of an image, perhaps mirrored. Fields are scalars for one image, or (b,) for a batch.

    Attributes:
        top: upper edge of the crop in pixels of the input image; may be negative.
        left: left edge.
        height: height of the crop in pixels of the input image.
        width: width.
        flip: whether the crop is mirrored from left to right.
    """

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    flip: jax.Array


class Shown(NamedTuple):
    """Settings that all augmented images of a batch share.

    Attributes:
        size: height and width of the results, in pixels.
        beyond: whether crops may reach outside the image, so that something must be filled in.
        mask_fill: value of masks outside the image.
        min_visible: boxes of which a smaller share of the area remains are no longer valid.
    """

    size: tuple[int, int]
    beyond: bool = False
    mask_fill: int = 255
    min_visible: float = 0.0


def source_pixels(size: tuple[int, int], at: Geometry) -> tuple[jax.Array, jax.Array]:
    """Return where the centres of the result's rows (h,) and columns (w,) lie in the input image, in its pixels.

    Pixel i covers the interval from i to i + 1, so its centre is at i + 0.5.
    """
    columns = jnp.arange(size[1], dtype=jnp.float32)
    columns = jnp.where(at.flip, size[1] - 1 - columns, columns)
    y = at.top + (jnp.arange(size[0], dtype=jnp.float32) + 0.5) * at.height / size[0]
    return y, at.left + (columns + 0.5) * at.width / size[1]


class Spatial(ABC):
    """How an array of a batch moves with the pixels.

    Methods get the name of the array and the batch, and return the arrays that they change: the array itself, and
    perhaps companions. `moved`, `cropped` and `joined` run inside a compiled program; `mirrored` runs on the host.
    """

    name: str = ""
    """Name of the nature, as in `Training.moves`."""

    def companions(self, name: str) -> tuple[str, ...]:
        """Return the names of arrays that move together with the array `name` if a batch has them."""
        return ()

    def required(self, name: str) -> tuple[str, ...]:
        """Return the companions that a batch must have."""
        return ()

    @abstractmethod
    def moved(self, name: str, batch: Batch, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        """Return the arrays after each image was cropped by `at` (b,), resized to `shown.size` and perhaps mirrored."""

    @abstractmethod
    def mirrored(self, name: str, batch: Batch, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        """Return the arrays after the images with a true `flip` (b,), `width` pixels wide, were mirrored."""

    def cropped(self, name: str, batch: Batch, top: int, left: int, size: tuple[int, int]) -> dict[str, jax.Array]:
        """Return the arrays after all images were cropped to `size` at the same place."""

        def full(value: int) -> jax.Array:
            return jnp.full(len(batch[name]), value, jnp.float32)

        at = Geometry(full(top), full(left), full(size[0]), full(size[1]), jnp.zeros(len(batch[name]), bool))
        return self.moved(name, batch, at, Shown(size))

    def joined(
        self, name: str, batch: Batch, rows: jax.Array, there: jax.Array, size: tuple[int, int], fill: int
    ) -> dict[str, jax.Array]:
        """Return the arrays of mosaics of four images each.

        Args:
            name: of the array.
            batch: the batch with the single images.
            rows: indexes (b, 4) of the four images in the batch: upper left, upper right, lower left, lower right.
            there: whether each of them is present, bool (b, 4); the place of an absent one is filled.
            size: height and width of a single image.
            fill: value of masks in filled places.

        Raises:
            ConfigError: this nature does not support mosaics.
        """
        raise ConfigError(f"{name} cannot be combined in a mosaic; set mosaic to 0.")


class Listed(Spatial):
    """Arrays with one item per row, (b, m, k). An array `<singular>_valid` (b, m) marks the rows that are no padding.

    Attributes:
        singular: singular of the nature's name. The array called like the nature has the companion
            `<singular>_valid`, others have `<name>_valid`.
        per_item: names of further arrays (b, m) that describe each item in the array called like the nature.
    """

    singular: ClassVar[str]
    per_item: ClassVar[tuple[str, ...]] = ()

    def valid(self, name: str) -> str:
        """Return the name of the array (b, m) that marks valid rows."""
        return f"{self.singular if name == self.name else name}_valid"

    def companions(self, name: str) -> tuple[str, ...]:
        return (self.valid(name), *(self.per_item if name == self.name else ()))

    def joined(
        self, name: str, batch: Batch, rows: jax.Array, there: jax.Array, size: tuple[int, int], fill: int
    ) -> dict[str, jax.Array]:
        # A mosaic keeps all items of its four images, so it has 4 m rows. Items move by the corner of their image;
        # coordinates are x and y in turn, so the offset is repeated for each pair. Rows of absent images become 0,
        # which also makes them invalid.
        places = batch[name]
        b, m, coordinates = places.shape
        height, width = size
        corners = [[0, 0], [width, 0], [0, height], [width, height]]
        offset = jnp.array([corner * (coordinates // 2) for corner in corners], jnp.float32)
        moved = places.astype(jnp.float32)[rows] + offset[None, :, None]
        out = {name: jnp.where(there[:, :, None, None], moved, 0).reshape(b, 4 * m, coordinates)}
        for other in self.companions(name):
            if other in batch:
                values = batch[other][rows]
                out[other] = jnp.where(there[:, :, None], values, jnp.zeros((), values.dtype)).reshape(b, 4 * m)
        return out
