"""Boxes by the name that scripts know: they are defined in `zoo.targets.boxes`."""

from zoo.targets.boxes import UNKNOWN, Box, Boxes, InstanceMasks, box_limit, padded_targets

__all__ = ["UNKNOWN", "Box", "Boxes", "InstanceMasks", "box_limit", "padded_targets"]
