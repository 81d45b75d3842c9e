"""Where the positions of pyramid levels lie in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Steps = Literal["declared", "floor"]


def grid_points(
    sizes: Sequence[tuple[int, int]], steps: Sequence[tuple[float, float]], offset: float = 0.0
) -> list[np.ndarray]:
    """For each level the (x, y) in pixels of its positions, row by row: (height * width, 2) float32.

    Args:
        sizes: (height, width) of the levels' maps. steps: pixels from one position to the next, (down, right).
        offset: of the first position from the image's corner, in steps.
    """
    levels = []
    for (height, width), (down, right) in zip(sizes, steps, strict=True):
        y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
        levels.append(
            np.stack([(x + np.float32(offset)) * right, (y + np.float32(offset)) * down], 1, dtype=np.float32)
        )
    return levels


def map_steps(sizes: Sequence[tuple[int, int]], strides: Sequence[float], steps: Steps) -> list[tuple[float, float]]:
    """Pixels from one position to the next, (down, right), on each level.

    Args:
        sizes: (height, width) of the levels' maps, finest first. strides: declared for them.
        steps: the `declared` strides, or what torchvision computes, the image's side divided by the map's and rounded
            down (`floor`): 61 and not 64 pixels at the sixth level of 800. Weights of torchvision were trained with the
            latter; the two agree where sides are multiples of the coarsest stride.
    """
    if steps == "declared":
        return [(stride, stride) for stride in strides]
    height, width = (int(side * strides[0]) for side in sizes[0])
    return [(height // h, width // w) for h, w in sizes]
