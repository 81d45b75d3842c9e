"""YOLO's `data.yaml`: each field is honoured or refused; key points are no polygons; numbers stay numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import read
from zoo.data.boxes import UNKNOWN
from zoo.data.check import check_boxes
from zoo.errors import DataError

HEIGHT, WIDTH = 40, 60
BOX = (10.0, 8.0, 30.0, 28.0)
LINE = "0 0.333333 0.45 0.333333 0.5"


def put(root: Path, *names: str, line: str | None = LINE, folder: str = "images") -> None:
    """Images below a folder, and the same file of labels for each in the folder that belongs to it."""
    for name in names:
        image = root / folder / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(image)
        if line is not None:
            text = root / folder.replace("images", "labels") / f"{name}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(line + "\n")


def describe(root: Path, *lines: str, name: str = "data.yaml") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


def ids(root: Path) -> dict[str, list[str]]:
    return {split: [sample.id for sample in part] for split, part in read(root).items()}


# Splits ---------------------------------------------------------------------------------------------------------------
def test_folders_of_other_names_and_lists_of_folders(tmp_path: Path) -> None:
    for folder in ("first/images", "second/images", "third/images"):
        put(tmp_path, "a", folder=folder)
    describe(tmp_path, "names: [cell]", "train: [first/images, second]", "val: third/images", "test:")
    assert ids(tmp_path) == {"train": ["first/images/a.png", "second/images/a.png"], "val": ["third/images/a.png"]}
    for part in read(tmp_path).values():
        assert part.classes == ("cell",) and part.notes == ()
        assert all(sample.target.boxes == (pytest.approx(BOX, abs=1e-3),) for sample in part)


@pytest.mark.parametrize("line", ["./images/{}.png", "images/{}.png", "/home/me/cells/images/{}.png", "images\\{}.png"])
def test_lists_of_files(tmp_path: Path, line: str) -> None:
    put(tmp_path, *"abcd")
    for split, names in (("train", "ab"), ("val", "c")):
        describe(tmp_path, *(line.format(name) for name in names), name=f"{split}.txt")
    wanted = {"train": ["images/a.png", "images/b.png"], "val": ["images/c.png"]}
    assert ids(tmp_path) == wanted  # beside the data, without a word in any other file
    describe(tmp_path, "path: .", "train: train.txt", "val: val.txt", "names: [cell]")
    assert ids(tmp_path) == wanted
    describe(tmp_path, line.format("a"), line.format("z"), name="val.txt")
    with pytest.raises(DataError, match=r"1 of 2 images in .*val.txt cannot be found, e.g. .*z.png"):
        read(tmp_path)


def test_paths_are_relative_to_path_or_found_by_their_ends(tmp_path: Path) -> None:
    root = tmp_path / "cells"
    for folder in ("images/train", "images/val"):
        put(root, "a", folder=folder)
    wanted = {"train": ["images/train/a.png"], "val": ["images/val/a.png"]}
    said = {
        (".", "images/train", "images/val"): "",
        ("images", "train", "val"): "",
        (str(root), "images/train", "images/val"): "",
        ("datasets/cells", "images/train", "images/val"): "",  # the folder itself
        ("/home/me/data/images", "train", "val"): "path is /home/me/data/images, which does not exist; images is used",
        ("/home/me", "/home/me/images/train", "images/val"): "path is /home/me, which does not exist; the folder of",
        (".", "../images/train", "../images/val"): "",  # as Roboflow writes it
        (".", "/home/me/cells/images/train", "images/val"): "/home/me/cells/images does not exist; its content is",
    }
    for (path, train, val), note in said.items():
        describe(root, f"path: {path}", f"train: {train}", f"val: {val}", "names: [cell]")
        found = read(root)
        assert {split: [sample.id for sample in part] for split, part in found.items()} == wanted
        assert (note in " ".join(found["train"].notes)) and bool(note) == bool(found["train"].notes), (path, train)
    alone = tmp_path / "config.yaml"
    describe(tmp_path, "path: cells", "train: images/train", "names: [cell]", name=alone.name)
    assert [sample.image for sample in read(alone)["train"]] == [root / "images/train/a.png"]


def test_a_split_that_is_another_is_said(tmp_path: Path) -> None:
    put(tmp_path, *"ab")
    describe(tmp_path, "train: images", "val: images", "test: ../test/images", "names: [cell]")
    found = read(tmp_path)
    assert list(found) == ["train"] and len(found["train"]) == 2
    notes = " ".join(found["train"].notes)
    assert "val is the same as train, and is not used" in notes and "there is no test split" in notes


def test_images_without_a_file_are_said_to_be_background(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b", "c", line=None)
    put(tmp_path, "d", line="")
    for lines in ((), ("train: images", "names: ['0']")):
        if lines:
            describe(tmp_path, *lines)
        (part,) = read(tmp_path).values()
        assert [len(sample.target) for sample in part] == [1, 0, 0, 0]
        assert any(
            "2 of 4 images have no .txt file and count as images without objects, e.g. b.png" in n for n in part.notes
        )
    (tmp_path / "labels" / "z.txt").write_text(LINE)
    (tmp_path / "labels" / "classes.txt").write_text("0\n")
    with pytest.raises(DataError, match="1 .txt file has no image, e.g. .*z.txt"):
        read(tmp_path)


# Classes --------------------------------------------------------------------------------------------------------------
def test_numbers_of_a_mapping_are_kept_and_gaps_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a", line=LINE.replace("0 ", "4 ", 1))
    put(tmp_path, "b", line=LINE.replace("0 ", "1 ", 1))
    put(tmp_path, "c", line=LINE.replace("0 ", "2 ", 1))
    describe(tmp_path, "names: {1: cat, '4': dog}", "nc: 2")
    part = read(tmp_path)["all"]
    assert part.classes == ("unused 0", "cat", "unused 2", "unused 3", "dog")
    assert [sample.target.labels for sample in part] == [(4,), (1,), (UNKNOWN,)]
    assert any("names leaves out 0, 2, 3" in note for note in part.notes)
    with pytest.raises(DataError, match="would drop 1 of 3 boxes"):
        check_boxes(part)


def test_classes_that_are_only_counted(tmp_path: Path) -> None:
    put(tmp_path, "a")
    describe(tmp_path, "nc: 3", "train: images")
    assert read(tmp_path)["train"].classes == ("0", "1", "2")


@pytest.mark.parametrize("shift", [0, 1])
def test_class_numbers_that_are_counted_from_one(tmp_path: Path, shift: int) -> None:
    for number in range(3):
        put(tmp_path, f"{number}", line=LINE.replace("0 ", f"{number + shift} ", 1))
    describe(tmp_path, "names: [cat, dog, cow]")
    if shift:
        with pytest.raises(DataError, match="counted from 1 instead of 0: they are 1 to 3, .* have 0 to 2"):
            read(tmp_path)
    else:
        assert [sample.target.labels for sample in read(tmp_path)["all"]] == [(0,), (1,), (2,)]


# Key points -----------------------------------------------------------------------------------------------------------
SEEN = " 0.3 0.4 0.4 0.5"
"""Two points in the box."""


@pytest.mark.parametrize(
    ("shape", "points"), [("[2, 2]", SEEN), ("[2, 3]", " 0.3 0.4 2 0 0 0"), ("[17, 3]", " 0.3 0.4 1" * 17)]
)
def test_of_key_points_the_boxes_are_read(tmp_path: Path, shape: str, points: str) -> None:
    put(tmp_path, *"abc", line=LINE + points)
    describe(tmp_path, "names: [person]", f"kpt_shape: {shape}", "flip_idx: [1, 0]")
    part = read(tmp_path)["all"]
    assert [sample.target.boxes for sample in part] == [(pytest.approx(BOX, abs=1e-3),)] * 3
    assert part[0].target.masks is None and any("only boxes are read" in note for note in part.notes)
    put(tmp_path, "d", line=LINE + " 0.1 0.1")
    with pytest.raises(DataError, match=r"d.txt, line 1 is .*perhaps \d+ key points"):
        read(tmp_path)


@pytest.mark.parametrize("points", [SEEN, " 0.3 0.4 2 0 0 0"])
def test_key_points_without_their_shape_are_no_polygons(tmp_path: Path, points: str) -> None:
    put(tmp_path, *"ab", line=LINE + points)
    with pytest.raises(DataError, match=r"2 key points in it.*kpt_shape: \[2, 2\]"):
        read(tmp_path)
    describe(tmp_path, "names: [person]", "task: segment")
    assert read(tmp_path)["all"][0].target.masks is not None
    put(tmp_path, *"ab", line="0 0.1 0.1 0.9 0.1 0.9 0.8 0.1 0.8")  # a polygon, whose points lie nowhere near
    (tmp_path / "data.yaml").unlink()
    assert read(tmp_path)["all"][0].target.boxes == (pytest.approx((6, 4, 54, 32)),)


# Exports of other tools -----------------------------------------------------------------------------------------------
def darknet(root: Path, *splits: str, data: str = "data/") -> None:
    """Write CVAT's export "YOLO 1.1": lists of images, and a folder of images and .txt files for each split."""
    fields = ["classes = 2"]
    for split in splits:
        put(root, "a", "b", line="1" + LINE[1:], folder=f"obj_{split}_data")
        describe(root, *(f"{data}obj_{split}_data/{name}.png" for name in "ab"), name=f"{split}.txt")
        fields.append(f"{split} = {data}{split}.txt")
    describe(root, *fields, f"names = {data}obj.names", "backup = backup/", name="obj.data")
    describe(root, "cat", "cell", name="obj.names")


@pytest.mark.parametrize("splits", [("train",), ("train", "valid"), ("train", "valid", "test")])
@pytest.mark.parametrize("data", ["data/", "", "/home/me/data/"])
def test_darknet(tmp_path: Path, splits: tuple[str, ...], data: str) -> None:
    darknet(tmp_path, *splits, data=data)
    wanted = {split.replace("valid", "val"): [f"obj_{split}_data/{name}.png" for name in "ab"] for split in splits}
    for given in (tmp_path, tmp_path / "obj.data"):
        found = read(given)
        assert {split: [sample.id for sample in part] for split, part in found.items()} == wanted
        for part in found.values():
            assert part.classes == ("cat", "cell") and bool(part.notes) == data.startswith("/")
            assert all(s.target.labels == (1,) and s.target.boxes == (pytest.approx(BOX, abs=1e-3),) for s in part)
    (tmp_path / "obj.data").unlink()
    assert ids(tmp_path) == wanted and read(tmp_path)["train"].classes == ("cat", "cell")
    for file in tmp_path.glob("*.txt"):
        file.unlink()
    assert ids(tmp_path) == wanted


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["classes = 3", "names = data/obj.names"], "classes is 3, but 2 names are given"),
        (["classes = 99999999999"], "classes is '99999999999'; it must be the number of classes"),
        (["names = data/no.names"], "names is 'data/no.names', which does not exist"),
        (["train = data/no.txt"], "train is 'data/no.txt', which does not exist"),
    ],
)
def test_faults_of_darknet_are_said_by_name(tmp_path: Path, lines: list[str], said: str) -> None:
    darknet(tmp_path, "train")
    describe(tmp_path, *lines, name="obj.data")
    with pytest.raises(DataError, match=f"obj.data: {said}"):
        read(tmp_path)
    describe(tmp_path, "train = data/train.txt", "valid = data/valid.txt", name="obj.data")
    (part,) = read(tmp_path).values()
    assert any("valid is 'data/valid.txt', which does not exist; there is no val split" in note for note in part.notes)
    for image in tmp_path.glob("obj_train_data/*.png"):
        image.unlink()
    with pytest.raises(
        DataError, match="2 of 2 images in .*train.txt cannot be found, e.g. 'data/obj_train_data/a.png'"
    ):
        read(tmp_path)


def test_the_file_that_describes_the_data_may_be_given(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")
    file = describe(tmp_path, "names: [cell]")
    describe(tmp_path, "images/a.png", name="train.txt")
    describe(tmp_path, "images/b.png", name="val.txt")
    for given in (tmp_path, file):
        found = read(given)
        assert {split: [sample.id for sample in part] for split, part in found.items()} == {
            "train": ["images/a.png"],
            "val": ["images/b.png"],
        }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINE + " 0.87", "1 line has a sixth value"),
        (LINE + " 7", "1 line has a sixth value"),
        (LINE.replace(" ", ","), ""),
        (LINE.replace(" ", ", ") + ",", ""),
        (LINE.replace(" ", ";"), ""),
        (LINE.replace(" ", "\t"), ""),
        ("\ufeff" + LINE + "\r\n\r\n", ""),
    ],
)
def test_lines_as_other_programs_write_them(tmp_path: Path, text: str, said: str) -> None:
    put(tmp_path, "a")
    (tmp_path / "labels" / "a.txt").write_text(text, "utf-8")
    part = read(tmp_path)["all"]
    assert part[0].target.boxes == (pytest.approx(BOX, abs=1e-3),) and part[0].target.masks is None
    assert (said in " ".join(part.notes)) and bool(part.notes) == bool(said)


def test_other_texts_among_the_labels(tmp_path: Path) -> None:
    for lines in ((), ("train: images", "names: [cell]")):
        if lines:
            describe(tmp_path, *lines)
        put(tmp_path, "a")
        for name, text in (("README", "Exported on 1 May"), ("classes", "cell\n"), ("train", "images/a.png\n")):
            (tmp_path / "labels" / f"{name}.txt").write_text(text)
        (part,) = read(tmp_path).values()
        assert [sample.id for sample in part] == ["images/a.png"] and part.classes == ("cell",)
        (tmp_path / "labels" / "z.txt").write_text(LINE)
        with pytest.raises(DataError, match=r"z.txt"):
            read(tmp_path)
        (tmp_path / "labels" / "z.txt").unlink()


def test_an_empty_line_among_the_names_is_a_number_without_a_name(tmp_path: Path) -> None:
    put(tmp_path, "a", line="2" + LINE[1:])
    describe(tmp_path, "cat", "", "dog", "", name="classes.txt")
    part = read(tmp_path)["all"]
    assert part.classes == ("cat", "unused 1", "dog") and part[0].target.labels == (2,)
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\ncow\n")
    with pytest.raises(DataError, match="classes.txt and .*labels/classes.txt disagree on the class names"):
        read(tmp_path)


@pytest.mark.parametrize("folder", ["pictures", "."])
def test_images_beside_the_labels_in_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    put(tmp_path, "a", folder=folder)
    (tmp_path / "labels").mkdir()
    (tmp_path / folder / "a.txt").rename(tmp_path / "labels" / "a.txt")
    part = read(tmp_path)["all"]
    assert part[0].id.endswith("a.png") and part[0].target.boxes == (pytest.approx(BOX, abs=1e-3),)
    put(tmp_path, "a", line=None, folder="first"), put(tmp_path, "a", line=None, folder="second")
    if folder == "pictures":
        with pytest.raises(DataError, match="labels holds .txt files.*there is: first/, pictures/, second/"):
            read(tmp_path)


def test_data_one_folder_deeper_are_no_class(tmp_path: Path) -> None:
    put(tmp_path / "export", "a")
    with pytest.raises(DataError, match="export is of the format yolo: give that path"):
        read(tmp_path)
    put(tmp_path / "more", "a")
    with pytest.raises(DataError, match="in export/ annotation folders lie beside image folders"):
        read(tmp_path)


def test_what_is_wrong_is_said_by_the_reader(tmp_path: Path) -> None:
    put(tmp_path, "a", line="Car 0.00 0 -1.5 100 100 200 200")
    with pytest.raises(DataError, match="a.txt, line 1 is 'Car 0.00.*only numbers are accepted"):
        read(tmp_path)
    put(tmp_path, "a", folder="pictures")
    describe(tmp_path / "pictures", "names: [cell]", "train: there")
    with pytest.raises(DataError, match="data.yaml: train is 'there', which does not exist"):
        read(tmp_path / "pictures")


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + "names: *i\n", r"data.yaml, line 4: more than 20 aliases \(\*c\)"),
        ("names: [cell]\nnc: 1\nnc: 1\n", "data.yaml, line 3: the field 'nc' occurs twice"),
        ("names: {0: cell, 0: cat}", "line 1: the field '0' occurs twice"),
        ("names: &a [*a]", "must have a name that is text"),
        ("names: {10000000000: cell}", "names is {10000000000: 'cell'}; it must be"),
        ("names: [cell]\nnc: 10000000000", "nc is 10000000000; it must be"),
        ("names: " + "[" * 300, "data.yaml, line 1: more than 50 levels"),
        ("names: [cell]\nx: !!timestamp y", "cannot be read as YAML"),
    ],
)
def test_a_yaml_file_that_would_grow_without_bound(tmp_path: Path, text: str, said: str) -> None:
    put(tmp_path, "a")
    describe(tmp_path, text)
    with pytest.raises(DataError, match=said):
        read(tmp_path)


# Refused --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["names: [cell]", "train: elsewhere"], "train is 'elsewhere', which does not exist"),
        (["names: [cell]", "train: labels"], "train is 'labels', and .* holds no image"),
        (["names: [cell]", "train: 3"], "train is 3; it must be a folder, a .txt file"),
        (["names: [cell]", "train: images", "nc: 2"], "nc is 2, but names has 1 classes"),
        (["names: [cell]", "nc: two"], "nc is 'two'"),
        (["names: [cell, cell]"], "two classes are called 'cell'"),
        (["names: {a: 0}"], "names is .* it must be a list of the classes"),
        (["names: [cell, null]"], "names is .* each class must have a name that is text"),
        (["names: [cell]", "trian: images"], "the field trian is unknown; did you mean train"),
        (["names: [cell]", "kpt_shape: [2]"], r"kpt_shape is \[2\]"),
        (["names: [cell]", "task: pose"], "task is pose, but kpt_shape"),
        (["names: [cell]", "task: guess"], "task is 'guess'; accepted"),
        (["names: [cell]", "channels: 10"], "channels is 10"),
        (["names: [cell]", "val: images", "valid: images"], "valid and another field both give the val split"),
    ],
)
def test_fields_that_cannot_be_followed(tmp_path: Path, lines: list[str], said: str) -> None:
    put(tmp_path, "a")
    describe(tmp_path, *lines)
    with pytest.raises(DataError, match=f"data.yaml: {said}"):
        read(tmp_path)


def test_what_is_not_used_is_said_and_what_contradicts_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a")
    describe(tmp_path, "names: [cell]", "single_cls: true", "download: https://x", "roboflow: {license: MIT}")
    assert read(tmp_path)["all"].notes == ("data.yaml: single_cls is not used.",)
    (tmp_path / "classes.txt").write_text("blood\n")
    with pytest.raises(DataError, match="classes.txt and .*data.yaml disagree on the class names"):
        read(tmp_path)
    (tmp_path / "classes.txt").write_text("cell\n")
    assert read(tmp_path)["all"].classes == ("cell",)
    describe(tmp_path, "names: [cell]", name="other.yaml")
    describe(tmp_path, "names: [blood]", name="more.yaml")
    assert read(tmp_path)["all"].classes == ("cell",)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match="more.yaml and other.yaml, which both describe the data"):
        read(tmp_path)
