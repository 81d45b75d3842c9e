"""Train a segmenter on masks, and write the predicted masks.

    python examples/segment.py DATA IMAGE...

DATA holds a folder of images and a folder of masks, or Pascal VOC, COCO or YOLO polygons.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import zoo
from zoo.data import read


def main(data: str, images: list[str], backbone: str = "mobilenetv2_100", **options: Any) -> list[Path]:
    """Train a U-Net decoder on a frozen backbone, then save the mask of each image beside it."""
    classes = next(iter(read(data).values())).classes
    create = {key: options.pop(key) for key in ("image_size", "width") if key in options}
    model = zoo.create(backbone, "segmenter", labels=classes, decoder="unet", **{"image_size": 256, **create})
    run = zoo.train(model, data, **{"plan": "head", **options})
    print(f"mean IoU on the validation split: {run.metrics['miou']:.3f}")
    masks = []
    for image, segmentation in zip(images, run.model.predict(images), strict=True):
        for segment in segmentation.segments:
            print(f"{image}: {segment.label} covers {segment.share:.0%}")
        mask = Path(image).with_suffix(".mask.png")
        run.model.adapter.rasters["masks"](segmentation).save(mask)  # an indexed PNG with the class numbers
        masks.append(mask)
    return masks


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
