"""Metrics of the segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.dense.segmentation import SegmentationEvaluation


class SegmentationMetrics:
    """The metrics of `zoo.dense.segmentation` over the batches of an evaluation."""

    def __init__(self, labels: Sequence[str]):
        self._evaluation = SegmentationEvaluation(labels)

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        for i in np.flatnonzero(batch["valid"]):
            height, width = batch["frame"][i][4:].astype(int)
            self._evaluation.add(batch["true_mask"][i][:height, :width], decoded["mask"][i][:height, :width])

    def compute(self) -> dict[str, Any]:
        return self._evaluation.compute()

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """Return the number of predicted and of true pixels of each class."""
        predicted, actual = self.confusion.sum(0), self.confusion.sum(1)
        return {label: (int(predicted[i]), int(actual[i])) for i, label in enumerate(self._evaluation.labels)}

    @property
    def confusion(self) -> np.ndarray:
        """Number of pixels of each true class (row) and predicted class (column), int64 (classes, classes)."""
        return self._evaluation.confusion
