"""Faster R-CNN: a two-stage detector. A region proposal network, then classification and regression of each proposal.

Papers: arXiv:1506.01497; on a feature pyramid arXiv:1612.03144; RoIAlign arXiv:1703.06870. Names, constants and results
are those of torchvision 0.28's `fasterrcnn_resnet50_fpn`.

All shapes are static: the numbers of proposals, samples and detections are fixed, and a mask says which are valid.

`Head`, its `losses` and `decode` have the interface that `zoo.adapters.detector.fcos` describes. Class i of zoo is
output i + 1 here, as in the checkpoints: output 0 is the background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from zoo.adapters.detector import layouts
from zoo.adapters.detector.fcos import Outputs, Size
from zoo.adapters.detector.rcnn_matching import BACKGROUND, averaged, match, sample, smooth_l1
from zoo.adapters.detector.rcnn_rpn import RPN
from zoo.dense import anchors as coder
from zoo.dense.boxes import clip
from zoo.dense.nms import detections, top_candidates
from zoo.dense.points import Steps, map_steps
from zoo.dense.roi_align import roi_align
from zoo.layers import Linear, Normal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Key

    PerImage = Float[Array, " b"]

CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the second stage's box codes (x, y, width, height). They bring the codes to a magnitude of about 1."""
ANCHOR_STRIDES = 8
"""Side of a square anchor in strides: 32 pixels at a stride of 4, as in arXiv:1612.03144, section 4.1."""
SMALLEST = 1e-2
"""Shortest side of a detection in pixels; smaller ones are dropped."""
PIXELS_PER_PROPOSAL = 640
"""Pixels of an image for each of its proposals: 800x800 pixels have 1000, as in torchvision."""
TORCHVISION = {**layouts.TORCHVISION, "head.head.rpn": "rpn", "head.head.roi_heads": "roi_heads"}
"""Key layout of torchvision's Faster R-CNN, see `zoo.adapters.detector.layouts`."""
PUBLISHED = {
    **TORCHVISION,
    "head.head.rpn.head.conv.0.0": "rpn.head.conv",
    **{
        f"head.neck.{blocks}.{i}.0": f"backbone.fpn.{blocks}.{i}"
        for blocks in ("inner_blocks", "layer_blocks")
        for i in range(4)
    },
}
"""Key layout of the file published for COCO. It has older names, which torchvision changes when it reads the file."""


class TwoMLPHead(nnx.Module):
    """Two linear layers with ReLUs, from the maps of regions to features.

    Args:
        inputs: bins * bins * channels of a region's map.
        width: number of features.
    """

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.fc6 = Linear(inputs, width, kernel_init=Normal(math.sqrt(2 / inputs)), rngs=rngs)
        self.fc7 = Linear(width, width, kernel_init=Normal(math.sqrt(2 / width)), rngs=rngs)

    def __call__(self, x: Float[Array, "*n bins bins c"]) -> Float[Array, "*n width"]:
        *count, height, width, channels = x.shape
        # The checkpoints' matrix expects channels first. Transposing the matrix is cheaper than transposing regions.
        kernel = self.fc6.kernel[...].reshape(channels, height, width, -1)
        kernel = jnp.moveaxis(kernel, 0, 2).reshape(height * width * channels, -1).astype(x.dtype)
        assert self.fc6.bias is not None
        bias = self.fc6.bias[...].astype(x.dtype).reshape((1,) * len(count) + (-1,))
        return jax.nn.relu(self.fc7(jax.nn.relu(x.reshape(*count, -1) @ kernel + bias)))


class FastRCNNPredictor(nnx.Module):
    """The outputs of the second stage: class logits, background first, and box codes for each class.

    Args:
        width: number of features.
        classes: number of classes, without the background.
    """

    def __init__(self, width: int, classes: int, *, rngs: nnx.Rngs):
        self.cls_score = Linear(width, classes + 1, kernel_init=Normal(0.01), rngs=rngs)
        self.bbox_pred = Linear(width, 4 * (classes + 1), kernel_init=Normal(0.001), rngs=rngs)

    def __call__(self, x: Float[Array, "*n width"]) -> tuple[Float[Array, "*n outputs"], Float[Array, "*n outputs 4"]]:
        codes = self.bbox_pred(x)
        return self.cls_score(x), codes.reshape(*codes.shape[:-1], -1, 4)


class RoIHeads(nnx.Module):
    """The second stage: class logits and box codes of proposals, from the maps of a pyramid.

    Args:
        strides: of the maps.
        channels: of the maps.
        classes: number of classes, without the background.
        bins: side of the map that RoIAlign gives for a region.
        width: of the two linear layers.
        samples: proposals of an image that enter the loss; at most a quarter of them are positive.
    """

    def __init__(
        self,
        strides: Sequence[float],
        channels: int,
        classes: int,
        *,
        bins: int,
        width: int,
        samples: int,
        rngs: nnx.Rngs,
    ):
        self.box_head = TwoMLPHead(channels * bins * bins, width, rngs=rngs)
        self.box_predictor = FastRCNNPredictor(width, classes, rngs=rngs)
        self.strides, self.bins, self.samples = tuple(strides), bins, samples

    def __call__(
        self, maps: Sequence[Float[Array, "b _h _w channels"]], boxes: Float[Array, "b n 4"]
    ) -> tuple[Float[Array, "b n outputs"], Float[Array, "b n outputs 4"]]:
        """Return the logits and codes of the regions `boxes`, with classes + 1 outputs."""
        levels = list(maps[: len(self.strides)])
        return self.box_predictor(self.box_head(roi_align(levels, boxes, self.strides, bins=self.bins)))

    def select(
        self,
        proposals: Float[Array, "proposals 4"],
        proposal_valid: Bool[Array, " proposals"],
        truth: Float[Array, "m 4"],
        labels: Integer[Array, " m"],
        truth_valid: Bool[Array, " m"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "n 4"], Integer[Array, " n"], Float[Array, "n 4"], Bool[Array, " n"]]:
        """Sample the regions of one image that enter the loss.

        Returns:
            The regions, the index of the output of each (0 for the background), the target codes, and which of them
            are valid.
        """
        # The true boxes join the proposals: early in training hardly any proposal fits an object, and the second stage
        # would have no positives.
        boxes = jnp.concatenate([proposals, truth])
        valid = jnp.concatenate([proposal_valid, truth_valid])
        matched = match(boxes, truth, truth_valid, high=0.5, low=0.5, best=False)
        draw = sample(key, valid & (matched >= 0), valid & (matched == BACKGROUND), count=self.samples, fraction=0.25)
        matched, boxes = matched[draw.chosen], boxes[draw.chosen]
        nearest = jnp.maximum(matched, 0)
        outputs = jnp.where(draw.valid & (matched >= 0), labels[nearest].astype(jnp.int32) + 1, 0)
        codes = coder.encode(truth[nearest], boxes, CODE_WEIGHTS)
        return jnp.where(draw.valid[:, None], boxes, 0.0), outputs, codes, draw.valid

    def losses(
        self,
        maps: Sequence[Float[Array, "b _h _w channels"]],
        proposals: tuple[Float[Array, "b n 4"], Bool[Array, "b n"]],
        truth: Float[Array, "b m 4"],
        labels: Integer[Array, "b m"],
        truth_valid: Bool[Array, "b m"],
        counted: Bool[Array, " b"],
        keys: Key[Array, " b"],
    ) -> dict[str, PerImage]:
        """Return the two terms of the loss of each image.

        They are `loss_classifier` (cross-entropy) and `loss_box_reg` (smooth L1). Their mean over images is the mean
        over the samples of the batch, see `averaged`.

        Args:
            maps: of the levels, finest first.
            proposals: of `RPN.proposals`.
            truth: true boxes.
            labels: their classes.
            truth_valid: False for padding.
            counted: False for images that only fill up the batch.
            keys: random keys of the sampling.
        """
        boxes, outputs, target_codes, valid = jax.vmap(self.select)(*proposals, truth, labels, truth_valid, keys)
        logits, codes = (y.astype(jnp.float32) for y in self(maps, boxes))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, outputs)
        codes = jnp.take_along_axis(codes, outputs[..., None, None], axis=2)[:, :, 0]  # those of the true class
        distance = jnp.sum(smooth_l1(codes, target_codes), axis=-1)
        mean = partial(averaged, sampled=jnp.sum(valid, axis=1), counted=counted)
        return {
            "loss_classifier": mean(jnp.sum(jnp.where(valid, entropy, 0.0), axis=1)),
            "loss_box_reg": mean(jnp.sum(jnp.where(outputs > 0, distance, 0.0), axis=1)),
        }


class Head(nnx.Module):
    """Faster R-CNN's head: both stages.

    torchvision has 1000 candidates and proposals, 2000 of each in training, for images of any size. The cost of the
    second stage is proportional to the number of proposals.

    Args:
        strides: of the levels, finest first.
        channels: of the levels.
        classes: number of classes, without the background.
        ratios: height divided by width of the anchors.
        steps: distance between anchors, see `zoo.dense.points.map_steps`.
        regions: number of levels, from the finest, that the second stage reads.
        bins: side of the map that RoIAlign gives for a region.
        width: of the second stage's linear layers.
        candidates: most likely anchors of each level that enter NMS.
        proposals: proposals of an image; 0 for one in 640 pixels, at least 100 and at most 1000.
        training_candidates: `candidates` in training; 0 for the same.
        training_proposals: `proposals` in training; 0 for the same.
        anchor_samples: anchors of an image that enter the loss.
        samples: proposals of an image that enter the loss.
        overlap: NMS IoU threshold between proposals of one level.
    """

    def __init__(
        self,
        strides: Sequence[float],
        channels: int,
        classes: int,
        *,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        steps: Steps = "declared",
        regions: int = 4,
        bins: int = 7,
        width: int = 1024,
        candidates: int = 1000,
        proposals: int = 0,
        training_candidates: int = 0,
        training_proposals: int = 0,
        anchor_samples: int = 256,
        samples: int = 512,
        overlap: float = 0.7,
        rngs: nnx.Rngs,
    ):
        self.rpn = RPN(channels, ratios, samples=anchor_samples, overlap=overlap, rngs=rngs)
        self.roi_heads = RoIHeads(
            strides[:regions], channels, classes, bins=bins, width=width, samples=samples, rngs=rngs
        )
        self.strides, self.ratios, self.steps = tuple(strides), tuple(ratios), steps
        self.candidates, self.proposals = candidates, proposals
        self.training_candidates, self.training_proposals = training_candidates, training_proposals
        self.deterministic = False
        self.rngs = rngs.sampling.fork()

    def _first_stage(self, maps: Sequence[Float[Array, "b _h _w channels"]]) -> dict[str, Any]:
        sizes = [(x.shape[1], x.shape[2]) for x in maps]
        sides = [ANCHOR_STRIDES * stride for stride in self.strides]
        grids = coder.grid_anchors(sizes, map_steps(sizes, self.strides, self.steps), sides, self.ratios)
        return {**self.rpn(maps), "anchors": [jnp.asarray(level) for level in grids]}

    def _proposals(
        self,
        outputs: Outputs,
        maps: Sequence[Float[Array, "b _h _w channels"]],
        size: Size | None,
        candidates: int,
        count: int,
    ) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
        height, width = (int(side * self.strides[0]) for side in maps[0].shape[1:3])
        count = count or min(max(height * width // PIXELS_PER_PROPOSAL, 100), 1000)
        borders: Size = (height, width) if size is None else size
        return self.rpn.proposals(outputs, borders, candidates=candidates, count=count)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w channels"]], size: Size | None = None) -> dict[str, Any]:
        """Return the outputs of both stages for the maps of the levels.

        Args:
            maps: of the levels, finest first.
            size: of the images, see `Size`. Proposals are clipped at their borders; without it, at those of the finest
                map.

        Returns:
            Of the first stage: `objectness` (b, anchors), `rpn_regression` (b, anchors, 4), and `anchors`, a list with
            (h * w * ratios, 4) in pixels for each level. Of the second stage: `proposals` (b, n, 4), most likely first,
            `proposal_valid` (b, n), `class_logits` (b, n, classes + 1), background first, and `box_regression`
            (b, n, classes + 1, 4).
        """
        outputs = self._first_stage(maps)
        boxes, valid = self._proposals(outputs, maps, size, self.candidates, self.proposals)
        logits, codes = self.roi_heads(maps, boxes)
        return outputs | {
            "proposals": boxes,
            "proposal_valid": valid,
            "class_logits": logits,
            "box_regression": codes,
        }

    def losses(
        self,
        maps: Sequence[Float[Array, "b _h _w channels"]],
        targets: Mapping[str, Array],
        size: Size | None = None,
    ) -> dict[str, PerImage]:
        """Return the terms of the loss of each image, float32.

        They are `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier` and `loss_box_reg`. Each is the image's sum
        times images / samples, both of the whole batch. So the mean over images is the batch's sum divided by its
        samples, as in torchvision, and an image with fewer samples counts less. Samples are random in training and
        always the same in evaluation.

        Args:
            maps: of the levels, finest first.
            targets: `boxes` (b, m, 4) in pixels, `labels` (b, m) and `box_valid` (b, m). `valid` (b,), if given, is
                False for images that only fill up the batch: they are not counted. Boxes without area are ignored.
            size: of the images, see `__call__`.
        """
        outputs = self._first_stage(maps)
        images = len(outputs["objectness"])
        counted = jnp.asarray(targets.get("valid", jnp.ones(images, bool))).astype(bool)
        truth = targets["boxes"].astype(jnp.float32)
        truth_valid = targets["box_valid"].astype(bool) & jnp.all(truth[..., 2:] > truth[..., :2], axis=-1)
        truth = jnp.where(truth_valid[..., None], truth, 0.0)
        proposals = self._proposals(
            outputs,
            maps,
            size,
            self.training_candidates or self.candidates,
            self.training_proposals or self.proposals,
        )
        key = jax.random.key(0) if self.deterministic else self.rngs()
        first_keys, second_keys = jax.random.split(key, (2, images))
        first = self.rpn.losses(outputs, truth, truth_valid, counted, first_keys)
        return first | self.roi_heads.losses(
            maps, proposals, truth, targets["labels"], truth_valid, counted, second_keys
        )


def decode(
    outputs: Outputs,
    size: Size,
    *,
    pre_nms_threshold: float = 0.05,
    nms_iou: float = 0.5,
    candidates: int = 1000,
    max_detections: int = 100,
) -> dict[str, Array]:
    """Return the detections of each image, best first, clipped at its border.

    A score is the probability of the class.

    Args:
        outputs: of `Head`.
        size: of the images, see `Size`.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS.
        nms_iou: of two boxes of a class with a higher IoU, the lower-scoring is dropped.
        candidates: the number of best (proposal, class) pairs that enter NMS. torchvision has no such limit; the result
            is the same unless NMS leaves fewer than `max_detections` of them.
        max_detections: detections per image.

    Returns:
        As `zoo.dense.nms.detections`: `boxes` (b, n, 4), `scores`, `labels` and `valid` (b, n), n = max_detections.
    """
    logits = outputs["class_logits"].astype(jnp.float32)
    codes = outputs["box_regression"][:, :, 1:]
    proposals = jnp.broadcast_to(outputs["proposals"][:, :, None], codes.shape)
    boxes = clip(coder.decode(codes, proposals, CODE_WEIGHTS).reshape(len(codes), -1, 4), size).reshape(codes.shape)
    large = jnp.all(boxes[..., 2:] - boxes[..., :2] >= SMALLEST, axis=-1)
    valid = outputs["proposal_valid"].astype(bool)[..., None] & large
    scores = jnp.where(valid, jax.nn.softmax(logits)[..., 1:], 0.0)

    def of_image(scores: Array, boxes: Array) -> tuple[Array, Array, Array, Array]:
        best = top_candidates(scores, pre_nms_threshold, candidates)
        return boxes[best.points, best.labels], best.scores, best.labels, best.valid

    return detections(*jax.vmap(of_image)(scores, boxes), threshold=nms_iou, count=max_detections)
