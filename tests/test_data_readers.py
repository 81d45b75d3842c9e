"""Layouts on disk: what is recognised, what is read, and what is said about the rest."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import Dataset, Sample, formats, list_images, read
from zoo.errors import DataError, UnknownNameError
from zoo.training.data import training_splits


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(path)
    return path


def folders(root: Path, *names: str, images: int = 2) -> Path:
    for name in names:
        for number in range(images):
            draw(root / name / f"{number}.png")
    return root


def test_import_needs_neither_jax_nor_grain():
    code = "import sys, zoo.data; print(sorted({'jax', 'grain', 'flax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_folder_without_splits(tmp_path):
    folders(tmp_path, "bees", "ants")
    draw(tmp_path / "ants" / "deep" / "x.PNG")
    (tmp_path / "ants" / ".hidden.png").write_bytes(b"")
    (tmp_path / "ants" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    found = read(tmp_path)
    assert list(found) == ["all"]
    data = found["all"]
    assert data.classes == ("ants", "bees") and data.kind == "class" and data.root == tmp_path
    assert data.counts() == {"ants": 3, "bees": 2}
    assert [s.id for s in data] == ["ants/0.png", "ants/1.png", "ants/deep/x.PNG", "bees/0.png", "bees/1.png"]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folder_with_splits(tmp_path, val):
    folders(tmp_path, "train/a", "train/b", f"{val}/a", f"{val}/b", "test/a", "test/b")
    found = read(tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert {tuple(d.classes) for d in found.values()} == {("a", "b")}
    assert found["val"][0].id == f"{val}/a/0.png"


def test_folder_faults_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds nothing[^!]*folder: it needs a sub-folder"):
        read(tmp_path)
    folders(tmp_path / "hollow", "ants", "bees")
    (tmp_path / "hollow" / "wasps").mkdir()
    with pytest.raises(DataError, match="wasps has no image; it holds nothing"):
        read(tmp_path / "hollow")
    folders(tmp_path / "differ", "train/a", "train/b", "val/a", "val/c")
    with pytest.raises(DataError, match="val has c, which train lacks"):
        read(tmp_path / "differ")
    folders(tmp_path / "twice", "train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b")
    with pytest.raises(DataError, match="val/ and valid/"):
        read(tmp_path / "twice")
    folders(tmp_path / "beside", "train/a", "train/b", "more")
    with pytest.raises(DataError, match="images in more/"):
        read(tmp_path / "beside")
    draw(tmp_path / "loose" / "a.png")
    with pytest.raises(DataError, match=r"1 file \(1 .png\)"):
        read(tmp_path / "loose")
    with pytest.raises(DataError, match="Sort the images"):
        read(tmp_path / "loose", format="folder")
    with pytest.raises(UnknownNameError, match="folder"):
        read(tmp_path, format="foldr")


def test_a_single_class_is_read_but_not_trained_on(tmp_path):
    folders(tmp_path / "new", "bad")
    (tmp_path / "new.csv").write_text("image,label\nnew/bad/0.png,bad\nnew/bad/1.png,bad\n")
    for place in ("new", "new.csv"):
        found = read(tmp_path / place)
        assert found["all"].counts() == {"bad": 2}
        with pytest.raises(DataError, match=r"new has a single class \(bad\); training needs"):
            training_splits(found, 0.2, 0)
    folders(tmp_path / "wrapped", "archive/a", "archive/b")
    with pytest.raises(DataError, match=r"If .*wrapped.archive holds the folders of the classes, give that path"):
        training_splits(read(tmp_path / "wrapped"), 0.2, 0)


def test_a_split_may_lack_a_class(tmp_path):
    folders(tmp_path, "train/bad", "train/good", "train/odd", "test/bad", "test/odd", "val/odd")
    (tmp_path / "val" / "good").mkdir()
    found = read(tmp_path)
    assert {split: tuple(part.counts().values()) for split, part in found.items()} == {
        "train": (2, 2, 2),
        "val": (0, 0, 2),
        "test": (2, 0, 2),
    }
    assert [sample.target for sample in found["test"]] == [0, 0, 2, 2]
    assert "test has no image of good: metrics are of the other classes" in found["test"].notes[0]
    assert "val has no image of bad, good" in found["val"].notes[0] and not found["train"].notes


def test_folders_of_annotations_are_not_classes(tmp_path):
    folders(tmp_path, "PNGImages", "PedMasks")
    (tmp_path / "Annotation").mkdir()
    (tmp_path / "Annotation" / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no object in any mask"):
        read(tmp_path)


def test_csv_single_label(tmp_path):
    folders(tmp_path, "images", images=4)
    table = tmp_path / "data.csv"
    table.write_text(
        "\ufeffImage,Label,Split\nimages/0.png,10,train\nimages/1.png,9,train\n\nimages/2.png,9,valid\n", "utf-8"
    )
    found = read(table)
    assert list(found) == ["train", "val"]
    assert found["train"].classes == ("9", "10") == found["val"].classes
    assert [(s.id, s.target) for s in found["train"]] == [("images/0.png", 1), ("images/1.png", 0)]
    assert read(tmp_path)["val"].samples == found["val"].samples


def test_csv_columns_are_found_by_name_whatever_their_order(tmp_path):
    folders(tmp_path, "x", images=2)
    (tmp_path / "data.csv").write_text("label,note,split,image\ncat,0,train,x/0.png\ndog,1,train,x/1.png\n")
    data = read(tmp_path / "data.csv")["train"]
    assert [(sample.image.name, data.classes[sample.target]) for sample in data] == [("0.png", "cat"), ("1.png", "dog")]


def test_csv_several_labels(tmp_path):
    folders(tmp_path, "x", images=3)
    (tmp_path / "data.csv").write_text("file,labels\nx/0.png,cat|dog\nx/1.png,dog;bird\nx/2.png,\n")
    data = read(tmp_path)["all"]
    assert data.kind == "classes" and data.classes == ("bird", "cat", "dog")
    assert [s.target for s in data] == [(1, 2), (0, 2), ()]
    assert data.counts() == {"bird": 1, "cat": 1, "dog": 2}


def test_csv_column_label_with_bars_holds_several_labels(tmp_path):
    """And it is said, because a classifier of one label each becomes one of several."""
    folders(tmp_path, "x", images=4)
    (tmp_path / "data.csv").write_text("image,label\nx/0.png,cat\nx/1.png, dog\nx/2.png,cat|dog\nx/3.png,a;b\n")
    data = read(tmp_path / "data.csv")["all"]
    assert data.kind == "classes" and data.classes == ("a;b", "cat", "dog")
    assert [s.target for s in data] == [(1,), (2,), (1, 2), (0,)]
    assert "1 of 4 lines have several labels, separated by | (e.g. line 4)" in data.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image;label\nx/0.png;a\nx/1.png;b, c\n", "has the columns 'image' and 'label'.* separated by semicolons"),
        ("image\tlabel\nx/0.png\ta\nx/1.png\tb, c\n", "separated by tabs"),
        ("file_name,class\nx/0.png,a\nx/1.png,'b, c'\n".replace("'", '"'), "has the columns 'file_name' and 'class'"),
    ],
)
def test_csv_of_other_tools(tmp_path, text, said):
    folders(tmp_path, "x")
    (tmp_path / "data.csv").write_text(text)
    data = read(tmp_path / "data.csv")["all"]
    assert data.classes == ("a", "b, c") and [s.target for s in data] == [0, 1] and re.search(said, data.notes[0])


def test_csv_quotation_marks_that_close_are_read(tmp_path):
    folders(tmp_path, "x", images=3)
    text = 'image,label,text\nx/0.png, "a, or b","two\nlines, with ""marks"""\nx/1.png,12" pipe,\n"x/2.png","c",\n'
    (tmp_path / "data.csv").write_text(text)
    data = read(tmp_path / "data.csv")["all"]
    assert [data.classes[s.target] for s in data] == ["a, or b", '12" pipe', "c"]


def test_csv_files_named_by_split(tmp_path):
    folders(tmp_path, "x", images=3)
    (tmp_path / "train.csv").write_text("path,label\nx/0.png,a\nx/1.png,b\n")
    (tmp_path / "val.csv").write_text("path,label\nx/2.png,b\n")
    found = read(tmp_path)
    assert {k: [s.target for s in v] for k, v in found.items()} == {"train": [0, 1], "val": [1]}
    (tmp_path / "val.csv").write_text("path,label\nx/2.png,c\n")
    with pytest.raises(DataError, match="val.csv, line 2: the class 'c' occurs in val but never in train"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\nx/0.png,a\nx/9.png,b\n", r"line 3: the image 'x/9.png' does not exist"),
        ("image,label\nx/0.png,a\nx/1.png,\n", r"line 3: the label is empty"),
        ("image,label\nx/0.png\n", r"line 2: the label is empty"),
        ("image,label,split\nx/0.png,a,later\n", r"line 2: the split 'later' is unknown; accepted: train"),
        ('image,label\n"x/0.png,a\nx/1.png,b\n', r"line 2: .*quotation mark opens a cell here"),
        ('image,label\nx/0.png,a\n"x/1.png,b\n"x/0.png",a\n', r"line 3: .*quotation mark opens a cell here"),
        ('image,label\nx/0.png,"a\nx/1.png,b"\n', r"line 2: the cell in column 'label' spans 2 lines"),
        ('image,label,text\nx/0.png,a,"one\nx/1.png,b,two"\n', r"line 2: the cell in column 'text' spans 2"),
        ("image,label\nx/0.png,a,b\nx/1.png,b\n", r"line 2 has 3 cells, but the header has 2"),
        ("image,label,label\nx/0.png,a,b\nx/1.png,b,a\n", r"several columns called 'label'"),
        ("x/0.png,a\nx/1.png,b\n", r"columns \['x/0.png', 'a'\]; its first line must name"),
        ("image;breed\nx/0.png;a\n", r"columns \['image', 'breed'\].*separated by commas, semicolons or tabs"),
        ("filename,class,xmin\nx/0.png,a,1\n", r"has a column 'xmin', so it seems to list boxes"),
        ("image,label\n", "no line with an image"),
        ("image,labels\nx/0.png,\n", "none of the 1 lines has a label"),
    ],
)
def test_csv_faults_name_the_line(tmp_path, text, said):
    folders(tmp_path, "x")
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "data.csv", format="csv")


def test_a_foreign_csv_beside_class_folders_does_not_matter(tmp_path):
    folders(tmp_path, "train/a", "train/b")
    (tmp_path / "noise.csv").write_text("path,noisy_5\nx,y\n")
    assert list(read(tmp_path)) == ["train"]
    (tmp_path / "noise.csv").write_text("path,label\ntrain/a/0.png,a\ntrain/b/0.png,b\n")
    with pytest.raises(DataError, match="several formats: csv, folder"):
        read(tmp_path)
    assert len(read(tmp_path, format="csv")["all"]) == 2


def test_labels(tmp_path):
    folders(tmp_path, "images")
    (tmp_path / "labels.json").write_text('{"1.png": 0, "0.png": 2}')
    data = read(tmp_path)["all"]
    assert data.classes == ("0", "1", "2")
    assert [(s.id, s.target) for s in data] == [("0.png", 2), ("1.png", 0)]
    (tmp_path / "class_names.json").write_text('["x", "y"]')
    with pytest.raises(DataError, match="2 names, but labels.json goes up to class 2"):
        read(tmp_path)
    (tmp_path / "labels.json").write_text('{"7.png": 0}')
    with pytest.raises(DataError, match="lists '7.png'"):
        read(tmp_path)
    (tmp_path / "labels.json").write_text('{"0.png": 10000000000}')
    with pytest.raises(DataError, match="labels.json: '0.png' has 10000000000; a class index must be smaller"):
        read(tmp_path)
    (tmp_path / "labels.json").write_text('{"0.png": "a"}')
    with pytest.raises(DataError, match="'0.png' has 'a'"):
        read(tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read(tmp_path)


def test_real_data_sets(assets):
    real = assets / "datasets"
    bees = read(real / "hymenoptera")
    assert {k: len(v) for k, v in bees.items()} == {"train": 243, "val": 152}
    assert bees["train"].classes == ("ants", "bees")
    photos = read(real / "imagenet_samples")["all"]
    assert len(photos) == 100 and len(photos.classes) == 1000
    labels = json.loads((real / "imagenet_samples" / "labels.json").read_text())
    assert all(labels[s.id] == s.target for s in photos)
    assert set(read(real / "cifar10_subset")) == {"train", "test"}
    assert len(read(real / "orl_faces")["all"].classes) == 20


def test_every_format_says_what_it_is():
    assert {"csv", "folder", "labels"} <= set(formats())
    for name, module in formats().items():
        assert module.NAME == name and module.LAYOUT and module.detect and module.read


def test_list_images(tmp_path):
    folders(tmp_path, "b", "a/deep")
    odd = tmp_path / "odd[1].jpg"
    draw(odd)
    assert list_images(tmp_path / "b") == [tmp_path / "b" / "0.png", tmp_path / "b" / "1.png"]
    assert list_images([odd, tmp_path / "a"])[0] == odd and len(list_images([odd, tmp_path / "a"])) == 3
    assert len(list_images(str(tmp_path / "**" / "*.png"))) == 4
    (tmp_path / "none").mkdir()
    for wrong, said in [("none", "holds no images"), ("gone.jpg", "does not exist"), ("*.webp", "matches no images")]:
        with pytest.raises(DataError, match=said):
            list_images(tmp_path / wrong)


def test_dataset_is_small_checked_and_picklable(tmp_path):
    folders(tmp_path, "a", "b")
    data = read(tmp_path)["all"]
    assert pickle.loads(pickle.dumps(data)) == data
    part = data.subset([3, 0], "part")
    assert part.name == "part" and [s.id for s in part] == ["b/1.png", "a/0.png"] and part[0] is data[3]
    with pytest.raises(DataError, match="class index 2, but there are 2"):
        Dataset((Sample(tmp_path, 2, "x"),), ("a", "b"), "class", "n", tmp_path)


def test_fingerprint_follows_what_matters(tmp_path):
    folders(tmp_path, "a", "b")
    data = read(tmp_path)["all"]
    before = data.fingerprint()
    assert read(tmp_path)["all"].fingerprint() == before
    assert data.subset([0, 1, 3, 2], "x").fingerprint() != before
    assert data.subset(range(4), "other name").fingerprint() == before
    os.utime(data[0].image, ns=(1, 1))
    assert data.fingerprint() == before, "the same bytes at another time"
    stat = data[0].image.stat()
    data[0].image.write_bytes(bytes(stat.st_size))
    os.utime(data[0].image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data.fingerprint() != before, "other bytes of the same size and time"
    data[0].image.unlink()
    with pytest.raises(DataError, match="0.png"):
        data.fingerprint()
