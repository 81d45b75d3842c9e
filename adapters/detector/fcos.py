"""FCOS: each position of a pyramid says whether it is inside an object, of which class, and how far its sides are.

Papers: FCOS, arXiv:1904.01355 and arXiv:2006.09214 (centre sampling, GIoU, centerness beside the regression); focal
loss, arXiv:1708.02002; GIoU, arXiv:1902.09630. Constants, names and results are those of torchvision 0.28's
`fcos_resnet50_fpn`, with three things of its own: positions lie at multiples of the stride, without the half stride of
the paper; distances are in strides, through a ReLU; and areas are compared as 1e8 - area in float32, whose steps are 8
square pixels, so that of boxes that are nearly as large the first wins.

What heads of the detector have in common: `Head(strides, channels, classes, *, rngs, **options)` is a module;
`head(maps)` gives a dict of arrays; `head.losses(maps, targets, size)` gives the terms of the loss by name, each (b,),
with the parameters at hand for a second stage; `decode(outputs, size, **options)` gives detections, without parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from zoo.dense.boxes import area, clip, distances, from_distances, giou
from zoo.dense.nms import detections, top_candidates
from zoo.dense.points import Steps, grid_points, map_steps
from zoo.layers import Chain, Conv, GroupNorm, Normal, recoverable_relu

Outputs = Mapping[str, Any]
Size = tuple[int, int] | Array
"""(height, width) of the images in pixels: one for all, or (b, 2) without what pads each."""

_SMALL = Normal(0.01)


def tower(inputs: int, width: int, convs: int, groups: int, rngs: nnx.Rngs) -> Chain:
    """3x3 convolutions, each with a group norm and a ReLU."""
    layers: list[Any] = []
    for i in range(convs):
        conv = Conv(width if i else inputs, width, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        layers += [conv, GroupNorm(groups, width, rngs=rngs), jax.nn.relu]
    return Chain(layers)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1, x.shape[-1])


class ClassificationHead(nnx.Module):
    """Map (b, h, w, c) -> a logit for each position and class (b, h * w, classes), which start at `prior`."""

    def __init__(self, inputs: int, width: int, classes: int, convs: int, groups: int, prior: float, *, rngs: nnx.Rngs):
        self.conv = tower(inputs, width, convs, groups, rngs)
        self.cls_logits = Conv(width if convs else inputs, classes, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        self.cls_logits.bias = nnx.Param(jnp.full((classes,), math.log(prior / (1 - prior)), jnp.float32))

    def __call__(self, x: Array) -> Array:
        return _flat(self.cls_logits(self.conv(x)))


class RegressionHead(nnx.Module):
    """Map (b, h, w, c) -> distances to the box's left, top, right and bottom in strides (b, h * w, 4), and a logit of
    how central the position is (b, h * w, 1)."""

    def __init__(self, inputs: int, width: int, convs: int, groups: int, *, rngs: nnx.Rngs):
        self.conv = tower(inputs, width, convs, groups, rngs)
        outputs = width if convs else inputs
        self.bbox_reg = Conv(outputs, 4, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        self.bbox_ctrness = Conv(outputs, 1, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        y = self.conv(x)
        return _flat(recoverable_relu(self.bbox_reg(y))), _flat(self.bbox_ctrness(y))


def assign(
    points: Array, strides: Array, lower: Array, upper: Array, boxes: Array, valid: Array, *, radius: float = 1.5
) -> Array:
    """Return the index of the box that each point learns, (points,) int32; -1 for none (arXiv:2006.09214, section 3.1).

    A point learns a box if it is inside, within `radius` strides of the centre along each axis (centre sampling), and
    its farthest side is between `lower` and `upper` pixels away. Of several boxes the smallest counts, then the first.

    Args:
        points: (points, 2) as x, y.
        strides: (points,) in pixels.
        lower: (points,) in pixels.
        upper: (points,) in pixels.
        boxes: (m, 4).
        valid: (m,); False for padding, which no point learns.
        radius: in strides.
    """
    # `lower` and `upper` give each level its range of sizes, so that overlapping objects of different size are learned
    # on different levels. What remains ambiguous goes to the smallest box, because large boxes have more points.
    # The smallest is found as torchvision does, as the largest 1e8 - area, so that ties in float32 fall the same way.
    boxes = boxes.astype(jnp.float32)
    low, high, places = boxes[None, :, :2], boxes[None, :, 2:], points[:, None]
    away = jnp.max(jnp.abs(places - (low + high) / 2), axis=-1)
    before, behind = places - low, high - places
    nearest = jnp.min(jnp.minimum(before, behind), axis=-1)
    farthest = jnp.max(jnp.maximum(before, behind), axis=-1)
    matches = (away < radius * strides[:, None]) & (nearest > 0) & valid[None]
    matches &= (farthest > lower[:, None]) & (farthest < upper[:, None])
    rank = jnp.where(matches, 1e8 - area(boxes)[None], 0.0)
    return jnp.where(jnp.max(rank, axis=-1) < 1e-5, -1, jnp.argmax(rank, axis=-1)).astype(jnp.int32)


def focal_loss(logits: Array, targets: Array, *, alpha: float = 0.25, gamma: int = 2) -> Array:
    """Return the sigmoid focal loss of each logit for targets 0 or 1 (arXiv:1708.02002, eq. 5)."""
    p = jax.nn.sigmoid(logits)
    missed = p + targets - 2 * p * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * missed**gamma * optax.sigmoid_binary_cross_entropy(logits, targets)


def centerness(ltrb: Array, inside: Array) -> Array:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), arXiv:1904.01355 eq. 3: (..., 4) -> (...); 0 where not
    `inside`."""
    ltrb = jnp.where(inside[..., None], ltrb, 1.0)
    pairs = jnp.stack([ltrb[..., 0::2], ltrb[..., 1::2]], axis=-1)
    # Axes: left or top, right or bottom; then horizontal, vertical.
    ratio = jnp.min(pairs, axis=-2) / jnp.max(pairs, axis=-2)
    return jnp.where(inside, jnp.sqrt(ratio[..., 0] * ratio[..., 1]), 0.0)


class Head(nnx.Module):
    """The two branches, shared by all levels of a pyramid.

    Args:
        strides, channels: of the levels, finest first. classes: how many, without a background.
        width: channels of the towers, 0 for those of the levels. convs: depth of the towers. groups: of their norms.
        prior: probability that every position starts with, for every class.
        steps: distance between positions, see `zoo.dense.points.map_steps`.
    """

    def __init__(
        self,
        strides: Sequence[float],
        channels: int,
        classes: int,
        *,
        width: int = 0,
        convs: int = 4,
        groups: int = 32,
        prior: float = 0.01,
        steps: Steps = "declared",
        rngs: nnx.Rngs,
    ):
        width = width or channels
        self.classification_head = ClassificationHead(channels, width, classes, convs, groups, prior, rngs=rngs)
        self.regression_head = RegressionHead(channels, width, convs, groups, rngs=rngs)
        self.strides, self.steps = tuple(strides), steps

    def __call__(self, maps: Sequence[Array]) -> dict[str, Any]:
        """Outputs for the maps (b, h, w, channels) of the levels.

        Returns:
            `cls_logits` (b, points, classes), `bbox_regression` (b, points, 4) in strides, `bbox_ctrness`
            (b, points, 1); and for each level, in lists, `points` (h * w, 2) as x, y in pixels and `strides` (h * w,).
        """
        logits = [self.classification_head(x) for x in maps]
        boxes, central = zip(*(self.regression_head(x) for x in maps), strict=True)
        sizes = [(x.shape[1], x.shape[2]) for x in maps]
        steps = map_steps(sizes, self.strides, self.steps)
        return {
            "cls_logits": jnp.concatenate(logits, axis=1),
            "bbox_regression": jnp.concatenate(boxes, axis=1),
            "bbox_ctrness": jnp.concatenate(central, axis=1),
            "points": [jnp.asarray(level) for level in grid_points(sizes, steps)],
            "strides": [
                jnp.full(h * w, stride, jnp.float32) for (h, w), stride in zip(sizes, self.strides, strict=True)
            ],
        }

    def losses(self, maps: Sequence[Array], targets: Mapping[str, Array], size: Size | None = None) -> dict[str, Array]:
        """The three terms of the loss, see `losses`. The images' size makes no difference."""
        del size
        return losses(self(maps), targets)


def _levels(outputs: Outputs) -> tuple[Array, Array, list[int]]:
    """Points (n, 2) and strides (n,) of all levels, and how many each has."""
    strides = [level.astype(jnp.float32) for level in outputs["strides"]]
    return jnp.concatenate(outputs["points"]).astype(jnp.float32), jnp.concatenate(strides), [*map(len, strides)]


# Learning ------------------------------------------------------------------------------------------------------


def _opening(regression: Array, truth: Array, strides: Array) -> Array:
    """Nothing in value (n,), and a gradient that raises each side whose distance is zero.

    GIoU alone does not guarantee one: a box without width and height covers nothing however one of its sides moves.
    The gradient is relative to the box's size, as that of an IoU is.

    Args:
        regression: distances in strides (n, 4). truth: the box that each position is to find (n, 4), in pixels.
        strides: (n,).
    """
    sides = jnp.maximum((truth[:, 2:] - truth[:, :2]) / strides[:, None], 1e-3)
    size = jnp.concatenate([sides, sides], axis=-1)
    return -jnp.sum(jnp.where(regression <= 0, regression / size, 0.0), axis=-1)


def losses(outputs: Outputs, targets: Mapping[str, Array], *, radius: float = 1.5) -> dict[str, Array]:
    """Of each image (b,): `classification` (focal), `bbox_regression` (1 - GIoU) and `bbox_ctrness` (cross-entropy).

    Each is the image's sum times (images / positives of the whole batch, at least 1), so that the mean over the images
    is the batch's sum divided by its positives: an image of many boxes counts for more. All is float32.

    Args:
        targets: `boxes` (b, m, 4) in pixels, `labels` (b, m), `box_valid` (b, m); `valid` (b,) where some images only
            fill up the batch: theirs are no positives, and they are not counted.
    """
    points, strides, counts = _levels(outputs)
    lower = jnp.concatenate([jnp.zeros(counts[0]), 4 * strides[counts[0] :]])
    upper = jnp.concatenate([8 * strides[: -counts[-1]], jnp.full(counts[-1], jnp.inf)])
    logits, regression, central = (
        outputs[name].astype(jnp.float32) for name in ("cls_logits", "bbox_regression", "bbox_ctrness")
    )
    counted = jnp.asarray(targets.get("valid", np.ones(len(logits), bool))).astype(bool)
    shown = targets["box_valid"].astype(bool) & counted[:, None]

    def of_image(
        logits: Array, regression: Array, central: Array, boxes: Array, labels: Array, shown: Array
    ) -> tuple[Array, ...]:
        boxes = jnp.where(shown[:, None], boxes.astype(jnp.float32), 0.0)
        matched = assign(points, strides, lower, upper, boxes, shown, radius=radius)
        positive, chosen = matched >= 0, jnp.maximum(matched, 0)
        hot = jax.nn.one_hot(jnp.where(positive, labels[chosen], -1), logits.shape[-1], dtype=jnp.float32)
        truth = jnp.where(positive[:, None], boxes[chosen], 0.0)
        found = from_distances(points, regression * strides[:, None])
        wanted = centerness(distances(points, truth), positive)
        each = (
            jnp.sum(focal_loss(logits, hot), axis=-1),
            jnp.where(positive, 1 - giou(found, truth) + _opening(regression, truth, strides), 0.0),
            jnp.where(positive, optax.sigmoid_binary_cross_entropy(central[:, 0], wanted), 0.0),
            positive.astype(jnp.float32),
        )
        return tuple(map(jnp.sum, each))

    *sums, positives = jax.vmap(of_image)(logits, regression, central, targets["boxes"], targets["labels"], shown)
    share = jnp.sum(counted.astype(jnp.float32)) / jnp.maximum(jnp.sum(positives), 1)
    names = ("classification", "bbox_regression", "bbox_ctrness")
    return {name: one * share for name, one in zip(names, sums, strict=True)}


# Predicting ----------------------------------------------------------------------------------------------------


def decode(
    outputs: Outputs,
    size: Size,
    *,
    pre_nms_threshold: float = 0.2,
    candidates: int = 1000,
    nms_iou: float = 0.6,
    max_detections: int = 100,
) -> dict[str, Array]:
    """Detections of each image, best first, cut at its border; a score is sqrt(class probability * centerness).

    Args:
        size: of the images; (b, 2) where they are padded to one size.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS.
        candidates: how many of the best (position, class) pairs of each level go into NMS.
        nms_iou: of two boxes of a class with a higher IoU, the lower-scoring is dropped.
        max_detections: detections per image.
    Returns:
        As `zoo.dense.nms.detections`: `boxes` (b, n, 4), `scores`, `labels` and `valid` (b, n), n = max_detections.
    """
    points, strides, counts = _levels(outputs)
    logits, regression, central = (
        outputs[name].astype(jnp.float32) for name in ("cls_logits", "bbox_regression", "bbox_ctrness")
    )
    scores = jnp.sqrt(jax.nn.sigmoid(logits) * jax.nn.sigmoid(central))
    boxes = clip(from_distances(points[None], regression * strides[None, :, None]), size)

    def of_image(scores: Array, boxes: Array) -> tuple[Array, ...]:
        best = top_candidates(scores, pre_nms_threshold, candidates)
        return boxes[best.points], best.scores, best.labels, best.valid

    cuts = np.cumsum(counts)[:-1]
    pairs = zip(jnp.split(scores, cuts, axis=1), jnp.split(boxes, cuts, axis=1), strict=True)
    levels = [jax.vmap(of_image)(*pair) for pair in pairs]
    best = (jnp.concatenate(parts, axis=1) for parts in zip(*levels, strict=True))
    return detections(*best, threshold=nms_iou, count=max_detections)
