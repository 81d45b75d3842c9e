"""Figures of a class for every pixel: a confusion matrix, what follows from it, and how well outlines are met.

The boundary F1 score is that of Csurka, Larlus and Perronnin, What is a good evaluation measure for semantic
segmentation?, BMVC 2013: the outline of a class in an image is found where an outline of the other side is within a
tolerance of 0.75 % of the image's diagonal; precision and recall of outlines make an F1 score for each class in each
image. Here a class's score is the mean over the images that have an outline of it, true or predicted, and the figure is
the mean over classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from zoo.targets.masks import BACKGROUND, IGNORE

TOLERANCE = 0.0075
"""Share of the image's diagonal by which an outline may be off."""


def confusion(true: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of each true class (row) were taken for each class (column), int64 (classes, classes); pixels
    whose truth is `IGNORE` are left out."""
    counted = true != IGNORE
    pairs = true[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def outline(mask: np.ndarray, label: int) -> np.ndarray:
    """Pixels (n, 2) of a class that touch one of another class, up, down, left or right. Where what counts ends, or
    the image, there is no outline."""
    inside, other = mask == label, (mask != label) & (mask != IGNORE)
    touches = np.zeros_like(inside)
    touches[1:] |= other[:-1]
    touches[:-1] |= other[1:]
    touches[:, 1:] |= other[:, :-1]
    touches[:, :-1] |= other[:, 1:]
    return np.argwhere(inside & touches)


def boundary_f1(true: np.ndarray, found: np.ndarray, label: int) -> float | None:
    """F1 of the outlines of a class in an image, or None where there are none."""
    tolerance = TOLERANCE * math.hypot(*true.shape)
    found = np.where(true == IGNORE, np.uint8(IGNORE), found)
    lines = [outline(mask, label) for mask in (true, found)]
    if not any(map(len, lines)):
        return None
    if not all(map(len, lines)):
        return 0.0
    recall, precision = (_near(one, other, tolerance) for one, other in (lines, lines[::-1]))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(points: np.ndarray, others: np.ndarray, tolerance: float) -> float:
    """The share of points that have one of the others within the tolerance."""
    # Just above it: KDTree leaves out what lies on the bound.
    distances, _ = KDTree(others).query(points, distance_upper_bound=tolerance * (1 + 1e-9) + 1e-9)
    return float(np.isfinite(distances).mean())


def has_foreground(labels: Sequence[str]) -> bool:
    """Whether classes are a background and one that stands out from it."""
    return len(labels) == 2 and labels[0].casefold() == BACKGROUND


class SegmentationEvaluation:
    """Figures over images. Counts are int64 on the host, so that no number of pixels overflows.

    Args:
        labels: names of the classes. `background` is one of them like any other.
    """

    def __init__(self, labels: Sequence[str]):
        self.labels = tuple(labels)
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)
        self.images = 0
        self._outlines: list[list[float]] = [[] for _ in labels]

    def add(self, true: np.ndarray, found: np.ndarray) -> None:
        """Count an image: classes, uint8 (h, w), of which the true ones may be `IGNORE`."""
        counts = confusion(true, found, len(self.labels))
        self.confusion += counts
        self.images += 1
        for label in np.flatnonzero(counts.sum(0) + counts.sum(1)):
            score = boundary_f1(true, found, int(label))
            if score is not None:
                self._outlines[label].append(score)

    def compute(self) -> dict[str, Any]:
        """`miou`, `dice`, `pixel_accuracy`, `boundary_f1` and `per_class`; a class that is neither true nor predicted
        anywhere has None, and no part in the means. Of two classes of which the first is `background` also
        `foreground_iou` and `foreground_dice`."""
        right = np.diag(self.confusion)
        true, found = self.confusion.sum(1), self.confusion.sum(0)
        per_class: dict[str, dict[str, Any]] = {}
        for k, label in enumerate(self.labels):
            there = true[k] + found[k] > 0
            lines = self._outlines[k]
            per_class[label] = {
                "iou": float(right[k] / (true[k] + found[k] - right[k])) if there else None,
                "dice": float(2 * right[k] / (true[k] + found[k])) if there else None,
                "boundary_f1": float(np.mean(lines)) if lines else None,
                "pixels": int(true[k]),
            }
        rows = per_class.values()
        figures: dict[str, Any] = {
            "miou": _mean([row["iou"] for row in rows]),
            "dice": _mean([row["dice"] for row in rows]),
            "pixel_accuracy": float(right.sum()) / max(int(true.sum()), 1),
            "boundary_f1": _mean([row["boundary_f1"] for row in rows]),
        }
        if has_foreground(self.labels):
            foreground = per_class[self.labels[1]]
            figures |= {f"foreground_{name}": foreground[name] or 0.0 for name in ("iou", "dice")}
        return {**figures, "images": self.images, "per_class": per_class}


def _mean(values: Sequence[float | None]) -> float:
    """The mean of what is known, 0 where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
