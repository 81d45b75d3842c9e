"""Where the positions of pyramid levels lie in the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
