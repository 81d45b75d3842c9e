"""The error for data in no known layout has at most five lines, with the sentence of the nearest reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cli import main
from zoo.data import read
from zoo.errors import DataError

RANDOM = np.random.default_rng(0)
CLASS, BOXES, MASKS = ("class", "classes"), ("boxes",), ("masks", "boxes")


def photo(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)


def mask(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 4, (12, 16), dtype=np.uint8)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def loose(root: Path) -> None:
    photo(root / "a.jpg", root / "b.jpg")


def table(root: Path) -> None:
    loose(root)
    text(root / "names.csv", "name,breed\na.jpg,cat\n")


def unlisted(root: Path) -> None:
    photo(root / "images/1.jpg", root / "images/2.jpg")
    mask(root / "labels/1.png", root / "labels/2.png")


def renamed(root: Path) -> None:
    photo(root / "images/1.jpg", root / "images/2.jpg")
    mask(root / "masks/one.png", root / "masks/two.png")


def foreign(root: Path) -> None:
    photo(root / "cat/1.jpg", root / "dog/1.jpg")
    text(root / "docs/a.txt", "x")


def flat(root: Path) -> None:
    photo(root / "train/cat.1.jpg", root / "test/1.jpg")


def nnunet(root: Path) -> None:
    photo(root / "imagesTr/1_0000.png")


def cityscapes(root: Path) -> None:
    mask(root / "gtFine/train/a/a_gtFine_labelIds.png")


def classes(root: Path) -> None:
    photo(root / "cat/1.jpg", root / "dog/1.jpg")


def wrapped(root: Path) -> None:
    photo(*(root / "archive/images" / f"{i}.jpg" for i in range(2)))
    mask(*(root / "archive/masks" / f"{i}.png" for i in range(2)))


@pytest.mark.parametrize(
    ("make", "kinds", "said"),
    [
        (loose, CLASS, ("Nearest is folder", "has no class folder; it holds 2 files", "Then csv: it needs a .csv")),
        (loose, BOXES, ("coco: it needs a .json file", "yolo: it needs images/ and labels/")),
        (table, CLASS, ("Nearest is csv", "has the columns ['name', 'breed']", "Then folder")),
        (unlisted, MASKS, ("masks: the masks of", "e.g. 3, and no list names several", "looks like boxes or masks")),
        (renamed, MASKS, ("masks: the masks in", "do not have the names of the images", "Then ")),
        (foreign, CLASS, ("Nearest is folder: class folder", "docs has no image; it holds 1 file (1 .txt)")),
        (flat, CLASS, ("should hold a sub-folder of images for each class, but there is none", "csv")),
        (nnunet, MASKS, ("Nearest is nnunet", "has imagesTr/ as nnU-Net's datasets, but not labelsTr/")),
        (cityscapes, MASKS, ("Nearest is cityscapes", "has gtFine/ as Cityscapes, but not leftImg8bit/")),
        (classes, BOXES, ("layout for boxes", "It fits the format folder, of class targets", "coco: it needs")),
        (wrapped, MASKS, ("archive is of the format instances: give that path",)),
    ],
)
def test_the_two_nearest_layouts_and_what_each_lacks(tmp_path: Path, make, kinds, said):
    make(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "data", kinds=kinds)
    message = str(caught.value)
    lines = message.splitlines()
    assert 4 <= len(lines) <= 5 and "known data layout" in lines[0] and lines[0].startswith(f"{tmp_path}/data holds ")
    assert "--format" in lines[-1] and "zoo list formats" in lines[-1]
    for part in said:
        assert part in message, message


def test_single_files(tmp_path: Path):
    photo(tmp_path / "a.png")
    for name, said in (
        ("a.png", "is an image"),
        ("a.zip", "is an archive.*unpack it"),
        ("a.json", "a.json lacks images"),
    ):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=said) as caught:
            read(tmp_path / name)
        assert len(str(caught.value).splitlines()) <= 5


def test_the_command_line_prints_the_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    """A file name cannot add a line to an error."""
    table(tmp_path / "da\nta")
    monkeypatch.setattr("sys.argv", ["zoo", "check", str(tmp_path / "da\nta"), "--task", "classifier"])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[0].startswith("error: ") and r"da\nta holds 3 files" in lines[0]
    assert lines[1].startswith("  Nearest is csv")


def test_the_named_format_reads_objects_beside_images(tmp_path: Path):
    unlisted(tmp_path)
    assert read(tmp_path, format="instances")["all"].counts() == {"object": 6}
