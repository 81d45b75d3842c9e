"""Write `labels.json` (file name -> class index) and `class_names.json`, beside a folder of images."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of
from zoo.data.written import Folder
from zoo.errors import DataError

NAME = "labels"
KINDS = ("class",)
LAYOUT = "labels.json, class_names.json and images/; without splits"


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write the class index of each image, and the names of all classes."""
    if [*splits] != ["all"]:
        raise DataError(f"the format {NAME} has no splits, and the data has {', '.join(splits)}. Write csv or folder.")
    names = folder.names(splits)
    labels = {}
    for split, dataset in splits.items():
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"images/{name}")
            labels[f"images/{name}"] = sample.target
    folder.json("labels.json", labels)
    folder.json("class_names.json", list(classes_of(splits)))
