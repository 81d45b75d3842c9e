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
    OWN,
    PYRAMID,
    SegmentationHead,
    backbone_options,
    decoder_of,
    stages_for,
    taps_for,
)
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
    """Options of the segmenter.

    Attributes:
        decoder: a part of `segmenter.decoder`.
        width, norm, dropout: the decoder's, see there; 0 or None for its own.
        skip: `fcn`, `deeplabv3` and `deeplabv3plus` read the map of half the last one's detail beside the last, which
            tells better where things are; torchvision's do not.
        auxiliary: weight of the losses of maps on the way (deep supervision), e.g. 0.4; 0 for none.
        loss: a sum of `ce`, `focal`, `dice`, `tversky` and `lovasz` with factors, e.g. `ce+0.5*dice`.
        class_weights: a factor for each class in `ce` and `focal`, or `balanced`: inversely to its share of the pixels.
        tversky: what a false positive and a false negative count in Tversky's loss. gamma: power of the focal loss.
        metric: the figure that tells the best epoch; `foreground_*` where there are a background and one class.
        sliding_window: predict in overlapping windows of the model's image size, instead of the image as a whole.
        window_overlap: share of a window that it has in common with the next.
        scale: factor by which images are resized before they are cut into windows.
        tta_flip: test-time augmentation: average the logits of the image and its mirror image. Better metrics in twice
            the time, as in nnU-Net (doi:10.1038/s41592-020-01008-z).
        tta_scales: test-time augmentation: further sizes whose logits are averaged, as factors of the model's image
            size, e.g. `[0.75, 1.25]`.
        room: height and width of the largest image whose mask there is room for in an evaluation; set by the data.
        category_ids: what results call each class, where the data that a model learned from have numbers for them.
    """

    decoder: Annotated[str, DECODERS] = "fpn"
    width: int = 128
    norm: Literal["batch", "group"] | None = None
    dropout: float | None = None
    skip: bool = True
    auxiliary: float = 0.0
    loss: Annotated[str, LOSSES] = "ce+dice"
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    tversky: tuple[float, float] = (0.3, 0.7)
    gamma: float = 2.0
    metric: Literal["miou", "dice", "foreground_iou", "foreground_dice", "pixel_accuracy", "boundary_f1"] = "miou"
    sliding_window: bool = False
    window_overlap: float = 0.25
    scale: float = 1.0
    tta_flip: bool = True
    tta_scales: tuple[float, ...] = ()
    room: tuple[int, int] = (1, 1)
    category_ids: tuple[int | None, ...] = ()

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
        if len(self.labels) > MOST_CLASSES:
            raise ConfigError(f"{len(self.labels)} classes; a mask has room for {MOST_CLASSES}, 0 to 254.")
        rows = (
            ("width", self.width >= 0, "at least 0"),
            ("dropout", self.dropout is None or 0 <= self.dropout < 1, "in [0, 1)"),
            ("auxiliary", self.auxiliary >= 0, "at least 0"),
            ("tversky", min(self.tversky) >= 0 and max(self.tversky) > 0, "two numbers, at least 0 and not both 0"),
            ("gamma", self.gamma >= 0, "at least 0"),
            ("window_overlap", 0 <= self.window_overlap < 1, "in [0, 1)"),
            ("scale", self.scale > 0, "above 0"),
            ("tta_scales", all(scale > 0 for scale in self.tta_scales), "above 0, each"),
            ("room", min(self.room) >= 1, "at least 1, each"),
        )
        for name, good, accepted in rows:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}; accepted: {accepted}.")
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
    said = {
        "unet": "U-Net (arXiv:1505.04597): up to the image's own detail, with a skip at every step.",
        "fpn": "Panoptic FPN (arXiv:1901.02446): the levels of a feature pyramid added up.",
        "upernet": "UPerNet (arXiv:1807.10221): pooled context, and a pyramid put side by side.",
        "deeplabv3plus": "DeepLabV3+ (arXiv:1802.02611): dilated convolutions, and detail from a fine map.",
        "deeplabv3": "DeepLabV3 (arXiv:1706.05587): dilated convolutions on the last map.",
        "fcn": "FCN (arXiv:1411.4038): convolutions on the last map.",
        "linear": "A linear map of the last map: a probe of what the features say.",
        "mlp": "SegFormer's decoder (arXiv:2105.15203): a linear map of every level, then one of all.",
    }
    decoders = [Part(DECODERS.name, name, row, said[name]) for name, row in OWN.items()]
    return decoders + loss_parts()


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("segmenter", Segmenter, "A class for every pixel.")]
