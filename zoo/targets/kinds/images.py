"""`images`: images without annotations. The target is None."""

from __future__ import annotations

from zoo.targets.base import TargetKind


class Images(TargetKind):
    """Images without annotations."""

    name = "images"
    format = "images"


KIND = Images()
