"""Object detection: boxes with a class and a score, on any backbone with a feature pyramid.

There are three methods: FCOS (arXiv:2006.09214), YOLOX (arXiv:2107.08430) and Faster R-CNN (arXiv:1506.01497, with
feature pyramids, arXiv:1612.03144). The metrics are COCO's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

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

if TYPE_CHECKING:
    from jaxtyping import Float

SIDE = 416
"""Default side of the images in pixels; if the backbone does not take it, the next one that it takes."""


class Box(msgspec.Struct, frozen=True):
    """A detected object.

    Attributes:
        label: name of its class.
        score: confidence in [0, 1].
        box: x1, y1, x2, y2 in pixels of the upright image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detection(msgspec.Struct, frozen=True):
    """The detections in one image.

    Attributes:
        file: path of the image.
        boxes: the objects, highest score first.
    """

    file: str
    boxes: list[Box]


@dataclass(frozen=True)
class Detector(Adapter):
    """The detector, with its options as fields."""

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
        float | None,
        Meta("Boxes with a lower score are dropped before NMS; null for the default of the head.", ge=0, lt=1),
    ] = None
    nms_iou: Annotated[
        float | None,
        Meta(
            "NMS IoU threshold: of two boxes of a class with a higher IoU, the lower-scoring is dropped; null for the "
            "default of the head.",
            ge=0,
            lt=1,
        ),
    ] = None
    max_detections: Annotated[int, Meta("Detections per image.", ge=1)] = 100
    score_threshold: Annotated[
        float,
        Meta("Score from which a detection is listed and drawn. Metrics use all detections.", ge=0, lt=1),
    ] = 0.5
    max_boxes: Annotated[int, Meta("Most true boxes of an image; set by the data.", ge=1, hidden=True)] = 8
    category_ids: Annotated[
        tuple[int | str | None, ...], Meta("COCO's numbers of the classes; set by the data.", hidden=True)
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
        only_evaluated = ("frame", "true_boxes", "true_valid")  # no loss reads them, so augmentation leaves them
        return Training(METHODS[self.head].recipe, cached_mirror=True, invariant=only_evaluated)

    # Backbone and preprocessing --------------------------------------------------------------------------------
    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        return tuple(stage.name for stage in stages_for(spec, self.head))

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """See `zoo.dense.framing.whole_image`."""
        return whole_image(spec, preprocess, stages_for(spec, self.head)[0], SIDE)

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        if not self.labels:
            raise ConfigError("a detector needs classes. Give labels= or num_classes=.")
        options = {name: getattr(self, name) for name in ("convs", "depth", "separable", "steps")}
        return DetectionHead(self.head, inputs, len(self.labels), width=self.width, options=options, rngs=rngs)

    # Learning --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        return replace(self, category_ids=dataset.category_ids)

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        limit, note = box_limit(datasets)
        return replace(self, max_boxes=limit), note

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        frame = frame_of(sample.target.size, preprocess)
        truth = padded_targets(sample.target, self.max_boxes)
        scale = np.array([frame.scale_x, frame.scale_y] * 2, np.float32)
        shift = np.array([frame.left, frame.top] * 2, np.float32)
        limits = np.array(preprocess.frame(sample.target.size)[::-1] * 2, np.float32)
        boxes = np.clip(truth["boxes"] * scale + shift, 0, limits)
        # The loss reads the boxes in prepared pixels, without crowds, which are no single objects, and without boxes
        # that the crop leaves out. COCO's metrics need all true boxes, in pixels of the original.
        learned = truth["box_valid"] & ~truth["crowd"] & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return {
            "boxes": np.where(learned[:, None], boxes, 0).astype(np.float32),
            "labels": truth["labels"],
            "box_valid": learned,
            "frame": np.array(frame, np.float32),
            "true_boxes": truth["boxes"],
            "true_valid": truth["box_valid"],
            "crowd": truth["crowd"],
        }

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        head: Any = forward.model.head
        truth = {name: batch[name] for name in ("boxes", "labels", "box_valid", "valid")}
        terms = head.losses(forward.reduced, truth)
        return {f"loss_{name.removeprefix('loss_')}": term.astype(jnp.float32) for name, term in terms.items()}

    # Predicting ------------------------------------------------------------------------------------------------
    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the detections in pixels of the original images.

        Returns:
            `boxes` (b, n, 4), `scores` (b, n), `labels` (b, n), and `found` (b, n), False for rows that only fill up
            the arrays.
        """
        head: Any = forward.model.head
        frame = jnp.asarray(batch["frame"], jnp.float32)  # (b, 6), see `zoo.data.transform.Frame`
        scale, shift, size = frame[:, 0:2], frame[:, 2:4], frame[:, 4:6]
        # Boxes end at the image's lower right corner, not at that of the letterbox.
        borders = size * scale + shift
        kept = head.detections(
            forward.reduced,
            borders,
            pre_nms_threshold=self.pre_nms_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

        def corners(pairs: Float[Array, "b 2"]) -> Float[Array, "b 1 4"]:
            """Return (y, x) of each image as (x, y, x, y), for all of its boxes."""
            return jnp.concatenate([pairs[:, ::-1]] * 2, axis=1)[:, None]

        boxes = jnp.clip((kept["boxes"] - corners(shift)) / corners(scale), 0, corners(size))
        return {
            "boxes": jnp.where(kept["valid"][..., None], boxes, 0.0),
            "scores": kept["scores"],
            "labels": kept["labels"],
            "found": kept["valid"],
        }

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Detection]:
        rows = zip(files, *(decoded[name] for name in ("boxes", "scores", "labels", "found")), strict=True)
        images = []
        for file, boxes, scores, labels, found in rows:
            kept = found & (scores >= self.score_threshold)
            objects = zip(boxes[kept].tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True)
            images.append(Detection(file, [Box(self.labels[k], score, tuple(box)) for box, score, k in objects]))
        return images

    def table(self, predictions: Sequence[Detection]) -> Table:
        rows: list[tuple[Any, ...]] = []
        for image in predictions:
            counts = Counter(box.label for box in image.boxes)
            classes = ", ".join(f"{count} {label}" for label, count in counts.most_common())
            best = f"{image.boxes[0].score:.1%}" if image.boxes else ""
            rows.append((image.file, len(image.boxes), best, classes))
        return Table(("file", "objects", "top score", "classes"), rows, right=("objects", "top score"))

    def unabridged(self) -> Self:
        return replace(self, score_threshold=0.0)

    def results(self, predictions: Sequence[Detection], data: Dataset | None = None) -> dict[str, Any]:
        """Return the detections in COCO's result format, and its categories; see `zoo.dense.coco_results`."""
        numbers = Numbering(self.labels, [image.file for image in predictions], data=data, own=self.category_ids)
        detections = []
        for image in predictions:
            for box in image.boxes:
                x1, y1, x2, y2 = box.box
                detections.append(
                    {
                        "image_id": numbers.image(image.file),
                        "category_id": numbers.category(box.label),
                        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                        # With all digits of float32: rounding could make scores equal, and so change the order.
                        "score": float(str(np.float32(box.score))),
                    }
                )
        return {"predictions": detections, "categories": numbers.categories}

    def picture(self, pixels: np.ndarray, prediction: Detection) -> np.ndarray:
        from zoo.adapters.detector.pictures import colour_of, draw

        boxes = prediction.boxes
        colours = [colour_of(self.labels.index(box.label)) for box in boxes]
        captions = [f"{box.label} {box.score:.0%}" for box in boxes]
        return draw(pixels, np.array([box.box for box in boxes]).reshape(-1, 4), colours, captions)

    def metrics(self) -> DetectionMetrics:
        return DetectionMetrics(self.labels)

    def next_step(self, run: Path) -> str:
        return f"zoo predict {run} IMAGE --out FOLDER, zoo evaluate {run} DATA"

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        from zoo.adapters.detector.pictures import SHOWN, average_precision, photos, precision_recall

        return [
            precision_recall(evaluation.accumulated.curves(), folder / "precision_recall.png"),
            average_precision(evaluation.metrics["per_class"], folder / "average_precision.png"),
            *photos(self, evaluation.worst(SHOWN), folder / "worst.png"),
            *photos(self, evaluation.best(SHOWN), folder / "best.png"),
        ]


class DetectionMetrics:
    """COCO's metrics over the batches of an evaluation, and precision-recall curves."""

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
        """Return the number of detections and of true boxes of each class."""
        return self._coco.class_counts()

    def curves(self) -> dict[str, Curve]:
        """Return the precision-recall curve of each class, see `zoo.dense.coco.Curve`."""
        return self._coco.curves()


@hookimpl
def zoo_models() -> list[ModelSpec]:
    return [*MODELS]


@hookimpl
def zoo_parts() -> list[Part]:
    summaries = {
        "fcos": "FCOS (arXiv:2006.09214): every position near the centre of an object predicts its box.",
        "yolox": "YOLOX (arXiv:2107.08430): a light head behind a path aggregation network.",
        "rcnn": "Faster R-CNN (arXiv:1506.01497): region proposals, each classified and refined by a second stage.",
    }
    return [Part(METHODS.name, name, row, summaries[name]) for name, row in OWN.items()]


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("detector", Detector, "Boxes with a class and a score.")]
