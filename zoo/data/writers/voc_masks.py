"""Write Pascal VOC masks: SegmentationClass/ beside JPEGImages/. Everingham et al., 2010."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of, without_suffix
from zoo.data.writers.masks import write_table
from zoo.data.written import Folder
from zoo.targets.masks import read_mask

NAME = "voc_masks"
KINDS = ("masks",)
LAYOUT = "JPEGImages/, SegmentationClass/ with a .png for each image, class_names.txt, ImageSets/Segmentation/SPLIT.txt"


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write the class number of every pixel as a grey value."""
    write_table(folder, "class_names.txt", classes_of(splits), NAME)
    names = folder.names(splits, together=True, stems=True)
    for split, dataset in splits.items():
        stems = [without_suffix(name) for name in names[split]]
        for sample, name, stem in zip(dataset, names[split], stems, strict=True):
            folder.image(sample, f"JPEGImages/{name}")
            folder.mask(f"SegmentationClass/{stem}.png", read_mask(sample.target))
        if split != "all":
            folder.lines(f"ImageSets/Segmentation/{split}.txt", stems)
