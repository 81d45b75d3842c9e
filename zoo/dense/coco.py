"""The COCO figures of detections: average precision and recall, computed by hotcoco, which equals pycocotools.

Lin et al., 2014 (https://arxiv.org/abs/1405.0312); the definitions are at https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import DataError

_AREAS = ("all", "small", "medium", "large")
_DETECTIONS = (1, 10, 100)
_AT_50, _AT_75 = 0, 5  # of the overlaps 0.5, 0.55, ... 0.95


class Curve(NamedTuple):
    """Precision against recall of one class at an overlap of 0.5: what is reached at this recall or beyond.

    Attributes:
        recall, precision: (101,), recall from 0 to 1; a precision of 0 where no score gives that recall.
        score: (101,) the lowest score among the detections that are needed for it; 0 where none are enough.
    """

    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray


class CocoEvaluation:
    """Takes in the detections and the truth of one image after the other; the figures come at the end.

    As COCO defines them, but for one thing: an object is small (under 32² pixels), medium or large (over 96²) by the
    area of its box, since masks are not at hand. At most 100 detections of a class in an image count.

    Args:
        labels: names of the classes, which the numbers given later refer to.
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
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        truth_boxes: np.ndarray,
        truth_labels: np.ndarray,
        truth_crowd: np.ndarray | None = None,
    ) -> None:
        """One image.

        Args:
            boxes: (n, 4) detections as x1 y1 x2 y2 in pixels of the original image. Those that are not finite cannot
                be ranked; they are left out and counted.
            scores, labels: (n,).
            truth_boxes, truth_labels: (m, 4) and (m,); no padding.
            truth_crowd: bool (m,); what is found inside a crowd is neither right nor wrong.

        Raises:
            DataError: shapes that do not fit, or a class number that is none.
        """
        crowd = np.zeros(len(truth_labels)) if truth_crowd is None else truth_crowd
        found = self._table(boxes, labels, scores, "detections")
        truth = self._table(truth_boxes, truth_labels, crowd, "truths")
        if not np.isfinite(truth).all():
            raise DataError("a true box is not finite; zoo.data.check_boxes removes such boxes.")
        finite = np.isfinite(found).all(1)
        self._lost += int((~finite).sum())
        self._images += 1
        self._truths.append(truth)
        self._detections.append(found[finite])
        self._known = None

    def _table(self, boxes: np.ndarray, labels: np.ndarray, last: np.ndarray, what: str) -> np.ndarray:
        """(n, 7): image number, x, y, width, height, score or crowd mark, class number; numbers from 1."""
        boxes, labels, last = np.asarray(boxes, np.float64), np.asarray(labels), np.asarray(last, np.float64)
        count = len(labels)
        if boxes.shape != (count, 4) or labels.shape != (count,) or last.shape != (count,):
            raise DataError(
                f"{what}: boxes {boxes.shape}, labels {labels.shape}, {last.shape}; needed (n, 4), (n,), (n,)."
            )
        if count and not (0 <= labels.min() and labels.max() < len(self.labels)):
            raise DataError(
                f"{what}: a label is {labels.min()} or {labels.max()}; there are {len(self.labels)} classes."
            )
        image = np.full((count, 1), self._images + 1.0)
        number = labels[:, None].astype(np.float64) + 1
        return np.concatenate([image, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], last[:, None], number], axis=1)

    def compute(self) -> dict[str, Any]:
        """`AP` (mean over overlaps of 0.5 to 0.95), `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large`; `AR1`, `AR10`,
        `AR100` (by the most detections that count), `AR_small`, `AR_medium`, `AR_large`; `per_class` with `AP`, `AP50`,
        `AR100` and `truths`; `images`, `truths` (without crowds), `detections`.

        None where there is nothing to find, e.g. no small object; but 0 for `AP`, `AP50`, `AP75` and `AR100`, by which
        models are compared. `detections_lost`, where there are any, counts those that were not finite.
        """
        result, truths = self._evaluated(), self._true_counts()
        precision, recall = result["precision"], result["recall"]  # [overlap, recall, class, area, detections]
        figures: dict[str, Any] = {
            "AP": _mean(precision[:, :, :, 0, -1]) or 0.0,
            "AP50": _mean(precision[_AT_50, :, :, 0, -1]) or 0.0,
            "AP75": _mean(precision[_AT_75, :, :, 0, -1]) or 0.0,
            **{f"AP_{_AREAS[i]}": _mean(precision[:, :, :, i, -1]) for i in (1, 2, 3)},
            **{f"AR{most}": _mean(recall[:, :, 0, i]) for i, most in enumerate(_DETECTIONS)},
            **{f"AR_{_AREAS[i]}": _mean(recall[:, :, i, -1]) for i in (1, 2, 3)},
        }
        figures["AR100"] = figures["AR100"] or 0.0
        figures["per_class"] = {
            label: {
                "AP": _mean(precision[:, :, k, 0, -1]),
                "AP50": _mean(precision[_AT_50, :, k, 0, -1]),
                "AR100": _mean(recall[:, k, 0, -1]),
                "truths": int(truths[k]),
            }
            for k, label in enumerate(self.labels)
        }
        figures |= {"images": self._images, "truths": int(truths.sum()), "detections": sum(map(len, self._detections))}
        return figures | ({"detections_lost": self._lost} if self._lost else {})

    def curves(self) -> dict[str, Curve]:
        """Precision against recall at an overlap of 0.5, for every class that there is something to find of."""
        result, truths = self._evaluated(), self._true_counts()
        precision, scores = (result[name][_AT_50, :, :, 0, -1] for name in ("precision", "scores"))
        recall = np.linspace(0, 1, len(precision))
        return {label: Curve(recall, precision[:, k], scores[:, k]) for k, label in enumerate(self.labels) if truths[k]}

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """For each class, how many detections there are and how many objects to find."""
        found, truths = _stacked(self._detections), self._true_counts()
        detections = np.bincount(found[:, 6].astype(int) - 1, minlength=len(self.labels))
        return {label: (int(detections[k]), int(truths[k])) for k, label in enumerate(self.labels)}

    def _true_counts(self) -> np.ndarray:
        """Objects to find, for each class."""
        truth = _stacked(self._truths)
        return np.bincount(truth[truth[:, 5] == 0, 6].astype(int) - 1, minlength=len(self.labels))

    def _evaluated(self) -> dict[str, np.ndarray]:
        """hotcoco's arrays `precision`, `recall` and `scores`, -1 where there is no truth."""
        if self._known is None:
            import hotcoco

            truth, found = _stacked(self._truths), _stacked(self._detections)
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
            evaluation = hotcoco.COCOeval(truths, truths.load_res(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            assert evaluation.eval is not None
            self._known = {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")}
        return self._known


def _stacked(tables: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 7)), *tables])


def _mean(values: np.ndarray) -> float | None:
    """The mean where there is truth."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
