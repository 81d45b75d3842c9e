"""COCO files as annotation tools write them: what is meant is read, what is left out is counted and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.data import Dataset, read
from zoo.data.check import check_boxes, checked
from zoo.data.masks import pixel_counts
from zoo.errors import DataError
from zoo.targets.outlines import Polygons, Runs, box_of, shape_of

HEIGHT, WIDTH = 40, 60
BOX = (10.0, 8.0, 30.0, 28.0)
XYWH = [10, 8, 20, 20]
RING = [10, 8, 30, 8, 30, 28, 10, 28]


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(root / name)


def write(
    root: Path, names: dict[Any, str], annotations: list[dict] | None = None, name: str = "a.json", **other: Any
) -> Path:
    """Write a file that lists images by id, each with one box of the category 3 unless `annotations` are given."""
    rows = [{"image_id": id, "category_id": 3, "bbox": XYWH} for id in names] if annotations is None else annotations
    images = [{"id": id, "file_name": file, "height": HEIGHT, "width": WIDTH} for id, file in names.items()]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps({"images": images, "annotations": rows, "categories": categories} | other))
    return root / name


def only(root: Path) -> Dataset:
    (part,) = read(root, "coco").values()
    return part


# Categories -----------------------------------------------------------------------------------------------------------
def test_a_category_that_only_groups_the_others_is_no_class(tmp_path: Path) -> None:
    root = {"id": 0, "name": "cells", "supercategory": "none"}
    for names in (["cells"], ["red", "white"]):
        draw(tmp_path, "train/a.png", "valid/a.png")
        categories = [root, *({"id": i, "name": name, "supercategory": "cells"} for i, name in enumerate(names, 1))]
        for split in ("train", "valid"):
            rows = [{"image_id": 1, "category_id": len(names), "bbox": XYWH}]
            write(tmp_path, {1: "a.png"}, rows, f"{split}/_annotations.coco.json", categories=categories)
        found = read(tmp_path)
        for part in found.values():
            assert part.classes == tuple(names) and part.category_ids == tuple(range(1, len(names) + 1))
            assert part[0].target.labels == (len(names) - 1,) and "'cells' (id 0) has no annotations" in part.notes[0]
        rows[0]["category_id"] = 0  # it is a class after all
        write(tmp_path, {1: "a.png"}, rows, "valid/_annotations.coco.json", categories=categories)
        if names == ["cells"]:
            with pytest.raises(DataError, match="the id 1 or the name 'cells' occurs twice"):
                read(tmp_path)
        else:
            assert read(tmp_path)["val"].classes == ("cells", "red", "white")
    person = [{"id": 1, "name": "person", "supercategory": "person"}]
    assert only(write(tmp_path, {1: "train/a.png"}, [], "a.json", categories=person)).classes == ("person",)


def test_a_split_whose_file_lacks_a_category_keeps_the_others(tmp_path: Path) -> None:
    draw(tmp_path, "train/a.png", "test/b.png")
    write(tmp_path, {1: "a.png"}, name="train.json")
    rows = [{"image_id": 1, "category_id": 5, "bbox": XYWH}]
    write(tmp_path, {1: "b.png"}, rows, "test.json", categories=[{"id": 5, "name": "dog"}])
    found = read(tmp_path, "coco")
    assert found["test"].classes == ("cat", "dog") and found["test"].category_ids == (None, 5)
    assert found["test"][0].target.labels == (1,) and found["train"].category_ids == (3, 7)
    write(tmp_path, {1: "b.png"}, rows, "test.json", categories=[{"id": 5, "name": "cow"}])
    with pytest.raises(DataError, match="differ in their categories: cat, cow, dog"):
        read(tmp_path, "coco")


# Ids, boxes and sizes of other types ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("image", "listed", "category", "bbox"),
    [
        ("5", 5, 3, XYWH),
        (5, "5", "3", [str(v) for v in XYWH]),
        (5.0, 5, 3.0, "[10, 8, 20.0, 20]"),
        ("5.0", 5, "3.0", "10,8,20,20"),
        ("00f-a", "00f-a", 3, "10 8 20 20"),
    ],
)
def test_ids_and_boxes_may_be_text_or_floats(tmp_path: Path, image: Any, listed: Any, category: Any, bbox: Any) -> None:
    draw(tmp_path, "a.png", "b.png")
    rows = [{"image_id": listed, "category_id": category, "bbox": bbox, "iscrowd": "0"}]
    write(tmp_path, {image: "a.png", "other": "b.png"}, rows)
    text = (tmp_path / "a.json").read_text()
    if isinstance(image, float):  # not as a key, where JSON makes it text
        (tmp_path / "a.json").write_text(text.replace('"id": "5.0"', '"id": 5.0'))
    part = only(tmp_path)
    assert [s.target.boxes for s in part] == [(BOX,), ()] and part[0].target.labels == (0,)
    assert part[0].target.crowd == (False,) and part.category_ids == (3, 7) and part.classes == ("cat", "dog")
    assert part[0].number == (image if isinstance(image, str) else 5)


def test_category_ids_in_words_are_sorted_and_kept(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    rows = [{"image_id": 1, "category_id": "k-2", "bbox": XYWH}]
    categories = [{"id": "k-2", "name": "dog"}, {"id": "k-1", "name": 5}, {"id": "k-1", "name": "5"}]
    part = only(write(tmp_path, {1: "a.png"}, rows, categories=categories))
    assert part.classes == ("5", "dog") and part[0].target.labels == (1,) and part.category_ids == ("k-1", "k-2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": True}, r"annotations\[0\]: image_id is True; it must be a whole number or text"),
        ({"category_id": 1.5}, r"annotations\[0\]: category_id is 1.5"),
        ({"category_id": None}, "category_id is None"),
        ({"bbox": "left"}, "bbox is 'left'; it must be four numbers"),
        ({"bbox": {"x": 1}}, "bbox is {'x': 1}; it must be four numbers"),
        ({"bbox": [[1, 2], [3, 4]]}, "it must be four numbers"),
        ({"bbox": []}, r"bbox is \[\], and there is no outline"),
        ({"bbox": None, "segmentation": [[1, 2, 3]]}, "bbox is None, and there is no outline"),
    ],
)
def test_entries_that_mean_nothing_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    draw(tmp_path, "a.png")
    write(tmp_path, {1: "a.png"}, [{"image_id": 1, "category_id": 3, "bbox": XYWH, **change}])
    with pytest.raises(DataError, match=f"a.json: .*{said}"):
        read(tmp_path)


@pytest.mark.parametrize("sides", [(10**6, 10**6), (10**400, 5), ("900000000", "2")])
def test_an_image_of_absurd_size_is_refused(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    draw(tmp_path, "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": sides[0], "height": sides[1]}]
    rows = [{"image_id": 1, "category_id": 3, "segmentation": {"counts": [10**12], "size": [10**6, 10**6]}}]
    write(tmp_path, {}, rows, images=images)
    with pytest.raises(DataError, match=r"a.json: images\[0\]: width and height are .* at most 178,956,970 pixels"):
        read(tmp_path)


# Outlines without boxes -----------------------------------------------------------------------------------------------
RUNS = [v for _ in range(20) for v in (20, 20)]
RUNS = [10 * HEIGHT + 8, 20, *RUNS[2:], 60 * HEIGHT - (10 * HEIGHT + 8 + 20 + 40 * 19)]


@pytest.mark.parametrize("bbox", ["none", None, [], [0, 0, 0, 0], [10, 8, 0, 0], ""])
@pytest.mark.parametrize(
    "segmentation",
    [
        [RING],
        RING,
        [[[x, y] for x, y in zip(RING[::2], RING[1::2], strict=True)]],
        json.dumps([RING]),
        {"counts": RUNS, "size": [HEIGHT, WIDTH]},
    ],
    ids=["polygon", "flat", "points", "text", "runs"],
)
def test_the_box_of_an_outline(tmp_path: Path, bbox: Any, segmentation: Any) -> None:
    draw(tmp_path, "images/a.png")
    row = {"image_id": 1, "category_id": 7, "segmentation": segmentation}
    write(tmp_path, {1: "a.png"}, [row if bbox == "none" else {**row, "bbox": bbox}])
    part = only(tmp_path)
    assert part[0].target.boxes == (BOX,) and part[0].target.labels == (1,)
    assert any("1 annotation has no box, but that of the outline" in note for note in part.notes)
    masks = read(tmp_path, kinds=("masks",))
    assert masks["all"].classes == ("background", "cat", "dog")
    counts = pixel_counts(checked(masks)[0]["all"]).tolist()
    assert counts == [HEIGHT * WIDTH - 400, 0, 400]


def test_boxes_of_shapes() -> None:
    packed = shape_of({"counts": "P137000000000l0", "size": [10, 12]}, (10, 12))
    assert box_of(packed, (10, 12)) == (3, 2, 9, 5)
    assert box_of(Polygons(((5, 5, 9, 5, 9, 8), (1, 2, 3, 2, 3, 4))), (10, 12)) == (1, 2, 9, 8)
    assert box_of(Runs((120,)), (10, 12)) is None and box_of(Runs("garbage"), (10, 12)) is None


# Names of images ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("on_disk", "listed", "said"),
    [
        ("images/a b.png", "images\\a b.png", False),
        ("images/a b.png", "a%20b.png", True),
        ("images/a b.png", "/data/upload/3/5f2c91ab-a b.png", True),
        ("images/5f2c91ab-a b.png", "a b.png", True),
        ("images/a b.png", "C:\\Users\\me\\pets\\images\\a b.png", True),
        ("images/a b.png", "/data/local-files/?d=pets/images/a%20b.png", True),
        ("images/a b.png", "https://host.org/pets/a%2520b.png?token=x/y.z", True),
        ("images/a b.png", "s3://bucket/pets/abc123-a%20b.png", True),
        ("images/a b.PNG", "a b.png", True),
        ("images/a b.png", "a b", True),
        ("images/a b.png", "somewhere/a b.jpg", True),
        ("images/a%20b.png", "images/a%20b.png", False),
        ("images/d/e/f/a b.png", "e/f/a b.png", False),
        ("images/d/e/f/a b.png", "/data/e/f/a b.png", True),
        ("images/cafe\u0301.png", "caf\u00e9.png", True),
    ],
)
def test_images_are_found_by_the_ends_of_their_names(tmp_path: Path, on_disk: str, listed: str, said: bool) -> None:
    draw(tmp_path, on_disk, "images/other.png", "masks/a b.png")
    write(tmp_path, {1: listed, 2: "other.png"}, [{"image_id": 1, "category_id": 7, "bbox": XYWH}])
    part = only(tmp_path)
    assert [s.id for s in part] == [on_disk, "images/other.png"] and not part.faults
    assert part[0].target.boxes == (BOX,) and not len(part[1].target)
    assert any("found by the end of their names" in note and repr(listed) in note for note in part.notes) == said


def test_names_that_fit_several_images_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "cam1/0.png", "cam2/0.png", "cam1/1.png")
    write(tmp_path, {1: "/data/upload/0.png"})
    with pytest.raises(DataError, match=r"a.json: images\[0\]: the image '/data/upload/0.png' could be cam1/0.png or"):
        only(tmp_path)
    write(tmp_path, {1: "/data/cam2/0.png"})
    assert [s.id for s in only(tmp_path)] == ["cam2/0.png"]
    write(tmp_path, {1: "aaaaaaaa-1.png", 2: "bbbbbbbb-1.png"})
    with pytest.raises(DataError, match=r"images\[1\]: .* do not exist, and both could be cam1/1.png"):
        only(tmp_path)


def test_another_image_is_never_taken_for_a_missing_one(tmp_path: Path) -> None:
    draw(tmp_path, "cam1/0.png", "cam2/1.png", "cam2/20260101-x.png")
    # cam1/1.png does not exist; cam2/1.png is another image. So are the two of different days.
    write(tmp_path, {1: "cam1/0.png", 2: "cam1/1.png", 3: "cam2/20260102-x.png"})
    part = only(tmp_path)
    assert [s.id for s in part] == ["cam1/0.png"] and [f.id for f in part.faults] == [
        "cam1/1.png",
        "cam2/20260102-x.png",
    ]
    draw(tmp_path, "val/a.png")
    write(tmp_path, {1: "cam1/0.png", 2: "upload/a.png"}, name="train.json")
    (tmp_path / "a.json").unlink()
    assert [s.id for s in read(tmp_path, "coco")["train"]] == ["cam1/0.png"]


# Entries without a partner --------------------------------------------------------------------------------------------
def test_missing_images_and_stray_annotations_are_counted_and_named(tmp_path: Path) -> None:
    names = {i: f"{i}.png" for i in range(12)}
    draw(tmp_path, *(f"images/{i}.png" for i in range(11)))
    rows = [{"image_id": i, "category_id": 3, "bbox": XYWH} for i in [*range(12), 99]]
    write(tmp_path, names, rows)
    part = only(tmp_path)
    assert len(part) == 11 and [fault.kind for fault in part.faults] == ["missing", "stray"]
    fixed, report = check_boxes(part)
    assert len(fixed) == 11 and not fixed.faults
    assert report.counts() == {("missing", "dropped"): 1, ("stray", "dropped"): 1}
    assert "1 listed, but without an image file (dropped), e.g. 11.png (images[11] of a.json, 1 annot" in report.text()
    assert "1 of an image that is not listed (dropped), e.g. annotations[12] of a.json (image_id 99)" in report.text()
    with pytest.raises(DataError, match=r"without an image file, e.g. 11.png .*set the policy for annotations to fix"):
        check_boxes(part, "error")
    for i in range(8, 11):
        (tmp_path / "images" / f"{i}.png").unlink()
    with pytest.raises(DataError, match="would drop 4 of 12 images, more than single mistakes explain"):
        check_boxes(only(tmp_path))
    assert len(check_boxes(only(tmp_path), "drop")[0]) == 8


def test_one_missing_image_is_a_single_mistake_in_small_data_as_well(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    rows = [{"image_id": i, "category_id": 3, "segmentation": [RING]} for i in range(3)]
    write(tmp_path, {0: "a.png", 1: "b.png", 2: "c.png"}, rows)
    for kinds in (("boxes",), ("masks",)):
        parts, notes = checked(read(tmp_path, kinds=kinds))
        assert len(parts["all"]) == 2 and "1 listed, but without an image file (dropped), e.g. c.png" in notes[0]
        with pytest.raises(DataError, match=r"c.png"):
            checked(read(tmp_path, kinds=kinds), "error")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    write(tmp_path, {1: "a.png"}, [{"image_id": 9, "category_id": 3, "bbox": XYWH}])
    with pytest.raises(DataError, match=r"annotations\[0\]: there is no image with the id 9, nor .* for any other"):
        only(tmp_path)
    write(tmp_path, {1: "x/b.png", 2: "c.png"})
    with pytest.raises(DataError, match=r"images\[0\]: the image 'x/b.png' does not exist \(looked in"):
        only(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("annotations/instances_train.json", '{"images": [{"id"', "instances_train.json cannot be read as JSON: "),
        ("train/_annotations.coco.json", "", "_annotations.coco.json cannot be read as JSON: "),
        ("a.json", '{"images": [], "annotations": []}', "a.json must hold a JSON object with the lists images, annot"),
        (
            "a.json",
            '{"images": [], "annotations": [], "categorys": []}',
            "a.json must hold a JSON object with the list",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_the_reader(tmp_path: Path, name: str, text: str, said: str) -> None:
    draw(tmp_path, "images/a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=said):
            read(given)
    if name == "a.json":  # not a file of a split, or of another kind
        write(tmp_path, {1: "a.png"}, name="good.json")
        assert len(only(tmp_path)) == 1
