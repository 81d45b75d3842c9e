"""Folders that look like boxes or masks are no classes; ready splits are found by their usual names, or by lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import read
from zoo.data.files import split_name, split_names
from zoo.data.pairs import MASKS, pairs
from zoo.errors import DataError

RANDOM = np.random.default_rng(0)


def photo(path: Path, side: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, side: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 4, (side, side), dtype=np.uint8)).save(path)
    return path


def pair(images: str, masks: str, image_end: str = ".png", mask_end: str = ".png") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for i in range(4):
            photo(root / images / f"{i}{image_end}")
            mask(root / masks / f"{i}{mask_end}")

    return make


def beside(suffix: str, text: str = "0 0.5 0.5 0.2 0.2\n") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for kind in ("a", "b"):
            for i in range(3):
                photo(root / kind / f"{kind}{i}.jpg").with_suffix(suffix).write_text(text)

    return make


def marked(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for kind in ("a", "b"):
            photo(root / kind / f"{kind}.jpg")
        (root / name).write_text("{}")

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pair("rgb", "seg"), "seg/ seems to hold a mask for each image in rgb/"),
        (pair("x", "y"), "y/ seems to hold a mask"),
        (pair("input", "target", ".jpg", "_mask.png"), "target/ seems to hold a mask"),
        (
            pair("train/scans", "train/truth"),
            "train/truth/ seems to hold a mask for each image in train/scans/",
        ),
        (pair("leftImg8bit/train/u", "fine/train/u", "_leftImg8bit.png", "_gtFine_labelIds.png"), "Cityscapes"),
        (pair("imagesTr", "labels", "_0000.png"), "nnU-Net"),
        (pair("images", "annotations/trimaps"), "annotation folders lie beside image folders"),
        (beside(".txt"), r"in a/ 3 of 3 images have a \.txt file of the same name"),
        (beside(".xml"), r"in a/ 3 of 3 images have a \.xml file"),
        (beside(".json"), r"in a/ 3 of 3 images have a \.json file"),
        (marked("dataset.json"), r"dataset\.json exists"),
        (marked("obj.names"), "Darknet's class names for boxes"),
        (marked("annotations.xml"), "CVAT"),
    ],
)
def test_what_looks_like_boxes_or_masks_is_no_classifier(tmp_path: Path, make: Callable[[Path], None], said: str):
    make(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, kinds=("class", "classes"))
    assert "name the format: folder" in str(caught.value)


def test_who_names_the_format_gets_it_and_is_told(tmp_path: Path):
    beside(".txt")(tmp_path)
    data = read(tmp_path, format="folder")["all"]
    assert data.counts() == {"a": 3, "b": 3}
    assert "although in a/ 3 of 3 images have a .txt file" in data.notes[0]


def test_numbered_images_in_class_folders_are_no_pairs(tmp_path: Path):
    """Equal names alone say nothing: most tools number the images of each class from 0."""
    for name, make in {"photos": photo, "plans": mask}.items():
        for kind in ("with_mask", "without_mask", "mask_worn_wrong"):
            for i in range(4):
                make(tmp_path / name / kind / f"{i}.png")
        assert read(tmp_path / name)["all"].counts() == {"mask_worn_wrong": 4, "with_mask": 4, "without_mask": 4}
    for i in range(4):  # one class drawn, one photographed, in other sizes
        photo(tmp_path / "sizes" / "a" / f"{i}.png", 30)
        mask(tmp_path / "sizes" / "b" / f"{i}.png")
    assert read(tmp_path / "sizes")["all"].classes == ("a", "b")


def test_folders_of_images_and_masks_named_by_split(tmp_path: Path):
    for split in ("train", "val"):
        pair(f"{split}_images", f"{split}_masks")(tmp_path)
    assert {s: (a.name, b.name) for s, (a, b) in pairs(tmp_path, MASKS).items()} == {
        "train": ("train_images", "train_masks"),
        "val": ("val_images", "val_masks"),
    }
    assert {split: part.kind for split, part in read(tmp_path).items()} == {"train": "boxes", "val": "boxes"}


# Splits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training", "Testing"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("train_set", "val_set"), ("train", "val")),
        (("TRAIN", "VALID", "TEST"), ("train", "val", "test")),
        (("train", "dev"), ("train", "val")),
        (("train", "eval"), ("train", "val")),
        (("train", "validation", "evaluation"), ("train", "val", "test")),
        (("dev", "eval"), ("val", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("train2017", "val2017"), ("train", "val")),
        (("Train-Data", "Test-Data"), ("train", "test")),
    ],
)
def test_splits_by_their_usual_names(tmp_path: Path, names: tuple[str, ...], splits: tuple[str, ...]):
    for number, name in enumerate(names):
        for kind in ("glioma", "pituitary"):
            for i in range(number + 1):
                photo(tmp_path / name / kind / f"{i}.png", 4)
    found = read(tmp_path)
    assert {split: len(part) for split, part in found.items()} == {s: 2 * (i + 1) for i, s in enumerate(splits)}
    assert all(part.classes == ("glioma", "pituitary") for part in found.values())


def test_other_names_are_no_splits():
    assert not [
        name
        for name in ("trains", "testament", "value", "device", "medieval", "contest", "retrain", "t")
        if split_name(name)
    ]
    assert split_names(["train", "eval"]) == {"train": "train", "eval": "val"}
    assert split_names(["dev", "eval", "test"]) == {"dev": "val", "eval": "val", "test": "test"}


def test_a_class_called_train(tmp_path: Path):
    for kind in ("bus", "car", "train"):
        photo(tmp_path / kind / "0.png", 4)
    assert read(tmp_path)["all"].classes == ("bus", "car", "train")


def classes(root: Path, count: int = 5) -> Path:
    for kind in ("a", "b"):
        for i in range(count):
            photo(root / kind / f"{kind}{i}.png", 4)
    return root


def ids(found: dict) -> dict[str, list[str]]:
    return {split: [sample.id for sample in part] for split, part in found.items()}


def test_lists_beside_the_class_folders_tell_the_splits(tmp_path: Path):
    classes(tmp_path)
    (tmp_path / "train.txt").write_text("a/a0.png 0\n\nb/b1.png 1\n./b/b0.png 1\n")
    (tmp_path / "test_list.txt").write_text(f"a/a4\n{tmp_path.name}/b/b4.png\na/gone.png\n")
    found = read(tmp_path)
    assert ids(found) == {"train": ["a/a0.png", "b/b1.png", "b/b0.png"], "test": ["a/a4.png", "b/b4.png"]}
    assert [sample.target for sample in found["train"]] == [0, 1, 1]
    said = " ".join(found["train"].notes)
    assert (
        "5 images are in no list and left out" in said and "1 line of test_list.txt names no image, e.g. line 3" in said
    )
    (tmp_path / "train.txt").unlink()  # what the test's list leaves is for training
    assert {split: len(part) for split, part in read(tmp_path).items()} == {"train": 8, "test": 2}


@pytest.mark.parametrize(("images", "lists"), [("images", "meta"), ("data", "data/splits")])
def test_lists_in_a_folder_of_their_own(tmp_path: Path, images: str, lists: str):
    classes(tmp_path / images)
    (tmp_path / lists).mkdir()
    (tmp_path / lists / "train.txt").write_text("a/a0\nb/b0\n")
    (tmp_path / lists / "test.txt").write_text("a/a1\nb/b1\n")
    found = ids(read(tmp_path / images))
    assert found == {"train": ["a/a0.png", "b/b0.png"], "test": ["a/a1.png", "b/b1.png"]}


def test_lists_that_share_an_image_are_refused(tmp_path: Path):
    classes(tmp_path)
    (tmp_path / "train.txt").write_text("a/a0.png\nb/b0.png\n")
    (tmp_path / "test.txt").write_text("a/a1.png\nb/b0.png\n")
    with pytest.raises(DataError, match=r"1 file in common, e\.g\. b/b0\.png"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["train_test_split.txt", "setid.mat", "splits.json", "train.txt"])
def test_a_split_that_is_not_read_is_said(tmp_path: Path, name: str):
    classes(tmp_path)
    (tmp_path / name).write_text('{"1": 0}\n')
    found = read(tmp_path, format="folder")
    assert ids(found) == ids(read(classes(tmp_path / "other"))) and list(found) == ["all"]
    assert any(
        f"{name} beside the folders of images may define splits, but cannot be read" in n for n in found["all"].notes
    )
