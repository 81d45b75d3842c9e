"""YOLOX: a pyramid that is walked down and up again, and a head with separate towers for class and box; no anchors.

Papers: YOLOX, arXiv:2107.08430; path aggregation, arXiv:1803.01534. Names, constants and results are those of
Megvii-BaseDetection/YOLOX (Apache-2.0). Its weights take pixels as they are, 0 to 255, in the order BGR, in a frame
that the photo fills from the upper left corner and 114 the rest.

`Head`, `losses` and `decode` are called as those of the other heads, see `zoo.adapters.detector.fcos`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from zoo.adapters.detector.simota import match, prices
from zoo.blocks.csp import CrossStage, convolution, spatial
from zoo.dense.boxes import clip, iou
from zoo.dense.nms import detections
from zoo.dense.points import grid_points
from zoo.dense.resize import resize_nearest
from zoo.errors import ConfigError
from zoo.layers import Chain, Conv, Normal

Outputs = Mapping[str, Any]
Size = tuple[int, int] | Array
"""(height, width) of the images in pixels: one for all, or (b, 2) without what pads each."""


def _size(x: Array) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


class PAFPN(nnx.Module):
    """Three levels with `width`, 2 and 4 times `width` channels, at the places of the three maps.

    A map is resized to the real size of the one that it joins, also on the way up: maps of nets that do not pad are not
    halves of one another. Where fewer than three maps are given, every second position of the coarsest makes another.

    Args:
        channels, strides: of the maps, finest first.
        width: channels of the finest level; checkpoints have that of the finest map.
        depth: bottlenecks in each block. separable: 3x3 convolutions as a depthwise and a 1x1 one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        width: int = 128,
        *,
        depth: int = 1,
        separable: bool = False,
        rngs: nnx.Rngs,
    ):
        if not 1 <= len(channels) == len(strides) <= 3:
            raise ConfigError(
                f"a pyramid of {len(channels)} maps with {len(strides)} strides: PAFPN takes one to three maps and a "
                "stride for each."
            )
        self.made = 3 - len(channels)
        fine, middle, coarse = [*channels, *[channels[-1]] * self.made]
        self.channels = (width, 2 * width, 4 * width)
        self.strides = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(self.made)))

        def block(inputs: int, outputs: int) -> CrossStage:
            return CrossStage(inputs, outputs, depth, False, separable, rngs=rngs)

        self.lateral_conv0 = convolution(coarse, 2 * width, 1, rngs=rngs)
        self.C3_p4 = block(2 * width + middle, 2 * width)
        self.reduce_conv1 = convolution(2 * width, width, 1, rngs=rngs)
        self.C3_p3 = block(width + fine, width)
        self.bu_conv2 = spatial(width, width, 2, separable=separable, rngs=rngs)
        self.C3_n3 = block(2 * width, 2 * width)
        self.bu_conv1 = spatial(2 * width, 2 * width, 2, separable=separable, rngs=rngs)
        self.C3_n4 = block(4 * width, 4 * width)

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        maps = list(maps)
        for _ in range(self.made):
            maps.append(maps[-1][:, ::2, ::2])
        fine, middle, coarse = maps

        def joined(x: Array, other: Array) -> Array:
            return jnp.concatenate([resize_nearest(x, _size(other)), other], axis=-1)

        lateral = self.lateral_conv0(coarse)
        down = self.C3_p4(joined(lateral, middle))
        reduced = self.reduce_conv1(down)
        first = self.C3_p3(joined(reduced, fine))
        second = self.C3_n3(joined(self.bu_conv2(first), reduced))
        return [first, second, self.C3_n4(joined(self.bu_conv1(second), lateral))]


def _prediction(inputs: int, outputs: int, rngs: nnx.Rngs, prior: float | None = None) -> Conv:
    """A 1x1 convolution; with a `prior`, its outputs are logits that start there."""
    conv = Conv(inputs, outputs, 1, kernel_init=Normal(math.sqrt(1 / (3 * inputs))), rngs=rngs)
    if prior is not None:
        conv.bias = nnx.Param(jnp.full((outputs,), math.log(prior / (1 - prior)), jnp.float32))
    return conv


class Head(nnx.Module):
    """Two towers for each level: one for the class, one for the box and whether there is an object (figure 2).

    Args:
        strides, channels: of the levels, finest first; one number of channels where all have as many.
        classes: how many, without a background.
        width: channels of the towers, 0 for those of the finest level.
        separable: 3x3 convolutions as a depthwise and a 1x1 one.
        prior: probability that objects and classes start with.
        l1: adds the L1 loss, as in the reference's last epochs, which do without mosaics.
    """

    def __init__(
        self,
        strides: Sequence[float],
        channels: int | Sequence[int],
        classes: int,
        *,
        width: int = 0,
        separable: bool = False,
        prior: float = 0.01,
        l1: bool = False,
        rngs: nnx.Rngs,
    ):
        each = [channels] * len(strides) if isinstance(channels, int) else list(channels)
        if len(each) != len(strides):
            raise ConfigError(f"{len(each)} numbers of channels for {len(strides)} levels: give one for each.")
        width = width or each[0]

        def tower() -> Chain:
            return Chain([spatial(width, width, separable=separable, rngs=rngs) for _ in range(2)])

        self.stems = nnx.List(convolution(inputs, width, 1, rngs=rngs) for inputs in each)
        self.cls_convs, self.reg_convs = (nnx.List(tower() for _ in each) for _ in range(2))
        self.cls_preds = nnx.List(_prediction(width, classes, rngs, prior) for _ in each)
        self.reg_preds = nnx.List(_prediction(width, 4, rngs) for _ in each)
        self.obj_preds = nnx.List(_prediction(width, 1, rngs, prior) for _ in each)
        self.strides, self.l1 = tuple(strides), l1

    def __call__(self, maps: Sequence[Array]) -> dict[str, Any]:
        """Outputs for the maps (b, h, w, channels) of the levels.

        Returns:
            `cls_preds` (b, points, classes) and `obj_preds` (b, points, 1), logits; `reg_preds` (b, points, 4): where
            the box's centre is from the upper left corner of the point's cell, and logarithms of its width and height,
            all in strides; and for each level, in lists, `points` (h * w, 2), the cells' centres as x, y in pixels, and
            `strides` (h * w,).
        """
        found: dict[str, list[Array]] = {"cls_preds": [], "reg_preds": [], "obj_preds": []}
        for i, x in enumerate(maps):
            x = self.stems[i](x)
            of_class, of_box = self.cls_convs[i](x), self.reg_convs[i](x)
            found["cls_preds"].append(self.cls_preds[i](of_class))
            found["reg_preds"].append(self.reg_preds[i](of_box))
            found["obj_preds"].append(self.obj_preds[i](of_box))
        sizes = [*map(_size, maps)]
        steps = [(stride, stride) for stride in self.strides]
        flat = {
            name: jnp.concatenate([y.reshape(y.shape[0], -1, y.shape[-1]) for y in levels], axis=1)
            for name, levels in found.items()
        }
        return flat | {
            "points": [jnp.asarray(level) for level in grid_points(sizes, steps, 0.5)],
            "strides": [
                jnp.full(h * w, stride, jnp.float32) for (h, w), stride in zip(sizes, self.strides, strict=True)
            ],
        }

    def losses(self, maps: Sequence[Array], targets: Mapping[str, Array], size: Size | None = None) -> dict[str, Array]:
        """The terms of the loss, see `losses`. The images' size makes no difference."""
        del size
        return losses(self(maps), targets, l1=self.l1)


class _Predictions(NamedTuple):
    """Outputs in float32: `raw` (b, n, 4), boxes in pixels (b, n, 4), logits (b, n, classes), logits of an object
    (b, n), points (n, 2), strides (n,)."""

    raw: Array
    boxes: Array
    logits: Array
    objectness: Array
    points: Array
    strides: Array


def _predictions(outputs: Outputs) -> _Predictions:
    logits, raw, objectness = (outputs[name].astype(jnp.float32) for name in ("cls_preds", "reg_preds", "obj_preds"))
    points, strides = (jnp.concatenate(outputs[name]).astype(jnp.float32) for name in ("points", "strides"))
    step = strides[None, :, None]
    centres = points[None] + (raw[..., :2] - 0.5) * step
    # A side of more than 22026 strides is no prediction; its exponential might be infinite, and no gradient finite.
    halves = jnp.exp(jnp.minimum(raw[..., 2:], 10.0)) * step / 2
    boxes = jnp.concatenate([centres - halves, centres + halves], axis=-1)
    return _Predictions(raw, boxes, logits, objectness[..., 0], points, strides)


# Learning ----------------------------------------------------------------------------------------------------------


def _raw_targets(boxes: Array, points: Array, strides: Array) -> Array:
    """What `reg_preds` would be for a box: (n, 4), (n, 2), (n,) -> (n, 4)."""
    low, high, step = boxes[:, :2], boxes[:, 2:], strides[:, None]
    return jnp.concatenate([((low + high) / 2 - points) / step + 0.5, jnp.log((high - low) / step + 1e-8)], axis=-1)


APART = 0.01
"""IoU below which a predicted box is drawn towards its truth by the distance of the outputs."""


def _approach(raw: Array, wanted: Array, overlap: Array) -> Array:
    """Nothing in value (n,), and where boxes hardly overlap the gradient of the outputs' L1 distance.

    The IoU of boxes that do not overlap is 0 wherever they lie, and SimOTA matches each truth to some prediction even
    so: without this, such a prediction would stay where it is for ever. raw, wanted: (n, 4); overlap: (n,).
    """
    distance = jnp.sum(jnp.abs(raw - lax.stop_gradient(wanted)), axis=-1)
    return jnp.where(overlap < APART, distance - lax.stop_gradient(distance), 0.0)


def losses(outputs: Outputs, targets: Mapping[str, Array], *, l1: bool = False) -> dict[str, Array]:
    """Of each image (b,): `reg_preds` (5 times 1 - IoU squared), `obj_preds` and `cls_preds` (cross-entropy; a class is
    to be as likely as the box's IoU), and `l1` where asked for, of the outputs of the box.

    Each is the image's sum times (images / positives of the whole batch, at least 1), so that the mean over the images
    is the reference's number, the batch's sum divided by its positives. All is float32.

    Args:
        targets: `boxes` (b, m, 4) in pixels, `labels` (b, m), `box_valid` (b, m); `valid` (b,) where some images only
            fill up the batch: theirs are no positives, and they are not counted.
    """
    found = _predictions(outputs)
    points, strides = found.points, found.strides
    counted = jnp.asarray(targets.get("valid", np.ones(len(found.raw), bool))).astype(bool)
    shown = targets["box_valid"].astype(bool) & counted[:, None]

    def of_image(
        raw: Array, predicted: Array, logits: Array, objectness: Array, boxes: Array, labels: Array, shown: Array
    ) -> tuple[Array, ...]:
        found, of_class, of_object = map(lax.stop_gradient, (predicted, logits, objectness))
        matched = match(*prices(found, of_class, of_object, points, strides, boxes, labels, shown))
        positive, chosen = matched >= 0, jnp.maximum(matched, 0)
        truth = jnp.where(positive[:, None], boxes.astype(jnp.float32)[chosen], 0.0)
        overlap = iou(predicted, truth)
        share = lax.stop_gradient(overlap)[:, None]
        hot = jax.nn.one_hot(labels[chosen], logits.shape[-1], dtype=jnp.float32) * share
        object_there = positive.astype(jnp.float32)
        apart = _approach(raw, _raw_targets(truth, points, strides), overlap)
        each = [
            jnp.where(positive, 5 * (1 - overlap**2) + apart, 0.0),
            optax.sigmoid_binary_cross_entropy(objectness, object_there),
            jnp.where(positive[:, None], optax.sigmoid_binary_cross_entropy(logits, hot), 0.0),
        ]
        if l1:
            each.append(jnp.where(positive[:, None], jnp.abs(raw - _raw_targets(truth, points, strides)), 0.0))
        return tuple(map(jnp.sum, [*each, object_there]))

    truths = (targets["boxes"], targets["labels"], shown)
    *sums, positives = jax.vmap(of_image)(found.raw, found.boxes, found.logits, found.objectness, *truths)
    positives = jnp.where(counted, positives, 0.0)
    share = jnp.sum(counted, dtype=jnp.float32) / jnp.maximum(jnp.sum(positives), 1)
    names = ("reg_preds", "obj_preds", "cls_preds", *(["l1"] if l1 else []))
    return {name: one * share for name, one in zip(names, sums, strict=True)}


# Predicting --------------------------------------------------------------------------------------------------------


def decode(
    outputs: Outputs, size: Size, *, pre_nms_threshold: float = 0.01, nms_iou: float = 0.65, max_detections: int = 100
) -> dict[str, Array]:
    """Detections of each image, best first, at last cut at its border. Each position gives the likeliest class at most;
    a score is probability of the class * of an object.

    Args:
        size: of the images; (b, 2) where they are padded to one size.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS. The reference uses 0.01 to evaluate
            on COCO and 0.25 to draw.
        nms_iou: of two boxes of a class with a higher IoU, the lower-scoring is dropped.
        max_detections: detections per image. The reference returns all; COCO's evaluation uses 100.
    Returns:
        As `zoo.dense.nms.detections`: `boxes` (b, n, 4), `scores`, `labels` and `valid` (b, n), n = max_detections.
    """
    found = _predictions(outputs)
    labels = jnp.argmax(found.logits, axis=-1)
    scores = jax.nn.sigmoid(jnp.max(found.logits, axis=-1)) * jax.nn.sigmoid(found.objectness)
    kept = detections(found.boxes, scores, labels, scores > pre_nms_threshold, threshold=nms_iou, count=max_detections)
    return kept | {"boxes": clip(kept["boxes"], size)}
