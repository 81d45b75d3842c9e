"""Preprocessing for dense tasks: the whole image, letterboxed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zoo.registry.spec import BackboneSpec, Preprocess, Stage

STRIDE = 32
"""Image sides are multiples of this many pixels where maps are read, so that each pyramid level halves the last."""


def whole_image(spec: BackboneSpec, preprocess: Preprocess, stage: Stage, wanted: int) -> Preprocess:
    """Return the preprocessing that shows the whole image: a square letterbox, or one of two of 4:3 and 3:4.

    Classification weights come with sizes at which small objects are lost. So the side is `wanted`, or the nearest one
    that the backbone accepts, unless the user chose a size. Preprocessing that already letterboxes is returned as is.

    Args:
        spec: the backbone.
        preprocess: its preprocessing, possibly with a size that the user chose.
        stage: the finest stage that the task reads. Tokens get the square letterbox only, as their number is fixed.
        wanted: side in pixels that the task prefers.
    """
    if preprocess.crop_mode == "letterbox":
        return preprocess
    multiple = int(np.lcm(spec.size_multiple, STRIDE if stage.kind == "map" else spec.size_multiple))

    def side(pixels: float) -> int:
        return max(round(pixels / multiple), -(-spec.min_size // multiple), 1) * multiple

    size = preprocess.size
    if size == spec.preprocess.size:
        size = (side(wanted), side(wanted))
    frames: tuple[tuple[int, int], ...] = ()
    if stage.kind == "map" and size[0] == size[1]:
        short = side(size[0] * 0.75)
        frames = ((short, size[0]), (size[0], short)) if short < size[0] else ()
    return replace(preprocess, size=size, crop_pct=1.0, crop_mode="letterbox", frames=frames)
