"""Image folders: one sub-folder a class, with or without ready splits above them."""

from __future__ import annotations

from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.files import SPLIT_NAMES, describe, files, has_images, images_below, is_image, subfolders, walk
from zoo.data.pairs import annotated, split_name
from zoo.errors import DataError

NAME = "folder"
KINDS = ("class",)
LAYOUT = "one sub-folder of images for each class, directly or below train/, val/ (valid/, validation/) and test/"


def detect(path: Path) -> bool:
    """Sub-folders with images and none with anything else; a single one only where no list of labels is beside it."""
    if not path.is_dir() or annotated(path):
        return False
    if _splits(path):
        return True
    folders = subfolders(path)
    if any(split_name(folder.name) for folder in folders):
        return False
    filled = [folder for folder in folders if has_images(folder)]
    foreign = any(next(walk(folder), None) for folder in folders if folder not in filled)
    listed = any(file.suffix.lower() in {".csv", ".json"} for file in files(path))
    return bool(filled) and not foreign and (len(filled) > 1 or not listed)


def read(path: Path) -> dict[str, Dataset]:
    """The splits found, or `all`. Classes are the sub-folders' names, sorted; images lie at any depth below them.

    Raises `DataError` for an empty folder, an empty class, a single class, or splits that differ in their classes.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; the format 'folder' needs {LAYOUT}.")
    splits = _splits(path)
    if not splits:
        return {"all": _classes(path, path, path.name)}
    for folder in subfolders(path):
        if folder not in splits.values() and has_images(folder):
            raise DataError(
                f"{path} holds splits ({', '.join(f.name for f in splits.values())}) and beside them images in "
                f"{folder.name}/. Move that folder away, or into one of the splits."
            )
    found = {split: _classes(folder, path, f"{path.name}/{split}") for split, folder in splits.items()}
    _check_equal(path, found)
    return found


def _splits(path: Path) -> dict[str, Path]:
    """Split name -> folder, for the sub-folders that are named as a split and hold folders of images."""
    found: dict[str, Path] = {}
    for folder in subfolders(path):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not any(has_images(inner) for inner in subfolders(folder)):
            continue
        if split in found:
            raise DataError(f"{path} holds {found[split].name}/ and {folder.name}/, both for {split}. Keep one.")
        found[split] = folder
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _classes(folder: Path, root: Path, name: str) -> Dataset:
    """The data set of one folder of class folders."""
    classes = subfolders(folder)
    if not classes:
        loose = sum(is_image(file.name) for file in files(folder))
        advice = "Sort the images into one sub-folder for each class." if loose else f"Needed is {LAYOUT}."
        raise DataError(f"{folder} has no class folder; it holds {describe(folder)}. {advice}")
    if len(classes) == 1:
        raise DataError(
            f"{folder} has a single class folder ({classes[0].name}); a classifier needs at least two classes."
        )
    samples = []
    for index, inner in enumerate(classes):
        images = list(images_below(inner))
        if not images:
            raise DataError(f"class folder {inner} has no image; it holds {describe(inner)}. Fill it or remove it.")
        samples += [Sample(image, index, image.relative_to(root).as_posix()) for image in images]
    return Dataset(tuple(samples), tuple(inner.name for inner in classes), "class", name, root)


def _check_equal(path: Path, found: dict[str, Dataset]) -> None:
    """Raise unless all splits have the same classes: their indexes would mean different things."""
    (first, reference), *others = found.items()
    for split, dataset in others:
        missing = sorted(set(reference.classes) - set(dataset.classes))
        extra = sorted(set(dataset.classes) - set(reference.classes))
        if missing or extra:
            said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
            raise DataError(
                f"{path}: the splits differ in their classes: {split} {' and '.join(said)}, compared with {first}. "
                "Every split needs the same class folders."
            )
