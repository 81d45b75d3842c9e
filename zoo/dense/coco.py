"""COCO detection metrics: average precision and recall, computed by hotcoco, whose numbers equal those of pycocotools.

Lin et al., 2014, https://arxiv.org/abs/1405.0312. Definitions: https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Num

_AREAS = ("all", "small", "medium", "large")
_DETECTIONS = (1, 10, 100)
_AT_50, _AT_75 = 0, 5  # indices of these IoU thresholds in 0.5, 0.55, ... 0.95


class Curve(NamedTuple):
    """Precision-recall curve of one class at an IoU of 0.5, interpolated as COCO does.

    Attributes:
        recall: from 0 to 1 in steps of 0.01.
        precision: best precision at this recall or beyond; 0 where no threshold reaches the recall.
        score: score threshold that reaches the recall; 0 where none does.
    """

    recall: Float[np.ndarray, " 101"]
    precision: Float[np.ndarray, " 101"]
    score: Float[np.ndarray, " 101"]


class CocoEvaluation:
    """Collects detections and true boxes image by image, and computes the COCO metrics at the end.

    There is one difference from COCO: whether an object is small (under 32² pixels), medium or large (over 96²) is
    decided by the area of its box, because there are no masks. At most 100 detections of a class count in an image.

    Args:
        labels: names of the classes, in the order of the class indices passed to `add`.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._truths: list[np.ndarray] = []
        self._detections: list[np.ndarray] = []
        self._images = 0
        self._lost = 0
        self._known: dict[str, np.ndarray] | None = None

    def add(
        self,
        boxes: Num[np.ndarray, "n 4"],
        scores: Num[np.ndarray, " n"],
        labels: Integer[np.ndarray, " n"],
        truth_boxes: Num[np.ndarray, "m 4"],
        truth_labels: Integer[np.ndarray, " m"],
        truth_crowd: Bool[np.ndarray, " m"] | None = None,
    ) -> None:
        """Add one image.

        Args:
            boxes: detections as x1 y1 x2 y2 in pixels of the original image. Detections that are not finite cannot be
                ranked; they are left out and counted.
            scores: of the detections.
            labels: class index of each detection.
            truth_boxes: true boxes, without padding.
            truth_labels: class index of each true box.
            truth_crowd: which true boxes are crowds; a detection inside a crowd is neither right nor wrong.
        Raises:
            DataError: if shapes do not match, a class index is out of range, or a true box is not finite.
        """
        crowd = np.zeros(len(truth_labels)) if truth_crowd is None else truth_crowd
        rows = self._table(boxes, labels, scores, "detections")
        truth = self._table(truth_boxes, truth_labels, crowd, "truths")
        if not np.isfinite(truth).all():
            raise DataError("a true box is not finite. Remove such boxes with zoo.data.check_boxes.")
        finite = np.isfinite(rows).all(1)
        self._lost += int((~finite).sum())
        self._images += 1
        self._truths.append(truth)
        self._detections.append(rows[finite])
        self._known = None

    def _table(self, boxes: np.ndarray, labels: np.ndarray, last: np.ndarray, what: str) -> np.ndarray:
        """Return rows (n, 7): image number, x, y, width, height, score or crowd flag, class number, from 1."""
        boxes, labels, last = np.asarray(boxes, np.float64), np.asarray(labels), np.asarray(last, np.float64)
        count = len(labels)
        if boxes.shape != (count, 4) or labels.shape != (count,) or last.shape != (count,):
            raise DataError(
                f"{what}: boxes {boxes.shape}, labels {labels.shape}, {last.shape}; expected (n, 4), (n,), (n,)."
            )
        if count and not (0 <= labels.min() and labels.max() < len(self.labels)):
            raise DataError(
                f"{what}: class indices go from {labels.min()} to {labels.max()}; accepted: 0 to "
                f"{len(self.labels) - 1}, for {len(self.labels)} classes."
            )
        image = np.full((count, 1), self._images + 1.0)
        number = labels[:, None].astype(np.float64) + 1
        return np.concatenate([image, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], last[:, None], number], axis=1)

    def compute(self) -> dict[str, Any]:
        """Return the metrics of all images added so far.

        A metric without true boxes, e.g. of small objects, is None. `AP`, `AP50`, `AP75` and `AR100` are 0 then,
        because models are compared by them.

        Returns:
            `AP` (mean over IoU thresholds from 0.5 to 0.95), `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large`;
            `AR1`, `AR10`, `AR100` (by the number of detections that count), `AR_small`, `AR_medium`, `AR_large`;
            `per_class` with `AP`, `AP50`, `AR100` and `truths`; `images`, `truths` (without crowds), `detections`; and
            `detections_lost`, the number that were not finite, if there are any.
        """
        result, truths = self._evaluated(), self._true_counts()
        precision, recall = result["precision"], result["recall"]  # [IoU, recall, class, area, detections]
        metrics: dict[str, Any] = {
            "AP": _mean(precision[:, :, :, 0, -1]) or 0.0,
            "AP50": _mean(precision[_AT_50, :, :, 0, -1]) or 0.0,
            "AP75": _mean(precision[_AT_75, :, :, 0, -1]) or 0.0,
            **{f"AP_{_AREAS[i]}": _mean(precision[:, :, :, i, -1]) for i in (1, 2, 3)},
            **{f"AR{most}": _mean(recall[:, :, 0, i]) for i, most in enumerate(_DETECTIONS)},
            **{f"AR_{_AREAS[i]}": _mean(recall[:, :, i, -1]) for i in (1, 2, 3)},
        }
        metrics["AR100"] = metrics["AR100"] or 0.0
        metrics["per_class"] = {
            label: {
                "AP": _mean(precision[:, :, k, 0, -1]),
                "AP50": _mean(precision[_AT_50, :, k, 0, -1]),
                "AR100": _mean(recall[:, k, 0, -1]),
                "truths": int(truths[k]),
            }
            for k, label in enumerate(self.labels)
        }
        metrics |= {"images": self._images, "truths": int(truths.sum()), "detections": sum(map(len, self._detections))}
        return metrics | ({"detections_lost": self._lost} if self._lost else {})

    def curves(self) -> dict[str, Curve]:
        """Return the precision-recall curve at an IoU of 0.5 of every class that has true boxes."""
        result, truths = self._evaluated(), self._true_counts()
        precision, scores = (result[name][_AT_50, :, :, 0, -1] for name in ("precision", "scores"))
        recall = np.linspace(0, 1, len(precision))
        return {label: Curve(recall, precision[:, k], scores[:, k]) for k, label in enumerate(self.labels) if truths[k]}

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """Return the number of detections and of true boxes of each class."""
        rows, truths = _stacked(self._detections), self._true_counts()
        detections = np.bincount(rows[:, 6].astype(int) - 1, minlength=len(self.labels))
        return {label: (int(detections[k]), int(truths[k])) for k, label in enumerate(self.labels)}

    def _true_counts(self) -> np.ndarray:
        """Return the number of true boxes of each class, without crowds."""
        truth = _stacked(self._truths)
        return np.bincount(truth[truth[:, 5] == 0, 6].astype(int) - 1, minlength=len(self.labels))

    def _evaluated(self) -> dict[str, np.ndarray]:
        """Return hotcoco's arrays `precision`, `recall` and `scores`, which are -1 where there are no true boxes."""
        if self._known is None:
            import hotcoco

            truth, rows = _stacked(self._truths), _stacked(self._detections)
            truths = hotcoco.COCO.from_arrays(
                [{"id": i + 1, "width": 0, "height": 0} for i in range(self._images)],
                [{"id": k + 1, "name": label} for k, label in enumerate(self.labels)],
                truth[:, 0].astype(np.int64),
                truth[:, 6].astype(np.int64),
                truth[:, 1:5],
                ids=np.arange(1, len(truth) + 1),
                area=truth[:, 3] * truth[:, 4],
                iscrowd=truth[:, 5].astype(np.int64),
            )
            evaluation = hotcoco.COCOeval(truths, truths.load_res(rows), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            assert evaluation.eval is not None
            self._known = {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")}
        return self._known


def _stacked(tables: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 7)), *tables])


def _mean(values: np.ndarray) -> float | None:
    """Return the mean over entries with true boxes, or None if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
