"""Building blocks of dense tasks (detection, segmentation): boxes, NMS, RoIAlign, necks, losses and metrics."""
