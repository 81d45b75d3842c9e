"""YOLOX: an anchor-free detector with a path aggregation network and separate towers for class and box.

Papers: YOLOX, arXiv:2107.08430; path aggregation, arXiv:1803.01534. Names, constants and results are those of
Megvii-BaseDetection/YOLOX (Apache-2.0). Its weights expect BGR images with values from 0 to 255. The image lies in the
upper left corner of a letterbox filled with 114.

`Head`, `losses` and `decode` have the interface that `zoo.adapters.detector.fcos` describes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from zoo.adapters.detector.fcos import Outputs, Size
from zoo.adapters.detector.simota import match, prices
from zoo.blocks.csp import CrossStage, convolution, spatial
from zoo.dense.boxes import clip, iou
from zoo.dense.nms import detections
from zoo.dense.points import grid_points
from zoo.dense.resize import resize_nearest
from zoo.errors import ConfigError
from zoo.layers import Chain, Conv, Normal

if TYPE_CHECKING:
    from jaxtyping import Float

    PerImage = Float[Array, " b"]


def _size(x: Float[Array, "b h w c"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


class PAFPN(nnx.Module):
    """Path aggregation network (arXiv:1803.01534): a top-down and a bottom-up pathway through three maps.

    It returns a level for each map, with `width`, 2 * `width` and 4 * `width` channels. A map is resized to the actual
    size of the map that it joins: in networks without padding, the sides of maps are not halves of one another. If
    fewer than three maps are given, every second position of the coarsest gives the next.

    Args:
        channels: of the input maps, finest first.
        strides: of the input maps, finest first.
        width: channels of the finest level. In the checkpoints it is that of the finest map.
        depth: bottlenecks in each block.
        separable: whether 3x3 convolutions are depthwise separable.
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
                f"got {len(channels)} maps and {len(strides)} strides for a path aggregation network. Give one to "
                "three maps, and one stride for each."
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

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> list[Float[Array, "b _h _w _width"]]:
        maps = list(maps)
        for _ in range(self.made):
            maps.append(maps[-1][:, ::2, ::2])
        fine, middle, coarse = maps

        def joined(x: Array, other: Array) -> Array:
            return jnp.concatenate([resize_nearest(x, _size(other)), other], axis=-1)

        # Top-down pathway: the semantics of the coarse maps reach the fine ones.
        top = self.lateral_conv0(coarse)
        between = self.reduce_conv1(self.C3_p4(joined(top, middle)))
        first = self.C3_p3(joined(between, fine))
        # Bottom-up pathway: the precise positions of the finest map reach the coarse levels through two convolutions
        # instead of the whole backbone.
        second = self.C3_n3(joined(self.bu_conv2(first), between))
        return [first, second, self.C3_n4(joined(self.bu_conv1(second), top))]


def _prediction(inputs: int, outputs: int, rngs: nnx.Rngs, prior: float | None = None) -> Conv:
    """Return a 1x1 convolution. With `prior`, its outputs are logits that start at that probability."""
    conv = Conv(inputs, outputs, 1, kernel_init=Normal(math.sqrt(1 / (3 * inputs))), rngs=rngs)
    if prior is not None:
        conv.bias = nnx.Param(jnp.full((outputs,), math.log(prior / (1 - prior)), jnp.float32))
    return conv


class Head(nnx.Module):
    """YOLOX's decoupled head: for each level a tower for the class and one for box and objectness (figure 2).

    Args:
        strides: of the levels, finest first.
        channels: of the levels, finest first, or one number for all.
        classes: number of classes, without a background.
        width: channels of the towers; 0 for those of the finest level.
        separable: whether 3x3 convolutions are depthwise separable.
        prior: probability of objects and classes at the start.
        l1: whether to add the L1 loss, as the reference does in its last epochs, without mosaic augmentation.
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
        widths = [channels] * len(strides) if isinstance(channels, int) else list(channels)
        if len(widths) != len(strides):
            raise ConfigError(
                f"got {len(widths)} numbers of channels for {len(strides)} levels. Give one for each level, or a "
                "single number."
            )
        width = width or widths[0]

        def tower() -> Chain:
            return Chain([spatial(width, width, separable=separable, rngs=rngs) for _ in range(2)])

        self.stems = nnx.List(convolution(inputs, width, 1, rngs=rngs) for inputs in widths)
        self.cls_convs, self.reg_convs = (nnx.List(tower() for _ in widths) for _ in range(2))
        self.cls_preds = nnx.List(_prediction(width, classes, rngs, prior) for _ in widths)
        self.reg_preds = nnx.List(_prediction(width, 4, rngs) for _ in widths)
        self.obj_preds = nnx.List(_prediction(width, 1, rngs, prior) for _ in widths)
        self.strides, self.l1 = tuple(strides), l1

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _channels"]]) -> dict[str, Any]:
        """Return the outputs for the maps of the levels.

        Returns:
            `cls_preds` (b, points, classes) and `obj_preds` (b, points, 1) are logits. `reg_preds` (b, points, 4) is
            the offset of the box's centre from the upper left corner of the point's cell, and the logarithms of the
            width and height, all in strides. Lists with an entry for each level: `points` (h * w, 2), the cells'
            centres as x, y in pixels, and `strides` (h * w,).
        """
        predictions: dict[str, list[Array]] = {"cls_preds": [], "reg_preds": [], "obj_preds": []}
        for i, x in enumerate(maps):
            x = self.stems[i](x)
            class_features, box_features = self.cls_convs[i](x), self.reg_convs[i](x)
            predictions["cls_preds"].append(self.cls_preds[i](class_features))
            predictions["reg_preds"].append(self.reg_preds[i](box_features))
            predictions["obj_preds"].append(self.obj_preds[i](box_features))
        sizes = [*map(_size, maps)]
        steps = [(stride, stride) for stride in self.strides]
        flat = {
            name: jnp.concatenate([y.reshape(y.shape[0], -1, y.shape[-1]) for y in levels], axis=1)
            for name, levels in predictions.items()
        }
        return flat | {
            "points": [jnp.asarray(level) for level in grid_points(sizes, steps, 0.5)],
            "strides": [
                jnp.full(h * w, stride, jnp.float32) for (h, w), stride in zip(sizes, self.strides, strict=True)
            ],
        }

    def losses(
        self,
        maps: Sequence[Float[Array, "b _h _w _channels"]],
        targets: Mapping[str, Array],
        size: Size | None = None,
    ) -> dict[str, PerImage]:
        """Return the terms of the loss, see `losses`. `size` is not used."""
        del size
        return losses(self(maps), targets, l1=self.l1)


class _Predictions(NamedTuple):
    """The outputs of all levels in float32.

    Attributes:
        raw: `reg_preds` of the head.
        boxes: the same as boxes, in pixels.
        logits: of the classes.
        objectness: logits.
        points: x, y in pixels.
        strides: in pixels.
    """

    raw: Float[Array, "b n 4"]
    boxes: Float[Array, "b n 4"]
    logits: Float[Array, "b n classes"]
    objectness: Float[Array, "b n"]
    points: Float[Array, "n 2"]
    strides: Float[Array, " n"]


def _predictions(outputs: Outputs) -> _Predictions:
    logits, raw, objectness = (outputs[name].astype(jnp.float32) for name in ("cls_preds", "reg_preds", "obj_preds"))
    points, strides = (jnp.concatenate(outputs[name]).astype(jnp.float32) for name in ("points", "strides"))
    step = strides[None, :, None]
    centres = points[None] + (raw[..., :2] - 0.5) * step
    # The limit of exp(10) = 22026 strides is beyond any image. Without it the exponential could become infinite, and
    # the gradients NaN.
    halves = jnp.exp(jnp.minimum(raw[..., 2:], 10.0)) * step / 2
    boxes = jnp.concatenate([centres - halves, centres + halves], axis=-1)
    return _Predictions(raw, boxes, logits, objectness[..., 0], points, strides)


# Learning ----------------------------------------------------------------------------------------------------------


def _raw_targets(
    boxes: Float[Array, "n 4"], points: Float[Array, "n 2"], strides: Float[Array, " n"]
) -> Float[Array, "n 4"]:
    """Return the `reg_preds` that stand for the boxes."""
    low, high, step = boxes[:, :2], boxes[:, 2:], strides[:, None]
    return jnp.concatenate([((low + high) / 2 - points) / step + 0.5, jnp.log((high - low) / step + 1e-8)], axis=-1)


APART = 0.01
"""IoU below which a predicted box also gets the gradient of the L1 distance to its true box."""


def _approach(
    raw: Float[Array, "n 4"], targets: Float[Array, "n 4"], overlap: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Return zeros that have the gradient of the outputs' L1 distance where boxes hardly overlap.

    Args:
        raw: predicted `reg_preds`.
        targets: `reg_preds` of the true boxes.
        overlap: IoU of the predicted and the true boxes.
    """
    # The IoU of boxes that do not overlap is 0 wherever they lie, so it has no gradient. SimOTA still matches each true
    # box to some prediction: without this term such a prediction would never move.
    distance = jnp.sum(jnp.abs(raw - lax.stop_gradient(targets)), axis=-1)
    return jnp.where(overlap < APART, distance - lax.stop_gradient(distance), 0.0)


def losses(outputs: Outputs, targets: Mapping[str, Array], *, l1: bool = False) -> dict[str, PerImage]:
    """Return the terms of the loss of each image, float32.

    They are `reg_preds` (5 * (1 - IoU ** 2)), `obj_preds` (cross-entropy) and `cls_preds` (cross-entropy with the IoU
    of the box as the target of its class). Each is the image's sum times images / positives, both of the whole batch,
    with at least 1 positive. So the mean over images is the reference's number, the batch's sum divided by its
    positives.

    Args:
        outputs: of `Head`.
        targets: `boxes` (b, m, 4) in pixels, `labels` (b, m) and `box_valid` (b, m). `valid` (b,), if given, is False
            for images that only fill up the batch: they have no positives and are not counted.
        l1: whether to add `l1`, the L1 loss of the boxes' outputs.
    """
    predictions = _predictions(outputs)
    points, strides = predictions.points, predictions.strides
    counted = jnp.asarray(targets.get("valid", np.ones(len(predictions.raw), bool))).astype(bool)
    box_valid = targets["box_valid"].astype(bool) & counted[:, None]

    def of_image(
        raw: Array, predicted: Array, logits: Array, objectness: Array, boxes: Array, labels: Array, box_valid: Array
    ) -> tuple[Array, ...]:
        # The assignment is not differentiated.
        fixed, scores, objects = (lax.stop_gradient(array) for array in (predicted, logits, objectness))
        matched = match(*prices(fixed, scores, objects, points, strides, boxes, labels, box_valid))
        positive, chosen = matched >= 0, jnp.maximum(matched, 0)
        truth = jnp.where(positive[:, None], boxes.astype(jnp.float32)[chosen], 0.0)
        overlap = iou(predicted, truth)
        # With the IoU as the target of its class, a score also tells how well the box fits, which NMS relies on.
        quality = lax.stop_gradient(overlap)[:, None]
        hot = jax.nn.one_hot(labels[chosen], logits.shape[-1], dtype=jnp.float32) * quality
        is_object = positive.astype(jnp.float32)
        raw_truth = _raw_targets(truth, points, strides)
        per_point = [
            jnp.where(positive, 5 * (1 - overlap**2) + _approach(raw, raw_truth, overlap), 0.0),
            optax.sigmoid_binary_cross_entropy(objectness, is_object),
            jnp.where(positive[:, None], optax.sigmoid_binary_cross_entropy(logits, hot), 0.0),
        ]
        if l1:
            per_point.append(jnp.where(positive[:, None], jnp.abs(raw - raw_truth), 0.0))
        return tuple(map(jnp.sum, [*per_point, is_object]))

    *sums, positives = jax.vmap(of_image)(
        predictions.raw,
        predictions.boxes,
        predictions.logits,
        predictions.objectness,
        targets["boxes"],
        targets["labels"],
        box_valid,
    )
    positives = jnp.where(counted, positives, 0.0)
    share = jnp.sum(counted, dtype=jnp.float32) / jnp.maximum(jnp.sum(positives), 1)
    names = ("reg_preds", "obj_preds", "cls_preds", *(["l1"] if l1 else []))
    return {name: term * share for name, term in zip(names, sums, strict=True)}


# Predicting --------------------------------------------------------------------------------------------------------


def decode(
    outputs: Outputs, size: Size, *, pre_nms_threshold: float = 0.01, nms_iou: float = 0.65, max_detections: int = 100
) -> dict[str, Array]:
    """Return the detections of each image, best first.

    Each position gives at most one, of its likeliest class. A score is class probability * objectness probability.

    Args:
        outputs: of `Head`.
        size: of the images, see `Size`. Boxes are clipped at their borders, after NMS.
        pre_nms_threshold: boxes with a score at or below it are dropped before NMS. The reference uses 0.01 to evaluate
            on COCO and 0.25 to draw.
        nms_iou: of two boxes of a class with a higher IoU, the lower-scoring is dropped.
        max_detections: detections per image. The reference returns all; COCO's evaluation uses 100.

    Returns:
        As `zoo.dense.nms.detections`: `boxes` (b, n, 4), `scores`, `labels` and `valid` (b, n), n = max_detections.
    """
    predicted = _predictions(outputs)
    labels = jnp.argmax(predicted.logits, axis=-1)
    scores = jax.nn.sigmoid(jnp.max(predicted.logits, axis=-1)) * jax.nn.sigmoid(predicted.objectness)
    valid = scores > pre_nms_threshold
    kept = detections(predicted.boxes, scores, labels, valid, threshold=nms_iou, count=max_detections)
    return kept | {"boxes": clip(kept["boxes"], size)}
