"""`images`: images of which nothing is known. The target is None."""

from __future__ import annotations

from zoo.targets.base import TargetKind


class Images(TargetKind):
    """Images alone."""

    name = "images"
    format = "images"


KIND = Images()
