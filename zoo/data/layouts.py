"""Folders that look like boxes or masks, and whose names are therefore no classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from PIL import Image

from zoo.data.files import is_image, subfolders, walk_text
from zoo.data.pairs import SEGMENTED, annotated, bare, split_folders
from zoo.errors import DataError
from zoo.image_header import image_size

_FILES = {
    "dataset.json": "nnU-Net's and other tools' description of masks or labels",
    "obj.names": "Darknet's names for boxes",
    "obj.data": "Darknet's description of boxes",
    "annotations.xml": "CVAT's boxes and outlines",
    "_annotations.csv": "Roboflow's table of boxes",
    "_annotations.coco.json": "Roboflow's COCO file of boxes",
    "_annotations.txt": "Roboflow's list of boxes",
    "_darknet.labels": "Roboflow's names for boxes",
    "via_region_data.json": "the VIA annotator's regions",
}
"""Files that tools write beside images with boxes or masks."""

_FOLDERS = {
    "leftimg8bit": "Cityscapes",
    "gtfine": "Cityscapes",
    "gtcoarse": "Cityscapes",
    "imagestr": "nnU-Net",
    "labelstr": "nnU-Net",
    "imagests": "nnU-Net",
    "jpegimages": "Pascal VOC",
    "segmentationclass": "Pascal VOC",
    "segmentationobject": "Pascal VOC",
    "imagesets": "Pascal VOC",
    "obj_train_data": "Darknet",
    "img_dir": "MMSegmentation",
    "ann_dir": "MMSegmentation",
}
"""Names of folders, in lower case, that go with boxes or masks, and where they are usual."""

_MASKS = re.compile(
    r"(.*[^a-z])?(seg|segm|segmented|semantic|instances?|panoptic|trimaps?|mattes?|depths?|disparity)", re.IGNORECASE
)
_BESIDE = (".txt", ".xml", ".json")
_COMMON = 0.8
"""Share of the stems of one folder that another has, from which on they are taken for pairs."""
_LOOKED_AT = 4
_FEW, _MANY = 40, 100
"""Colours that a mask has at most, and a photo at least."""
_MOST_FOLDERS = 20
"""Of more folders, they are not compared with one another: masks are never kept in so many."""


def looks_like(path: Path) -> str:
    """Return what speaks for boxes or masks in a folder of folders, as a sentence; nothing where nothing does.

    Looked for: files and folders of the usual tools, folders of annotations beside folders of images, texts beside the
    images, and folders of which one has a mask for each image of another.
    """
    if annotated(path):
        return "folders of annotations stand beside folders of images"
    for level in (path, *split_folders(path).values()):
        folders = subfolders(level)
        for place in (level, *folders):
            if marks := [name for name in os.listdir(place) if name.lower() in _FILES]:
                return f"{(place / marks[0]).relative_to(path)} is there, {_FILES[marks[0].lower()]}"
        for folder in folders:
            if (tool := _FOLDERS.get(folder.name.lower())) and next(walk_text(folder), None):
                return f"a folder is called {folder.name}, as in {tool}'s layout"
        stems: dict[Path, dict[str, str]] = {}
        for folder in folders:
            stems[folder], beside = _stems(folder)
            for suffix, count in beside.items():
                if count and 2 * count >= len(stems[folder]):
                    place = folder.relative_to(path)
                    return f"in {place}/ {count} of {len(stems[folder])} images have a {suffix} file of the same name"
        if len(folders) <= _MOST_FOLDERS and (found := _pair(stems)):
            images, masks = found
            return (
                f"{masks.relative_to(path)}/ holds what looks like a mask for each image in {images.relative_to(path)}/"
            )
    return ""


def _stems(folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """(path without suffix -> image, suffix of texts -> how many images have one of their name)."""
    start = len(os.path.join(folder, ""))
    images: dict[str, str] = {}
    texts: dict[str, set[str]] = {suffix: set() for suffix in _BESIDE}
    for file in walk_text(folder):
        name, suffix = os.path.splitext(file[start:])
        if is_image(os.path.basename(file)):
            images[name] = file
        elif suffix.lower() in texts:
            texts[suffix.lower()].add(name)
    return images, {suffix: len(names & images.keys()) for suffix, names in texts.items()}


def _pair(stems: Mapping[Path, Mapping[str, str]]) -> tuple[Path, Path] | None:
    """Two folders (of images, of masks) of which the second has a mask for most images of the first."""
    for images, masks in permutations(stems, 2):
        if _named(images):
            continue
        renamed = {bare(name, stems[images]): file for name, file in stems[masks].items()}
        common = sorted(renamed.keys() & stems[images].keys())
        if len(common) < max(2, _COMMON * max(len(stems[images]), len(stems[masks]))):
            continue
        chosen = common[:: -(-len(common) // _LOOKED_AT)]
        if _masked([(stems[images][name], renamed[name]) for name in chosen], named=_named(masks)):
            return images, masks
    return None


def _named(folder: Path) -> bool:
    """Whether a folder is called as masks are."""
    return any(pattern.fullmatch(folder.name) for pattern in (SEGMENTED, _MASKS))


def _masked(pairs: Sequence[tuple[str, str]], named: bool) -> bool:
    """Whether all second images look like masks of the first ones: of their size, and of few colours where the first
    are of many; of fewer than these where the folder is called as masks are."""
    try:
        for image, mask in pairs:
            count = _colours(mask, 256 if named else _FEW)
            if count > (256 if named else _FEW) or image_size(image)[0] != image_size(mask)[0]:
                return False
            least = 2 * count if named else _MANY
            if _colours(image, least) < least:
                return False
    except DataError:
        return False
    return True


def _colours(file: str, most: int) -> int:
    """How many colours an image has; more than `most` are not counted, and numbers of more than 8 bits count as one."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                return 1
            pixels = image.convert("RGB") if image.mode == "P" and most > _FEW else image
            return len(pixels.getcolors(most) or range(most + 1))
    except Exception as error:  # damaged files make Pillow's parsers raise nearly anything
        raise DataError(f"{file} cannot be read: {error}.") from error
