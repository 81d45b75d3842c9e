"""Match image folders with annotation folders, and images with annotation files, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from zoo.data.data_yaml import describes_boxes
from zoo.data.files import SPLITS, files, has_images, images_below, is_image, split_name, split_names, subfolders, walk
from zoo.data.refusals import refuse
from zoo.errors import DataError
from zoo.targets.faults import Fault

_IMAGES = re.compile(r"(.*[^a-z])?(images?|imgs?|photos?)|[a-z]+images|img_dir", re.IGNORECASE)  # JPEGImages, my_imgs
LABELS = re.compile(r"labels?", re.IGNORECASE)
ANNOTATIONS = re.compile(r"annotations?|xmls?", re.IGNORECASE)
MASKS = re.compile(r".*masks?", re.IGNORECASE)  # masks, PedMasks
SEGMENTED = re.compile(
    r".*masks?|labels?|.*annot(ation)?s?|ann_dir|gts?|(.*[^a-z])?ground_?truths?|(.*[^a-z])?segmentations?"
    r"|labels?[_-](images?|imgs?)(_semantic)?|masks?[_-](machine|labels?|images?|png)",
    re.IGNORECASE,
)
Pair = tuple[Path, Path]


def split_folders(path: Path) -> dict[str, Path]:
    """Return split -> sub-folder named after it. Raise `DataError` if two are named after the same split."""
    folders = {folder.name: folder for folder in subfolders(path)}
    by_split: dict[str, Path] = {}
    for name, split in split_names(folders).items():
        if split in by_split:
            raise DataError(f"{path} holds {by_split[split].name}/ and {name}/, both for {split}. Keep one.")
        by_split[split] = folders[name]
    return {split: by_split[split] for split in SPLITS if split in by_split}


def pairs(path: Path, kind: re.Pattern[str]) -> dict[str, Pair]:
    """Return split (or `all`) -> (image folder, annotation folder).

    Three layouts are known: two folders side by side, perhaps with folders of splits in each (`images/train`); two
    folders in the folder of each split (`train/images`); or folders named after the split (`train_images`).

    Args:
        path: folder of the dataset.
        kind: pattern for names of annotation folders.
    """
    beside = _beside(path, kind)
    if beside:
        inner = [split_folders(folder) for folder in beside]
        splits = [split for split in inner[0] if split in inner[1]]
        return {split: (inner[0][split], inner[1][split]) for split in splits} or {"all": beside}
    found = {split: _beside(folder, kind) for split, folder in split_folders(path).items()}
    return {split: pair for split, pair in found.items() if pair} or _by_name(path, kind)


def _by_name(path: Path, kind: re.Pattern[str]) -> dict[str, Pair]:
    """Return split -> (image folder, annotation folder) for folders named like `train_images` and `train_masks`."""
    # Split -> whether it holds annotations -> folders. Only splits with exactly one folder of each count.
    by_split: dict[str, dict[bool, list[Path]]] = {}
    for folder in subfolders(path):
        words = re.split(r"[ _-]+", folder.name)
        rest = "_".join(word for word in words if not split_name(word))
        for split in {split for word in words if (split := split_name(word))}:
            if _IMAGES.fullmatch(rest) or kind.fullmatch(rest):
                by_split.setdefault(split, {}).setdefault(bool(kind.fullmatch(rest)), []).append(folder)
    both = (True, False)
    fitting = {split: sides for split, sides in by_split.items() if all(len(sides.get(s, ())) == 1 for s in both)}
    return {split: (fitting[split][False][0], fitting[split][True][0]) for split in SPLITS if split in fitting}


def annotated(path: Path) -> bool:
    """Whether annotation folders lie beside image folders, or a `data.yaml` lists images. Then no folder is a class."""
    return any(pairs(path, kind) for kind in (LABELS, ANNOTATIONS, MASKS, SEGMENTED)) or describes_boxes(path)


def unpaired(path: Path, kind: re.Pattern[str]) -> tuple[list[Path], list[Path]]:
    """Return (annotation folders, the folders of images beside them), whatever the latter are called.

    The folder itself is the one of images if images lie directly in it.
    """
    folders = [folder for folder in subfolders(path) if kind.fullmatch(folder.name)]
    if not folders or any(is_image(file.name) for file in files(path)):
        return folders, [path] if folders else []
    return folders, [folder for folder in subfolders(path) if folder not in folders and has_images(folder)]


def _beside(path: Path, kind: re.Pattern[str]) -> Pair | None:
    """Return the image folder and the annotation folder directly in `path`; None unless there is one of each."""
    folders = subfolders(path)
    notes = [folder for folder in folders if kind.fullmatch(folder.name)]
    images = [folder for folder in folders if _IMAGES.fullmatch(folder.name) and has_images(folder)]
    return (images[0], notes[0]) if len(images) == 1 and len(notes) == 1 else None


def images_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return path relative to `folder`, without suffix and with `/`, -> the images of that name."""
    by_stem: dict[str, list[Path]] = {}
    for image in images_below(folder):
        by_stem.setdefault(stem(image, folder), []).append(image)
    return by_stem


def notes_by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """Return path relative to `folder`, without suffix and with `/`, -> file with that suffix (in lower case)."""
    return {stem(file, folder): file for file in walk(folder) if file.suffix.lower() == suffix}


def stem(file: Path, folder: Path) -> str:
    """Return the path relative to a folder, without the suffix, with `/`."""
    return file.relative_to(folder).with_suffix("").as_posix()


def one_image(images: Mapping[str, list[Path]], name: str, note: Path) -> Path | None:
    """Return the image that belongs to an annotation file. Raise `DataError` if there is none, or more than one.

    Returns None if there is none and faults are collected (`zoo.data.refusals`).
    """
    candidates = images.get(name, [])
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(image.name for image in candidates)
        raise DataError(f"{note} could belong to any of {names}. Keep one of these images.")
    refuse(
        f"{note} has no image: no image is called {name} with a known image suffix. Add it or remove the file.",
        Fault("missing", name, None, "", note.name),
    )
    return None


def title(path: Path, split: str) -> str:
    """Return the name of a dataset for messages."""
    return path.name if split == "all" else f"{path.name}/{split}"


def below(file: Path, root: Path) -> str:
    """Return the id of a sample: its path relative to `root`, with `/`, or the whole path if it lies elsewhere."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
