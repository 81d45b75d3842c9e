"""Image coordinates of the positions of pyramid levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

Steps = Literal["declared", "floor"]


def grid_points(
    sizes: Sequence[tuple[int, int]], steps: Sequence[tuple[float, float]], offset: float = 0.0
) -> list[Float[np.ndarray, "_n 2"]]:
    """Return the (x, y) in pixels of the height * width positions of each level, float32, row by row.

    Args:
        sizes: (height, width) of each level's map.
        steps: pixels from one position to the next on each level, (down, right).
        offset: distance of the first position from the corner of the image, in steps.
    """
    levels = []
    for (height, width), (down, right) in zip(sizes, steps, strict=True):
        y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
        levels.append(
            np.stack([(x + np.float32(offset)) * right, (y + np.float32(offset)) * down], 1, dtype=np.float32)
        )
    return levels


def map_steps(sizes: Sequence[tuple[int, int]], strides: Sequence[float], steps: Steps) -> list[tuple[float, float]]:
    """Return the pixels from one position to the next, (down, right), on each level.

    Args:
        sizes: (height, width) of each level's map, finest first.
        strides: the strides that the levels declare.
        steps: `declared` takes the declared strides. `floor` does what torchvision does: the image's side divided by
            the map's, rounded down, e.g. 61 instead of 64 pixels on the sixth level of an 800-pixel image. Weights from
            torchvision were trained with `floor`. The two agree where the image's sides are multiples of the coarsest
            stride.
    """
    if steps == "declared":
        return [(stride, stride) for stride in strides]
    height, width = (int(side * strides[0]) for side in sizes[0])
    return [(height // h, width // w) for h, w in sizes]
