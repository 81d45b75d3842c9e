"""The region proposal network: class-agnostic proposals of regions with an object (arXiv:1506.01497, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Key, Num

SMALLEST = 1e-3
"""Shortest side of a proposal in pixels; smaller ones are dropped."""


class RPNHead(nnx.Module):
    """The head of the region proposal network, shared by all levels: objectness logits and box codes of the anchors.

    Args:
        channels: of the levels.
        ratios: number of anchors at each position.
    """

    def __init__(self, channels: int, ratios: int, *, rngs: nnx.Rngs):
        init = Normal(0.01)
        self.conv = Chain([Chain([Conv(channels, channels, 3, 1, 1, kernel_init=init, rngs=rngs), jax.nn.relu])])
        self.cls_logits = Conv(channels, ratios, 1, kernel_init=init, rngs=rngs)
        self.bbox_pred = Conv(channels, 4 * ratios, 1, kernel_init=init, rngs=rngs)

    def __call__(
        self, maps: Sequence[Float[Array, "b _h _w channels"]]
    ) -> tuple[Float[Array, "b anchors"], Float[Array, "b anchors 4"]]:
        logits, codes = [], []
        for x in maps:
            y = self.conv(x)
            logits.append(self.cls_logits(y).reshape(len(x), -1))
            codes.append(self.bbox_pred(y).reshape(len(x), -1, 4))
        return jnp.concatenate(logits, axis=1), jnp.concatenate(codes, axis=1)


class RPN(nnx.Module):
    """Region proposal network: proposals from the maps of a pyramid.

    Args:
        channels: of the levels.
        ratios: height divided by width of the anchors.
        samples: anchors of an image that enter the loss; at most half of them are positive.
        overlap: NMS IoU threshold between proposals of one level.
    """

    def __init__(self, channels: int, ratios: Sequence[float], *, samples: int, overlap: float, rngs: nnx.Rngs):
        self.head = RPNHead(channels, len(ratios), rngs=rngs)
        self.samples, self.overlap = samples, overlap

    def __call__(self, maps: Sequence[Float[Array, "b _h _w channels"]]) -> dict[str, Any]:
        """Return `objectness` (b, anchors), logits, and `rpn_regression` (b, anchors, 4), box codes."""
        logits, codes = self.head(maps)
        return {"objectness": logits, "rpn_regression": codes}

    def proposals(
        self, outputs: Outputs, size: Size, *, candidates: int, count: int
    ) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
        """Return the proposals of each image, most likely first, and which of them are valid.

        There are `count`, or as many as all levels can give if that is fewer. They have no gradient: the second stage
        takes them as given.

        Args:
            outputs: of this network, with `anchors`, a list with (h * w * ratios, 4) for each level.
            size: of the images, see `Size`. Proposals are clipped at their borders.
            candidates: most likely anchors of each level that enter NMS.
            count: number of proposals.
        """
        logits = lax.stop_gradient(outputs["objectness"].astype(jnp.float32))
        codes = lax.stop_gradient(outputs["rpn_regression"])
        levels, start = [], 0
        # NMS runs in each level alone, so that small objects do not compete with large ones. Shapes are static: a
        # suppressed box stays in the array with a score of -inf.
        for anchors in outputs["anchors"]:
            here = slice(start, start + len(anchors))
            start += len(anchors)
            best, index = lax.top_k(logits[:, here], min(candidates, len(anchors)))
            shape = (*index.shape, 4)
            chosen = jnp.take_along_axis(codes[:, here], index[..., None], axis=1)
            boxes = clip(coder.decode(chosen, anchors.astype(jnp.float32)[index].reshape(shape)), size)
            large = jnp.all(boxes[..., 2:] - boxes[..., :2] >= SMALLEST, axis=-1)
            # One image at a time: under `vmap` the matrices of pairs of all images would exist at once, and every image
            # would iterate as often as the slowest.
            keep = lax.map(lambda image: survivors(*image, threshold=self.overlap), (boxes, large))
            levels.append((boxes, jnp.where(keep, best, -jnp.inf)))
        boxes, scores = (jnp.concatenate(arrays, axis=1) for arrays in zip(*levels, strict=True))
        # Ranked by probability, not logit, as in torchvision: logits that round to the same probability keep the order
        # of the levels.
        best, index = lax.top_k(jnp.where(scores > -jnp.inf, jax.nn.sigmoid(scores), -1.0), min(count, scores.shape[1]))
        valid = best >= 0
        boxes = jnp.where(valid[..., None], jnp.take_along_axis(boxes, index[..., None], axis=1), 0.0)
        return boxes, valid

    def losses(
        self,
        outputs: Outputs,
        truth: Num[Array, "b m 4"],
        truth_valid: Bool[Array, "b m"],
        counted: Bool[Array, " b"],
        keys: Key[Array, " b"],
    ) -> dict[str, Float[Array, " b"]]:
        """Return the two terms of the loss of each image.

        They are `loss_objectness` (cross-entropy) and `loss_rpn_box_reg` (smooth L1). Their mean over images is the
        mean over the samples of the batch, see `averaged`.

        Args:
            outputs: of this network, with `anchors`.
            truth: true boxes.
            truth_valid: False for padding.
            counted: False for images that only fill up the batch.
            keys: random keys of the sampling.
        """
        anchors = jnp.concatenate([level.astype(jnp.float32) for level in outputs["anchors"]])

        def of_image(
            logits: Array, codes: Array, truth: Array, truth_valid: Array, key: Array
        ) -> tuple[Array, Array, Array]:
            matched = match(anchors, truth, truth_valid, high=0.7, low=0.3, best=True)
            draw = sample(key, matched >= 0, matched == BACKGROUND, count=self.samples, fraction=0.5)
            index, positive = draw.chosen, draw.valid & (matched[draw.chosen] >= 0)
            targets = coder.encode(truth[jnp.maximum(matched[index], 0)], anchors[index])
            entropy = optax.sigmoid_binary_cross_entropy(
                logits[index].astype(jnp.float32), positive.astype(jnp.float32)
            )
            distance = jnp.sum(smooth_l1(codes[index].astype(jnp.float32), targets), axis=-1)
            return (
                jnp.sum(jnp.where(draw.valid, entropy, 0.0)),
                jnp.sum(jnp.where(positive, distance, 0.0)),
                jnp.sum(draw.valid),
            )

        entropy, distance, sampled = jax.vmap(of_image)(
            outputs["objectness"], outputs["rpn_regression"], truth, truth_valid, keys
        )
        mean = partial(averaged, sampled=sampled, counted=counted)
        return {"loss_objectness": mean(entropy), "loss_rpn_box_reg": mean(distance)}
