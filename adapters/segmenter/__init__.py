"""Segmentation: a class for every pixel, on any backbone.

Decoders behind one contract: see `zoo.adapters.segmenter.decoders`. Losses and figures are `zoo.dense`'s, figures at
the originals' resolution. Photos are looked at as a whole, or in overlapping windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from jax import Array

from zoo.adapters.segmenter.decoders import (
    DECODERS,
    PYRAMID,
    SegmentationHead,
    backbone_options,
    decoder_of,
    stages_for,
    taps_for,
)
from zoo.adapters.segmenter.decoders import parts as decoder_parts
from zoo.adapters.segmenter.losses import LOSSES
from zoo.adapters.segmenter.losses import parts as loss_parts
from zoo.adapters.segmenter.published import MODELS
from zoo.data import Dataset, Sample
from zoo.data.masks import BACKGROUND, IGNORE, MOST_CLASSES, pixel_counts, prepare_mask, read_mask
from zoo.data.transform import frame_of
from zoo.dense.coco_results import Numbering
from zoo.dense.framing import whole_image
from zoo.dense.losses import Shape, segmentation_losses
from zoo.dense.originals import batch_labels_at
from zoo.dense.segmentation import SegmentationEvaluation, has_foreground
from zoo.errors import ConfigError, DataError
from zoo.models.adapter import Adapter, ForwardPass, HeadInputs, Inference, Table, Training
from zoo.numbers import check_class_weights
from zoo.registry.hookspecs import hookimpl
from zoo.registry.options import Meta
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess
from zoo.targets.outlines import Runs, inside

if TYPE_CHECKING:
    from PIL import Image

SIDE, FINER_SIDE = 640, 448
"""Side of the images where a user names none, in pixels, or the next that the backbone takes. The second is for nets
without a map of stride 32: convolutions see less of a larger image at once, and transformers pay for every token."""


class Segment(msgspec.Struct, frozen=True):
    """The pixels of a class.

    Attributes:
        label, value: the class and its number. share: of the image's pixels.
        counts: which pixels, as COCO's compressed runs: https://cocodataset.org/#format-results.
    """

    label: str
    value: int
    share: float
    counts: str


class Segmentation(msgspec.Struct, frozen=True):
    """A class for every pixel of one image.

    Attributes:
        file: the image. size: its height and width. segments: of the classes that it has, in their order.
    """

    file: str
    size: tuple[int, int]
    segments: list[Segment]

    @property
    def mask(self) -> np.ndarray:
        """The number of every pixel's class, uint8 (height, width)."""
        found = np.zeros(self.size, np.uint8)
        for one in self.segments:
            found[inside(Runs(one.counts), self.size)] = one.value
        return found


@dataclass(frozen=True)
class Segmenter(Adapter):
    """Options of the segmenter."""

    decoder: Annotated[str, DECODERS, Meta("Segmentation decoder.")] = "fpn"
    width: Annotated[int, Meta("Channels of the decoder; 0 for the decoder's own.", ge=0)] = 128
    norm: Annotated[
        Literal["batch", "group"] | None, Meta("Normalisation in the decoder; null for the decoder's own.")
    ] = None
    dropout: Annotated[
        float | None, Meta("Dropout rate before the last layer; null for the decoder's own.", ge=0, lt=1)
    ] = None
    skip: Annotated[
        bool,
        Meta(
            "fcn, deeplabv3 and deeplabv3plus also read a map of twice the resolution, which sharpens outlines. "
            "torchvision's do not."
        ),
    ] = True
    auxiliary: Annotated[
        float, Meta("Deep supervision: weight of the losses of intermediate maps, such as 0.4; 0 for none.", ge=0)
    ] = 0.0
    loss: Annotated[str, LOSSES, Meta("Training loss, such as ce+0.5*dice.")] = "ce+dice"
    class_weights: Annotated[
        Literal["balanced"] | tuple[float, ...] | None,
        Meta(
            "Factor of each class in ce and focal; balanced weighs classes inversely to their share of the pixels.",
            values="balanced | a list with a number at least 0 for each class | null",
        ),
    ] = None
    tversky: Annotated[
        tuple[float, float], Meta("Weights of false positives and false negatives in the Tversky loss.", ge=0)
    ] = (0.3, 0.7)
    gamma: Annotated[float, Meta("Power of the focal loss.", ge=0)] = 2.0
    metric: Annotated[
        Literal["miou", "dice", "foreground_iou", "foreground_dice", "pixel_accuracy", "boundary_f1"],
        Meta("Metric that tells the best epoch; foreground_* are for a background and one class."),
    ] = "miou"
    sliding_window: Annotated[
        bool,
        Meta("Sliding-window inference: predict overlapping windows of the training size instead of whole images."),
    ] = False
    window_overlap: Annotated[float, Meta("Share of a window that the next one overlaps.", ge=0, lt=1)] = 0.25
    scale: Annotated[float, Meta("Factor by which images are resized before they are cut into windows.", gt=0)] = 1.0
    tta_flip: Annotated[
        bool,
        Meta(
            "Test-time augmentation: average the logits of the image and its mirror image, for better metrics in twice "
            "the time, as nnU-Net does (doi:10.1038/s41592-020-01008-z)."
        ),
    ] = True
    tta_scales: Annotated[
        tuple[float, ...],
        Meta(
            "Test-time augmentation: also predict at these factors of the training size, such as [0.75, 1.25], and "
            "average the logits.",
            gt=0,
        ),
    ] = ()
    room: Annotated[
        tuple[int, int], Meta("Height and width of the largest mask; set by the data.", ge=1, hidden=True)
    ] = (1, 1)
    category_ids: Annotated[
        tuple[int | None, ...], Meta("COCO's numbers of the classes; set by the data.", hidden=True)
    ] = ()

    targets_from = ("masks",)
    adjustable = ("sliding_window", "window_overlap", "scale", "tta_flip", "tta_scales", "category_ids")
    renamed = {
        "objective": "loss",
        "sliding": "sliding_window",
        "overlap": "window_overlap",
        "flip": "tta_flip",
        "scales": "tta_scales",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) > MOST_CLASSES:
            raise ConfigError(f"{len(self.labels)} classes; a mask has room for {MOST_CLASSES}, 0 to 254.")
        if not any(self.tversky):
            raise ConfigError(f"tversky is {self.tversky}; one of the two must be above 0.")
        if self.metric.startswith("foreground") and self.labels and not has_foreground(self.labels):
            raise ConfigError(
                f"metric is {self.metric!r}, for two classes of which the first is {BACKGROUND!r}; the classes are "
                f"{', '.join(map(repr, self.labels))}. Choose miou or dice."
            )
        if self.sliding_window and self.tta_scales:
            raise ConfigError("sliding_window uses one scale: set scale, and leave tta_scales out.")
        if isinstance(self.class_weights, tuple):
            check_class_weights(self.class_weights, self.labels)

    @property
    def primary(self) -> str:
        return self.metric

    @property
    def training(self) -> Training:
        recipe, only_evaluated = decoder_of(self.decoder).recipe, ("frame",)
        return Training(recipe, cached_mirror=True, cached_views=6, tta=self.tta_flip, invariant=only_evaluated)

    # What it needs of a backbone -------------------------------------------------------------------------------
    def backbone_options(self, spec: BackboneSpec) -> Mapping[str, Any]:
        return backbone_options(spec, self.decoder)

    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        return taps_for(spec, self.decoder, auxiliary=bool(self.auxiliary), skip=self.skip)

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """See `zoo.dense.framing.whole_image`."""
        coarsest = max(stage.stride * stage.dilation for stage in spec.stages if stage.kind != "vector")
        side = SIDE if coarsest >= PYRAMID[-1] else FINER_SIDE
        return whole_image(spec, preprocess, stages_for(spec, self.decoder, skip=self.skip)[0], side)

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        if len(self.labels) < 2:
            raise ConfigError(
                f"a segmenter needs at least two classes, one of which may be {BACKGROUND!r}: give labels= or "
                "num_classes=."
            )
        return SegmentationHead(
            self.decoder,
            inputs,
            len(self.labels),
            skip=self.skip,
            width=self.width,
            norm=self.norm,
            dropout=self.dropout,
            auxiliary=bool(self.auxiliary),
            rngs=rngs,
        )

    # Learning --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        known = replace(self, category_ids=dataset.category_ids)
        if self.class_weights != "balanced":
            return known
        counts = pixel_counts(dataset)
        if not counts.all():
            empty = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
            raise DataError(
                f"class_weights=balanced needs pixels of every class; {dataset.name} has none of {empty!r}."
            )
        weights = counts.sum() / (len(counts) * counts)
        return replace(known, class_weights=tuple(weights.tolist()))

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        heights, widths = zip(*(sample.target.size for part in datasets for sample in part), strict=True)
        return replace(self, room=(max(heights), max(widths))), ""

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        return {
            "mask": prepare_mask(read_mask(sample.target), preprocess),
            "frame": np.array(frame_of(sample.target.size, preprocess), np.float32),
        }

    def truth(self, sample: Sample) -> dict[str, np.ndarray]:
        mask = read_mask(sample.target)
        room = np.full(self.room, IGNORE, np.uint8)
        room[: mask.shape[0], : mask.shape[1]] = mask
        return {"true_mask": room}

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        weights = self.class_weights if isinstance(self.class_weights, tuple) else ()
        shape = Shape(*self.tversky, self.gamma)

        def of(logits: Array) -> dict[str, Array]:
            return segmentation_losses(logits, batch["mask"], LOSSES.terms(self.loss), weights=weights, shape=shape)

        terms = {f"loss_{name}": term for name, term in of(forward.outputs["logits"]).items()}
        if self.auxiliary:
            sums = (reduce(add, of(logits).values()) for logits in forward.outputs["aux"])
            terms["loss_auxiliary"] = self.auxiliary * reduce(add, sums)
        return terms

    # Predicting ------------------------------------------------------------------------------------------------
    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """`mask` (b, height, width), uint8: the class of every pixel of the originals, with the `room` there is; `size`
        (b, 2) of these."""
        logits, model = forward.outputs["logits"], forward.model
        pixels = batch["mask"] if "mask" in batch else batch["image"]
        if self.tta_flip:
            mirrored = model.outputs(model.mirrored(batch))["logits"]
            logits = (logits + mirrored[:, :, ::-1]) / 2
        frames = jnp.asarray(batch["frame"])
        return {"mask": batch_labels_at(logits, frames, pixels.shape[1:3], self.room), "size": frames[:, 4:]}

    @property
    def inference(self) -> Inference:
        from zoo.adapters.segmenter.prediction import MultiScale, SlidingWindow

        if self.sliding_window:
            return SlidingWindow(self.window_overlap, self.scale, self.tta_flip)
        return MultiScale(self.tta_scales, self.tta_flip)

    def segmentation(self, mask: np.ndarray, file: str) -> Segmentation:
        """A mask, uint8 (height, width), as a typed value."""
        from hotcoco.mask import encode

        counts = np.bincount(mask.reshape(-1), minlength=len(self.labels))
        segments = []
        for k in np.flatnonzero(counts):
            runs = encode(np.asfortranarray(mask == k, np.uint8))["counts"].decode()
            segments.append(Segment(self.labels[k], int(k), float(counts[k] / mask.size), runs))
        return Segmentation(file, (mask.shape[0], mask.shape[1]), segments)

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Segmentation]:
        rows = zip(decoded["mask"], decoded["size"].astype(int), files, strict=True)
        return [self.segmentation(mask[:height, :width], file) for mask, (height, width), file in rows]

    def table(self, predictions: Sequence[Segmentation]) -> Table:
        rows: list[tuple[Any, ...]] = []
        for one in predictions:
            largest = sorted(one.segments, key=lambda segment: -segment.share)
            seen = ", ".join(f"{segment.label} {segment.share:.1%}" for segment in largest[:4])
            rows.append((one.file, f"{one.size[1]}x{one.size[0]}", seen + ", ..." * (len(largest) > 4)))
        return Table(("file", "size", "classes"), rows, right=("size",))

    def results(self, predictions: Sequence[Segmentation], data: Dataset | None = None) -> dict[str, Any]:
        """COCO's result format, and the categories that its numbers stand for; see `zoo.dense.coco_results`. Where
        nothing numbers the classes, they have the values in the masks. A class's pixels are one object, without a
        score of its own."""
        numbers = Numbering(self.labels, [one.file for one in predictions], data=data, own=self.category_ids, first=0)
        found = [
            {
                "image_id": numbers.image(one.file),
                "category_id": numbers.category(segment.label),
                "segmentation": {"size": list(one.size), "counts": segment.counts},
                "score": 1.0,
            }
            for one in predictions
            for segment in one.segments
        ]
        return {"predictions": found, "categories": numbers.categories}

    @property
    def rasters(self) -> Mapping[str, Callable[[Segmentation], Image.Image]]:
        from zoo.adapters.segmenter.pictures import indexed

        return {"masks": lambda prediction: indexed(prediction.mask, self.labels)}

    def picture(self, pixels: np.ndarray, prediction: Segmentation) -> np.ndarray:
        from zoo.adapters.segmenter.pictures import overlay

        return overlay(pixels, prediction.mask, self.labels)

    def metrics(self) -> SegmentationMetrics:
        return SegmentationMetrics(self.labels)

    def next_step(self, run: Path) -> str:
        return f"zoo predict {run} PHOTO --out FOLDER, zoo evaluate {run} DATA"

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        from zoo.adapters.segmenter.pictures import SHOWN, class_figures, photos
        from zoo.report import WITH_COUNTS, confusion_matrix

        drawn = [class_figures(evaluation.metrics["per_class"], folder / "classes.png")]
        if len(self.labels) <= WITH_COUNTS:
            file = folder / "confusion.png"
            drawn.append(confusion_matrix(evaluation.accumulated.confusion, self.labels, file, percent=True))
        return [
            *drawn,
            *photos(self, evaluation.worst(SHOWN), folder / "worst.png"),
            *photos(self, evaluation.best(SHOWN), folder / "best.png"),
        ]


class SegmentationMetrics:
    """The figures of `zoo.dense.segmentation` over the batches of an evaluation."""

    def __init__(self, labels: Sequence[str]):
        self._evaluation = SegmentationEvaluation(labels)

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        for i in np.flatnonzero(batch["valid"]):
            height, width = batch["frame"][i][4:].astype(int)
            self._evaluation.add(batch["true_mask"][i][:height, :width], decoded["mask"][i][:height, :width])

    def compute(self) -> dict[str, Any]:
        return self._evaluation.compute()

    def class_counts(self) -> dict[str, tuple[int, int]]:
        """How many pixels each class was predicted for, and how many it is true of."""
        predicted, actual = self.confusion.sum(0), self.confusion.sum(1)
        return {label: (int(predicted[i]), int(actual[i])) for i, label in enumerate(self._evaluation.labels)}

    @property
    def confusion(self) -> np.ndarray:
        """Pixels of each true class (row) by what they were taken for (column), int64 (classes, classes)."""
        return self._evaluation.confusion


@hookimpl
def zoo_models() -> list[ModelSpec]:
    return [*MODELS]


@hookimpl
def zoo_parts() -> list[Part]:
    return [*decoder_parts(), *loss_parts()]


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("segmenter", Segmenter, "A class for every pixel.")]
