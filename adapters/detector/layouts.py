"""Key layouts of published detectors: module path in a composed model -> module path in the checkpoint.

`zoo.weights.mapping.locate` replaces the longest path that a tensor's name starts with. The rest of the name stays,
because the modules of necks and heads have the checkpoints' names.
"""

from __future__ import annotations

TORCHVISION = {"backbone": "backbone.body", "head.neck": "backbone.fpn", "head.head": "head"}
"""torchvision's detectors on a ResNet with a feature pyramid."""

YOLOX = {"backbone": "backbone.backbone", "head.neck": "backbone", "head.head": "head"}
"""Megvii-BaseDetection/YOLOX. In its files, every name may start with `model.`."""
