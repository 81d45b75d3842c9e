"""A sample is its file: listed twice it is one, contradictions are refused, and no file is in two splits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from zoo.data import Dataset, Sample, read
from zoo.data.unique import unified
from zoo.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the photos 0.png to 5.png."""
    for i in range(6):
        Image.new("RGB", (10, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def table(folder: Path, header: str, *rows: str) -> Path:
    file = folder / "data.csv"
    file.write_text("\n".join((header, *rows)) + "\n")
    return file


def targets(part: Dataset) -> dict[str, object]:
    return {sample.id: sample.target for sample in part}


def test_equal_rows_are_one_sample(folder: Path):
    (folder / "link.png").symlink_to("1.png")
    other = f"../{folder.name}/0.png"
    part = read(table(folder, "image,label", "0.png,a", "./0.png,a", "1.png,b", f"{other},a", "link.png,b"))["all"]
    assert targets(part) == {"0.png": 0, "1.png": 1}
    assert part.notes == ("data: 3 entries repeat files listed before, e.g. 0.png; each file is one sample.",)


def test_contradicting_rows_are_refused(folder: Path):
    with pytest.raises(DataError, match=r"in .*data\.csv, line 2 \('a'\) and in .*data\.csv, line 4 \('b'\).*'labels'"):
        read(table(folder, "image,label", "0.png,a", "1.png,b", "./0.png,b"))
    with pytest.raises(DataError, match=r"line 2 \('a'\) and in .*line 3 \(no label\)"):
        read(table(folder, "image,labels", "0.png,a", "0.png,", "1.png,b"))


def test_labels_of_several_rows_are_joined(folder: Path):
    part = read(table(folder, "image,labels", "0.png,b", "1.png,c", "0.png,a|b", "2.png,"))["all"]
    assert part.classes == ("a", "b", "c") and targets(part) == {"0.png": (0, 1), "1.png": (2,), "2.png": ()}


def test_rows_in_two_splits_are_refused(folder: Path):
    for header in ("image,label,split", "image,labels,split"):
        with pytest.raises(DataError, match=r"data/train and data/val have 1 file in common, e\.g\. 0\.png"):
            read(table(folder, header, "0.png,a,train", "1.png,b,train", "./0.png,a,val"))


def test_labels_json(folder: Path):
    (folder / "images").mkdir()
    os.rename(folder / "5.png", folder / "images" / "5.png")
    labels = folder / "labels.json"
    labels.write_text('{"0.png": 1, "./0.png": 1, "5.png": 0, "images/5.png": 0, "5.png": 0}')
    assert targets(read(folder)["all"]) == {"./0.png": 1, "5.png": 0}
    labels.write_text('{"0.png": 1, "./0.png": 0}')
    with pytest.raises(DataError, match=r"in \./0\.png \('0'\) and in 0\.png \('1'\)"):
        read(folder)
    labels.write_text('{"0.png": 1, "1.png": 0, "0.png": 0}')  # Python takes the last without a word
    with pytest.raises(DataError, match=r"lists '0\.png' twice, with 1 and 0"):
        read(folder)


def test_class_folders(folder: Path):
    for i in range(6):
        kind = folder / "data" / ("train" if i < 4 else "val") / "ab"[i % 2]
        kind.mkdir(parents=True, exist_ok=True)
        os.rename(folder / f"{i}.png", kind / f"{i}.png")
    train, val = folder / "data" / "train", folder / "data" / "val"
    (train / "a" / "again.png").symlink_to(train / "a" / "0.png")
    found = read(folder / "data")
    assert [len(part) for part in found.values()] == [4, 2] and "train/a/0.png" in targets(found["train"])
    (val / "a" / "leak.png").symlink_to("../../train/a/2.png")
    with pytest.raises(DataError, match=r"train/a/2\.png and val/a/leak\.png"):
        read(folder / "data")
    (val / "a" / "leak.png").unlink()
    os.link(train / "b" / "3.png", val / "b" / "hard.png")
    with pytest.raises(DataError, match=r"train/b/3\.png and val/b/hard\.png"):
        read(folder / "data")
    (val / "b" / "hard.png").unlink()
    (train / "b" / "other.png").symlink_to("../a/0.png")
    with pytest.raises(DataError, match=r"in train/a/0\.png \('a'\) and in train/b/other\.png \('b'\)"):
        read(folder / "data")


def coco(folder: Path, images: list[tuple[int, str]], boxes: list[tuple[int, list[int]]], name: str = "a.json") -> None:
    content = {
        "images": [{"id": id, "file_name": file, "height": 8, "width": 10} for id, file in images],
        "annotations": [
            {"id": n, "image_id": id, "category_id": 1, "bbox": box, "segmentation": [[1, 1, 4, 1, 4, 4]] if n else []}
            for n, (id, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "x"}],
    }
    (folder / name).write_text(json.dumps(content))


def test_coco_images_of_one_file(folder: Path):
    """Tools that merge sets number the images anew: boxes under both numbers are those of one photo."""
    coco(
        folder, [(1, "0.png"), (7, "./0.png"), (3, "1.png")], [(1, [1, 1, 2, 2]), (7, [3, 3, 4, 5]), (3, [0, 0, 9, 8])]
    )
    part = read(folder)["all"]
    assert {sample.id: sample.target.boxes for sample in part} == {
        "0.png": ((1, 1, 3, 3), (3, 3, 7, 8)),
        "1.png": ((0, 0, 9, 8),),
    }
    assert [shape is not None for shape in part[0].target.masks.shapes] == [False, True]


def test_coco_splits_that_share_a_file(folder: Path):
    coco(folder, [(1, "0.png"), (2, "1.png")], [(1, [1, 1, 2, 2])], "train.json")
    coco(folder, [(1, "1.png"), (2, "2.png")], [(2, [1, 1, 2, 2])], "val.json")
    with pytest.raises(DataError, match=r"1 file in common, e\.g\. 1\.png and 1\.png"):
        read(folder)


def test_ids_are_unique(folder: Path):
    samples = (Sample(folder / "0.png", 0, "x"), Sample(folder / "1.png", 1, "x"))
    with pytest.raises(DataError, match="2 samples have the id 'x'"):
        Dataset(samples, ("a", "b"), "class", "toy", folder)


def test_parts_that_are_meant_to_be_the_same(folder: Path):
    part = Dataset(
        tuple(Sample(folder / f"{i}.png", i % 2, str(i)) for i in range(4)), ("a", "b"), "class", "x", folder
    )
    found = unified({"train": part, "val": part}, deliberate=True)
    assert found["val"] == part and "the same 4 files" in found["val"].notes[0]
    for deliberate in (False, True):
        with pytest.raises(DataError, match="2 files in common"):
            unified({"train": part, "val": part.subset([0, 2], "y")}, deliberate=deliberate)
