"""A detector head: FCOS with a larger centre-sampling radius, for small objects."""

from zoo.adapters.detector import fcos
from zoo.adapters.detector.heads import RECIPE, Method

RADIUS = 2.5
"""Centre-sampling radius in strides; 1.5 in the paper."""


class Head(fcos.Head):
    def losses(self, maps, targets, size=None):
        return fcos.losses(self(maps), targets, radius=RADIUS)


WIDE = Method(
    (8, 16, 32),
    Head,
    fcos.decode,
    pre_nms_threshold=0.05,
    nms_iou=0.6,
    extra=2,
    head_options=("convs", "steps"),
    recipe={**RECIPE, "steps": 300},
)
