"""Semantic segmentation on any backbone.

Decoders share one contract, see `zoo.adapters.segmenter.decoders`. Losses and metrics are those of `zoo.dense`; metrics
are computed at the resolution of the original images. Inference runs on whole images or in sliding windows.
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
from zoo.adapters.segmenter.metrics import SegmentationMetrics
from zoo.adapters.segmenter.published import MODELS
from zoo.data import Dataset, Sample
from zoo.data.masks import BACKGROUND, IGNORE, MOST_CLASSES, pixel_counts, prepare_mask, read_mask
from zoo.data.transform import frame_of
from zoo.dense.coco_results import Numbering
from zoo.dense.framing import whole_image
from zoo.dense.losses import Shape, segmentation_losses
from zoo.dense.originals import batch_labels_at
from zoo.dense.segmentation import has_foreground
from zoo.errors import ConfigError, DataError
from zoo.models.adapter import Adapter, ForwardPass, HeadInputs, Inference, Table, Training
from zoo.numbers import check_class_weights
from zoo.registry.hookspecs import hookimpl
from zoo.registry.options import Meta
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Part, Preprocess
from zoo.targets.outlines import Runs, inside

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL import Image

SIDE, FINER_SIDE = 640, 448
"""Default side of the images in pixels, rounded up to what the backbone takes. The second is for backbones without a
map of stride 32: convolutions see a smaller share of a larger image, and transformers pay for every token."""


class Segment(msgspec.Struct, frozen=True):
    """The pixels of one class in an image.

    Attributes:
        label: the class.
        value: its index.
        share: its share of the image's pixels.
        counts: its pixels in COCO's compressed run-length encoding: https://cocodataset.org/#format-results.
    """

    label: str
    value: int
    share: float
    counts: str


class Segmentation(msgspec.Struct, frozen=True):
    """A class for every pixel of one image.

    Attributes:
        file: the image.
        size: its (height, width).
        segments: the predicted classes in the order of their indices.
    """

    file: str
    size: tuple[int, int]
    segments: list[Segment]

    @property
    def mask(self) -> np.ndarray:
        """The class index of every pixel, uint8 (height, width)."""
        mask = np.zeros(self.size, np.uint8)
        for segment in self.segments:
            mask[inside(Runs(segment.counts), self.size)] = segment.value
        return mask


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
            "Those of torchvision do not."
        ),
    ] = True
    auxiliary: Annotated[
        float, Meta("Deep supervision: weight of the losses on intermediate maps, such as 0.4; 0 for none.", ge=0)
    ] = 0.0
    loss: Annotated[str, LOSSES, Meta("Training loss, such as ce+0.5*dice.")] = "ce+dice"
    class_weights: Annotated[
        Literal["balanced"] | tuple[float, ...] | None,
        Meta(
            "Weight of each class in ce and focal; balanced weights classes inversely to their share of the pixels.",
            values="balanced | a list with one number of at least 0 per class | null",
        ),
    ] = None
    tversky: Annotated[
        tuple[float, float], Meta("Weights of false positives and false negatives in the Tversky loss.", ge=0)
    ] = (0.3, 0.7)
    gamma: Annotated[float, Meta("Exponent of the focal loss.", ge=0)] = 2.0
    metric: Annotated[
        Literal["miou", "dice", "foreground_iou", "foreground_dice", "pixel_accuracy", "boundary_f1"],
        Meta("Metric that selects the best epoch; foreground_* are for a background and one class."),
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
            "Test-time augmentation: average the logits of the image and its mirror image, for better metrics at twice "
            "the time, as in nnU-Net (doi:10.1038/s41592-020-01008-z)."
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
        tuple[int | str | None, ...], Meta("COCO's category IDs of the classes; set by the data.", hidden=True)
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
            raise ConfigError(
                f"{len(self.labels)} classes are too many: a segmenter takes at most {MOST_CLASSES}, because masks "
                "have values from 0 to 254."
            )
        if not any(self.tversky):
            raise ConfigError(f"tversky is {self.tversky}; at least one of the two weights must be above 0.")
        if self.metric.startswith("foreground") and self.labels and not has_foreground(self.labels):
            raise ConfigError(
                f"metric is {self.metric!r}, which needs two classes of which the first is {BACKGROUND!r}; the classes "
                f"are {', '.join(map(repr, self.labels))}. Choose miou or dice."
            )
        if self.sliding_window and self.tta_scales:
            raise ConfigError("sliding_window uses one scale only: set scale, and leave tta_scales out.")
        if isinstance(self.class_weights, tuple):
            check_class_weights(self.class_weights, self.labels)

    @property
    def primary(self) -> str:
        return self.metric

    @property
    def training(self) -> Training:
        recipe, only_evaluated = decoder_of(self.decoder).recipe, ("frame",)
        return Training(recipe, cached_mirror=True, cached_views=6, tta=self.tta_flip, invariant=only_evaluated)

    # Backbone and head -----------------------------------------------------------------------------------------
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
                f"a segmenter needs at least two classes (one may be {BACKGROUND!r}): give labels= or num_classes=."
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

    # Training --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        adapter = replace(self, category_ids=dataset.category_ids)
        if self.class_weights != "balanced":
            return adapter
        counts = pixel_counts(dataset)
        if not counts.all():
            empty = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
            raise DataError(
                f"class_weights=balanced needs pixels of every class; {dataset.name} has none of {empty!r}."
            )
        weights = counts.sum() / (len(counts) * counts)
        return replace(adapter, class_weights=tuple(weights.tolist()))

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        heights, widths = zip(*(sample.target.size for dataset in datasets for sample in dataset), strict=True)
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

        def of(logits: Float[Array, "b h w classes"]) -> dict[str, Float[Array, " b"]]:
            return segmentation_losses(logits, batch["mask"], LOSSES.terms(self.loss), weights=weights, shape=shape)

        terms = {f"loss_{name}": term for name, term in of(forward.outputs["logits"]).items()}
        if self.auxiliary:
            sums = (reduce(add, of(logits).values()) for logits in forward.outputs["aux"])
            terms["loss_auxiliary"] = self.auxiliary * reduce(add, sums)
        return terms

    # Prediction ------------------------------------------------------------------------------------------------
    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the predicted class of every pixel of the original images.

        Returns:
            `mask`, uint8 (b, *room), and `size`, the (height, width) of the originals in it, (b, 2). Values beyond the
            size are meaningless.
        """
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
        """Return a mask, uint8 (height, width), as a `Segmentation`."""
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
            shares = ", ".join(f"{segment.label} {segment.share:.1%}" for segment in largest[:4])
            rows.append((one.file, f"{one.size[1]}x{one.size[0]}", shares + ", ..." * (len(largest) > 4)))
        return Table(("file", "size", "classes"), rows, right=("size",))

    def results(self, predictions: Sequence[Segmentation], data: Dataset | None = None) -> dict[str, Any]:
        """Return predictions in COCO's result format and the categories of its IDs, see `zoo.dense.coco_results`.

        Without known category IDs, classes have their values in the masks. All pixels of a class are one object, with
        a score of 1.
        """
        numbers = Numbering(self.labels, [one.file for one in predictions], data=data, own=self.category_ids, first=0)
        objects = [
            {
                "image_id": numbers.image(one.file),
                "category_id": numbers.category(segment.label),
                "segmentation": {"size": list(one.size), "counts": segment.counts},
                "score": 1.0,
            }
            for one in predictions
            for segment in one.segments
        ]
        return {"predictions": objects, "categories": numbers.categories}

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
        return f"zoo predict {run} IMAGE --out FOLDER, zoo evaluate {run} DATA"

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        from zoo.adapters.segmenter.pictures import SHOWN, class_plot, image_grid
        from zoo.report import WITH_COUNTS, confusion_matrix

        drawn = [class_plot(evaluation.metrics["per_class"], folder / "classes.png")]
        if len(self.labels) <= WITH_COUNTS:
            file = folder / "confusion.png"
            drawn.append(confusion_matrix(evaluation.accumulated.confusion, self.labels, file, percent=True))
        return [
            *drawn,
            *image_grid(self, evaluation.worst(SHOWN), folder / "worst.png"),
            *image_grid(self, evaluation.best(SHOWN), folder / "best.png"),
        ]


@hookimpl
def zoo_models() -> list[ModelSpec]:
    return [*MODELS]


@hookimpl
def zoo_parts() -> list[Part]:
    return [*decoder_parts(), *loss_parts()]


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("segmenter", Segmenter, "Semantic segmentation: a class for every pixel.")]
