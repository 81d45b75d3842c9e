"""Fine-tune a pretrained backbone on folders of images, evaluate it, and predict.

    python examples/classify.py DATA IMAGE...

DATA holds one folder per class, or `train`, `val` and `test` with such folders in them.
"""

from __future__ import annotations

import sys
from typing import Any

import zoo
from zoo.data import read


def main(data: str, images: list[str], backbone: str = "resnet18.a1_in1k", **options: Any) -> zoo.training.Run:
    """Train on `data`, then print the predicted class of each image."""
    classes = next(iter(read(data).values())).classes
    model = zoo.create(backbone, "classifier", labels=classes)
    # The plan `head+all` trains the head on cached features first, then everything at a lower rate.
    run = zoo.train(model, data, **{"plan": "head+all", "epochs": 10, **options})
    print(f"validation accuracy {run.metrics['accuracy']:.1%}; the run directory is {run.folder}")
    for image in images:
        prediction = run.model.predict(image)
        print(f"{image}: {prediction.label} ({prediction.score:.0%})")
    return run


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
