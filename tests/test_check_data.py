"""`zoo check`: every injected fault is found, with the right file; clean data has no findings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import zoo
from zoo.data import Dataset, Sample, read
from zoo.data.inspect import every_check
from zoo.data.inspect.classes import similar
from zoo.data.inspect.summary import summary
from zoo.errors import ConfigError, DataError, UnknownNameError

SIZE = (48, 36)


def photo(seed: int, size: tuple[int, int] = SIZE, grey: bool = False) -> Image.Image:
    """An image with structure at several scales, unlike that of any other seed."""
    rng = np.random.default_rng([3, seed])
    image = np.zeros((*size[::-1], 3))
    for cells, weight in ((3, 1.0), (6, 0.8), (12, 0.5)):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += weight * np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float64)
    picture = Image.fromarray(np.clip((image / 2.3 - 128) * 1.5 + 128, 0, 255).astype(np.uint8))
    return picture.convert("L").convert("RGB") if grey else picture


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clean dataset of each kind: class folders, boxes (COCO), masks, several labels (CSV)."""
    root = tmp_path_factory.mktemp("clean")
    for number, name in enumerate(
        f"{s}/{c}/{i}.png" for s in ("train", "val") for c in ("ant", "bee") for i in range(4)
    ):
        file = root / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(file)
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    for name in ("coco", "masks/images", "masks/masks", "csv"):
        (root / name).mkdir(parents=True)
    rows = ["image,labels"]
    for i in range(6):
        for folder, start in (("coco", 20), ("masks/images", 30), ("csv", 40)):
            photo(start + i).save(root / folder / f"{i}.png")
        coco["images"].append({"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]})
        for j in range(2):
            box = [3.0 + 20 * j, 4.0 + i, 14.0, 12.0]
            coco["annotations"].append({"id": 2 * i + j, "image_id": i, "category_id": j + 1, "bbox": box})
        mask = np.zeros(SIZE[::-1], np.uint8)
        mask[4 + i : 20, 5:25], mask[25:30, 30:40] = 1, 2
        Image.fromarray(mask).save(root / "masks/masks" / f"{i}.png")
        rows.append(f"{i}.png,{'red|round' if i % 2 else 'red'}")
    (root / "coco" / "instances.json").write_text(json.dumps(coco))
    (root / "masks" / "classes.txt").write_text("background\nroad\ntree\n")
    (root / "csv" / "labels.csv").write_text("\n".join(rows))
    return {name: root / name for name in ("folder", "coco", "masks", "csv")}


@pytest.mark.parametrize("name", ["folder", "coco", "masks", "csv"])
def test_nothing_is_found_in_clean_data(sources: dict[str, Path], name: str):
    result = zoo.check(sources[name])
    assert result.findings == () and result.ok
    assert result.images == (16 if name == "folder" else 6)


def edit(box: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the annotations of a COCO file."""

    def inject(root: Path) -> None:
        file = root / "instances.json"
        content = json.loads(file.read_text())
        box(content)
        file.write_text(json.dumps(content))

    return inject


def boxed(*values: float) -> Callable[[Path], None]:
    """Set the box of the first object of image 2."""
    return edit(lambda content: content["annotations"][4].update(bbox=list(values)))


def added(**fields: Any) -> Callable[[Path], None]:
    """Add an annotation to image 2."""
    return edit(lambda content: content["annotations"].append({"id": 99, "image_id": 2, "category_id": 1, **fields}))


def saved(name: str, make: Callable[[], Image.Image], **options: Any) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make().save(root / name, **options)

    return inject


def copied(source: str, *targets: str) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        for target in targets:
            shutil.copyfile(root / source, root / target)

    return inject


def truncated(name: str) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])

    return inject


def masked(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        file = root / "masks/2.png"
        Image.fromarray(change(np.array(Image.open(file)))).save(file)

    return inject


def painted(values: np.ndarray, value: int) -> np.ndarray:
    values[0, :5] = value
    return values


def every(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        for step in steps:
            step(root)

    return inject


def removed(pattern: str) -> Callable[[Path], None]:
    return lambda root: [file.unlink() for file in root.glob(pattern)] and None


def table(*lines: str) -> Callable[[Path], None]:
    """Replace the table of a CSV dataset."""
    return lambda root: (root / "labels.csv").write_text("\n".join(("image,labels,split", *lines))) and None


LABELLED = [f"{i}.png,{'ab'[i % 2]},train" for i in range(6)]


def unlabelled(root: Path) -> None:
    (root / "labels.csv").write_text("image,label\n0.png,a\n1.png,\n2.png,b\n3.png,a\n4.png,b\n5.png,a")


def copy_with_other_boxes(content: dict[str, Any]) -> None:
    content["images"].append({"id": 9, "file_name": "9.png", "width": SIZE[0], "height": SIZE[1]})
    content["annotations"].append({"id": 99, "image_id": 9, "category_id": 1, "bbox": [2, 3, 20, 20]})


def many(split: str, name: str, count: int, start: int = 100) -> Callable[[Path], None]:
    return every(*(saved(f"{split}/{name}/x{i}.png", lambda i=i: photo(start + i)) for i in range(count)))


def half(seed: int) -> Image.Image:
    return photo(seed, (200, 150)).resize((100, 75), Image.Resampling.BICUBIC)


def bright(seed: int) -> Image.Image:
    return ImageEnhance.Brightness(photo(seed)).enhance(1.15)


def thumbnail(root: Path) -> None:
    for number, file in enumerate(sorted(root.glob("*/*/*.png"))):
        photo(200 + number, (160, 140)).save(file)
    photo(7, (20, 17)).save(root / "train/ant/small.png")


def unseen(root: Path) -> None:
    """A split train with cats, and a split val with cats and dogs."""
    content = json.loads((root / "instances.json").read_text())
    (root / "instances.json").unlink()
    for split, ids, unlabelled in (("train", (0, 1, 2), 2), ("val", (3, 4, 5), 0)):
        annotations = [a for a in content["annotations"] if a["image_id"] in ids and a["category_id"] != unlabelled]
        images = [image for image in content["images"] if image["id"] in ids]
        part = {"images": images, "annotations": annotations, "categories": content["categories"]}
        (root / f"instances_{split}.json").write_text(json.dumps(part))


SMALL, OBJECT = "train/ant/1.png", "2.png"
FAULTS: dict[str, tuple[str, Callable[[Path], None], str, list[list[str]]]] = {
    # name: (dataset, what is done to it, the kind of finding, ids of each finding)
    "truncated": ("folder", truncated(SMALL), "damaged-image", [[SMALL]]),
    "empty": ("folder", lambda root: (root / SMALL).write_bytes(b"") and None, "damaged-image", [[SMALL]]),
    "html": ("folder", lambda root: (root / SMALL).write_text("<html>404") and None, "damaged-image", [[SMALL]]),
    "one colour": ("folder", saved(SMALL, lambda: Image.new("RGB", SIZE, "navy")), "one-colour", [[SMALL]]),
    "tiny": ("folder", saved(SMALL, lambda: photo(1, (12, 9))), "tiny-image", [[SMALL]]),
    "thumbnail": ("folder", thumbnail, "tiny-image", [["train/ant/small.png"]]),
    "banner": ("folder", saved(SMALL, lambda: photo(1, (400, 40))), "elongated-image", [[SMALL]]),
    "grey": ("folder", saved(SMALL, lambda: photo(1, grey=True)), "grey-and-colour", [[SMALL]]),
    "copy": ("folder", copied(SMALL, "train/ant/copy.png"), "duplicate", [[SMALL, "train/ant/copy.png"]]),
    "leak": ("folder", copied(SMALL, "val/ant/c.png"), "duplicate-across-splits", [[SMALL, "val/ant/c.png"]]),
    "link": (
        "folder",
        lambda root: (root / "val/ant/link.png").symlink_to(root / SMALL),
        "duplicate-across-splits",
        [[SMALL, "val/ant/link.png"]],
    ),
    "two classes": (
        "folder",
        copied(SMALL, "train/bee/copy.png"),
        "contradicting-labels",
        [[SMALL, "train/bee/copy.png"]],
    ),
    "three copies": (
        "folder",
        copied(SMALL, "train/ant/c.png", "val/ant/c.png"),
        "duplicate-across-splits",
        [[SMALL, "train/ant/c.png", "val/ant/c.png"]],
    ),
    "jpeg": (
        "folder",
        saved("train/ant/copy.jpg", lambda: photo(1), quality=60),
        "near-duplicate",
        [[SMALL, "train/ant/copy.jpg"]],
    ),
    "mirrored": (
        "folder",
        saved("train/ant/m.png", lambda: photo(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "near-duplicate",
        [[SMALL, "train/ant/m.png"]],
    ),
    "brighter": (
        "folder",
        saved("val/ant/b.png", lambda: bright(1)),
        "near-duplicate-across-splits",
        [[SMALL, "val/ant/b.png"]],
    ),
    "resized": (
        "folder",
        saved("val/bee/r.png", lambda: photo(1).resize((96, 72), Image.Resampling.BICUBIC)),
        "near-duplicate-across-splits",
        [[SMALL, "val/bee/r.png"]],
    ),
    "no such class in train": ("coco", unseen, "class-without-training", [["dog"]]),
    "no such class in val": (
        "csv",
        table("0.png,a,train", "1.png,b,train", "2.png,a,val", "3.png,a,val", "4.png,b,train", "5.png,a,train"),
        "class-missing-from-split",
        [["b"]],
    ),
    "rare": (
        "folder",
        every(
            removed("train/bee/[123].png"),
            many("train", "ant", 3),
            many("train", "cow", 7, 120),
            many("val", "cow", 2, 130),
        ),
        "rare-class",
        [["bee"]],
    ),
    "imbalance": ("folder", every(removed("train/bee/[23].png"), many("train", "ant", 16)), "imbalance", [["bee"]]),
    "similar names": (
        "folder",
        every(many("train", "Ants", 2), many("val", "Ants", 1, 120)),
        "similar-class-names",
        [["Ants", "ant"]],
    ),
    "unused class": (
        "coco",
        edit(lambda content: content["categories"].append({"id": 3, "name": "yak"})),
        "unused-class",
        [["yak"]],
    ),
    "unlisted image": ("coco", saved("more/9.png", lambda: photo(9)), "unused-image", [["more/9.png"]]),
    "unread file": (
        "folder",
        lambda root: (root / "train/ant/clip.mp4").write_bytes(b"1") and None,
        "unused-file",
        [["train/ant/clip.mp4"]],
    ),
    "hidden image": ("folder", copied(SMALL, "train/ant/._1.png"), "hidden-image", [["train/ant/._1.png"]]),
    "no label": (
        "csv",
        lambda root: (
            (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("2.png,red", "2.png,")) and None
        ),
        "no-label",
        [["2.png"]],
    ),
    "missing image": ("coco", lambda root: (root / "5.png").unlink(), "missing-image", [["5.png"]]),
    "annotation of no image": (
        "coco",
        edit(lambda content: content["annotations"].append({**content["annotations"][0], "image_id": 77})),
        "stray-annotation",
        [["annotations[12] of instances.json"]],
    ),
    "listed twice": (
        "csv",
        table(*LABELLED, "0.png,,train"),
        "contradicting-labels",
        [["0.png"]],
    ),
    "listed, but missing": (
        "csv",
        table(*LABELLED, "7.png,b,train"),
        "missing-image",
        [["7.png"]],
    ),
    "unlabelled": ("csv", unlabelled, "unlabelled-image", [["1.png"]]),
    "only in val": (
        "folder",
        every(removed("train/bee/*"), lambda root: (root / "train/bee").rmdir()),
        "class-without-training",
        [["bee"]],
    ),
    "empty class": ("folder", lambda root: (root / "train/cow").mkdir(), "unused-class", [["cow"]]),
    "number": ("coco", boxed(float("nan"), 4, 5, 6), "box-number", [[OBJECT]]),
    "unknown class": (
        "coco",
        edit(lambda content: content["annotations"][4].update(category_id=7)),
        "box-class",
        [[OBJECT]],
    ),
    "inverted": ("coco", boxed(20, 20, -14, -12), "box-inverted", [[OBJECT]]),
    "outside": ("coco", boxed(60, 4, 14, 12), "box-outside", [[OBJECT]]),
    "overhang": ("coco", boxed(40, 4, 14, 12), "box-overhang", [[OBJECT]]),
    "empty box": ("coco", boxed(4, 4, 0, 12), "box-empty", [[OBJECT]]),
    "tiny box": ("coco", boxed(4, 4, 2, 12), "box-tiny", [[OBJECT]]),
    "huge box": ("coco", boxed(0, 0, *SIZE), "box-huge", [[OBJECT]]),
    "repeated box": ("coco", added(bbox=[3, 6, 14, 12]), "box-duplicate", [[OBJECT]]),
    "shifted box": ("coco", added(bbox=[3.4, 6, 14, 12]), "box-twice", [[OBJECT]]),
    "box of two classes": ("coco", added(bbox=[3, 6, 14, 12], category_id=2), "box-classes", [[OBJECT]]),
    "other size": (
        "coco",
        edit(lambda content: content["images"][2].update(width=96, height=72)),
        "box-size",
        [[OBJECT]],
    ),
    "no boxes": (
        "coco",
        edit(lambda content: content.update(annotations=[a for a in content["annotations"] if a["image_id"] != 2])),
        "no-boxes",
        [[OBJECT]],
    ),
    "copy with other boxes": (
        "coco",
        every(copied("2.png", "9.png"), edit(copy_with_other_boxes)),
        "contradicting-labels",
        [["2.png", "9.png"]],
    ),
    "damaged in COCO": ("coco", truncated("2.png"), "damaged-image", [["2.png"]]),
    "mask size": ("masks", masked(lambda values: values[::2, ::2]), "mask-size", [["images/2.png"]]),
    "mask value": ("masks", masked(lambda values: painted(values, 9)), "mask-value", [["images/2.png"]]),
    "mask ignored": ("masks", masked(lambda values: np.full_like(values, 255)), "mask-ignored", [["images/2.png"]]),
    "mask background": ("masks", masked(np.zeros_like), "mask-empty", [["images/2.png"]]),
    "damaged mask": ("masks", truncated("masks/2.png"), "unreadable-annotation", [["images/2.png"]]),
    "same image, other mask": (
        "masks",
        every(
            copied("images/2.png", "images/9.png"),
            saved("masks/9.png", lambda: Image.fromarray(painted(np.zeros(SIZE[::-1], np.uint8), 1))),
        ),
        "contradicting-labels",
        [["images/2.png", "images/9.png"]],
    ),
    "same image and mask": (
        "masks",
        every(copied("images/2.png", "images/9.png"), copied("masks/2.png", "masks/9.png")),
        "duplicate",
        [["images/2.png", "images/9.png"]],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_injected_fault_is_the_only_finding(sources: dict[str, Path], tmp_path: Path, name: str):
    source, inject, check, ids = FAULTS[name]
    root = tmp_path / "data"
    shutil.copytree(sources[source], root, copy_function=shutil.copyfile)
    inject(root)
    result = zoo.check(root)
    assert [(one.check.name, [place.id for place in one.places]) for one in result.findings] == [
        (check, places) for places in ids
    ]
    assert result.ok == (result.findings[0].check.level == "note")
    file = result.findings[0].places[0].file
    assert file is None or file == root / ids[0][0]


def test_the_faults_cover_every_kind_of_finding():
    untested = set(every_check()) - {check for _, _, check, _ in FAULTS.values()}
    # These need several faults at once, or an annotation format of their own; see the tests below.
    assert untested == {"annotations-refused", "mask-outline", "reader", "unannotated-image"}


def test_annotations_that_training_refuses(sources: dict[str, Path], tmp_path: Path):
    """Coordinates as shares of the image: every box is empty, and the reason is given once."""

    def as_shares(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [value / 100 for value in entry["bbox"]]

    root = shutil.copytree(sources["coco"], tmp_path / "data")
    edit(as_shares)(root)
    result = zoo.check(root)
    assert result.counts() == {"box-empty": 12, "annotations-refused": 1}
    assert "shares of the image (0 to 1) instead of pixels" in result.findings[-1].detail


def test_files_that_pascal_voc_lacks(tmp_path: Path):
    """An image without .xml file, an .xml file without image, a broken one, and a list that names all of them."""
    folders = [tmp_path / name for name in ("JPEGImages", "Annotations", "ImageSets/Main")]
    for folder in folders:
        folder.mkdir(parents=True)
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>18</ymax></bndbox>"
    for i in range(6):
        photo(50 + i).save(folders[0] / f"{i}.png")
        text = f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>"
        (folders[1] / f"{i}.xml").write_text(text)
    (folders[1] / "1.xml").unlink()
    (folders[0] / "2.png").unlink()
    (folders[1] / "3.xml").write_text("<annotation><object>")
    (folders[2] / "train.txt").write_text("0\n1\n2\n3\n8\n")
    (folders[2] / "val.txt").write_text("4\n5\n")
    result = zoo.check(tmp_path)
    assert [(one.check.name, one.places[0].id) for one in result.findings] == [
        ("missing-image", "2"),
        ("unreadable-annotation", "JPEGImages/3.png"),
        ("unannotated-image", "1"),
        ("unannotated-image", "8"),
        ("unused-image", "JPEGImages/1.png"),
    ]
    with pytest.raises(DataError, match="1 image has no annotation"):
        read(tmp_path)


def test_broken_lines_of_yolo(tmp_path: Path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        photo(70 + i).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.4\n")
    (tmp_path / "labels" / "9.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "images" / "2.png").write_bytes(b"junk")
    assert [(one.check.name, one.places[0].id) for one in zoo.check(tmp_path).findings] == [
        ("damaged-image", "images/2.png"),
        ("missing-image", "9"),
        ("unreadable-annotation", "images/1.png"),
    ]


def test_objects_without_an_outline(sources: dict[str, Path], tmp_path: Path):
    root = shutil.copytree(sources["coco"], tmp_path / "data")

    def outline(content: dict[str, Any]) -> None:
        for entry in content["annotations"][:-1]:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]

    edit(outline)(root)
    result = zoo.check(root, kinds=("masks",))
    assert [(str(one), one.check.name) for one in result.findings] == [("5.png (1 of 2)", "mask-outline")]


def test_what_the_reader_says_is_a_note(sources: dict[str, Path]):
    dataset = read(sources["csv"])["all"]
    said = Dataset(dataset.samples, dataset.classes, dataset.kind, dataset.name, dataset.root, ("read as drawings",))
    result = zoo.check({"train": said})
    assert result.ok and [str(one) for one in result.findings] == ["read as drawings"]


def test_other_photos_of_the_same_scene_are_no_duplicates():
    """A part of the image that moves: the hashes are nearly equal, the images are not."""
    from zoo.data.inspect.duplicates import CERTAIN, LIKELY, difference
    from zoo.data.inspect.images import shrunk

    scene = photo(5, (96, 96))
    moved = scene.copy()
    moved.paste(scene.crop((20, 20, 60, 60)), (36, 30))

    def distance(other: Image.Image) -> float:
        return difference(shrunk(scene, 48), shrunk(other, 48))

    assert distance(scene.convert("L").convert("RGB")) < CERTAIN < LIKELY < distance(moved)
    assert distance(Image.merge("RGB", scene.split()[::-1])) == np.inf  # other colours


def test_a_series_of_similar_images_holds_no_duplicates_but_copies(tmp_path: Path):
    """Like faces of one person: each image is close to several others, and one of them is there twice."""
    for number in range(12):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.blend(photo(5), photo(60 + number), 0.1 + 0.02 * number).save(file)
    photo_again = Image.open(tmp_path / "a" / "6.png")
    photo_again.save(tmp_path / "a" / "again.jpg", quality=80)
    found = zoo.check(tmp_path).findings
    assert [[place.id for place in one.places] for one in found] == [["a/6.png", "a/again.jpg"]]


def test_drawings_of_different_things_are_no_duplicates(tmp_path: Path):
    """Flat drawings have few bits that differ; position, size and colour tell them apart."""
    from PIL import ImageDraw

    for number in range(24):
        image = Image.new("RGB", (64, 64), "grey")
        left, top, side = 6 + 9 * (number % 4), 8 + 12 * (number // 12), 14 + 4 * (number // 4 % 3)
        colour = ("red", "blue")[number % 2]
        shape = (left, top, left + side, top + side)
        ImageDraw.Draw(image).ellipse(shape, colour) if number % 2 else ImageDraw.Draw(image).rectangle(shape, colour)
        file = tmp_path / ("round", "square")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        image.save(file)
    assert zoo.check(tmp_path).findings == ()


def test_similar_names():
    names = ["Cat", "cat ", "dogs", "dog", "stop sign", "stop-sign", "pedestrian", "pedestrain", "Café", "cafe"]
    assert similar(names) == [names[i : i + 2] for i in range(0, 10, 2)]
    assert similar(["house", "mouse", "s1", "s11", "s2", "A", "A-", "glass", "class", "male", "female", "0", "1"]) == []


def test_kinds_of_finding_can_be_left_out(sources: dict[str, Path], tmp_path: Path):
    root = shutil.copytree(sources["folder"], tmp_path / "data")
    FAULTS["jpeg"][1](root)
    FAULTS["leak"][1](root)
    assert zoo.check(root).counts() == {"duplicate-across-splits": 1, "near-duplicate": 1}
    assert zoo.check(root, near=False).counts() == {"duplicate-across-splits": 1}
    assert zoo.check(root, ignore=["duplicate-across-splits"]).counts() == {"near-duplicate": 1}
    with pytest.raises(UnknownNameError, match="unknown kind of finding 'near-duplicates'. Nearest: near-duplicate,"):
        zoo.check(root, ignore=["near-duplicates"])


def zoo_check(*args: str) -> int:
    from zoo.cli.app import app

    with pytest.raises(SystemExit) as stopped:
        app(["check", *args], prog_name="zoo")
    return int(stopped.value.code or 0)


def test_the_command(sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert zoo_check(str(sources["folder"])) == 0
    clean = capsys.readouterr().out
    assert "16 images, 2 classes, format folder" in clean and re.search(r"^ant +4 +4$", clean, re.M)
    assert "all images have 48x36 pixels" in clean and "nothing found, in" in clean
    root = shutil.copytree(sources["folder"], tmp_path / "data")
    FAULTS["grey"][1](root)
    assert (zoo_check(str(root)), zoo_check(str(root), "--strict")) == (0, 1)
    FAULTS["leak"][1](root)
    capsys.readouterr()
    assert zoo_check(str(root), "--show", "1") == 1
    text = capsys.readouterr().out
    assert "error: the same image in several splits: 1  [duplicate-across-splits]" in text
    assert "    train/ant/1.png = val/ant/c.png\n    -> Remove it from all but one split" in text
    with pytest.raises(DataError, match="does not exist"):
        zoo_check(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="is no HTML file: give a name like report.html"):
        zoo_check(str(root), "--out", str(tmp_path / "report.json"))


def test_json_and_the_page(sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = shutil.copytree(sources["coco"], tmp_path / "a <b>")
    for name in ("box of two classes", "damaged in COCO"):
        FAULTS[name][1](root)
    copied("3.png", "9.png")(root)
    page = tmp_path / "report.html"
    assert zoo_check(str(root), "--json", "--out", str(page)) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"damaged-image": 1, "box-classes": 1, "unused-image": 1}
    assert found["splits"]["all"]["classes"] == {"cat": 6, "dog": 7} and not found["ok"]
    row = found["findings"][0]
    assert row["places"] == [{"split": "all", "id": "2.png", "file": str(root / "2.png")}]
    assert "damaged" in row["detail"] and found["checks"]["damaged-image"]["level"] == "error"
    html = page.read_text("utf-8")
    assert "a &lt;b&gt;" in html
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", html) and "http" not in html and "<script" not in html
    assert html.count("<img") == 1  # the unused image; the damaged one cannot be shown


def test_many_findings_give_a_small_page(tmp_path: Path):
    samples = []
    for number in range(60):
        file = tmp_path / f"{number}.png"
        noise = np.random.default_rng(number // 2).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, compress_level=0)
        samples.append(Sample(file, number % 2, file.name))
    result = zoo.check(Dataset(tuple(samples), ("a", "b"), "class", "noise", tmp_path))
    assert result.counts() == {"contradicting-labels": 30} and "annotated differently: 'a' or 'b'" in result.text()
    size = result.save_page(tmp_path / "report.html").stat().st_size
    assert 100_000 < size < 3_000_000


def test_what_training_says_before_the_first_step(sources: dict[str, Path], tmp_path: Path):
    """Splits, classes, equal files; images are not decoded, so that neither damage nor near duplicates are found."""
    clean = "data: train 8 images (ant 4, bee 4); val 8 images (ant 4, bee 4)."
    assert summary(read(sources["folder"])) == clean
    root = shutil.copytree(sources["folder"], tmp_path / "data")
    for name in ("jpeg", "leak"):
        FAULTS[name][1](root)
    assert summary(read(root)) == (
        "data: train 9 images (ant 5, bee 4); val 9 images (ant 5, bee 4). Found: the same image in several splits: 1, "
        "e.g. train/ant/1.png = val/ant/c.png. `zoo check` shows all, and what to do about each."
    )
    masks = read(sources["masks"])
    assert summary(masks) == "data: all 6 images (background 6, road 6, tree 6 masks)."
    sample = Sample(tmp_path / "gone.png", None, "gone.png")
    assert summary({"train": Dataset((sample,), (), "images", "photos", tmp_path)}) == "data: train 1 image."


def test_the_documentation_lists_every_kind_of_finding():
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+?) \| (.+?) \|$", text, re.M)
    assert rows == [(one.name, one.level, one.text, one.advice) for one in every_check().values()]
