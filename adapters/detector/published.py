"""Published detectors as named models: configuration, preprocessing, classes and key layouts.

torchvision 0.28 (BSD-3-Clause): `fcos_resnet50_fpn` and `fasterrcnn_resnet50_fpn`. The shorter side of an image is 800
pixels, the longer one at most 1333. YOLOX (arXiv:2107.08430, table 2; Apache-2.0): BGR images with values from 0 to
255, letterboxes filled with 114.

All were trained on COCO's 80 classes. torchvision's have an output for each of COCO's category numbers up to 90, some
of which are unused. Its FCOS also has one for the background, which it never predicts.
"""

from __future__ import annotations

from zoo.adapters.detector import layouts, rcnn
from zoo.registry.spec import ModelSpec, Preprocess

# The letterbox sizes are the next multiples of 32 that hold 800 x 1333.
_TORCHVISION = Preprocess(size=(800, 1344), crop_pct=1.0, crop_mode="letterbox", frames=((1344, 800), (800, 800)))

# Name: backbone, width, depth, separable convolutions, side of the images.
_YOLOX = {
    "yolox_nano": ("cspdarknet_nano", 64, 1, True, 416),
    "yolox_tiny": ("cspdarknet_tiny", 96, 1, False, 416),
    "yolox_s": ("cspdarknet_s", 128, 1, False, 640),
    "yolox_m": ("cspdarknet_m", 192, 2, False, 640),
    "yolox_l": ("cspdarknet_l", 256, 3, False, 640),
    "yolox_x": ("cspdarknet_x", 320, 4, False, 640),
}


def _yolox(name: str) -> ModelSpec:
    backbone, width, depth, separable, side = _YOLOX[name]
    config = {"head": "yolox", "width": width, "depth": depth, "separable": separable}
    pixels = Preprocess(
        (side, side),
        (0.0,) * 3,
        (1 / 255,) * 3,
        crop_pct=1.0,
        crop_mode="letterbox",
        channels="BGR",
        fill=114,
    )
    return ModelSpec(
        name,
        backbone,
        "detector",
        config,
        "YOLOX on COCO's 80 classes.",
        pixels,
        "coco-80",
        {"original": lambda: layouts.YOLOX},
        "apache-2.0",
    )


MODELS = (
    ModelSpec(
        "fcos_resnet50_fpn",
        "resnet50",
        "detector",
        {"head": "fcos", "width": 256, "convs": 4, "steps": "floor", "pre_nms_threshold": 0.2},
        "FCOS with a feature pyramid on COCO.",
        _TORCHVISION,
        "coco-91",
        {"torchvision": lambda: layouts.TORCHVISION},
        "bsd-3-clause",
    ),
    ModelSpec(
        "fasterrcnn_resnet50_fpn",
        "resnet50",
        "detector",
        {"head": "rcnn", "width": 256, "steps": "floor"},
        "Faster R-CNN with a feature pyramid on COCO.",
        _TORCHVISION,
        "coco-90",
        {"torchvision": lambda: rcnn.TORCHVISION, "torchvision's file": lambda: rcnn.PUBLISHED},
        "bsd-3-clause",
    ),
    *map(_yolox, _YOLOX),
)
