"""nnU-Net: imagesTr/ and labelsTr/ with 2D images, and the classes in dataset.json. Isensee et al., 2021."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.data.class_table import Row, find_table, read_table, rows_of
from zoo.data.dataset import Dataset
from zoo.data.files import describe, has_images, images_below, load_json
from zoo.data.pairs import images_by_stem, stem, title
from zoo.data.readers.masks import coded, sample
from zoo.errors import DataError, counted
from zoo.targets.masks import MaskFile

NAME = "nnunet"
KINDS = ("masks",)
NEEDS = "imagesTr/, labelsTr/ and dataset.json"
LAYOUT = (
    "nnU-Net: imagesTr/ with CASE_0000.png and labelsTr/ with CASE.png, perhaps imagesTs/ and labelsTs/, and the class "
    "names in dataset.json ('labels') or classes.txt"
)
_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
_CHANNEL = "_0000"


def detect(path: Path) -> bool:
    """Whether there are imagesTr/ and labelsTr/."""
    return path.is_dir() and all((path / name).is_dir() for name in _FOLDERS["train"])


def read(path: Path) -> dict[str, Dataset]:
    """Read an nnU-Net dataset: key `all`, or `train` and `test` if labelsTs/ exists.

    The class `ignore` marks ignored pixels.

    Raises:
        DataError: the images are volumes or have several files for their channels; an image has no mask, or a mask no
            image; or the classes are not given as names and numbers. Names the file.
    """
    if not detect(path):
        there = [name for pair in _FOLDERS.values() for name in pair if (path / name).is_dir()]
        if there:
            lacking = " and ".join(f"{name}/" for name in _FOLDERS["train"] if name not in there)
            raise DataError(f"{path} has {there[0]}/ as nnU-Net's datasets, but not {lacking}.")
        raise DataError(f"{path} is not {LAYOUT}.")
    folders = {s: (path / a, path / b) for s, (a, b) in _FOLDERS.items() if (path / a).is_dir() and (path / b).is_dir()}
    for folder in folders["train"]:
        if not has_images(folder):
            raise DataError(
                f"{folder} holds {describe(folder)}, but zoo reads 2D images only (PNG, TIFF, BMP, ...). Export the "
                "slices of volumes as images."
            )
    both = {split: _pairs(*pair) for split, pair in folders.items() if has_images(pair[0]) and has_images(pair[1])}
    classes, values, colours = coded(_rows(path), [mask for pairs in both.values() for _, mask in pairs], path)
    named = both if len(both) > 1 else {"all": both["train"]}
    return {
        split: Dataset(
            tuple(sample(image, MaskFile(mask, values, colours), path) for image, mask in pairs),
            classes,
            "masks",
            title(path, split),
            path,
        )
        for split, pairs in named.items()
    }


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Return each image with its mask. Raise `DataError` if one of them is missing."""
    image_of = {name: files[0] for name, files in images_by_stem(images).items()}
    if more := sorted(
        name for name in image_of if not name.endswith(_CHANNEL) and f"{name[:-5]}{_CHANNEL}" in image_of
    ):
        raise DataError(
            f"{images} holds several files for the channels of an image, e.g. {image_of[more[0]].name}, but zoo reads "
            "images from one file. Merge the channels into RGB images."
        )
    image_of = {name.removesuffix(_CHANNEL): image for name, image in image_of.items()}
    mask_of = {stem(mask, masks): mask for mask in images_below(masks)}
    for one, other, word, place in ((image_of, mask_of, "mask", masks), (mask_of, image_of, "image", images)):
        if missing := sorted(one.keys() - other.keys()):
            raise DataError(
                f"{counted(len(missing), 'file has', 'files have')} no {word} in {place}, e.g. {one[missing[0]]}. Add "
                f"the {word}s, or move such files away."
            )
    return [(image_of[name], mask_of[name]) for name in sorted(image_of)]


def _rows(path: Path) -> list[Row]:
    """Return the classes of dataset.json or another list; none if there is no list."""
    file = path / "dataset.json"
    if file.is_file():
        content: Any = load_json(file)
        labels = content.get("labels") if isinstance(content, dict) else None
        if isinstance(labels, dict) and any(isinstance(value, list) for value in labels.values()):
            regions = [name for name, value in labels.items() if isinstance(value, list)]
            raise DataError(
                f"{file}: the class {regions[0]!r} is a region of several values, but zoo reads one class for each "
                "pixel. Give each value a name of its own."
            )
        if labels:
            return rows_of(labels, file)
    table = find_table(path)
    return read_table(table) if table else []
