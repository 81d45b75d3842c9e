"""Fine-tune a pretrained net on folders of photos, and use it.

    python examples/photos.py DATA PHOTO...

DATA holds a folder for each class, or `train` and `val` with such folders in them.
"""

from __future__ import annotations

import sys

import zoo
from zoo.data import read


def main(data: str, photos: list[str]) -> None:
    """Train on `data`, then say what is in each photo."""
    classes = next(iter(read(data).values())).classes
    model = zoo.create("resnet18.a1_in1k", "classifier", labels=classes)
    run = zoo.train(model, data, epochs=10)
    print(f"validation accuracy {run.metrics['accuracy']:.1%}; everything about the run is in {run.folder}")
    for photo in photos:
        found = run.model.predict(photo)
        print(f"{photo}: {found.label} ({found.score:.0%})")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
