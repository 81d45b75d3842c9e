"""Masks on disk: folders of masks, Pascal VOC, COCO's outlines, masks of objects; and which of them a folder is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from zoo.data import formats, read
from zoo.data.class_table import classes_of, code, colours_of, read_table, values_of
from zoo.data.masks import IGNORE, pixel_counts, read_mask
from zoo.data.readers import voc_masks
from zoo.errors import DataError
from zoo.targets.check_masks import check_masks

SIZE = (12, 20)
WANTED = np.zeros(SIZE, np.uint8)
WANTED[1:5, 2:9], WANTED[6:9, 12:18] = 1, 2
COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 64), (224, 224, 192)], np.uint8)


def draw(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(path)


def put(path, pixels=WANTED, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels))
    if palette is not None:
        picture.putpalette(np.asarray(palette, np.uint8).reshape(-1).tolist())
    picture.save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def only(parts):
    """The data set of the single part."""
    (found,) = parts.values()
    return found


# Lists of classes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "names", "colours"),
    [
        (["sky", "a tree", "", "road"], ("sky", "a tree", "road"), ()),
        (["# CVAT", "sky:0,0,0::", "tree:128,0,0:left:", "road:0,128,64::"], ("sky", "tree", "road"), COLOURS[:3]),
        (["name,r,g,b", "sky,0,0,0", "tree,128,0,0", "road,0,128,64"], ("sky", "tree", "road"), COLOURS[:3]),
        (["name, r, g, b", "sky, 0, 0, 0", "a tree, 128, 0, 0"], ("sky", "a tree"), COLOURS[:2]),
        (["0 0 0\t\tsky", "128 0 0\t\ttree"], ("sky", "tree"), COLOURS[:2]),
        (["sky 0 0 0", "class 2 128 0 0"], ("sky", "class 2"), COLOURS[:2]),
    ],
)
def test_lists_of_classes(tmp_path, lines, names, colours):
    text(tmp_path / "classes.txt", *lines)
    rows = read_table(tmp_path / "classes.txt")
    assert classes_of(rows) == names
    assert colours_of(rows) == tuple((code(*map(int, c)), i) for i, c in enumerate(colours))
    assert values_of(rows) == (*((i, i) for i in range(len(names))), (255, IGNORE))


def test_classes_that_do_not_count(tmp_path):
    text(tmp_path / "class_names.txt", "__ignore__", "_background_", "cat")
    rows = read_table(tmp_path / "class_names.txt")
    assert classes_of(rows) == ("background", "cat") and values_of(rows) == ((0, 0), (1, 1), (255, IGNORE))
    text(tmp_path / "label_colors.txt", "0 0 0 Void", "128 0 0 cat", "0 128 64 dog")
    rows = read_table(tmp_path / "label_colors.txt")
    assert classes_of(rows) == ("cat", "dog")
    assert colours_of(rows) == ((0, IGNORE), (128, 0), (code(0, 128, 64), 1))
    assert values_of(rows)[:3] == ((0, IGNORE), (1, 0), (2, 1))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a", "a"], "'a' occurs twice"),
        (["a 1 2 3", "b 1 2 3"], "the colour 1 2 3 occurs twice"),
        (["a 1 2 3", "b"], "colours for some"),
        (["a 1 2 333"], "line 1 is 'a 1 2 333'; red, green"),
        (["void"], "names no class"),
    ],
)
def test_faulty_lists_of_classes(tmp_path, lines, message):
    text(tmp_path / "classes.txt", *lines)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "classes.txt")


# Folders --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("image", "mask", "splits"),
    [
        ("images/a.jpg", "masks/a.png", ("all",)),
        ("images/a.jpg", "labels/a_P.png", ("all",)),
        ("img_dir/val/a.jpg", "ann_dir/val/a.png", ("val",)),
        ("train/images/deep/a.jpg", "train/masks/deep/a_mask.png", ("train",)),
        ("train/a.png", "train_labels/a_L.png", ("train",)),
        ("train/a.png", "trainannot/a.png", ("train",)),
    ],
)
def test_layouts_of_folders(tmp_path, image, mask, splits):
    draw(tmp_path / image)
    put(tmp_path / mask)
    text(tmp_path / "classes.txt", "sky", "tree", "road")
    found = read(tmp_path)
    assert tuple(found) == splits
    data = found[splits[0]]
    assert data.kind == "masks" and data.classes == ("sky", "tree", "road")
    assert data[0].id == image and (read_mask(data[0].target) == WANTED).all()
    assert not check_masks(data, "error")[1].faults


def test_indexes_with_a_palette_and_255(tmp_path):
    draw(tmp_path / "images/a.jpg")
    pixels = WANTED.copy()
    pixels[0] = 255
    put(tmp_path / "masks/a.png", pixels, palette=np.arange(768) % 256)
    text(tmp_path / "classes.txt", "sky", "tree", "road")
    found, report = check_masks(only(read(tmp_path)), "error")
    assert (read_mask(found[0].target)[0] == IGNORE).all() and found[0].target.pixels[1:] == (28, 18)
    pixels[3, 0] = 7
    put(tmp_path / "masks/a.png", pixels)
    assert check_masks(only(read(tmp_path)))[1].counts() == {("value", "ignored"): 1}


@pytest.mark.parametrize("kind", ["colours", "palette", "indexes"])
def test_a_list_with_colours_reads_all_three(tmp_path, kind):
    draw(tmp_path / "images/a.jpg")
    if kind == "colours":
        put(tmp_path / "masks/a.png", COLOURS[WANTED])
    else:
        put(tmp_path / "masks/a.png", WANTED, COLOURS if kind == "palette" else None)
    text(tmp_path / "class_dict.csv", "name,r,g,b", "sky,0,0,0", "tree,128,0,0", "road,0,128,64", "Void,224,224,192")
    data = only(read(tmp_path))
    assert data.classes == ("sky", "tree", "road") and data[0].target.source.colours == (kind != "indexes")
    assert (read_mask(data[0].target) == WANTED).all()


def test_void_colours_are_ignored(tmp_path):
    draw(tmp_path / "images/a.jpg")
    pixels = WANTED.copy()
    pixels[0] = 3
    put(tmp_path / "masks/a.png", COLOURS[pixels])
    text(tmp_path / "labelmap.txt", "sky:0,0,0::", "tree:128,0,0::", "road:0,128,64::", "void:224,224,192::")
    found, report = check_masks(only(read(tmp_path)), "error")
    assert (read_mask(found[0].target)[0] == IGNORE).all()


@pytest.mark.parametrize("coded", [255, "white", 1])
@pytest.mark.parametrize("listed", [(), ("cell",), ("nothing", "cell")])
def test_masks_of_two_values(tmp_path, coded, listed):
    for name in "ab":
        draw(tmp_path / f"images/{name}.jpg")
        there = (WANTED > 0).astype(np.uint8) * (1 if coded == 1 else 255) * (name == "a")
        put(tmp_path / f"masks/{name}.png", np.repeat(there[..., None], 3, 2) if coded == "white" else there)
    if listed:
        text(tmp_path / "classes.txt", *listed)
    data = only(read(tmp_path, None, ("masks",)))
    assert data.classes == ((listed or ("object",)) if len(listed) == 2 else ("background", *(listed or ("object",))))
    assert (read_mask(data[0].target) == (WANTED > 0)).all() and not read_mask(data[1].target).any()
    assert check_masks(data)[1].counts() in ({("empty", "kept"): 1}, {})
    if coded != 1:
        assert only(read(tmp_path)).kind == "masks"  # black and white alone are no numbers of objects
    # The format can be named, where nothing else tells.
    if len(listed) < 2:
        assert only(read(tmp_path, "masks")).kind == "masks" and only(read(tmp_path, "instances")).kind == "boxes"


def test_one_named_colour_lies_on_background(tmp_path):
    draw(tmp_path / "images/a.jpg")
    put(tmp_path / "masks/a.png", COLOURS[(WANTED > 0).astype(int)])
    text(tmp_path / "classes.txt", "cell 128 0 0")
    data = only(read(tmp_path, "masks"))
    assert data.classes == ("background", "cell") and (read_mask(data[0].target) == (WANTED > 0)).all()


def test_values_of_objects_are_no_classes(tmp_path):
    """Without a list of classes, values number objects; a task that needs masks gets one class."""
    draw(tmp_path / "images/a.jpg")
    put(tmp_path / "masks/a.png")
    assert only(read(tmp_path)).kind == "boxes" and len(only(read(tmp_path, None, ("boxes",)))[0].target) == 2
    data = only(read(tmp_path, None, ("masks",)))
    assert data.classes == ("background", "object") and (read_mask(data[0].target) == (WANTED > 0)).all()
    with pytest.raises(DataError, match="besides 0, 1 and 255, e.g. 2, and no list"):
        read(tmp_path, "masks")


def test_masks_without_an_image_are_counted(tmp_path):
    text(tmp_path / "classes.txt", "sky", "tree", "road")
    for number in range(10):
        draw(tmp_path / f"images/{number}.jpg"), put(tmp_path / f"masks/{number}.png")
    put(tmp_path / "masks/stray.png")
    data = only(read(tmp_path))
    assert len(data) == 10 and data.kind == "masks" and (read_mask(data[9].target) == WANTED).all()
    assert any("1 of 11 masks do not have the name of exactly one image" in note for note in data.notes)
    put(tmp_path / "masks/0_mask.png")
    with pytest.raises(DataError, match=r"2 of 12 masks .* e.g. .*stray.png. Add|2 of 12 masks .*0_mask.png. Add"):
        read(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="2 of 12 masks"):
        read(tmp_path, "instances")
    (
        (tmp_path / "masks/0_mask.png").unlink(),
        (tmp_path / "masks/9.png").unlink(),
        (tmp_path / "masks/stray.png").unlink(),
    )
    objects = only(read(tmp_path))
    assert [len(sample.target) for sample in objects] == [2] * 9 + [0]
    assert [
        "1 of 10 images have no mask and count as images without objects, e.g. 9.jpg" in n for n in objects.notes
    ] == [True]


def test_faulty_folders(tmp_path):
    draw(tmp_path / "images/a.jpg"), draw(tmp_path / "images/b.jpg")
    put(tmp_path / "masks/a.png")
    text(tmp_path / "classes.txt", "a", "b", "c")
    with pytest.raises(DataError, match="1 image has no mask in .*b.jpg"):
        read(tmp_path, "masks")
    put(tmp_path / "masks/c.png"), put(tmp_path / "masks/d.png")
    with pytest.raises(DataError, match="do not have the names of the images"):
        read(tmp_path, "masks")
    (tmp_path / "masks/d.png").unlink()
    (tmp_path / "masks/c.png").rename(tmp_path / "masks/b.jpg")
    draw(tmp_path / "masks/b.jpg")
    data = only(read(tmp_path))
    with pytest.raises(DataError, match="b.jpg is a JPEG"):
        check_masks(data)
    for place in (tmp_path / "images", tmp_path / "images/a.jpg"):
        assert not formats()["masks"].detect(place)
        with pytest.raises(DataError, match="is not"):
            read(place, "masks")


# Pascal VOC -----------------------------------------------------------------------------------------------------------
def voc(tmp_path, kind="palette", lists=(("train", "a"), ("val", "b"))):
    for name in "ab":
        draw(tmp_path / f"JPEGImages/{name}.jpg")
        pixels = np.where(WANTED == 2, 15, WANTED).astype(np.uint8)
        pixels[0] = 255
        palette = [(v & 255, v >> 8 & 255, v >> 16) for v in map(voc_masks.colour, range(256))]
        palette[255] = (224, 224, 192)
        file = tmp_path / f"SegmentationClass/{name}.png"
        put(
            file,
            np.array(palette, np.uint8)[pixels] if kind == "colours" else pixels,
            palette if kind == "palette" else None,
        )
    draw(tmp_path / "JPEGImages/c.jpg")
    for split, name in lists:
        text(tmp_path / f"ImageSets/Segmentation/{split}.txt", name)


def test_the_colours_of_pascal_voc():
    assert [voc_masks.colour(i) for i in (0, 1, 2, 3, 15, 20)] == [
        code(*c) for c in [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (192, 128, 128), (0, 64, 128)]
    ]
    assert len({voc_masks.colour(i) for i in range(256)}) == 256 and len(voc_masks.CLASSES) == 21


@pytest.mark.parametrize("kind", ["palette", "indexes", "colours"])
def test_pascal_voc(tmp_path, kind):
    voc(tmp_path, kind, (("train", "a"), ("val", "b"), ("test", "c")))
    found = read(tmp_path)
    assert list(found) == ["train", "val"] and [found[s][0].id for s in found] == [
        "JPEGImages/a.jpg",
        "JPEGImages/b.jpg",
    ]
    assert all("test.txt lists 1 images without masks" in part.notes[0] for part in found.values())
    data, _ = check_masks(found["train"], "error")
    assert data.counts() == {**dict.fromkeys(voc_masks.CLASSES, 0), "background": 1, "aeroplane": 1, "person": 1}
    assert (read_mask(data[0].target)[0] == IGNORE).all()


def test_boxes_and_masks_of_pascal_voc(tmp_path):
    """Both are there: the task decides, or the user is asked."""
    voc(tmp_path)
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>5</ymax></bndbox>"
    for name in "abc":
        text(
            tmp_path / f"Annotations/{name}.xml", f"<annotation><object><name>person</name>{box}</object></annotation>"
        )
    assert read(tmp_path, None, ("boxes",))["all"].kind == "boxes"
    assert read(tmp_path, None, ("masks",))["train"].kind == "masks"
    with pytest.raises(DataError, match="several formats: voc, voc_masks. Name .* or the task"):
        read(tmp_path)


def test_other_classes_in_pascal_vocs_layout(tmp_path):
    """As CVAT and labelme write it."""
    draw(tmp_path / "JPEGImages/a.jpg")
    put(tmp_path / "SegmentationClass/a.png", COLOURS[WANTED])
    text(
        tmp_path / "labelmap.txt",
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "x:128,0,0::",
        "y:0,128,64::",
    )
    text(tmp_path / "ImageSets/Segmentation/default.txt", "a")
    data = read(tmp_path)["all"]
    assert data.classes == ("background", "x", "y") and (read_mask(data[0].target) == WANTED).all()
    (tmp_path / "labelmap.txt").unlink()
    put(tmp_path / "SegmentationClassPNG/a.png", WANTED, COLOURS)
    text(tmp_path / "class_names.txt", "__ignore__", "_background_", "x", "y")
    assert (read_mask(read(tmp_path)["all"][0].target) == WANTED).all()


def test_faulty_pascal_voc(tmp_path):
    voc(tmp_path, lists=(("train", "a\nc"),))
    with pytest.raises(DataError, match="lists 'c', which has no mask"):
        read(tmp_path)
    with pytest.raises(DataError, match="is not"):
        read(tmp_path / "JPEGImages", "voc_masks")


# COCO -----------------------------------------------------------------------------------------------------------------
def coco(tmp_path, *segmentations):
    draw(tmp_path / "a.jpg"), draw(tmp_path / "b.jpg")
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": [2, 1, 7, 4], "segmentation": one, "iscrowd": 0}
        for i, one in enumerate(segmentations)
    ]
    images = [{"id": i, "file_name": f"{name}.jpg", "height": 12, "width": 20} for i, name in ((1, "a"), (2, "b"))]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    text(tmp_path / "annotations.json", json.dumps(content))


def test_cocos_outlines(tmp_path):
    polygon = [[2, 1, 9, 1, 9, 5, 2, 5]]
    runs = coco_masks.encode(np.asfortranarray(WANTED == 2).astype(np.uint8))["counts"].decode()
    coco(tmp_path, polygon, {"size": list(SIZE), "counts": runs})
    data = only(read(tmp_path, None, ("masks",)))
    assert data.classes == ("background", "cat", "dog") and len(data) == 2
    assert (read_mask(data[0].target) == WANTED).all() and not read_mask(data[1].target).any()
    assert check_masks(data)[1].counts() == {("empty", "kept"): 1}
    assert only(read(tmp_path)).kind == "boxes"  # a detector's, as ever


def test_cocos_annotations_with_and_without_outlines(tmp_path):
    coco(tmp_path, [[2, 1, 9, 1, 9, 5, 2, 5]], [[]])
    data = only(read(tmp_path, None, ("masks",)))
    assert pixel_counts(data).tolist() == [240 * 2 - 28, 28, 0]  # the box of the other one is below it
    coco(tmp_path, [], [])
    with pytest.raises(DataError, match="boxes without masks"):
        read(tmp_path, None, ("masks",))


def test_polygons_of_yolo(tmp_path):
    draw(tmp_path / "images/a.jpg")
    corners = [2 / 20, 1 / 12, 9 / 20, 1 / 12, 9 / 20, 5 / 12, 2 / 20, 5 / 12]
    text(tmp_path / "labels/a.txt", "1 " + " ".join(f"{v:.6f}" for v in corners), "0 0.75 0.625 0.3 0.25")
    text(tmp_path / "classes.txt", "cat", "dog")
    data = only(read(tmp_path, None, ("masks",)))
    wanted = np.where(WANTED == 1, 2, np.where(WANTED == 2, IGNORE, 0))  # of the other one the box is known
    assert data.classes == ("background", "cat", "dog") and (read_mask(data[0].target) == wanted).all()
    assert only(read(tmp_path)).kind == "boxes" and len(only(read(tmp_path))[0].target) == 2


# Real data ------------------------------------------------------------------------------------------------------------
def test_pedestrians(assets: Path):
    folder = assets / "datasets" / "pennfudan"
    data = only(read(folder, None, ("masks",)))
    assert len(data) == 34 and data.classes == ("background", "object") and data.kind == "masks"
    found, report = check_masks(data)
    assert not report.faults and report.merged
    counts = pixel_counts(found)
    values = [np.asarray(Image.open(file)) for file in sorted((folder / "PedMasks").iterdir())]
    assert counts.tolist() == [sum(int((v == 0).sum()) for v in values), sum(int((v > 0).sum()) for v in values)]
