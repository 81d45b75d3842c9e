"""Write class folders: a sub-folder of images for each class."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.files import hidden
from zoo.data.writers import classes_of, place_of, refuse_names
from zoo.data.written import Folder

NAME = "folder"
KINDS = ("class",)
LAYOUT = "SPLIT/CLASS/ with the images of each class"
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff/\\" + (':*?"<>|' if os.name == "nt" else "") + "]")


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write a folder for each class, whose name is that of the class."""
    classes = classes_of(splits)
    unfit = [name for name in classes if _UNFIT.search(name) or name != name.strip() or not name]
    refuse_names(unfit + [name for name in classes if name and hidden(name)], NAME, "no folder can be called so", "csv")
    names = folder.names(splits)
    for split, dataset in splits.items():
        place = place_of(split)
        for sample, name in zip(dataset, names[split], strict=True):
            label = classes[sample.target]
            folder.image(sample, f"{place}{label}/{name.removeprefix(f'{label}/')}")
