"""Semantic segmentation metrics: the confusion matrix, what follows from it, and the boundary F1 score.

The boundary F1 score is that of Csurka, Larlus and Perronnin, What is a good evaluation measure for semantic
segmentation?, BMVC 2013. A pixel of a class's predicted outline is right if the true outline is within 0.75 % of the
image's diagonal, and vice versa. Precision and recall of the outlines give an F1 score for each class in each image. A
class's score is the mean over the images with a true or predicted outline of it; the metric is the mean over classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from zoo.targets.masks import BACKGROUND, IGNORE

if TYPE_CHECKING:
    from jaxtyping import Integer

TOLERANCE = 0.0075
"""Distance by which an outline may be off, as a fraction of the image's diagonal."""


def confusion(
    true: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "h w"], classes: int
) -> Integer[np.ndarray, "classes classes"]:
    """Return the confusion matrix, int64: pixels of each true class (row) predicted as each class (column).

    Pixels whose true class is `IGNORE` are left out.
    """
    counted = true != IGNORE
    pairs = true[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def outline(mask: Integer[np.ndarray, "h w"], label: int) -> Integer[np.ndarray, "n 2"]:
    """Return the (row, column) of pixels of a class that touch another class above, below, left or right.

    There is no outline at ignored pixels or at the border of the image.
    """
    inside, other = mask == label, (mask != label) & (mask != IGNORE)
    touches = np.zeros_like(inside)
    touches[1:] |= other[:-1]
    touches[:-1] |= other[1:]
    touches[:, 1:] |= other[:, :-1]
    touches[:, :-1] |= other[:, 1:]
    return np.argwhere(inside & touches)


def boundary_f1(true: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "h w"], label: int) -> float | None:
    """Return the boundary F1 score of a class in an image, or None if neither mask has an outline of it."""
    tolerance = TOLERANCE * math.hypot(*true.shape)
    predicted = np.where(true == IGNORE, np.uint8(IGNORE), predicted)
    lines = [outline(mask, label) for mask in (true, predicted)]
    if not any(map(len, lines)):
        return None
    if not all(map(len, lines)):
        return 0.0
    recall, precision = (_near(one, other, tolerance) for one, other in (lines, lines[::-1]))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(points: np.ndarray, others: np.ndarray, tolerance: float) -> float:
    """Return the fraction of points with one of the others within the tolerance."""
    # The bound is slightly larger, because KDTree excludes points that lie on it.
    distances, _ = KDTree(others).query(points, distance_upper_bound=tolerance * (1 + 1e-9) + 1e-9)
    return float(np.isfinite(distances).mean())


def has_foreground(labels: Sequence[str]) -> bool:
    """Whether there are two classes, of which the first is the background."""
    return len(labels) == 2 and labels[0].casefold() == BACKGROUND


class SegmentationEvaluation:
    """Collects masks image by image, and computes the segmentation metrics at the end.

    Counts are int64 on the host: int32 would overflow after some thousand images.

    Args:
        labels: names of the classes. `background` is a class like any other.
    """

    def __init__(self, labels: Sequence[str]):
        self.labels = tuple(labels)
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)
        self.images = 0
        self._outlines: list[list[float]] = [[] for _ in labels]

    def add(self, true: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "h w"]) -> None:
        """Add one image.

        Args:
            true: true class of each pixel, uint8, or `IGNORE`.
            predicted: predicted class of each pixel, uint8.
        """
        counts = confusion(true, predicted, len(self.labels))
        self.confusion += counts
        self.images += 1
        for label in np.flatnonzero(counts.sum(0) + counts.sum(1)):
            score = boundary_f1(true, predicted, int(label))
            if score is not None:
                self._outlines[label].append(score)

    def compute(self) -> dict[str, Any]:
        """Return the metrics of all images added so far.

        A class that occurs in no mask, true or predicted, has None and does not count in the means.

        Returns:
            `miou`, `dice`, `pixel_accuracy`, `boundary_f1`, `images` and `per_class`. For two classes with `background`
            as the first, also `foreground_iou` and `foreground_dice`.
        """
        right = np.diag(self.confusion)
        true, predicted = self.confusion.sum(1), self.confusion.sum(0)
        per_class: dict[str, dict[str, Any]] = {}
        for k, label in enumerate(self.labels):
            occurs = true[k] + predicted[k] > 0
            lines = self._outlines[k]
            per_class[label] = {
                "iou": float(right[k] / (true[k] + predicted[k] - right[k])) if occurs else None,
                "dice": float(2 * right[k] / (true[k] + predicted[k])) if occurs else None,
                "boundary_f1": float(np.mean(lines)) if lines else None,
                "pixels": int(true[k]),
            }
        rows = per_class.values()
        metrics: dict[str, Any] = {
            "miou": _mean([row["iou"] for row in rows]),
            "dice": _mean([row["dice"] for row in rows]),
            "pixel_accuracy": float(right.sum()) / max(int(true.sum()), 1),
            "boundary_f1": _mean([row["boundary_f1"] for row in rows]),
        }
        if has_foreground(self.labels):
            foreground = per_class[self.labels[1]]
            metrics |= {f"foreground_{name}": foreground[name] or 0.0 for name in ("iou", "dice")}
        return {**metrics, "images": self.images, "per_class": per_class}


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that are not None, or 0 if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
