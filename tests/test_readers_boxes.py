"""Formats of boxes on disk: what is recognised, what is read, and what is said about the rest."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from zoo.data import formats, read
from zoo.data.boxes import UNKNOWN
from zoo.data.check import check_boxes
from zoo.errors import DataError

SIZE = (40, 60)
BOXES = {"cat": (10.0, 8.0, 30.0, 28.0), "dog": (0.0, 0.0, 60.0, 40.0)}


def draw(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# One file with the two boxes, in each format -----------------------------------------------------------------------
def xml(*objects, size=SIZE, extra=""):
    """`objects`: (name, corners as the file has them, difficult)."""
    said = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, box, hard in objects
    )
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation>{extra}{sides}{said}</annotation>"


VOC_TEXT = xml(("cat", (11, 9, 30, 28), 0), ("dog", (1, 1, 60, 40), 1))
YOLO_TEXT = "0 0.333333 0.45 0.333333 0.5\n1 0.5 0.5 1 1\n"


def coco(*names, categories=((7, "dog"), (3, "cat")), annotations=None, **image):
    images = [
        {"id": 50 + i, "file_name": name, "height": SIZE[0], "width": SIZE[1], **image} for i, name in enumerate(names)
    ]
    if annotations is None:
        annotations = [
            {"id": 1, "image_id": 50, "category_id": 3, "bbox": [10, 8, 20, 20]},
            {"id": 2, "image_id": 50, "category_id": 7, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        ]
    categories = [{"id": id, "name": name} for id, name in categories]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def put_mask(path, values=((10, 8, 30, 28, 4), (40, 30, 60, 40, 9)), dtype=np.uint8, size=SIZE):
    pixels = np.zeros(size, dtype)
    for x1, y1, x2, y2, value in values:
        pixels[y1:y2, x1:x2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def assert_read(root, splits=("all",), format=None, crowd=True):
    """Each split has a.png with the two boxes, perhaps besides images without any."""
    found = read(root, format)
    assert tuple(found) == splits
    for split, dataset in found.items():
        assert dataset.kind == "boxes" and dataset.classes == ("cat", "dog"), split
        sample = next(s for s in dataset if s.image.stem == "a")
        assert sample.image == root / sample.id and sample.target.size == SIZE
        named = dict(zip((dataset.classes[i] for i in sample.target.labels), sample.target.boxes, strict=True))
        assert set(named) == set(BOXES)
        for name, box in BOXES.items():
            assert named[name] == pytest.approx(box, abs=1e-3)
        assert sample.target.crowd == ((False, True) if crowd else (False, False))
        assert not check_boxes(dataset, "error")[1].faults
    return found


# Pascal VOC ---------------------------------------------------------------------------------------------------------
def test_voc_with_lists_of_splits(tmp_path):
    for name in ("a", "b 1", "c"):
        draw(tmp_path / "JPEGImages" / f"{name}.PNG")
        write(tmp_path / "Annotations" / f"{name}.xml", VOC_TEXT if name != "c" else xml())
    for split, text in {"train": "a\n", "val": "b 1\n\n", "test": "c  -1\n", "cat_train": "c  1\n"}.items():
        write(tmp_path / "ImageSets" / "Main" / f"{split}.txt", text)
    found = read(tmp_path)
    assert {k: [s.id for s in v] for k, v in found.items()} == {
        "train": ["JPEGImages/a.PNG"],
        "val": ["JPEGImages/b 1.PNG"],
        "test": ["JPEGImages/c.PNG"],
    }
    assert len(found["test"][0].target) == 0 and found["test"].classes == ("cat", "dog")
    assert found["train"].name == f"{tmp_path.name}/train"
    (tmp_path / "ImageSets" / "Main" / "test.txt").unlink()
    assert list(read(tmp_path)) == ["train", "val"]
    for name in ("train", "val"):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").unlink()
    write(tmp_path / "ImageSets" / "Main" / "trainval.txt", "a\n")
    assert_read(tmp_path, ("train",))
    write(tmp_path / "ImageSets" / "Main" / "trainval.txt", "a\nz\n")
    with pytest.raises(DataError, match="trainval.txt lists 'z'"):
        read(tmp_path)


@pytest.mark.parametrize("layout", ["", "train/", "images|annotations", "train/images|train/annotations"])
def test_voc_layouts(tmp_path, layout):
    images, _, notes = layout.partition("|")
    draw(tmp_path / images / "a.png")
    write(tmp_path / (notes or images) / "a.xml", VOC_TEXT)
    assert_read(tmp_path, ("train",) if "train" in layout else ("all",))


def test_voc_numbers_from_zero_or_with_fractions_are_corners(tmp_path):
    draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    write(tmp_path / "a.xml", xml(("cat", (10, 8, 30, 28), 0), ("dog", (0, 0, 60, 40), 1)))
    write(tmp_path / "b.xml", xml(("cat", (5, 5, 9, 9), 0)))
    assert assert_read(tmp_path)["all"][1].target.boxes == ((5.0, 5.0, 9.0, 9.0),)
    write(tmp_path / "a.xml", xml(("cat", (10.5, 8, 30, 28), 0)))
    assert read(tmp_path)["all"][1].target.boxes == ((5.0, 5.0, 9.0, 9.0),)
    write(tmp_path / "a.xml", xml(("cat", (1, 1, 1, 1), 0)))
    only = read(tmp_path)["all"]
    assert only[0].target.boxes == ((0.0, 0.0, 1.0, 1.0),)
    assert check_boxes(only, "drop")[1].counts() == {("empty", "dropped"): 1}


def test_voc_size_of_nothing_is_the_file_s(tmp_path):
    draw(tmp_path / "a.png")
    write(tmp_path / "a.xml", xml(("cat", (11, 9, 30, 28), 0), size=(0, 0)))
    assert read(tmp_path)["all"][0].target.size == SIZE
    write(tmp_path / "a.xml", xml(("", (11, 9, 30, 28), 0), ("cat", ("nan", 9, 30, 28), 0), ("cat", (2, 2, 9, 9), 0)))
    report = check_boxes(read(tmp_path)["all"], "drop")[1]
    assert report.counts() == {("number", "dropped"): 1, ("class", "dropped"): 1}


BOMB = '<!DOCTYPE a [<!ENTITY x "yyyyyyyyyy"><!ENTITY z "&x;&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + VOC_TEXT.replace("cat", "&z;"), "declares a document type"),
        (OUTSIDE + VOC_TEXT.replace("cat", "&x;"), "declares a document type"),
        (VOC_TEXT[:-5], "cannot be read as XML"),
        ("<annotation>&undefined;</annotation>", "cannot be read as XML"),
        ('<?xml version="1.0" encoding="none"?>' + VOC_TEXT, "cannot be read as XML"),
        ("<other><annotation></annotation></other>", "root element"),
        (VOC_TEXT.replace("<xmin>11</xmin>", "<xmin>left</xmin>"), "<xmin> is 'left'"),
        (VOC_TEXT.replace("<xmin>11</xmin>", "<xmin> inf </xmin>"), "<xmin> is 'inf'; it must be a number"),
        (VOC_TEXT.replace("<xmin>11</xmin>", "<xmin>1e999</xmin>"), "<xmin> is '1e999'; it must be a number"),
        (VOC_TEXT.replace("<width>60</width>", "<width>-inf</width>"), "<width> is '-inf'; it must be a number"),
        (VOC_TEXT.replace("<width>60</width>", "<width>nan</width>"), "<height> is 40 and <width> is nan; an image"),
        (VOC_TEXT.replace("<width>60</width>", "<width>1e12</width>"), "<height> is 40 and <width> is 1e.12; an image"),
        (VOC_TEXT.replace("<ymax>40</ymax>", ""), "<ymax> is None"),
        (VOC_TEXT.replace("bndbox", "polygon"), "object 0 has no <bndbox>"),
        (
            VOC_TEXT.replace("<object>", "<all><object>", 1).replace("</annotation>", "</all></annotation>"),
            "direct children",
        ),
        (xml(), "none of them has an object"),
    ],
)
def test_voc_faults_name_the_file(tmp_path, text, said):
    draw(tmp_path / "a.png")
    write(tmp_path / "a.xml", text)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path)
    assert "a.xml" in str(caught.value) or said == "none of them has an object"


def test_voc_files_without_a_partner(tmp_path):
    draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    write(tmp_path / "a.xml", VOC_TEXT)
    with pytest.raises(DataError, match="1 image has no annotation.*b.png"):
        read(tmp_path)
    (tmp_path / "b.png").rename(tmp_path / "a.bmp")
    with pytest.raises(DataError, match="a.xml could belong to any of a.bmp, a.png"):
        read(tmp_path)
    (tmp_path / "a.bmp").unlink()
    write(tmp_path / "c.xml", VOC_TEXT)
    with pytest.raises(DataError, match="c.xml has no image"):
        read(tmp_path)


VARIANTS = {
    "tags in capitals": lambda text: re.sub(r"<(/?)(\w+)>", lambda m: f"<{m[1]}{m[2].title()}>", text),
    "no difficult": lambda text: re.sub("<difficult>.</difficult>", "", text),
    "difficult in words": lambda text: text.replace(">0</diff", ">Unspecified</diff").replace(
        ">1</diff", ">True</diff"
    ),
    "order of corners": lambda text: text.replace("<bndbox><xmin>11</xmin>", "<bndbox>").replace(
        "<ymax>28</ymax>", "<ymax>28</ymax><xmin>11</xmin>"
    ),
    "wrong file name": lambda text: text.replace("<size>", "<folder>x</folder><filename>b.jpg</filename><size>", 1),
    "no size": lambda text: re.sub("<size>.*</size>", "", text),
    "size with fractions": lambda text: text.replace(">60</width>", ">60.0</width>"),
    "spaces": lambda text: text.replace("<name>cat</name>", "<name> cat\n</name>").replace(">11<", "> 11.0 <"),
    "a declaration": lambda text: '\ufeff<?xml version="1.0" encoding="utf-8"?>\r\n' + text,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_voc_spellings(tmp_path, name):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "annotations" / "a.xml", VARIANTS[name](VOC_TEXT))
    assert_read(tmp_path, crowd=name != "no difficult")


def test_voc_images_of_another_name(tmp_path):
    for number, name in enumerate(("photo 1.png", "photo 2.png")):
        draw(tmp_path / "JPEGImages" / name)
        said = ("C:\\me\\photo 1", "photo 2.jpg")[number]
        write(
            tmp_path / "Annotations" / f"{number}.xml",
            xml(("cat", (11, 9, 30, 28), number)).replace("<size>", f"<filename>{said}</filename><size>"),
        )
    write(tmp_path / "Annotations" / "labels.xml", "<labels/>")
    part = read(tmp_path)["all"]
    assert [(s.id, s.target.crowd) for s in part] == [
        ("JPEGImages/photo 1.png", (False,)),
        ("JPEGImages/photo 2.png", (True,)),
    ]
    assert "2 .xml files belong to an image of another name, given in <filename>, e.g. 0.xml to photo 1.png" in str(
        part.notes
    )
    assert "1 .xml file is no annotation of an image, e.g. labels.xml" in str(part.notes)
    write(tmp_path / "Annotations" / "2.xml", VOC_TEXT.replace("<size>", "<filename>photo 1.png</filename><size>"))
    with pytest.raises(DataError, match="0.xml and .*2.xml are both for the image photo 1"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("ImageSets/Main", "{}"),
        ("imagesets/main", "{}.png"),
        ("ImageSets", "JPEGImages/{}.png"),
        ("", "./images\\{}.png"),
    ],
)
def test_voc_lists(tmp_path, folder, line):
    for name in ("a", "b"):
        draw(tmp_path / "images" / f"{name}.png")
        write(tmp_path / "Annotations" / f"{name}.xml", VOC_TEXT)
    write(tmp_path / folder / "train.txt", line.format("a") + "\r\n")
    write(tmp_path / folder / "valid.txt", line.format("b"))
    assert {k: [s.id for s in v] for k, v in read(tmp_path).items()} == {
        "train": ["images/a.png"],
        "val": ["images/b.png"],
    }


def test_voc_polygons_and_images_elsewhere(tmp_path):
    draw(tmp_path / "a.png")
    points = "<x1>11</x1><y1>9</y1><x2>30</x2><y2>9</y2><x3>20</x3><y3>28</y3>"
    text = VOC_TEXT.replace("<bndbox><xmin>11</xmin><ymin>9</ymin><xmax>30</xmax><ymax>28</ymax></bndbox>",
                            f"<polygon>{points}</polygon>")  # fmt: skip
    write(tmp_path / "Annotations" / "a.xml", text)
    assert_read(tmp_path)
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((11, 9), (30, 9), (20, 28)))
    write(tmp_path / "Annotations" / "a.xml", re.sub("<polygon>.*</polygon>", f"<polygon>{points}</polygon>", text))
    assert_read(tmp_path)
    (tmp_path / "a.png").unlink()
    draw(tmp_path / "pets" / "a.png")
    assert_read(tmp_path)
    for folder in ("JPEGImages", "images"):
        draw(tmp_path / folder / "a.png")
    with pytest.raises(DataError, match="Annotations holds .xml files.*these are: JPEGImages/, images/, pets/"):
        read(tmp_path)
    for folder in ("JPEGImages", "images", "pets"):
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(DataError, match="Annotations holds .xml files.*there is none"):
        read(tmp_path)


# COCO ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("image", "note", "split"),
    [
        ("a.png", "x.json", "all"),
        ("images/a.png", "coco.json", "all"),
        ("images/a.png", "annotations/instances_default.json", "all"),
        ("train2017/a.png", "annotations/instances_train2017.json", "train"),
        ("images/val2017/a.png", "annotations/instances_val2017.json", "val"),
        ("valid/a.png", "valid/_annotations.coco.json", "val"),
        ("data/a.png", "labels/train.json", "train"),
    ],
)
def test_coco_layouts(tmp_path, image, note, split):
    draw(tmp_path / image), draw((tmp_path / image).with_name("b.png"))
    write(
        tmp_path / note,
        coco("b.png", "a.png", annotations=json.loads(coco())["annotations"]).replace(
            '"image_id": 50', '"image_id": 51'
        ),
    )
    write(tmp_path / "annotations" / "captions_train2017.json", '{"images": [], "annotations": []}')
    found = assert_read(tmp_path, (split,))
    assert [len(s.target) for s in found[split]] == [0, 2]
    alone = read(tmp_path / note)
    assert [s.target for s in alone[split]] == [s.target for s in found[split]]


def test_coco_splits_with_the_same_file_names(tmp_path):
    for split in ("train2017", "val2017"):
        draw(tmp_path / split / "a.png")
        write(tmp_path / "annotations" / f"instances_{split}.json", coco("a.png"))
        write(tmp_path / "annotations" / f"person_keypoints_{split}.json", coco("a.png"))
    found = assert_read(tmp_path, ("train", "val"))
    assert {k: v[0].id for k, v in found.items()} == {"train": "train2017/a.png", "val": "val2017/a.png"}
    write(tmp_path / "annotations" / "instances_val2017.json", coco("a.png", categories=((1, "cat"), (2, "cow"))))
    with pytest.raises(DataError, match="differ in their categories: cow, dog"):
        read(tmp_path)


def test_coco_other_ids_in_another_split_mean_the_same(tmp_path):
    draw(tmp_path / "train" / "a.png"), draw(tmp_path / "val" / "a.png")
    write(tmp_path / "train.json", coco("a.png"))
    write(
        tmp_path / "val.json",
        coco("a.png", categories=((3, "dog"), (7, "cat")))
        .replace('y_id": 3', 'y_id": 0')
        .replace('y_id": 7', 'y_id": 3')
        .replace('y_id": 0', 'y_id": 7'),
    )
    assert_read(tmp_path, ("train", "val"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (coco("z.png"), r"images\[0\]: the image 'z.png' does not exist \(looked in"),
        (coco("a.png", "a.png").replace('"id": 51', '"id": 50'), r"images\[1\]: the id 50 occurs twice"),
        (
            coco("a.png").replace('"image_id": 50', '"image_id": 9'),
            r"annotations\[0\]: there is no image with the id 9",
        ),
        (coco("a.png").replace("[10, 8, 20, 20]", "[10, 8, 20]"), r"annotations\[0\]: bbox is \[10, 8, 20\]"),
        (coco("a.png").replace("[10, 8, 20, 20]", '[10, 8, 20, "x"]'), r"annotations\[0\]: bbox"),
        (coco("a.png").replace("[10, 8, 20, 20]", "null"), r"annotations\[0\]: bbox is None"),
        (coco("a.png", categories=((1, "x"), (1, "y"))), r"categories\[1\]: the id 1"),
        (coco("a.png", categories=()), "has no categories"),
        (coco("a.png").replace('"categories": [', '"categories": [3, '), r"categories\[0\] is 3"),
        (coco("a.png")[:-2], "cannot be read as JSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "must hold a JSON object with the lists"),
    ],
)
def test_coco_faults_name_the_entry(tmp_path, text, said):
    draw(tmp_path / "a.png")
    write(tmp_path / "x.json", text)
    with pytest.raises(DataError, match=f"x.json.*{said}"):
        read(tmp_path)


def test_coco_faults_that_the_check_finds(tmp_path):
    draw(tmp_path / "a.png")
    boxes = ((99, [1, 1, 9, 9]), (3, [9, 9, -5, 5]), *((7, [2, 3, 4 + i, 5]) for i in range(18)))
    rows = [{"image_id": 50, "category_id": c, "bbox": b} for c, b in boxes]
    write(tmp_path / "x.json", coco("a.png", annotations=rows, width=600).replace('"bbox": [1,', '"bbox": [NaN,'))
    found = read(tmp_path)["all"]
    assert found[0].target.labels[:3] == (UNKNOWN, 0, 1) and found[0].target.size == (40, 600)
    kinds = [fault.kind for fault in check_boxes(found)[1].faults]
    assert kinds == ["size", "number", "inverted"]


def test_coco_ambiguous_files(tmp_path):
    draw(tmp_path / "a.png")
    write(tmp_path / "x.json", coco("a.png")), write(tmp_path / "y.json", coco("a.png"))
    with pytest.raises(DataError, match="x.json and y.json, both for all. Give the path of one"):
        read(tmp_path)
    assert [s.id for s in read(tmp_path / "x.json")["all"]] == ["a.png"]
    (tmp_path / "y.json").rename(tmp_path / "train.json")
    with pytest.raises(DataError, match="x.json beside files of splits"):
        read(tmp_path)


# YOLO ---------------------------------------------------------------------------------------------------------------
NAMES = "names:\n  0: cat\n  1: dog\n"


@pytest.mark.parametrize(
    ("image", "note", "names", "splits"),
    [
        ("images/a.png", "labels/a.txt", ("data.yaml", NAMES), ("all",)),
        (
            "images/train/a.png",
            "labels/train/a.txt",
            ("data.yaml", "nc: 2\nnames: [cat, dog]\ntrain: images/train"),
            ("train",),
        ),
        ("images/val2017/a.png", "labels/val2017/a.txt", ("coco.yaml", NAMES), ("val",)),
        ("train/images/a.png", "train/labels/a.txt", ("data.yml", NAMES), ("train",)),
        ("images/x/a.png", "labels/x/a.txt", ("classes.txt", "cat\ndog\n"), ("all",)),
        ("images/a.png", "labels/a.txt", ("labels/classes.txt", "cat\ndog\n"), ("all",)),
        ("a.png", "a.txt", ("classes.txt", "cat\ndog"), ("all",)),
        ("train/a.png", "train/a.txt", ("obj.names", "cat\ndog"), ("train",)),
    ],
)
def test_yolo_layouts(tmp_path, image, note, names, splits):
    draw(tmp_path / image), draw((tmp_path / image).with_name("b.jpg")), draw((tmp_path / image).with_name("c.png"))
    write(tmp_path / note, YOLO_TEXT), write((tmp_path / note).with_name("c.txt"), "\n")
    write(tmp_path / names[0], names[1])
    found = assert_read(tmp_path, splits, crowd=False)
    assert [len(s.target) for s in found[splits[0]]] == [2, 0, 0]


def test_yolo_without_names_and_with_polygons(tmp_path):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "12 0.5 0.5 0.25 0.5\n3 0 0 0.5 0.25 0.1 0.75\n")
    data = read(tmp_path)["all"]
    assert data.classes == tuple(map(str, range(13))) and data[0].target.labels == (12, 3)
    assert data[0].target.boxes == ((22.5, 10.0, 37.5, 30.0), (0.0, 0.0, 30.0, 30.0))
    write(tmp_path / "classes.txt", "cat\n")
    write(tmp_path / "labels" / "a.txt", "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n-1 .5 .5 .2 .2\n0 2 2 .1 .1\n0 nan 2 .1 .1\n")
    checked, report = check_boxes(read(tmp_path)["all"], "drop")
    assert report.counts() == {("number", "dropped"): 1, ("class", "dropped"): 2, ("outside", "dropped"): 1}
    assert len(checked[0].target) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0.5 0.5 0.2\n", "line 1 is '0 0.5 0.5 0.2'; it must be"),
        ("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 nan\n", "line 2"),
        ("0 0,5 0,5 0,2 0,2\n", "line 1 is '0 0,5 0,5.*with decimal points"),
        ("0;0,5;0,5;0,2;0,2\n", "line 1 is '0;0,5.*with decimal points"),
        ("0 0.5 0.5 0.2 0.2\n10000000000 0.5 0.5 0.2 0.2\n", "line 2: the class number is 10000000000; it must be"),
        ("1e300 0.5 0.5 0.2 0.2\n", "line 1: the class number is 1000"),
        ("inf 0.5 0.5 0.2 0.2\n", "line 1"),
        ("0.5 0.5 0.5 0.2 0.2\n", "line 1"),
        ("cat 0.5 0.5 0.2 0.2\n", "line 1 is 'cat.*only numbers"),
        ("nan 0.5 0.5 0.2 0.2\n", "line 1"),
        ("", "no boxes in any"),
    ],
)
def test_yolo_faults_name_the_line(tmp_path, text, said):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", text)
    with pytest.raises(DataError, match=said):
        read(tmp_path, "yolo")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: 3", "names is 3"),
        ("names: {0: a, -2: b}", "must be a list of the classes"),
        ("names: [[a]]", "must have a name that is text"),
        ("names: [a", "cannot be read as YAML"),
        ("names: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_yolo_faults_of_the_names(tmp_path, text, said):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", YOLO_TEXT), write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=f"data.yaml.*{said}"):
        read(tmp_path)


def test_yolo_names_that_yaml_takes_for_something_else(tmp_path):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", YOLO_TEXT), write(tmp_path / "data.yaml", "names: [1, two]")
    assert read(tmp_path)["all"].classes == ("1", "two")


def test_yolo_file_without_an_image(tmp_path):
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", YOLO_TEXT), write(tmp_path / "labels" / "z.txt", YOLO_TEXT)
    with pytest.raises(DataError, match="z.txt has no image"):
        read(tmp_path)


# Instance masks -----------------------------------------------------------------------------------------------------
MASKED = ((10.0, 8.0, 30.0, 28.0), (40.0, 30.0, 60.0, 40.0))


@pytest.mark.parametrize(
    ("image", "mask", "splits"),
    [
        ("images/a.jpg", "masks/a.png", ("all",)),
        ("PNGImages/a.png", "PedMasks/a_mask.png", ("all",)),
        ("train/images/a.png", "train/masks/a.png", ("train",)),
        ("images/val/a.png", "masks/val/a_instances.png", ("val",)),
    ],
)
def test_instances_layouts(tmp_path, image, mask, splits):
    draw(tmp_path / image), draw((tmp_path / image).with_name("b.png"))
    put_mask(tmp_path / mask)
    found = read(tmp_path)
    assert tuple(found) == splits
    data = found[splits[0]]
    assert data.kind == "boxes" and data.classes == ("object",)
    assert data[0].target.boxes == MASKED and data[0].target.masks.values == (4, 9)
    assert data[0].target.masks.file == tmp_path / mask
    assert len(data[1].target) == 0 and data[1].target.size == SIZE
    assert not check_boxes(data, "error")[1].faults
    write(tmp_path / "classes.txt", "cell\n")
    assert read(tmp_path)[splits[0]].classes == ("cell",)


def test_instances_of_many_kinds_of_mask(tmp_path):
    draw(tmp_path / "images" / "a.png")
    mask = tmp_path / "masks" / "a.png"
    put_mask(mask, [(10, 8, 30, 28, 300), (40, 30, 60, 40, 40000)], np.uint16)
    assert read(tmp_path)["all"][0].target.boxes == MASKED
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[8:28, 10:30], colors[30:40, 40:60] = (255, 0, 0), (0, 0, 7)
    Image.fromarray(colors).save(mask)
    target = read(tmp_path)["all"][0].target
    assert target.boxes == MASKED and target.masks.values == (255, 7 * 65536)
    palette = Image.fromarray(np.where(colors[..., 0] > 0, 200, 0).astype(np.uint8)).convert("P")
    palette.save(mask)
    assert read(tmp_path)["all"][0].target.boxes == MASKED[:1]
    Image.fromarray(colors[..., 0] > 0).save(mask)
    assert read(tmp_path)["all"][0].target.boxes == MASKED[:1]


def test_a_border_of_255_around_objects_is_said(tmp_path):
    draw(tmp_path / "images" / "a.png")
    put_mask(tmp_path / "masks" / "a.png", [(9, 7, 31, 29, 255), (10, 8, 30, 28, 1), (40, 30, 60, 40, 2)])
    data = read(tmp_path)["all"]
    assert len(data[0].target) == 3 and "the value 255 counts as an object in 1 masks" in data.notes[0]
    put_mask(tmp_path / "masks" / "a.png")
    assert read(tmp_path)["all"].notes == ()


def test_instances_faults(tmp_path):
    draw(tmp_path / "images" / "a.png")
    put_mask(tmp_path / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg is a JPEG"):
        read(tmp_path)
    (tmp_path / "masks" / "a.jpg").rename(tmp_path / "masks" / "a.png")
    (tmp_path / "masks" / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match="a.png cannot be read as a mask"):
        read(tmp_path)
    put_mask(tmp_path / "masks" / "a.png", ())
    with pytest.raises(DataError, match="no object in any mask"):
        read(tmp_path)
    put_mask(tmp_path / "masks" / "a.png", size=(20, 30), values=((5, 4, 15, 14, 1),))
    checked, report = check_boxes(read(tmp_path)["all"])
    assert report.counts() == {("size", "fixed"): 1} and checked[0].target.boxes == MASKED[:1]
    put_mask(tmp_path / "masks" / "b.png")
    with pytest.raises(DataError, match="1 of 2 masks do not have the name of exactly one image.*b.png"):
        read(tmp_path)
    put_mask(tmp_path / "masks" / "c.png")
    with pytest.raises(DataError, match="no known data layout"):
        read(tmp_path)
    with pytest.raises(DataError, match="no mask in .* has the same name as an image"):
        read(tmp_path, "instances")
    write(tmp_path / "classes.txt", "a\nb\n")
    with pytest.raises(DataError, match="names 2 classes"):
        read(tmp_path, "instances")


def test_classes_of_masked_faces_are_classes(tmp_path):
    for name in ("with_mask", "without_mask"):
        for number in range(2):
            draw(tmp_path / name / f"{number}.png")
    assert read(tmp_path)["all"].kind == "class"


@pytest.mark.parametrize("name", ["voc", "coco", "yolo", "instances"])
def test_what_a_format_is_not(tmp_path, name):
    draw(tmp_path / "a" / "a.png")
    with pytest.raises(DataError, match="is not"):
        read(tmp_path, name)
    with pytest.raises(DataError, match="is not"):
        read(tmp_path / "a" / "a.png", name)
    assert not formats()[name].detect(tmp_path / "a" / "a.png")


# Real data ----------------------------------------------------------------------------------------------------------
def test_blood_cells(assets):
    found = read(assets / "datasets" / "bccd")
    assert {k: len(v) for k, v in found.items()} == {"train": 205, "val": 87, "test": 72}
    assert {s.target.size for part in found.values() for s in part} == {(480, 640)}
    counts = [part.counts() for part in found.values()]
    totals = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert totals == {"Platelets": 361, "RBC": 4155, "WBC": 372}
    # Two cells are a click without a drag; nothing else is wrong.
    reports = [check_boxes(part)[1] for part in found.values()]
    assert [report.counts() for report in reports] == [{("empty", "dropped"): 1}, {("empty", "dropped"): 1}, {}]


def test_pedestrians(assets):
    """The boxes around the masks are those of the texts, where no one stands before another."""
    people = read(assets / "datasets" / "pennfudan")["all"]
    assert len(people) == 34 and people.counts() == {"object": 84} and not check_boxes(people)[1].faults
    far = []
    for sample in people:
        text = (assets / "datasets" / "pennfudan" / "Annotation" / f"{sample.image.stem}.txt").read_text("latin-1")
        said = re.findall(r"Xmax, Ymax\) : \((\d+), (\d+)\) - \((\d+), (\d+)\)", text)
        said = np.array(sorted((int(a) - 1, int(b) - 1, int(c), int(d)) for a, b, c, d in said))
        far += np.abs(said - np.array(sorted(sample.target.boxes))).max(1).tolist()
    assert len(far) == 84 and sorted(far)[-2] <= 1 and max(far) == 6


def test_one_data_set_in_four_formats_is_the_same(assets, tmp_path):
    """Real boxes, written in each format by other code than the readers', come back the same."""
    real = read(assets / "datasets" / "bccd")["test"].subset(range(3), "some")
    real = check_boxes(real)[0]
    roots = {name: tmp_path / name for name in ("coco", "yolo", "voc")}
    entries: dict = {"images": [], "annotations": [], "categories": []}
    entries["categories"] = [{"id": i, "name": name} for i, name in enumerate(real.classes)]
    for number, sample in enumerate(real):
        for root in roots.values():
            (root / "images").mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.image, root / "images" / sample.image.name)
        entries["images"].append({"id": number, "file_name": sample.image.name})
        lines, objects = [], []
        for box, label in zip(sample.target.boxes, sample.target.labels, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            entries["annotations"].append({"image_id": number, "category_id": label, "bbox": [x, y, w, h]})
            lines.append(f"{label} {(x + w / 2) / 640:.6f} {(y + h / 2) / 480:.6f} {w / 640:.6f} {h / 480:.6f}")
            objects.append((real.classes[label], (int(x) + 1, int(y) + 1, int(x + w), int(y + h)), 0))
        write(roots["yolo"] / "labels" / f"{sample.image.stem}.txt", "\n".join(lines))
        write(roots["voc"] / "annotations" / f"{sample.image.stem}.xml", xml(*objects, size=(480, 640)))
    write(roots["coco"] / "annotations.json", json.dumps(entries))
    write(roots["yolo"] / "classes.txt", "\n".join(real.classes))
    for name, root in roots.items():
        found = check_boxes(read(root)["all"], "error")[0]
        assert found.classes == real.classes, name
        for ours, theirs in zip(found, real, strict=True):
            assert ours.target.labels == theirs.target.labels
            np.testing.assert_allclose(ours.target.boxes, theirs.target.boxes, atol=1e-3)
