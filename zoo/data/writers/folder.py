"""Write class folders: a sub-folder of images for each class."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.files import hidden
from zoo.data.writers import alike, classes_of, refuse_names
from zoo.data.written import Folder

NAME = "folder"
KINDS = ("class",)
LAYOUT = "SPLIT/CLASS/ with the images of each class"
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff/\\:*?\"<>|]")


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write a folder for each class, whose name is that of the class."""
    classes = classes_of(splits)
    unfit = [name for name in classes if _UNFIT.search(name) or name != name.strip().rstrip(".") or not name]
    refuse_names(unfit + [name for name in classes if name and hidden(name)], NAME, "no folder can be called so", "csv")
    twins = [name for group in alike(classes) for name in group]
    refuse_names(twins, NAME, "they are equal but for case, which some systems do not tell apart", "another format")
    names = folder.names(splits)
    for split, dataset in splits.items():
        place = "" if split == "all" else f"{split}/"
        for sample, name in zip(dataset, names[split], strict=True):
            label = classes[sample.target]
            folder.image(sample, f"{place}{label}/{name.removeprefix(f'{label}/')}")
