"""Write semantic masks: a PNG file of class numbers for each image, and `classes.txt`."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.class_table import classes_of as named
from zoo.data.class_table import read_table
from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of, place_of, refuse_names, without_suffix
from zoo.data.written import Folder
from zoo.errors import DataError
from zoo.targets.masks import read_mask

NAME = "masks"
KINDS = ("masks",)
LAYOUT = "images/SPLIT/, masks/SPLIT/ with a .png of class numbers for each image (255: ignored), and classes.txt"


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write the class number of every pixel as a grey value."""
    write_table(folder, "classes.txt", classes_of(splits), NAME)
    names = folder.names(splits, stems=True)
    for split, dataset in splits.items():
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"images/{place_of(split)}{name}")
            folder.mask(f"masks/{place_of(split)}{without_suffix(name)}.png", read_mask(sample.target))


def write_table(folder: Folder, name: str, classes: tuple[str, ...], format: str) -> None:
    """Write the class names, one per line. Raise `DataError` for names that would be read as something else."""
    unfit = [one for one in classes if not _comes_back(folder, name, one)]
    refuse_names(unfit, format, "a line of the list of classes would mean something else", "another format")
    folder.lines(name, classes)


def _comes_back(folder: Folder, name: str, label: str) -> bool:
    """Whether a class name is read from a line as it is, beside another class."""
    folder.lines(name, [label, f"{label}x"])
    try:
        return named(read_table(folder.root / name)) == (label, f"{label}x")
    except DataError:
        return False
