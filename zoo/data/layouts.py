"""Recognise folders that look like box or mask annotations, whose names must not be taken for classes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from PIL import Image

from zoo.data.files import is_image, subfolders, walk_text
from zoo.data.mask_names import beside, image_keys, mask_keys
from zoo.data.pairs import SEGMENTED, annotated, split_folders
from zoo.errors import UnreadableError
from zoo.image_header import MAX_PIXELS, check_size, image_bytes, image_size

_FILES = {
    "dataset.json": "a description of masks or labels by nnU-Net and other tools",
    "obj.names": "Darknet's class names for boxes",
    "obj.data": "Darknet's description of boxes",
    "annotations.xml": "CVAT's boxes and polygons",
    "_annotations.csv": "Roboflow's table of boxes",
    "_annotations.coco.json": "Roboflow's COCO file of boxes",
    "_annotations.txt": "Roboflow's list of boxes",
    "_darknet.labels": "Roboflow's class names for boxes",
    "via_region_data.json": "regions drawn in the VIA annotator",
}
"""Files that annotation tools write beside images: name in lower case -> what it is."""

_FOLDERS = {
    "leftimg8bit": "Cityscapes",
    "gtfine": "Cityscapes",
    "gtcoarse": "Cityscapes",
    "leftimg8bit_trainvaltest": "Cityscapes",
    "gtfine_trainvaltest": "Cityscapes",
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
"""Folder names that go with boxes or masks: name in lower case -> dataset or tool that uses it."""

_MASKS = re.compile(
    r"(.*[^a-z])?(seg|segm|segmented|semantic|instances?|panoptic|trimaps?|mattes?|depths?|disparity)", re.IGNORECASE
)
_ANNOTATION_SUFFIXES = (".txt", ".xml", ".json")
_COMMON = 0.8
"""Two folders are taken for images and masks if at least this share of their file stems match."""
_COMPARED_PAIRS = 4
"""Number of image and mask pairs to compare, about evenly spaced; more would only take longer."""
_FEW, _MANY = 40, 100
"""A mask has at most `_FEW` colours, an image at least `_MANY`."""
_MOST_FOLDERS = 20
"""With more folders than this, none are compared with each other: masks are never spread over so many."""


def looks_like(path: Path) -> str:
    """Return the evidence for boxes or masks in a folder, as a sentence; empty if there is none.

    Evidence is, in this order: annotation folders beside image folders, files and folders of well-known tools, a text
    file or a mask beside most images, and a folder with a mask for each image of another folder.
    """
    if annotated(path):
        return "annotation folders lie beside image folders"
    inner = subfolders(path)
    if len(inner) <= _MOST_FOLDERS and (nested := next(filter(annotated, inner), None)):
        return f"in {nested.name}/ annotation folders lie beside image folders"
    for level in (path, *split_folders(path).values()):
        folders = subfolders(level)
        for place in (level, *folders):
            if marks := [name for name in os.listdir(place) if name.lower() in _FILES]:
                return f"{(place / marks[0]).relative_to(path)} exists, {_FILES[marks[0].lower()]}"
        for folder in folders:
            if (tool := _FOLDERS.get(folder.name.lower())) and next(walk_text(folder), None):
                return f"a folder is called {folder.name}, as in {tool}'s layout"
        stems: dict[Path, dict[str, str]] = {}
        for folder in folders:
            stems[folder], annotated_images = _stems(folder)
            for suffix, count in annotated_images.items():
                if count and 2 * count >= len(stems[folder]):
                    place = folder.relative_to(path)
                    return f"in {place}/ {count} of {len(stems[folder])} images have a {suffix} file of the same name"
            if mask := _mask_beside(stems[folder]):
                place = folder.relative_to(path)
                return f"in {place}/ images have masks beside them, e.g. {os.path.basename(mask)}"
        if pair := _pair(stems):
            images, masks = pair
            return f"{masks.relative_to(path)}/ seems to hold a mask for each image in {images.relative_to(path)}/"
    return ""


def paired(path: Path) -> tuple[Path, Path] | None:
    """Return (image folder, mask folder) if one of the folders in `path` seems to hold the masks of another."""
    folders = subfolders(path)
    return _pair({folder: _stems(folder)[0] for folder in folders}) if len(folders) <= _MOST_FOLDERS else None


def _stems(folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Return (path without suffix -> image, suffix -> number of images with an annotation file of that suffix)."""
    start = len(os.path.join(folder, ""))
    images: dict[str, str] = {}
    texts: dict[str, set[str]] = {suffix: set() for suffix in _ANNOTATION_SUFFIXES}
    for file in walk_text(folder):
        name, suffix = os.path.splitext(file[start:])
        if is_image(os.path.basename(file)):
            images[name] = file
        elif suffix.lower() in texts:
            texts[suffix.lower()].add(name)
    return images, {suffix: len(names & images.keys()) for suffix, names in texts.items()}


def _mask_beside(stems: Mapping[str, str]) -> str:
    """Return a mask of another image in the same folder if at least half of the images have one; else nothing."""
    owners = beside(stems)
    if 2 * len(owners) < len(stems) - len(owners) or not owners:
        return ""
    some = [(stems[image], stems[mask]) for mask, image in _some(sorted(owners.items()))]
    return some[0][1] if _look_like_masks(some, named=True) else ""


def _pair(stems: Mapping[Path, Mapping[str, str]]) -> tuple[Path, Path] | None:
    """Return (image folder, mask folder) if a folder seems to hold the masks of another; else None."""
    if len(stems) > _MOST_FOLDERS:
        return None
    images_by_key = {folder: image_keys(names) for folder, names in stems.items()}
    masks_by_key = {folder: {key: name for name in names for key in mask_keys(name)} for folder, names in stems.items()}
    for images, masks in permutations(stems, 2):
        if _named_like_masks(images):
            continue
        # Cheap test first: most file names must match. Only then are a few pairs opened and compared.
        keys = images_by_key[images].keys() & masks_by_key[masks].keys()
        mask_of = {images_by_key[images][key]: masks_by_key[masks][key] for key in sorted(keys)}
        if len(mask_of) < max(2, _COMMON * max(len(stems[images]), len(stems[masks]))):
            continue
        pairs = [(stems[images][name], stems[masks][mask]) for name, mask in _some(sorted(mask_of.items()))]
        if _look_like_masks(pairs, named=_named_like_masks(masks)):
            return images, masks
    return None


def _some(pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return a few pairs, about evenly spaced."""
    return pairs[:: -(-len(pairs) // _COMPARED_PAIRS)]


def _named_like_masks(folder: Path) -> bool:
    """Whether the folder's name suggests masks."""
    return any(pattern.fullmatch(folder.name) for pattern in (SEGMENTED, _MASKS))


def _look_like_masks(pairs: Sequence[tuple[str, str]], named: bool) -> bool:
    """Whether in all pairs (image, mask) the second file looks like a mask of the first.

    It must have the image's size and at most `_FEW` colours, and the image at least `_MANY`. If the folder's name
    suggests masks already (`named`), up to 256 colours will do, with at least twice as many in the image.
    """
    compared = False
    for image, mask in pairs:
        most = 256 if named else _FEW
        try:
            mask_colours = _colours(mask, most)
            if mask_colours > most or image_size(image)[0] != image_size(mask)[0]:
                return False
            least = 2 * mask_colours if named else _MANY
            if _colours(image, least) < least:
                return False
        except UnreadableError:
            continue  # damaged files say nothing about the layout; they are reported once it is known
        compared = True
    return compared


def _colours(file: str, most: int) -> int:
    """Return the number of colours of an image, or `most + 1` if it has more than `most`.

    Images with more than 8 bits per channel count as one colour: only masks are stored in this way here.
    """
    data = io.BytesIO(image_bytes(file))
    try:
        with Image.open(data) as image:
            check_size(*image.size, MAX_PIXELS)
            if image.mode.startswith(("I", "F")):
                return 1
            pixels = image.convert("RGB") if image.mode == "P" and most > _FEW else image
            return len(pixels.getcolors(most) or range(most + 1))
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged files
        raise UnreadableError(file, f"cannot be read: {error}.") from error
