"""Faster R-CNN: a first stage proposes where there may be objects, a second one looks at each proposal.

Papers: arXiv:1506.01497; on a feature pyramid arXiv:1612.03144; RoIAlign arXiv:1703.06870. Names, constants and results
are those of torchvision 0.28's `fasterrcnn_resnet50_fpn`. All shapes are fixed: there are always so many proposals,
samples and detections, with a mask of which are there.

`Head`, its `losses` and `decode` are called as those of the other heads, see `zoo.adapters.detector.fcos`. Class i
of zoo is output i + 1 here, as in the checkpoints: output 0 is the background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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

CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of what the second stage says of a box's x, y, width and height: they make it about as large as one."""
ANCHOR_STRIDES = 8
"""Strides in the side of a square anchor: 32 pixels at a stride of 4, as in arXiv:1612.03144, section 4.1."""
SMALLEST = 1e-2
"""Pixels: detections with a shorter side are dropped."""
PIXELS_PER_PROPOSAL = 640
"""800x800 pixels have torchvision's 1000 proposals."""
TORCHVISION = {**layouts.TORCHVISION, "head.head.rpn": "rpn", "head.head.roi_heads": "roi_heads"}
"""Key layout of torchvision's Faster R-CNN, see `zoo.adapters.detector.layouts`."""
PUBLISHED = {
    **TORCHVISION,
    "head.head.rpn.head.conv.0.0": "rpn.head.conv",
    **{
        f"head.neck.{part}.{i}.0": f"backbone.fpn.{part}.{i}"
        for part in ("inner_blocks", "layer_blocks")
        for i in range(4)
    },
}
"""That of the file published for COCO, which is older: torchvision renames these as it reads it."""


class TwoMLPHead(nnx.Module):
    """Regions (..., bins, bins, c) -> features (..., width): two affine maps, each with a ReLU."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.fc6 = Linear(inputs, width, kernel_init=Normal(math.sqrt(2 / inputs)), rngs=rngs)
        self.fc7 = Linear(width, width, kernel_init=Normal(math.sqrt(2 / width)), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        *count, height, width, channels = x.shape
        # The checkpoints' matrix has channels first. To turn the matrix is cheaper than to turn every region.
        kernel = self.fc6.kernel[...].reshape(channels, height, width, -1)
        kernel = jnp.moveaxis(kernel, 0, 2).reshape(height * width * channels, -1).astype(x.dtype)
        assert self.fc6.bias is not None
        bias = self.fc6.bias[...].astype(x.dtype).reshape((1,) * len(count) + (-1,))
        return jax.nn.relu(self.fc7(jax.nn.relu(x.reshape(*count, -1) @ kernel + bias)))


class FastRCNNPredictor(nnx.Module):
    """Features (..., width) -> logits (..., classes + 1) with the background first, and for each class how the box must
    change (..., classes + 1, 4)."""

    def __init__(self, width: int, classes: int, *, rngs: nnx.Rngs):
        self.cls_score = Linear(width, classes + 1, kernel_init=Normal(0.01), rngs=rngs)
        self.bbox_pred = Linear(width, 4 * (classes + 1), kernel_init=Normal(0.001), rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        codes = self.bbox_pred(x)
        return self.cls_score(x), codes.reshape(*codes.shape[:-1], -1, 4)


class RoIHeads(nnx.Module):
    """The second stage: logits and boxes of regions of a pyramid's maps.

    Args:
        strides, channels: of the maps. classes: how many, without the background.
        bins: side of the map that a region becomes. width: of the two affine maps.
        samples: proposals of an image that are learned from, at most a quarter of them on objects.
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

    def __call__(self, maps: Sequence[Array], boxes: Array) -> tuple[Array, Array]:
        """Maps of the levels and regions (b, n, 4) -> logits (b, n, classes + 1), codes (b, n, classes + 1, 4)."""
        levels = list(maps[: len(self.strides)])
        return self.box_predictor(self.box_head(roi_align(levels, boxes, self.strides, bins=self.bins)))

    def select(
        self, proposals: Array, there: Array, truth: Array, labels: Array, shown: Array, key: Array
    ) -> tuple[Array, Array, Array, Array]:
        """What one image is learned from: regions (n, 4), their outputs' index (n,), 0 for the background, what the
        regressor is to say (n, 4), and which of the n are there (n,). The truth is among the proposals."""
        boxes = jnp.concatenate([proposals, truth])
        there = jnp.concatenate([there, shown])
        matched = match(boxes, truth, shown, high=0.5, low=0.5, best=False)
        draw = sample(key, there & (matched >= 0), there & (matched == BACKGROUND), count=self.samples, fraction=0.25)
        matched, boxes = matched[draw.chosen], boxes[draw.chosen]
        nearest = jnp.maximum(matched, 0)
        outputs = jnp.where(draw.valid & (matched >= 0), labels[nearest].astype(jnp.int32) + 1, 0)
        wanted = coder.encode(truth[nearest], boxes, CODE_WEIGHTS)
        return jnp.where(draw.valid[:, None], boxes, 0.0), outputs, wanted, draw.valid

    def losses(
        self,
        maps: Sequence[Array],
        proposals: tuple[Array, Array],
        truth: Array,
        labels: Array,
        shown: Array,
        counted: Array,
        keys: Array,
    ) -> dict[str, Array]:
        """Of each image (b,): `loss_classifier` (cross-entropy) and `loss_box_reg` (smooth L1), each the mean over the
        samples of the batch, see `averaged`. Arguments are those of `RPN.losses`; labels: (b, m)."""
        boxes, outputs, wanted, valid = jax.vmap(self.select)(*proposals, truth, labels, shown, keys)
        logits, codes = (y.astype(jnp.float32) for y in self(maps, boxes))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, outputs)
        own = jnp.take_along_axis(codes, outputs[..., None, None], axis=2)[:, :, 0]
        distance = jnp.sum(smooth_l1(own, wanted), axis=-1)
        mean = partial(averaged, sampled=jnp.sum(valid, axis=1), counted=counted)
        return {
            "loss_classifier": mean(jnp.sum(jnp.where(valid, entropy, 0.0), axis=1)),
            "loss_box_reg": mean(jnp.sum(jnp.where(outputs > 0, distance, 0.0), axis=1)),
        }


class Head(nnx.Module):
    """Both stages.

    Args:
        strides, channels: of the levels, finest first. classes: how many, without the background.
        ratios: of the anchors' height to their width.
        steps: distance between anchors, see `zoo.dense.points.map_steps`.
        regions: so many levels, from the finest, are read by the second stage.
        bins, width: of the second stage: side of the map that a region becomes, width of its affine maps.
        candidates: anchors of each level that compete. proposals: of an image; 0 for one in 640 of its pixels, at least
            100 and at most 1000. `training_candidates` and `training_proposals` are those in training, 0 for the same;
            torchvision has 1000 of each, 2000 in training, at any size. The second stage's cost follows the proposals.
        anchor_samples, samples: anchors and proposals of an image that are learned from.
        overlap: IoU above which the less likely of two proposals is dropped.
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

    def _first_stage(self, maps: Sequence[Array]) -> dict[str, Any]:
        sizes = [(x.shape[1], x.shape[2]) for x in maps]
        sides = [ANCHOR_STRIDES * stride for stride in self.strides]
        grids = coder.grid_anchors(sizes, map_steps(sizes, self.strides, self.steps), sides, self.ratios)
        return {**self.rpn(maps), "anchors": [jnp.asarray(level) for level in grids]}

    def _proposals(
        self, outputs: Outputs, maps: Sequence[Array], size: Size | None, candidates: int, count: int
    ) -> tuple[Array, Array]:
        height, width = (int(side * self.strides[0]) for side in maps[0].shape[1:3])
        count = count or min(max(height * width // PIXELS_PER_PROPOSAL, 100), 1000)
        borders: Size = (height, width) if size is None else size
        return self.rpn.proposals(outputs, borders, candidates=candidates, count=count)

    def __call__(self, maps: Sequence[Array], size: Size | None = None) -> dict[str, Any]:
        """What both stages say of the maps (b, h, w, channels) of the levels.

        Args:
            size: of the images: proposals are cut at their borders. Without it at those of the finest map.
        Returns:
            `objectness` (b, anchors), `rpn_regression` (b, anchors, 4), and `anchors`, for each level
            (h * w * ratios, 4) in pixels; `proposals` (b, n, 4), likeliest first, and `proposal_valid` (b, n), and of
            each `class_logits` (b, n, classes + 1), background first, and `box_regression` (b, n, classes + 1, 4).
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

    def losses(self, maps: Sequence[Array], targets: Mapping[str, Array], size: Size | None = None) -> dict[str, Array]:
        """Of each image (b,): `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier` and `loss_box_reg`.

        Each is the image's sum times (images / samples of the whole batch), so that the mean over the images is the
        batch's sum over its samples, as in torchvision: an image with fewer samples counts for less. All is float32.
        What is sampled is random in training and always the same in evaluation.

        Args:
            targets: `boxes` (b, m, 4) in pixels, `labels` (b, m), `box_valid` (b, m); `valid` (b,) where some images
                only fill up the batch: they are not counted. Boxes without area are nobody's.
        """
        outputs = self._first_stage(maps)
        images = len(outputs["objectness"])
        counted = jnp.asarray(targets.get("valid", jnp.ones(images, bool))).astype(bool)
        truth = targets["boxes"].astype(jnp.float32)
        shown = targets["box_valid"].astype(bool) & jnp.all(truth[..., 2:] > truth[..., :2], axis=-1)
        truth = jnp.where(shown[..., None], truth, 0.0)
        proposals = self._proposals(
            outputs,
            maps,
            size,
            self.training_candidates or self.candidates,
            self.training_proposals or self.proposals,
        )
        key = jax.random.key(0) if self.deterministic else self.rngs()
        of_anchors, of_proposals = jax.random.split(key, (2, images))
        first = self.rpn.losses(outputs, truth, shown, counted, of_anchors)
        return first | self.roi_heads.losses(maps, proposals, truth, targets["labels"], shown, counted, of_proposals)


def decode(
    outputs: Outputs,
    size: Size,
    *,
    pre_nms_threshold: float = 0.05,
    nms_iou: float = 0.5,
    candidates: int = 1000,
    max_detections: int = 100,
) -> dict[str, Array]:
    """Detections of each image, best first, cut at its border. See `zoo.dense.nms.detections` for what is returned.

    Args:
        outputs: of `Head`. size: of the images in pixels.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS.
        nms_iou: of two boxes of a class with a higher IoU, the lower-scoring is dropped.
        candidates: (proposal, class) pairs that compete, the best. torchvision has no such limit, and the result is the
            same unless fewer than `max_detections` of them are left.
        max_detections: detections per image.
    """
    logits = outputs["class_logits"].astype(jnp.float32)
    codes = outputs["box_regression"][:, :, 1:]
    proposals = jnp.broadcast_to(outputs["proposals"][:, :, None], codes.shape)
    boxes = clip(coder.decode(codes, proposals, CODE_WEIGHTS).reshape(len(codes), -1, 4), size).reshape(codes.shape)
    large = jnp.all(boxes[..., 2:] - boxes[..., :2] >= SMALLEST, axis=-1)
    there = outputs["proposal_valid"].astype(bool)[..., None] & large
    scores = jnp.where(there, jax.nn.softmax(logits)[..., 1:], 0.0)

    def of_image(scores: Array, boxes: Array) -> tuple[Array, Array, Array, Array]:
        best = top_candidates(scores, pre_nms_threshold, candidates)
        return boxes[best.points, best.labels], best.scores, best.labels, best.valid

    return detections(*jax.vmap(of_image)(scores, boxes), threshold=nms_iou, count=max_detections)
