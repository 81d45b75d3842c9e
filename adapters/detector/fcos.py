"""FCOS: an anchor-free detector. Each position of a pyramid predicts a class and the distances to the sides of a box.

Papers: FCOS, arXiv:1904.01355 and arXiv:2006.09214 (centre sampling, GIoU, centerness beside the regression); focal
loss, arXiv:1708.02002; GIoU, arXiv:1902.09630.

Constants, names and results are those of torchvision 0.28's `fcos_resnet50_fpn`, which differs from the paper:
- Positions lie at multiples of the stride, without the paper's half stride.
- Distances are in strides and pass a ReLU.
- Areas are compared as 1e8 - area in float32, in steps of 8 square pixels. Of boxes with nearly the same area the
  first wins.

All heads of the detector have this interface:
- `Head(strides, channels, classes, *, rngs, **options)` is a module.
- `head(maps)` returns a dict of arrays, the outputs.
- `head.losses(maps, targets, size)` returns the terms of the loss by name, each (b,). It is a method because a second
  stage needs the parameters.
- `decode(outputs, size, **options)` returns the detections, without parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, Num

    PerImage = Float[Array, " b"]

Outputs = Mapping[str, Any]
"""The outputs of a head by name, see `Head.__call__`."""
Size = tuple[int, int] | Array
"""(height, width) of all images in pixels, or an array (b, 2) with that of each image without its padding."""

_SMALL = Normal(0.01)


def tower(inputs: int, width: int, convs: int, groups: int, rngs: nnx.Rngs) -> Chain:
    """Return 3x3 convolutions, each followed by a group norm and a ReLU."""
    layers: list[Any] = []
    for i in range(convs):
        conv = Conv(width if i else inputs, width, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        layers += [conv, GroupNorm(groups, width, rngs=rngs), jax.nn.relu]
    return Chain(layers)


def _flat(x: Float[Array, "b h w c"]) -> Float[Array, "b points c"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])


class ClassificationHead(nnx.Module):
    """The classification branch: a logit for each position of a map and each class.

    Args:
        inputs: channels of the map.
        width: channels of the tower.
        classes: number of classes, without a background.
        convs: number of convolutions in the tower.
        groups: groups of its norms.
        prior: probability that every logit starts with.
    """

    def __init__(self, inputs: int, width: int, classes: int, convs: int, groups: int, prior: float, *, rngs: nnx.Rngs):
        self.conv = tower(inputs, width, convs, groups, rngs)
        self.cls_logits = Conv(width if convs else inputs, classes, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        # Nearly all positions are background. Were every probability 0.5 at first, their loss would drown the rest
        # (arXiv:1708.02002, section 3.3).
        self.cls_logits.bias = nnx.Param(jnp.full((classes,), math.log(prior / (1 - prior)), jnp.float32))

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b points classes"]:
        return _flat(self.cls_logits(self.conv(x)))


class RegressionHead(nnx.Module):
    """The regression branch: distances to the left, top, right and bottom of a box in strides, and centerness logits.

    Args:
        inputs: channels of the map.
        width: channels of the tower.
        convs: number of convolutions in the tower.
        groups: groups of its norms.
    """

    def __init__(self, inputs: int, width: int, convs: int, groups: int, *, rngs: nnx.Rngs):
        self.conv = tower(inputs, width, convs, groups, rngs)
        outputs = width if convs else inputs
        self.bbox_reg = Conv(outputs, 4, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)
        self.bbox_ctrness = Conv(outputs, 1, 3, 1, 1, kernel_init=_SMALL, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w inputs"]
    ) -> tuple[Float[Array, "b points 4"], Float[Array, "b points 1"]]:
        y = self.conv(x)
        # A plain ReLU has no gradient below zero: a distance that is negative at every position would stay so.
        return _flat(recoverable_relu(self.bbox_reg(y))), _flat(self.bbox_ctrness(y))


def assign(
    points: Float[Array, "points 2"],
    strides: Float[Array, " points"],
    lower: Float[Array, " points"],
    upper: Float[Array, " points"],
    boxes: Num[Array, "m 4"],
    valid: Bool[Array, " m"],
    *,
    radius: float = 1.5,
) -> Integer[Array, " points"]:
    """Return the index of the box that each point learns, int32; -1 for none (arXiv:2006.09214, section 3.1).

    A point learns a box if it is inside, within `radius` strides of the centre along each axis (centre sampling), and
    its farthest side is between `lower` and `upper` pixels away. Of several boxes the smallest counts, then the first.

    Args:
        points: x, y in pixels.
        strides: in pixels.
        lower: in pixels.
        upper: in pixels.
        boxes: true boxes.
        valid: False for padding, which no point learns.
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


def focal_loss(
    logits: Float[Array, "*n"], targets: Float[Array, "*n"], *, alpha: float = 0.25, gamma: int = 2
) -> Float[Array, "*n"]:
    """Return the sigmoid focal loss of each logit for targets 0 or 1 (arXiv:1708.02002, eq. 5)."""
    p = jax.nn.sigmoid(logits)
    missed = p + targets - 2 * p * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * missed**gamma * optax.sigmoid_binary_cross_entropy(logits, targets)


def centerness(ltrb: Float[Array, "*n 4"], inside: Bool[Array, "*n"]) -> Float[Array, "*n"]:
    """Return how central positions are in their boxes, from 0 at a side to 1 at the centre.

    It is sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) (arXiv:1904.01355, eq. 3).

    Args:
        ltrb: distances to the left, top, right and bottom.
        inside: whether the position is inside a box. Elsewhere the result is 0.
    """
    # Outside a box the root would be NaN, and `where` also differentiates the branch that is not chosen.
    ltrb = jnp.where(inside[..., None], ltrb, 1.0)
    pairs = jnp.stack([ltrb[..., 0::2], ltrb[..., 1::2]], axis=-1)
    # Axes: left or top, right or bottom; then horizontal, vertical.
    ratio = jnp.min(pairs, axis=-2) / jnp.max(pairs, axis=-2)
    return jnp.where(inside, jnp.sqrt(ratio[..., 0] * ratio[..., 1]), 0.0)


class Head(nnx.Module):
    """FCOS's head: a classification and a regression branch, shared by all levels of a pyramid.

    Args:
        strides: of the levels, finest first.
        channels: of the levels.
        classes: number of classes, without a background.
        width: channels of the towers; 0 for those of the levels.
        convs: number of convolutions in each tower.
        groups: groups of the towers' norms.
        prior: probability of every class at every position at the start.
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

    def __call__(self, maps: Sequence[Float[Array, "b _h _w channels"]]) -> dict[str, Any]:
        """Return the outputs for the maps of the levels.

        Returns:
            `cls_logits` (b, points, classes), `bbox_regression` (b, points, 4) in strides, and `bbox_ctrness`
            (b, points, 1) for the points of all levels. Lists with an entry for each level: `points` (h * w, 2) as x, y
            in pixels, and `strides` (h * w,).
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

    def losses(
        self,
        maps: Sequence[Float[Array, "b _h _w channels"]],
        targets: Mapping[str, Array],
        size: Size | None = None,
    ) -> dict[str, PerImage]:
        """Return the three terms of the loss, see `losses`. `size` is not used."""
        del size
        return losses(self(maps), targets)


def _levels(outputs: Outputs) -> tuple[Float[Array, "points 2"], Float[Array, " points"], list[int]]:
    """Return the points and strides of all levels, and the number of points of each level."""
    strides = [level.astype(jnp.float32) for level in outputs["strides"]]
    return jnp.concatenate(outputs["points"]).astype(jnp.float32), jnp.concatenate(strides), [*map(len, strides)]


# Learning ------------------------------------------------------------------------------------------------------


def _opening(
    regression: Float[Array, "points 4"], truth: Float[Array, "points 4"], strides: Float[Array, " points"]
) -> Float[Array, " points"]:
    """Return zeros whose gradient raises every distance that is zero.

    Args:
        regression: predicted distances in strides, at least 0.
        truth: target box of each position, in pixels.
        strides: in pixels.
    """
    # GIoU alone does not guarantee such a gradient: a box without width and height covers nothing, whichever one of its
    # sides moves. The distances summed here are all zero, so the value is too. Dividing by the size of the true box
    # makes the gradient as large as that of an IoU.
    sides = jnp.maximum((truth[:, 2:] - truth[:, :2]) / strides[:, None], 1e-3)
    size = jnp.concatenate([sides, sides], axis=-1)
    return -jnp.sum(jnp.where(regression <= 0, regression / size, 0.0), axis=-1)


def losses(outputs: Outputs, targets: Mapping[str, Array], *, radius: float = 1.5) -> dict[str, PerImage]:
    """Return the terms of the loss of each image, float32.

    They are `classification` (focal loss), `bbox_regression` (1 - GIoU) and `bbox_ctrness` (cross-entropy). Each is the
    image's sum times images / positives, both of the whole batch, with at least 1 positive. So the mean over images
    is the batch's sum divided by its positives, and an image with many boxes counts more.

    Args:
        outputs: of `Head`.
        targets: `boxes` (b, m, 4) in pixels, `labels` (b, m) and `box_valid` (b, m). `valid` (b,), if given, is False
            for images that only fill up the batch: they have no positives and are not counted.
        radius: of centre sampling, in strides, see `assign`.
    """
    points, strides, counts = _levels(outputs)
    # A level of stride s learns boxes whose farthest side is 4 s to 8 s pixels away: with strides 8 to 128, the paper's
    # ranges 0, 64, 128, 256, 512 and infinity. The first and last level are open, so that every size has a level.
    lower = jnp.concatenate([jnp.zeros(counts[0]), 4 * strides[counts[0] :]])
    upper = jnp.concatenate([8 * strides[: -counts[-1]], jnp.full(counts[-1], jnp.inf)])
    logits, regression, central = (
        outputs[name].astype(jnp.float32) for name in ("cls_logits", "bbox_regression", "bbox_ctrness")
    )
    counted = jnp.asarray(targets.get("valid", np.ones(len(logits), bool))).astype(bool)
    box_valid = targets["box_valid"].astype(bool) & counted[:, None]

    def of_image(
        logits: Array, regression: Array, central: Array, boxes: Array, labels: Array, box_valid: Array
    ) -> tuple[Array, ...]:
        boxes = jnp.where(box_valid[:, None], boxes.astype(jnp.float32), 0.0)
        matched = assign(points, strides, lower, upper, boxes, box_valid, radius=radius)
        positive, chosen = matched >= 0, jnp.maximum(matched, 0)
        hot = jax.nn.one_hot(jnp.where(positive, labels[chosen], -1), logits.shape[-1], dtype=jnp.float32)
        truth = jnp.where(positive[:, None], boxes[chosen], 0.0)
        predicted = from_distances(points, regression * strides[:, None])
        target = centerness(distances(points, truth), positive)
        per_point = (
            jnp.sum(focal_loss(logits, hot), axis=-1),
            jnp.where(positive, 1 - giou(predicted, truth) + _opening(regression, truth, strides), 0.0),
            jnp.where(positive, optax.sigmoid_binary_cross_entropy(central[:, 0], target), 0.0),
            positive.astype(jnp.float32),
        )
        return tuple(map(jnp.sum, per_point))

    *sums, positives = jax.vmap(of_image)(logits, regression, central, targets["boxes"], targets["labels"], box_valid)
    share = jnp.sum(counted.astype(jnp.float32)) / jnp.maximum(jnp.sum(positives), 1)
    names = ("classification", "bbox_regression", "bbox_ctrness")
    return {name: term * share for name, term in zip(names, sums, strict=True)}


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
    """Return the detections of each image, best first, clipped at its border.

    A score is sqrt(class probability * centerness).

    Args:
        outputs: of `Head`.
        size: of the images, see `Size`.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS.
        candidates: the number of best (position, class) pairs of each level that enter NMS.
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
