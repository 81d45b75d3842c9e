"""Train a detector on boxes, and draw what it detects.

    python examples/detect.py DATA IMAGE...

DATA is Pascal VOC, COCO JSON, YOLO text, or images beside instance masks; zoo recognises which.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import zoo
from zoo.data import decode, read


def main(data: str, images: list[str], backbone: str = "mobilenetv2_100", **options: Any) -> list[Path]:
    """Train the FCOS head on a frozen backbone, then save each image with its boxes beside it."""
    classes = next(iter(read(data).values())).classes
    model = zoo.create(backbone, "detector", labels=classes, head="fcos")
    run = zoo.train(model, data, **{"plan": "head", **options})
    print(f"AP50 on the validation split: {run.metrics['AP50']:.3f}")
    drawings = []
    for image, detection in zip(images, run.model.predict(images), strict=True):
        for box in detection.boxes:
            print(f"{image}: {box.label} {box.score:.2f} at {np.round(box.box)}")
        drawing = Path(image).with_suffix(".boxes.png")
        Image.fromarray(run.model.adapter.picture(decode(Path(image)), detection)).save(drawing)
        drawings.append(drawing)
    return drawings


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
