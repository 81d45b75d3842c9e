"""The own formats of annotation tools: CVAT's XML file and Label Studio's JSON."""

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

HEIGHT, WIDTH = 40, 60
BOX = (10.0, 8.0, 30.0, 28.0)


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(root / name)


def only(root: Path) -> Dataset:
    (part,) = read(root).values()
    return part


# CVAT -----------------------------------------------------------------------------------------------------------------
SIDES = f'width="{WIDTH}" height="{HEIGHT}"'
CVAT_BOX = '<box label="dog" occluded="0" xtl="10.00" ytl="8.00" xbr="30.00" ybr="28.00" z_order="0"></box>'
POLYGON = '<polygon label="cat" points="10.0,8.0;30.0,8.0;30.0,28.0;10.0,28.0"/>'
MASK = '<mask label="cat" rle="0, 400" left="10" top="8" width="20" height="20"/>'
LABELS = "".join(f"<label><name>{name}</name><color>#fff</color></label>" for name in ("dog", "cat"))


def cvat(root: Path, *images: str, meta: str = f"<task><labels>{LABELS}</labels></task>") -> Path:
    root.mkdir(exist_ok=True)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta>{meta}</meta>'
    (root / "annotations.xml").write_text(f"{text}{''.join(images)}</annotations>")
    return root / "annotations.xml"


@pytest.mark.parametrize("shape", [CVAT_BOX, POLYGON, MASK])
def test_cvat(tmp_path: Path, shape: str) -> None:
    draw(tmp_path, "images/cam1/a.png", "images/cam2/a.png")
    file = cvat(
        tmp_path,
        f'<image id="0" name="cam1/a.png" {SIDES}>{shape}<points label="cat" points="1,2"/></image>',
        f'<image id="1" name="cam2/a.png" {SIDES}></image>',
    )
    for given in (tmp_path, file):
        part = only(given)
        assert [s.id for s in part] == ["images/cam1/a.png", "images/cam2/a.png"] and part.classes == ("dog", "cat")
        assert [s.target.boxes for s in part] == [(BOX,), ()]
        assert part[0].target.labels == (0 if shape == CVAT_BOX else 1,)
        assert any("1 <points> is no box or polygon, and not read" in note for note in part.notes)
    if shape != CVAT_BOX:
        assert pixel_counts(checked(read(tmp_path, kinds=("masks",)))[0]["all"]).tolist() == [4400, 0, 400]


def test_cvat_masks_are_read_row_by_row(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[0:2, 0:3] = [[1, 0, 1], [0, 1, 1]]
    rle = '<mask label="cat" rle="0, 1, 1, 1, 1, 2" left="0" top="0" width="3" height="2"/>'
    cvat(tmp_path, f'<image name="a.png" {SIDES}>{rle}</image>')
    from zoo.targets.outlines import inside

    np.testing.assert_array_equal(inside(only(tmp_path)[0].target.masks.shapes[0], (HEIGHT, WIDTH)), drawn)


def test_cvat_turned_boxes_and_subsets(tmp_path: Path) -> None:
    draw(tmp_path, "images/Train/a.png", "images/Validation/a.png")
    turned = '<box label="dog" xtl="10" ytl="13" xbr="30" ybr="23" rotation="90.00"/>'
    images = [f'<image name="a.png" subset="{subset}" {SIDES}>{turned}</image>' for subset in ("Train", "Validation")]
    cvat(tmp_path, *images, meta="")
    found = read(tmp_path)
    assert {k: [s.id for s in v] for k, v in found.items()} == {
        "train": ["images/Train/a.png"],
        "val": ["images/Validation/a.png"],
    }
    for part in found.values():
        assert part[0].target.boxes == (pytest.approx((15, 8, 25, 28)),) and part.classes == ("dog",)
    cvat(tmp_path, images[0], images[1].replace("Validation", "Set 2"), meta="")
    with pytest.raises(DataError, match="1 image is in the subset 'Set 2', others in subsets named after splits"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f'<image name="a.png" {SIDES}>{CVAT_BOX.replace("8.00", "inf", 1)}</image>',
            "<box>: ytl is 'inf'; it must be",
        ),
        (f'<image name="a.png" {SIDES}>{POLYGON.replace(";", " ")}</image>', "<polygon>: its points or runs are no"),
        (f'<image name="a.png" {SIDES}>{MASK.replace("400", "4000000000000")}</image>', "<mask>: its points or runs"),
        ('<image name="a.png" width="1e9" height="1e9"/>', "height and width are 1e.09 and 1e.09; an image may have"),
        (f"<image {SIDES}/>", "image 0 has no name"),
        (f'<image name="a.png" {SIDES}/>', "has no boxes or polygons in any of its images"),
        (f'<image name="z.png" {SIDES}>{CVAT_BOX}</image>', "the image 'z.png' does not exist"),
        ('<track id="0" label="cat"/>', "CVAT's format for video. Export the task as"),
        ("<image>", "cannot be read as XML"),
    ],
)
def test_faults_of_cvat_name_the_element(tmp_path: Path, text: str, said: str) -> None:
    draw(tmp_path, "a.png")
    cvat(tmp_path, text)
    with pytest.raises(DataError, match=f"annotations.xml.*{said}"):
        read(tmp_path)


# Label Studio ---------------------------------------------------------------------------------------------------------
WHOLE = {"original_width": WIDTH, "original_height": HEIGHT}
RECTANGLE = {"x": 100 / 6, "y": 20, "width": 100 / 3, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}
RING = {"points": [[100 / 6, 20], [50, 20], [50, 70], [100 / 6, 70]], "polygonlabels": ["dog"]}


def task(image: str, *values: dict[str, Any], **other: Any) -> dict[str, Any]:
    results = [{"type": "labels", **WHOLE, "value": value} for value in values]
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": results, **other}]}


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("value", [RECTANGLE, RING])
def test_label_studio(tmp_path: Path, value: dict[str, Any], small: bool) -> None:
    draw(tmp_path, "images/a 1.png", "images/b.png", "images/c.png")
    name = "/data/upload/3/5f2c91ab-a%201.png"
    tasks: list[dict[str, Any]] = [task(name, value), task("/data/local-files/?d=pets/b.png")]
    if small:
        tasks = [{"image": name, "label": [{**WHOLE, **value}], "id": 1}, {"image": "b.png", "choice": ["x"]}]
    else:
        tasks += [{"data": {"image": "c.png"}, "annotations": []}, task("c.png", value, was_cancelled=True)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    for given in (tmp_path, tmp_path / "export.json"):
        part = only(given)
        assert [s.id for s in part] == ["images/a 1.png", "images/b.png"] and part.classes == ("dog",)
        assert [s.target.boxes for s in part] == [(pytest.approx(BOX),), ()]
        assert (part[0].target.masks is None) == (value is RECTANGLE) and not check_boxes(part, "error")[1].faults
        assert any("2 images have no annotation, and are left out" in note for note in part.notes) != small


def test_label_studio_turned_rectangles_and_several_annotations(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    # Turned by 90 degrees around its upper left corner, a box of 20 x 10 lies to the left of it.
    value = {**RECTANGLE, "x": 50, "width": 100 / 3, "height": 25, "rotation": 90, "rectanglelabels": ["dog", "cat"]}
    one = task("a.png", RECTANGLE)
    one["annotations"].append(task("a.png", value, {"choices": ["x"]})["annotations"][0])
    (tmp_path / "export.json").write_text(json.dumps([one]))
    part = only(tmp_path)
    assert part.classes == ("cat", "dog") and part[0].target.labels == (1, 0)
    assert part[0].target.boxes == (pytest.approx((20, 8, 30, 28)),) * 2
    assert any("1 image has several annotations, of which the last is read" in note for note in part.notes)
    assert any("1 result is no rectangle or polygon with a label" in note for note in part.notes)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([task("a.png", {**RECTANGLE, "x": "left"})], r"task 0 \(a.png\): x is 'left'; it must be a number"),
        ([task("a.png", {**RECTANGLE, "rectanglelabels": [5]})], r"rectanglelabels is \[5\]; it must be a list"),
        ([task("a.png", {**RING, "points": [[1, 2], [3, 4]]})], "a polygon has 2 points; it needs at least three"),
        ([task("a.png", {**RECTANGLE, "original_width": 1e8})], "height and width are 40 and 1e.08; an image may"),
        ([task("z.png", RECTANGLE)], "the image 'z.png' does not exist"),
        ([{"rectanglelabels": 3, "data": {}}], "task 0 names no image"),
        ([{"rectanglelabels": 3, "data": {"image": "a.png"}}], "has no task with an annotation"),
    ],
)
def test_faults_of_label_studio_name_the_task(tmp_path: Path, tasks: list[Any], said: str) -> None:
    draw(tmp_path, "a.png")
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(DataError, match=f"export.json.*{said}"):
        read(tmp_path)
