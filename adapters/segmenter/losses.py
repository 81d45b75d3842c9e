"""Losses of the segmenter: an extension point, filled with those of `zoo.dense.losses`."""

from __future__ import annotations

from zoo.dense import losses
from zoo.dense.losses import Loss
from zoo.registry.spec import Part
from zoo.registry.sums import SumPoint

LOSSES: SumPoint[Loss] = SumPoint("segmenter.loss", "segmentation loss")
"""Functions `loss(scene, shape)` that return the loss of each image, (b,). See `zoo.dense.losses.Scene`."""


def parts() -> list[Part]:
    """Return the registry rows of the built-in losses."""
    rows = (
        ("ce", losses.cross_entropy, "Cross-entropy with class weights."),
        ("focal", losses.focal, "Focal loss (arXiv:1708.02002) with class weights: easy pixels count less."),
        ("dice", losses.dice, "Soft Dice (arXiv:1606.04797): small classes count as much as large ones."),
        (
            "tversky",
            losses.tversky,
            "Tversky (arXiv:1706.05721): Dice with separate weights for false positives and negatives.",
        ),
        ("lovasz", losses.lovasz, "Lov\u00e1sz-softmax (arXiv:1705.08790): a surrogate of the IoU."),
    )
    return [Part(LOSSES.name, name, loss, summary) for name, loss, summary in rows]
