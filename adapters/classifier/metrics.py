"""Metrics of the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class ClassificationMetrics:
    """Classification metrics. Probabilities and labels are collected on the host; `compute` does the rest."""

    def __init__(self, labels: Sequence[str], multi_label: bool, threshold: float):
        self.labels, self.multi_label, self.threshold = tuple(labels), multi_label, threshold
        self._scores: list[np.ndarray] = []
        self._truth: list[np.ndarray] = []

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        keep = np.asarray(batch["valid"], bool)
        self._scores.append(np.asarray(decoded["probabilities"], np.float64)[keep])
        self._truth.append(np.asarray(batch["label"])[keep])

    def compute(self) -> dict[str, Any]:
        scores, truth = np.concatenate(self._scores), np.concatenate(self._truth)
        return self._several(scores, truth) if self.multi_label else self._single(scores, truth)

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """Return, for each class, in how many images it was predicted and in how many it is present."""
        scores, truth = np.concatenate(self._scores), np.concatenate(self._truth)
        if self.multi_label:
            predicted, actual = (scores >= self.threshold).sum(0), (truth > 0.5).sum(0)
        else:
            predicted, actual = (np.bincount(of, minlength=len(self.labels)) for of in (scores.argmax(1), truth))
        return {label: (int(predicted[i]), int(actual[i])) for i, label in enumerate(self.labels)}

    def _single(self, scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        classes, predicted = len(self.labels), scores.argmax(1)
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (truth, predicted), 1)
        hits = np.diag(confusion).astype(np.float64)
        top5 = (np.argsort(-scores, axis=1, kind="stable")[:, :5] == truth[:, None]).any(1).mean()
        metrics = {
            "accuracy": float((predicted == truth).mean()),
            **({"top5_accuracy": float(top5)} if classes > 5 else {}),
            **self._by_class(hits, confusion.sum(0), confusion.sum(1)),
            "calibration_error": calibration_error(scores.max(1), predicted == truth),
            "images": len(truth),
        }
        # With 1,000 classes the matrix has a million numbers, and nobody would find the other metrics.
        return metrics | ({"confusion": confusion.tolist()} if classes <= 100 else {})

    def _several(self, scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        predicted, truth = scores >= self.threshold, truth > 0.5
        hits = (predicted & truth).sum(0).astype(np.float64)
        return {
            "accuracy": float((predicted == truth).all(1).mean()),
            "label_accuracy": float((predicted == truth).mean()),
            **self._by_class(hits, predicted.sum(0), truth.sum(0)),
            "images": len(truth),
        }

    def _by_class(self, hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
        """Return precision, recall and F1, 0 where undefined. Macro averages are over the classes present in the data.

        Args:
            hits: true positives of each class.
            predicted: predictions of each class.
            actual: images of each class.
        """
        precision = hits / np.maximum(predicted, 1)
        recall = hits / np.maximum(actual, 1)
        f1 = 2 * hits / np.maximum(predicted + actual, 1)
        present = actual > 0
        rows = {"precision": precision, "recall": recall, "f1": f1}
        macro = {
            f"macro_{name}": float(values[present].mean()) if present.any() else 0.0 for name, values in rows.items()
        }
        per_class = {
            label: {**{name: float(values[i]) for name, values in rows.items()}, "support": int(actual[i])}
            for i, label in enumerate(self.labels)
            if present[i] or predicted[i]
        }
        return {**macro, "per_class": per_class}


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (arXiv:1706.04599, eq. 3).

    It is the mean gap between confidence and accuracy over bins of equal width, weighted by their numbers of images.

    Args:
        confidence: predicted probability of the predicted class, one per image.
        correct: whether the prediction is right, one per image.
        bins: number of bins.
    """
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    gap = np.bincount(index, confidence, bins) - np.bincount(index, correct.astype(np.float64), bins)
    return float(np.abs(gap).sum() / max(int(counts.sum()), 1))
