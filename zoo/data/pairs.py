"""Folders of images with folders of annotations beside them: which belongs to which, by names alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from zoo.data.data_yaml import describes_boxes
from zoo.data.files import SPLITS, has_images, images_below, split_name, split_names, subfolders, walk
from zoo.errors import DataError
from zoo.targets.faults import MOST_LOST

_IMAGES = re.compile(r"(.*[^a-z])?(images?|imgs?|photos?)|[a-z]+images|img_dir", re.IGNORECASE)  # JPEGImages, my_imgs
LABELS = re.compile(r"labels?", re.IGNORECASE)
ANNOTATIONS = re.compile(r"annotations?|xmls?", re.IGNORECASE)
MASKS = re.compile(r".*masks?", re.IGNORECASE)  # masks, PedMasks
SEGMENTED = re.compile(r".*masks?|labels?|.*annot(ation)?s?|ann_dir|gt|ground_?truth|segmentations?", re.IGNORECASE)
_ENDINGS = ("_mask", "_masks", "-mask", "_instances", "_instance", "_label", "_labels", "_L", "_P", "_gt")

Pair = tuple[Path, Path]


def split_folders(path: Path) -> dict[str, Path]:
    """Split -> sub-folder named for it. Raises `DataError` when two are named for the same."""
    folders = {folder.name: folder for folder in subfolders(path)}
    found: dict[str, Path] = {}
    for name, split in split_names(folders).items():
        if split in found:
            raise DataError(f"{path} holds {found[split].name}/ and {name}/, both for {split}. Keep one.")
        found[split] = folders[name]
    return {split: found[split] for split in SPLITS if split in found}


def pairs(path: Path, kind: re.Pattern[str]) -> dict[str, Pair]:
    """Split, or `all`, -> (folder of images, folder of annotations), where the latter's name is of `kind`.

    Folders side by side, perhaps with folders of the splits in each; inside the folders of the splits; or called by
    the split, `train_images` and `train_masks`.
    """
    beside = _beside(path, kind)
    if beside:
        inner = [split_folders(folder) for folder in beside]
        splits = [split for split in inner[0] if split in inner[1]]
        return {split: (inner[0][split], inner[1][split]) for split in splits} or {"all": beside}
    found = {split: _beside(folder, kind) for split, folder in split_folders(path).items()}
    return {split: pair for split, pair in found.items() if pair} or _by_name(path, kind)


def _by_name(path: Path, kind: re.Pattern[str]) -> dict[str, Pair]:
    """Split -> folders whose names tell the split and what they hold: `train_images` and `train_masks`."""
    found: dict[str, dict[bool, list[Path]]] = {}
    for folder in subfolders(path):
        words = re.split(r"[ _-]+", folder.name)
        rest = "_".join(word for word in words if not split_name(word))
        for split in {split for word in words if (split := split_name(word))}:
            if _IMAGES.fullmatch(rest) or kind.fullmatch(rest):
                found.setdefault(split, {}).setdefault(bool(kind.fullmatch(rest)), []).append(folder)
    fitting = {split: sides for split, sides in found.items() if all(len(sides.get(s, ())) == 1 for s in (True, False))}
    return {split: (fitting[split][False][0], fitting[split][True][0]) for split in SPLITS if split in fitting}


def annotated(path: Path) -> bool:
    """Whether folders of annotations stand beside folders of images, or a `data.yaml` says where images are: these
    folders are no classes then."""
    return any(pairs(path, kind) for kind in (LABELS, ANNOTATIONS, MASKS, SEGMENTED)) or describes_boxes(path)


def _beside(path: Path, kind: re.Pattern[str]) -> Pair | None:
    """The one folder of images and the one folder of annotations directly in `path`."""
    folders = subfolders(path)
    notes = [folder for folder in folders if kind.fullmatch(folder.name)]
    images = [folder for folder in folders if _IMAGES.fullmatch(folder.name) and has_images(folder)]
    return (images[0], notes[0]) if len(images) == 1 and len(notes) == 1 else None


def images_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Path below `folder` without suffix, with `/`, -> the images of that name."""
    found: dict[str, list[Path]] = {}
    for image in images_below(folder):
        found.setdefault(stem(image, folder), []).append(image)
    return found


def matched(images: Path, masks: Path) -> list[tuple[Path, Path | None]]:
    """Each image with its mask, another image called the same, or with `_mask` or the like appended; nothing when most
    masks have no image, or more than one."""
    by_stem, found, strays = _masks_by_image(images, masks)
    if len(strays) > len(found):
        return []
    return [(image, found.get(name)) for name, (image, *_) in by_stem.items()] if found else []


def unmatched(images: Path, masks: Path, name: str) -> list[str]:
    """A note on masks without an image of their own. Raises `DataError` where these are more than a tenth."""
    _, found, strays = _masks_by_image(images, masks)
    if not strays:
        return []
    said = f"{name}: {len(strays)} of {len(found) + len(strays)} masks are not called like one image, e.g. {strays[0]}"
    if len(strays) > MOST_LOST * (len(found) + len(strays)):
        raise DataError(f"{said}. Add the images, call them the same, or move the masks away.")
    return [f"{said}; they are left out."]


def _masks_by_image(images: Path, masks: Path) -> tuple[dict[str, list[Path]], dict[str, Path], list[Path]]:
    """(name -> images, name -> its mask, masks that have no image, or share it with another)."""
    by_stem = images_by_stem(images)
    found: dict[str, Path] = {}
    strays: list[Path] = []
    for mask in images_below(masks):
        name = bare(stem(mask, masks), by_stem)
        if len(by_stem.get(name, ())) != 1 or name in found:
            strays.append(mask)
        else:
            found[name] = mask
    return by_stem, found, strays


def bare(name: str, images: Collection[str]) -> str:
    """Return the name of the image that a mask is called after: without `_mask` or the like where there is one."""
    return next((name.removesuffix(end) for end in _ENDINGS if name.removesuffix(end) in images), name)


def notes_by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """Path below `folder` without suffix, with `/`, -> the file with that suffix (compared in lower case)."""
    return {stem(file, folder): file for file in walk(folder) if file.suffix.lower() == suffix}


def stem(file: Path, folder: Path) -> str:
    """The path below a folder, without the suffix, with `/`."""
    return file.relative_to(folder).with_suffix("").as_posix()


def one_image(images: Mapping[str, list[Path]], name: str, note: Path) -> Path:
    """The image that an annotation is about. Raises `DataError` when there is none, or more than one."""
    found = images.get(name, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{note} is about one of {', '.join(image.name for image in found)}. Keep one of them.")
    raise DataError(f"{note} has no image: none is called {name} with a suffix of images. Add it or remove the file.")


def title(path: Path, split: str) -> str:
    """What a data set is called."""
    return path.name if split == "all" else f"{path.name}/{split}"


def below(file: Path, root: Path) -> str:
    """What a sample of a file is called: the path below the data's root, with `/`; the whole path of one elsewhere."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
