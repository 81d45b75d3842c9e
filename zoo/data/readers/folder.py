"""Image folders: one sub-folder per class, perhaps inside folders of splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import (
    SPLITS,
    describe,
    files,
    has_images,
    images_below,
    is_image,
    split_name,
    split_names,
    subfolders,
    walk,
)
from zoo.data.layouts import looks_like
from zoo.data.refusals import refuse, remark
from zoo.data.split_lists import FOLDERS, listed_splits
from zoo.errors import DataError
from zoo.labels.spelling import nfc, ordered

NAME = "folder"
KINDS = ("class",)
NEEDS = "a sub-folder of images for each class"
LAYOUT = (
    "one sub-folder of images for each class, directly, perhaps with lists of the splits beside them (train.txt, "
    "test.txt), or in train/, val/ and test/ (also valid/, validation/, dev/, eval/, Training/, test_set/ and the like)"
)
READS: tuple[str, ...] = ()
ANY_FOLDER = True


def detect(path: Path) -> bool:
    """Whether `path` has sub-folders with images, and none with anything else.

    A single sub-folder counts only without a file of labels beside it. Folders that look like boxes or masks never fit:
    their names are not classes.
    """
    if not path.is_dir() or looks_like(path):
        return False
    if _splits(path):
        return True
    folders = _class_folders(path)
    filled = [folder for folder in folders if has_images(folder)]
    named = [folder for folder in folders if split_name(folder.name)]
    if named and not (len(named) == 1 and named[0] in filled and len(filled) > 2):
        return False  # splits of another format; a single such folder among several is a class called `train`
    foreign = any(next(walk(folder), None) for folder in folders if folder not in filled)
    listed = any(file.suffix.lower() in {".csv", ".json"} for file in files(path))
    return bool(filled) and not foreign and (len(filled) > 1 or not listed)


def doubts(path: Path) -> str:
    """Return the evidence against class folders, as a note for users who named this format; empty if there is none."""
    evidence = looks_like(path)
    return f"{path.name} is read as class folders, although {evidence}." if evidence else ""


def read(path: Path) -> dict[str, Dataset]:
    """Read image folders: split name -> dataset, or one key `all`.

    Splits are folders, or lists beside the class folders. Images may lie at any depth inside a class folder. Classes
    are the names of the sub-folders: numbers sorted as numbers, the rest as text. Other splits than `train` may lack
    classes, or hold empty folders of them, with a note. A single class is accepted: it can be evaluated.

    Raises:
        DataError: the folder or a class is empty, or a split has a class that `train` lacks.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; the format 'folder' needs {LAYOUT}.")
    splits = _splits(path)
    if not splits:
        named = [folder.name for folder in _class_folders(path)]
        if named and all(map(split_name, named)):
            raise DataError(
                f"{' and '.join(f'{path / name}/' for name in named)} should hold a sub-folder of images for each "
                "class, but there is none."
            )
        return listed_splits(_dataset(_class_images(path), path, path.name))
    for folder in subfolders(path):
        if folder not in splits.values() and has_images(folder):
            raise DataError(
                f"{path} holds splits ({', '.join(f.name for f in splits.values())}) and beside them images in "
                f"{folder.name}/. Move that folder away, or into one of the splits."
            )
    images = {split: _class_images(folder, may_be_empty=split != "train") for split, folder in splits.items()}
    _check_trained(path, images)
    classes = ordered({name for by_class in images.values() for name in by_class})
    return {
        split: _dataset({name: by_class.get(name, []) for name in classes}, path, f"{path.name}/{split}")
        for split, by_class in images.items()
    }


def _class_folders(path: Path) -> list[Path]:
    """Return the sub-folders, except those with only lists of splits."""
    return [f for f in subfolders(path) if f.name.lower() not in FOLDERS or has_images(f)]


def _splits(path: Path) -> dict[str, Path]:
    """Return split name -> folder, for the sub-folders that are named after a split and hold folders of images."""
    folders = {folder.name: folder for folder in subfolders(path)}
    by_split: dict[str, Path] = {}
    for name, split in split_names(folders).items():
        if not any(has_images(inner) for inner in subfolders(folders[name])):
            continue
        if split in by_split:
            raise DataError(f"{path} holds {by_split[split].name}/ and {name}/, both for {split}. Keep one.")
        by_split[split] = folders[name]
    return {split: by_split[split] for split in SPLITS if split in by_split}


def _class_images(folder: Path, *, may_be_empty: bool = False) -> dict[str, list[Path]]:
    """Return class -> images, for a folder of class folders."""
    folders: dict[str, list[Path]] = {}
    for inner in _class_folders(folder):
        folders.setdefault(nfc(inner.name), []).append(inner)
    if not folders:
        loose = sum(is_image(file.name) for file in files(folder))
        advice = "Sort the images into one sub-folder for each class." if loose else f"Expected: {LAYOUT}."
        raise DataError(f"{folder} has no class folder; it holds {describe(folder)}. {advice}")
    images = {name: [image for inner in folders[name] for image in images_below(inner)] for name in ordered(folders)}
    empty = [name for name in images if not images[name]]
    if empty and not may_be_empty:
        inner = folders[empty[0]][0]
        refuse(f"class folder {inner} has no image; it holds {describe(inner)}. Fill it or remove it.")
    return images


def _dataset(images: Mapping[str, list[Path]], root: Path, name: str) -> Dataset:
    """Return the dataset of class -> images, with a note on classes without images."""
    start = len(os.path.join(root, ""))
    samples = (
        Sample(image, index, str(image)[start:].replace(os.sep, "/"))
        for index, by_class in enumerate(images.values())
        for image in by_class
    )
    lacking = [one for one in images if not images[one]]
    shown = ", ".join(lacking[:5]) + ", ..." * (len(lacking) > 5)
    notes = remark(f"{name} has no image of {shown}: metrics are of the other classes.") if lacking else ()
    return Dataset(tuple(samples), tuple(images), "class", name, root, notes)


def _check_trained(path: Path, images: Mapping[str, Mapping[str, list[Path]]]) -> None:
    """Raise `DataError` if another split has a class that `train` lacks: no model could learn it."""
    if "train" not in images:
        return
    for split, by_class in images.items():
        if extra := sorted(set(by_class) - set(images["train"])):
            refuse(
                f"{path}: the splits differ in their classes: {split} has {', '.join(extra)}, which train lacks, so no "
                "model could learn it. Add images of it to train, or move the folder away."
            )
