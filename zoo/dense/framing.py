"""How tasks on maps want images prepared: whole, in one of a few frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zoo.registry.spec import BackboneSpec, Preprocess, Stage

STRIDE = 32
"""Sides are multiples of this many pixels where maps are read, so that the levels of a pyramid are halves."""


def whole_image(spec: BackboneSpec, preprocess: Preprocess, stage: Stage, wanted: int) -> Preprocess:
    """The whole image, in a square or in one of two frames of 4:3. Classifiers' weights are made for sizes at which
    small things are lost, so the side is the `wanted` one, or the next that the backbone takes, unless a user names
    another. What is a letterbox already stays as it is.

    Args:
        stage: the finest that is read. Tokens have one frame, as their number is fixed.
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
