"""Bounding boxes, re-exported from `zoo.targets.boxes`."""

from zoo.targets.boxes import UNKNOWN, Box, Boxes, InstanceMasks, box_limit, padded_targets

__all__ = ["UNKNOWN", "Box", "Boxes", "InstanceMasks", "box_limit", "padded_targets"]
