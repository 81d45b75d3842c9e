"""Object detection: boxes with a class and a score, on any backbone that gives a pyramid.

Three methods behind one contract: FCOS (arXiv:2006.09214), YOLOX (arXiv:2107.08430) and Faster R-CNN
(arXiv:1506.01497 on feature pyramids, arXiv:1612.03144). Figures are COCO's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from jax import Array

from zoo.adapters.detector.heads import METHODS, OWN, DetectionHead, stages_for
from zoo.adapters.detector.published import MODELS
from zoo.data import Dataset, Sample
from zoo.data.boxes import box_limit, padded_targets
from zoo.data.transform import frame_of
from zoo.dense.coco import CocoEvaluation, Curve
from zoo.dense.coco_results import Numbering
from zoo.dense.framing import whole_image
from zoo.errors import ConfigError
from zoo.models.adapter import Adapter, ForwardPass, HeadInputs, Table, Training
from zoo.registry.hookspecs import hookimpl
from zoo.registry.options import Meta
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess

SIDE = 416
"""Side of the images where a user names none, in pixels; or the next that the backbone takes."""


class Box(msgspec.Struct, frozen=True):
    """One object.

    Attributes:
        label, score: its class and how sure that is. box: x1, y1, x2, y2 in pixels of the upright image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detection(msgspec.Struct, frozen=True):
    """What was found in one image, the surest first.

    Attributes:
        file: the image. boxes: the objects.
    """

    file: str
    boxes: list[Box]


@dataclass(frozen=True)
class Detector(Adapter):
    """Options of the detector."""

    head: Annotated[str, METHODS, Meta("Detection head with its neck; rcnn is Faster R-CNN.")] = "fcos"
    width: Annotated[int, Meta("Channels of the feature pyramid; for yolox those of its finest level.", ge=1)] = 128
    convs: Annotated[
        int,
        Meta("Convolutions in each tower of fcos. The paper has 4, which does not help on small datasets.", ge=0),
    ] = 2
    depth: Annotated[int, Meta("Bottlenecks in each block of the neck of yolox.", ge=1)] = 1
    separable: Annotated[bool, Meta("Depthwise separable convolutions in the neck and head of yolox.")] = False
    steps: Annotated[
        Literal["declared", "floor"],
        Meta(
            "Distance between the points or anchors of a level, for fcos and rcnn: the declared stride, or image size "
            "divided by map size, rounded down, which torchvision's weights were trained with."
        ),
    ] = "declared"
    pre_nms_threshold: Annotated[
        float | None, Meta("Boxes with a lower score are dropped before NMS; null for the head's own.", ge=0, lt=1)
    ] = None
    nms_iou: Annotated[
        float | None,
        Meta(
            "NMS IoU threshold: of two boxes of a class with a higher IoU, the lower-scoring is dropped; null for the "
            "head's own.",
            ge=0,
            lt=1,
        ),
    ] = None
    max_detections: Annotated[int, Meta("Detections per image.", ge=1)] = 100
    score_threshold: Annotated[
        float,
        Meta("Score from which a detection is listed and drawn. Metrics use all detections.", ge=0, lt=1),
    ] = 0.5
    max_boxes: Annotated[int, Meta("Room for true boxes of an image; set by the data.", ge=1, hidden=True)] = 8
    category_ids: Annotated[
        tuple[int | None, ...], Meta("COCO's numbers of the classes; set by the data.", hidden=True)
    ] = ()

    targets_from = ("boxes",)
    primary = "AP"
    adjustable = ("pre_nms_threshold", "nms_iou", "max_detections", "score_threshold", "category_ids")
    renamed = {
        "score": "pre_nms_threshold",
        "overlap": "nms_iou",
        "detections": "max_detections",
        "shown": "score_threshold",
    }

    @property
    def training(self) -> Training:
        only_evaluated = ("frame", "true_boxes", "true_valid")
        return Training(METHODS[self.head].recipe, cached_mirror=True, invariant=only_evaluated)

    # What it needs of a backbone -------------------------------------------------------------------------------
    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        return tuple(stage.name for stage in stages_for(spec, self.head))

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """See `zoo.dense.framing.whole_image`."""
        return whole_image(spec, preprocess, stages_for(spec, self.head)[0], SIDE)

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        if not self.labels:
            raise ConfigError("a detector needs classes: give labels= or num_classes=.")
        names = ("convs", "depth", "separable", "steps")
        options = {name: getattr(self, name) for name in names}
        return DetectionHead(self.head, inputs, len(self.labels), width=self.width, options=options, rngs=rngs)

    # Learning --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        return replace(self, category_ids=dataset.category_ids)

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        limit, note = box_limit(datasets)
        return replace(self, max_boxes=limit), note

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        frame = frame_of(sample.target.size, preprocess)
        found = padded_targets(sample.target, self.max_boxes)
        scale = np.array([frame.scale_x, frame.scale_y] * 2, np.float32)
        shift = np.array([frame.left, frame.top] * 2, np.float32)
        seen = np.array(preprocess.frame(sample.target.size)[::-1] * 2, np.float32)
        boxes = np.clip(found["boxes"] * scale + shift, 0, seen)
        # What is learned from; crowds are no objects, and nobody sees what a crop leaves out.
        there = found["box_valid"] & ~found["crowd"] & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return {
            "boxes": np.where(there[:, None], boxes, 0).astype(np.float32),
            "labels": found["labels"],
            "box_valid": there,
            "frame": np.array(frame, np.float32),
            "true_boxes": found["boxes"],
            "true_valid": found["box_valid"],
            "crowd": found["crowd"],
        }

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        head: Any = forward.model.head
        truth = {name: batch[name] for name in ("boxes", "labels", "box_valid", "valid")}
        terms = head.losses(forward.reduced, truth)
        return {f"loss_{name.removeprefix('loss_')}": term.astype(jnp.float32) for name, term in terms.items()}

    # Predicting ------------------------------------------------------------------------------------------------
    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Detections in pixels of the original images: `boxes` (b, n, 4), `scores`, `labels`, `found` (b, n)."""
        head: Any = forward.model.head
        frame = jnp.asarray(batch["frame"], jnp.float32)
        scale, shift, size = frame[:, 0:2], frame[:, 2:4], frame[:, 4:6]
        seen = size * scale + shift
        kept = head.detections(
            forward.reduced,
            seen,
            pre_nms_threshold=self.pre_nms_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )
        both = jnp.concatenate([shift[:, ::-1]] * 2, axis=1)[:, None], jnp.concatenate([scale[:, ::-1]] * 2, 1)[:, None]
        boxes = jnp.clip((kept["boxes"] - both[0]) / both[1], 0, jnp.concatenate([size[:, ::-1]] * 2, 1)[:, None])
        return {
            "boxes": jnp.where(kept["valid"][..., None], boxes, 0.0),
            "scores": kept["scores"],
            "labels": kept["labels"],
            "found": kept["valid"],
        }

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Detection]:
        rows = zip(files, *(decoded[name] for name in ("boxes", "scores", "labels", "found")), strict=True)
        found = []
        for file, boxes, scores, labels, there in rows:
            kept = there & (scores >= self.score_threshold)
            each = zip(boxes[kept].tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True)
            found.append(Detection(file, [Box(self.labels[k], score, tuple(box)) for box, score, k in each]))
        return found

    def table(self, predictions: Sequence[Detection]) -> Table:
        rows: list[tuple[Any, ...]] = []
        for one in predictions:
            counts = Counter(box.label for box in one.boxes)
            seen = ", ".join(f"{count} {label}" for label, count in counts.most_common())
            best = f"{one.boxes[0].score:.1%}" if one.boxes else ""
            rows.append((one.file, len(one.boxes), best, seen))
        return Table(("file", "objects", "surest", "classes"), rows, right=("objects", "surest"))

    def unabridged(self) -> Self:
        return replace(self, score_threshold=0.0)

    def results(self, predictions: Sequence[Detection], data: Dataset | None = None) -> dict[str, Any]:
        """COCO's result format, and the categories that its numbers stand for; see `zoo.dense.coco_results`."""
        numbers = Numbering(self.labels, [one.file for one in predictions], data=data, own=self.category_ids)
        found = []
        for one in predictions:
            for box in one.boxes:
                x1, y1, x2, y2 = box.box
                found.append(
                    {
                        "image_id": numbers.image(one.file),
                        "category_id": numbers.category(box.label),
                        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                        "score": float(str(np.float32(box.score))),  # all of it: equal scores would change the order
                    }
                )
        return {"predictions": found, "categories": numbers.categories}

    def picture(self, pixels: np.ndarray, prediction: Detection) -> np.ndarray:
        from zoo.adapters.detector.pictures import colour_of, draw

        boxes = prediction.boxes
        colours = [colour_of(self.labels.index(box.label)) for box in boxes]
        captions = [f"{box.label} {box.score:.0%}" for box in boxes]
        return draw(pixels, np.array([box.box for box in boxes]).reshape(-1, 4), colours, captions)

    def metrics(self) -> DetectionMetrics:
        return DetectionMetrics(self.labels)

    def next_step(self, run: Path) -> str:
        return f"zoo predict {run} PHOTO --out FOLDER, zoo evaluate {run} DATA"

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        from zoo.adapters.detector.pictures import SHOWN, average_precision, photos, precision_recall

        return [
            precision_recall(evaluation.accumulated.curves(), folder / "precision_recall.png"),
            average_precision(evaluation.metrics["per_class"], folder / "average_precision.png"),
            *photos(self, evaluation.worst(SHOWN), folder / "worst.png"),
            *photos(self, evaluation.best(SHOWN), folder / "best.png"),
        ]


class DetectionMetrics:
    """COCO's figures over the batches of an evaluation, and curves of precision against recall."""

    def __init__(self, labels: Sequence[str]):
        self._coco = CocoEvaluation(labels)

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        for i in np.flatnonzero(batch["valid"]):
            found, true = decoded["found"][i], batch["true_valid"][i]
            self._coco.add(
                *(decoded[name][i][found] for name in ("boxes", "scores", "labels")),
                *(batch[name][i][true] for name in ("true_boxes", "labels", "crowd")),
            )

    def compute(self) -> dict[str, Any]:
        return self._coco.compute()

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """How many boxes of each class were found, and how many there are."""
        return self._coco.class_counts()

    def curves(self) -> dict[str, Curve]:
        """Precision against recall by class, see `zoo.dense.coco.Curve`."""
        return self._coco.curves()


@hookimpl
def zoo_models() -> list[ModelSpec]:
    return [*MODELS]


@hookimpl
def zoo_parts() -> list[Part]:
    said = {
        "fcos": "FCOS (arXiv:2006.09214): every position near an object's centre gives a box.",
        "yolox": "YOLOX (arXiv:2107.08430): a light head behind a path aggregation network.",
        "rcnn": "Faster R-CNN (arXiv:1506.01497): boxes are proposed, then looked at once more.",
    }
    return [Part(METHODS.name, name, row, said[name]) for name, row in OWN.items()]


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("detector", Detector, "Boxes with a class and a score.")]
