"""Key layouts of published detectors: module path in a composed model -> module path in the checkpoint.

`zoo.weights.mapping.locate` reads them: the longest path that a tensor's name starts with counts, the rest of the name
stays, because necks and heads are called what they are called there.
"""

from __future__ import annotations

TORCHVISION = {"backbone": "backbone.body", "head.neck": "backbone.fpn", "head.head": "head"}
"""torchvision's detectors on a residual net with a feature pyramid."""

YOLOX = {"backbone": "backbone.backbone", "head.neck": "backbone", "head.head": "head"}
"""Megvii-BaseDetection/YOLOX; its files may put `model.` before every name."""
