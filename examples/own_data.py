"""Train on data that no reader knows: build the dataset in Python.

    python examples/own_data.py FOLDER

FOLDER holds images whose class is the beginning of the file name, such as `cat_001.jpg` and `dog_017.jpg`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import zoo
from zoo.data import Dataset, Sample, list_images, split


def dataset(folder: Path) -> Dataset:
    """Read the samples; an `id` is unique and the same on every machine."""
    files = list_images(folder)
    classes = tuple(sorted({file.stem.split("_")[0] for file in files}))
    samples = tuple(
        Sample(file, classes.index(file.stem.split("_")[0]), file.relative_to(folder).as_posix()) for file in files
    )
    return Dataset(samples, classes, "class", folder.name, folder)


def main(folder: str, backbone: str = "resnet18.a1_in1k", **options: Any) -> zoo.training.Run:
    """Train on four fifths of the images, stratified by class, and validate on the rest."""
    data = dataset(Path(folder))
    train, val = split(data, 0.2, seed=0)
    model = zoo.create(backbone, "classifier", labels=data.classes)
    run = zoo.train(model, {"train": train, "val": val}, **{"plan": "head", "epochs": 10, **options})
    print(f"validation accuracy {run.metrics['accuracy']:.1%}")
    return run


if __name__ == "__main__":
    main(sys.argv[1])
