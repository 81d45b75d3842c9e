"""Images with marked points, to check that pixels and points agree."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE, ROWS, POINTS = 48, 6, 4


def marked(seed: int = 0) -> dict[str, np.ndarray]:
    """Black images with a bright square of 5 pixels in each channel, whose centres are the first three points: its
    channel tells which. The fourth row only fills up."""
    rng = np.random.default_rng(seed)
    image = np.zeros((ROWS, SIDE, SIDE, 3), np.uint8)
    points = np.zeros((ROWS, POINTS, 2), np.float32)
    for row in range(ROWS):
        for channel in range(3):
            x, y = rng.integers(3, SIDE - 3, 2)
            image[row, y - 2 : y + 3, x - 2 : x + 3, channel] = 255
            points[row, channel] = x + 0.5, y + 0.5
    valid = np.broadcast_to(np.arange(POINTS) < 3, (ROWS, POINTS)).copy()
    return {"image": image, "points": points, "point_valid": valid}


MOVES = {"points": "points"}


def assert_marks_fit(out: dict[str, Any]) -> tuple[int, int]:
    """Assert that each valid point is the centre of its channel's bright pixels; count valid and other points."""
    image, points, valid = (np.asarray(out[name]) for name in ("image", "points", "point_valid"))
    height, width = image.shape[1:3]
    seen = gone = 0
    for row in range(len(image)):
        for channel in range(3):
            weight = image[row, ..., channel].astype(float)
            if not valid[row, channel]:
                # What is left of its square, the centre of which is outside, lies at the border.
                inner = weight[7:-7, 7:-7]
                assert not points[row, channel].any() and inner.max(initial=0) < 0.6
                gone += 1
                continue
            x, y = points[row, channel]
            assert 0 <= x < width and 0 <= y < height
            seen += 1
            if min(x, y, width - x, height - y) > 8:  # whole squares alone have their middle there
                shares = (weight.sum(0) / weight.sum(), weight.sum(1) / weight.sum())
                middle = [(share * (np.arange(len(share)) + 0.5)).sum() for share in shares]
                np.testing.assert_allclose([x, y], middle, atol=0.3)
        assert not valid[row, 3] and not points[row, 3].any()
    return seen, gone
