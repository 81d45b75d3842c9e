"""The region proposal network: where there may be objects, of whatever class (arXiv:1506.01497, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from zoo.adapters.detector.fcos import Outputs, Size
from zoo.adapters.detector.rcnn_matching import BACKGROUND, averaged, match, sample, smooth_l1
from zoo.dense import anchors as coder
from zoo.dense.boxes import clip
from zoo.dense.nms import survivors
from zoo.layers import Chain, Conv, Normal

SMALLEST = 1e-3
"""Pixels: proposals with a shorter side are dropped."""


class RPNHead(nnx.Module):
    """Maps (b, h, w, c) of the levels -> for each of their anchors a logit of how likely it shows an object
    (b, anchors), and how its box must change (b, anchors, 4)."""

    def __init__(self, channels: int, ratios: int, *, rngs: nnx.Rngs):
        init = Normal(0.01)
        self.conv = Chain([Chain([Conv(channels, channels, 3, 1, 1, kernel_init=init, rngs=rngs), jax.nn.relu])])
        self.cls_logits = Conv(channels, ratios, 1, kernel_init=init, rngs=rngs)
        self.bbox_pred = Conv(channels, 4 * ratios, 1, kernel_init=init, rngs=rngs)

    def __call__(self, maps: Sequence[Array]) -> tuple[Array, Array]:
        logits, codes = [], []
        for x in maps:
            y = self.conv(x)
            logits.append(self.cls_logits(y).reshape(len(x), -1))
            codes.append(self.bbox_pred(y).reshape(len(x), -1, 4))
        return jnp.concatenate(logits, axis=1), jnp.concatenate(codes, axis=1)


class RPN(nnx.Module):
    """Proposals of the maps of a pyramid.

    Args:
        channels: of the levels. ratios: of the anchors' height to their width.
        samples: anchors of an image that are learned from, at most half of them on objects.
        overlap: IoU above which the less likely of two proposals of one level is dropped.
    """

    def __init__(self, channels: int, ratios: Sequence[float], *, samples: int, overlap: float, rngs: nnx.Rngs):
        self.head = RPNHead(channels, len(ratios), rngs=rngs)
        self.samples, self.overlap = samples, overlap

    def __call__(self, maps: Sequence[Array]) -> dict[str, Any]:
        """`objectness` (b, anchors) and `rpn_regression` (b, anchors, 4)."""
        logits, codes = self.head(maps)
        return {"objectness": logits, "rpn_regression": codes}

    def proposals(self, outputs: Outputs, size: Size, *, candidates: int, count: int) -> tuple[Array, Array]:
        """Boxes (b, n, 4), the likeliest first, and whether there is one there (b, n); n is `count`, or what all levels
        can give where that is less. They have no gradient: they are what the next stage is given.

        Args:
            outputs: with `anchors`, for each level (h * w * ratios, 4).
            candidates: boxes of each level that compete, the likeliest.
        """
        logits = lax.stop_gradient(outputs["objectness"].astype(jnp.float32))
        codes = lax.stop_gradient(outputs["rpn_regression"])
        found, start = [], 0
        for level in outputs["anchors"]:
            part = slice(start, start + len(level))
            start += len(level)
            best, index = lax.top_k(logits[:, part], min(candidates, len(level)))
            shape = (*index.shape, 4)
            chosen = jnp.take_along_axis(codes[:, part], index[..., None], axis=1)
            boxes = clip(coder.decode(chosen, level.astype(jnp.float32)[index].reshape(shape)), size)
            large = jnp.all(boxes[..., 2:] - boxes[..., :2] >= SMALLEST, axis=-1)
            keep = lax.map(lambda one: survivors(*one, threshold=self.overlap), (boxes, large))
            found.append((boxes, jnp.where(keep, best, -jnp.inf)))
        boxes, scores = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        # By probability, as in the reference: likelihoods that round to the same one keep the order of the levels.
        best, index = lax.top_k(jnp.where(scores > -jnp.inf, jax.nn.sigmoid(scores), -1.0), min(count, scores.shape[1]))
        valid = best >= 0
        boxes = jnp.where(valid[..., None], jnp.take_along_axis(boxes, index[..., None], axis=1), 0.0)
        return boxes, valid

    def losses(self, outputs: Outputs, truth: Array, shown: Array, counted: Array, keys: Array) -> dict[str, Array]:
        """Of each image (b,): `loss_objectness` (cross-entropy) and `loss_rpn_box_reg` (smooth L1), each the mean over
        the samples of the batch, see `averaged`.

        Args:
            truth, shown: (b, m, 4), (b, m). counted: (b,). keys: (b,), of the draw.
        """
        anchors = jnp.concatenate([level.astype(jnp.float32) for level in outputs["anchors"]])

        def of_image(logits: Array, codes: Array, truth: Array, shown: Array, key: Array) -> tuple[Array, Array, Array]:
            matched = match(anchors, truth, shown, high=0.7, low=0.3, best=True)
            draw = sample(key, matched >= 0, matched == BACKGROUND, count=self.samples, fraction=0.5)
            index, positive = draw.chosen, draw.valid & (matched[draw.chosen] >= 0)
            wanted = coder.encode(truth[jnp.maximum(matched[index], 0)], anchors[index])
            entropy = optax.sigmoid_binary_cross_entropy(
                logits[index].astype(jnp.float32), positive.astype(jnp.float32)
            )
            distance = jnp.sum(smooth_l1(codes[index].astype(jnp.float32), wanted), axis=-1)
            return (
                jnp.sum(jnp.where(draw.valid, entropy, 0.0)),
                jnp.sum(jnp.where(positive, distance, 0.0)),
                jnp.sum(draw.valid),
            )

        entropy, distance, sampled = jax.vmap(of_image)(
            outputs["objectness"], outputs["rpn_regression"], truth, shown, keys
        )
        mean = partial(averaged, sampled=sampled, counted=counted)
        return {"loss_objectness": mean(entropy), "loss_rpn_box_reg": mean(distance)}
