"""Datasets written in another format: what is read back equals what was written, or writing is refused."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo.cli
from zoo.data import Dataset, Sample, read
from zoo.data.boxes import Boxes
from zoo.data.convert import convert_dataset
from zoo.data.masks import IGNORE, Mask, MaskFile, read_mask
from zoo.data.writers import coco
from zoo.errors import ConfigError, DataError
from zoo.targets.boxes import InstanceMasks
from zoo.targets.outlines import Outlines, Polygons, Runs, box_of, inside

SIZES = ((5, 7), (8, 8), (12, 6))
few = settings(max_examples=8, derandomize=True, deadline=None, database=None)

# Names ---------------------------------------------------------------------------------------------------------------

AWKWARD = (
    "7",
    "10",
    "red cell",
    "a/b",
    "A",
    "a",
    "Ünï",
    "日本",
    "train",
    "1 2 3 4",
    "no",
    "x:1,2,3",
    "_b_",
    " c",
    "d;e",
)
AWKWARD += (
    "f|g",
    "#h",
    "void",
    "i,j",
    '"k"',
    ".l",
    "m\tn",
    "<o>",
    "null",
    "~",
    "0x1",
    "name",
    "con.",
    "q's",
    "-",
    "1e3",
)
PLAIN = ("7", "10", "red cell", "A", "Ünï", "日本", "white", "x y z", "9b", "b-c", "d.e")
PLAIN += ("a", "Red Cell") if sys.platform == "linux" else ()  # where `A` and `a` are two folders
FILES = (
    "0",
    "1",
    "a b",
    "A",
    "Ü",
    "日本",
    "x.y",
    "sub/0",
    "sub/a b",
    "train/0",
    "2/1/0",
    ".hid",
    "tail ",
    "q'",
    "m_mask",
    "m",
)
SUFFIXES = (".png", ".bmp", ".png", ".webp", "")


@functools.cache
def picture(number: int) -> bytes:
    """Return an image file; each number has its own content."""
    stream = io.BytesIO()
    height, width = SIZES[number % len(SIZES)]
    Image.new("RGB", (width, height), (number % 256, number // 256, 99)).save(stream, "PNG")
    return stream.getvalue()


class Drawn:
    """A random dataset: splits -> [(file name, number of its picture, target)]."""

    def __init__(self, splits: Mapping[str, list[tuple[str, int, Any]]], classes: tuple[str, ...], kind: str) -> None:
        self.splits, self.classes, self.kind = splits, classes, kind

    def datasets(self, root: Path, **options: Any) -> dict[str, Dataset]:
        """Write the images and return the datasets."""
        datasets = {}
        for split, rows in self.splits.items():
            samples = []
            for name, number, target in rows:
                file = root / split / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(number))
                if self.kind == "masks":
                    (root / "masks").mkdir(exist_ok=True)
                    values = root / "masks" / f"{number}.png"
                    Image.fromarray(target).save(values)
                    table = (*((i, i) for i in range(len(self.classes))), (IGNORE, IGNORE))
                    target = Mask(target.shape, MaskFile(values, table))
                samples.append(Sample(file, target, f"{split}/{name}"))
            datasets[split] = Dataset(tuple(samples), self.classes, self.kind, f"drawn/{split}", root, **options)
        return datasets


@st.composite
def drawn(draw: st.DrawFn, kind: str, names: tuple[str, ...], target: Any, *, split: bool = True) -> Drawn:
    """Draw images with targets; every class occurs in every split."""
    classes = tuple(draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True)))
    splits: dict[str, list[tuple[str, int, Any]]] = {}
    number = 0
    for name in draw(st.sampled_from([("all",), ("train", "val"), ("train", "test"), ("train", "val", "test")])):
        files = draw(st.lists(st.sampled_from(FILES), min_size=len(classes), max_size=len(classes) + 2, unique=True))
        rows = []
        for i, stem in enumerate(files):
            rows.append((stem + draw(st.sampled_from(SUFFIXES)), number, draw(target(i, len(classes), number))))
            number += 1
        splits[name if split else "all"] = rows
    return Drawn(splits, classes, kind)


def label(i: int, count: int, number: int) -> st.SearchStrategy[int]:
    return st.just(i) if i < count else st.integers(0, count - 1)


def labels(i: int, count: int, number: int) -> st.SearchStrategy[tuple[int, ...]]:
    other = st.sets(st.integers(0, count - 1))
    return other.map(lambda found: tuple(sorted({*found, i} if i < count else found)))


@st.composite
def boxes(draw: st.DrawFn, i: int, count: int, number: int, *, whole: bool = False, outlined: bool = False) -> Boxes:
    height, width = SIZES[number % len(SIZES)]
    found = {}
    for place in range(draw(st.integers(1 if i < count else 0, 3))):
        x, y = (draw(st.integers(0, side - 3)) for side in (width, height))
        w, h = draw(st.integers(2, width - x)), draw(st.integers(2, height - y))
        part = 0.0 if whole or outlined else draw(st.sampled_from([0.0, 0.25, 1 / 3, 0.7]))
        found[(x + part, float(y), float(x + w), float(y + h))] = (
            i if place == 0 and i < count else draw(label(9, count, 0))
        )
    box, crowd = tuple(found), tuple(draw(st.booleans()) for _ in found)
    shapes = [draw(shape((height, width), one)) for one in box] if outlined else []
    return Boxes(box, tuple(found.values()), crowd, (height, width), Outlines(tuple(shapes)) if any(shapes) else None)


def shape(size: tuple[int, int], box: tuple[float, ...]) -> st.SearchStrategy[Any]:
    x1, y1, x2, y2 = box
    ring = (x1, y1, x2, y1, x2, y2, x1, y2)
    before, inner = int(x1 * size[0] + y1), int(y2 - y1)
    runs = (before, inner, size[0] * size[1] - before - inner)
    return st.sampled_from([Polygons((ring,)), Polygons((ring, (0.0, 0.0, 2.5, 0.0, 0.0, 2.5))), Runs(runs), None])


@st.composite
def mask(draw: st.DrawFn, i: int, count: int, number: int) -> np.ndarray:
    height, width = SIZES[number % len(SIZES)]
    seed = draw(st.integers(0, 99))
    values = np.random.default_rng(seed).integers(0, count, (height, width)).astype(np.uint8)
    values[0, :count] = range(count)
    values[-1, -1] = draw(st.sampled_from([0, IGNORE]))
    return values


# Round trips ---------------------------------------------------------------------------------------------------------


@contextmanager
def folder() -> Iterator[Path]:
    """Hypothesis repeats a test, and `tmp_path` would be the same each time."""
    path = Path(tempfile.mkdtemp(prefix="zoo-convert"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def plain(dataset: Dataset, target: Any) -> Any:
    """Return a target in a form that depends neither on the order of the classes nor on files."""
    names = dataset.classes
    if dataset.kind == "masks":
        classes = read_mask(target)
        return [[names[v] if v != IGNORE else None for v in row] for row in classes.tolist()]
    if dataset.kind == "boxes":
        rows = zip(target.boxes, target.labels, target.crowd, strict=True)
        objects = [(*(round(v, 3) for v in box), names[k], crowd) for box, k, crowd in rows]
        if isinstance(target.masks, InstanceMasks):
            pixels = np.asarray(Image.open(target.masks.file))
            return target.size, objects, [(pixels == value).tolist() for value in target.masks.values]
        shapes = target.masks.shapes if target.masks else [None] * len(target)
        return target.size, objects, [None if one is None else inside(one, target.size).tolist() for one in shapes]
    return sorted(names[k] for k in ([target] if dataset.kind == "class" else target))


def content(splits: Mapping[str, Dataset]) -> dict[bytes, Any]:
    """Return image -> (its split, its target)."""
    return {s.image.read_bytes(): (split, plain(one, s.target)) for split, one in splits.items() for s in one}


def round_trip(given: Drawn, to: str, **options: Any) -> tuple[dict[str, Dataset], dict[str, Dataset], tuple[str, ...]]:
    """Write and read a dataset, whose format is recognised. Everything must come back."""
    with folder() as place:
        before = given.datasets(place / "data", **options)
        done = convert_dataset(before, to, place / "out")
        assert done.splits == {split: len(one) for split, one in before.items()}
        assert [file.name for file in place.iterdir() if file.name.startswith(".")] == []
        after = read(place / "out", None, (given.kind,))
        assert list(after) == list(before)
        assert content(after) == content(before)
        return before, after, done.notes


def refused_or_equal(given: Drawn, to: str) -> None:
    """Names that a format cannot hold are refused, before anything is left; all others come back."""
    try:
        round_trip(given, to)
    except DataError as error:
        assert "cannot hold" in str(error)
        with folder() as place:
            with pytest.raises(DataError):
                convert_dataset(given.datasets(place / "data"), to, place / "out")
            assert not (place / "out").exists() and len(list(place.iterdir())) == 1


@few
@given(drawn("class", PLAIN, label))
def test_folder(data: Drawn) -> None:
    round_trip(data, "folder")


@few
@given(drawn("class", PLAIN, label), drawn("classes", PLAIN, labels))
def test_csv(single: Drawn, several: Drawn) -> None:
    round_trip(single, "csv")
    round_trip(several, "csv")


@few
@given(drawn("class", AWKWARD, label, split=False))
def test_labels_keep_every_name_and_number(data: Drawn) -> None:
    _, after, _ = round_trip(data, "labels")
    assert after["all"].classes == data.classes


@few
@given(drawn("boxes", AWKWARD, functools.partial(boxes, outlined=True)), st.permutations([5, "b7", 3, 9]))
def test_coco_keeps_everything(data: Drawn, ids: list[Any]) -> None:
    ids = [id for id in ids if isinstance(id, int)] if len(data.classes) < 4 else ids
    before, after, notes = round_trip(data, "coco", category_ids=tuple(ids[: len(data.classes)]))
    assert not [note for note in notes if "not written" in note]
    for split, dataset in after.items():
        numbers = [dict(zip(one.classes, one.category_ids, strict=True)) for one in (dataset, before[split])]
        assert numbers[0] == numbers[1]


@few
@given(drawn("boxes", PLAIN, boxes))
def test_voc(data: Drawn) -> None:
    round_trip(data, "voc")


@few
@given(drawn("boxes", PLAIN, functools.partial(boxes, whole=True)))
def test_voc_of_whole_pixels(data: Drawn) -> None:
    round_trip(data, "voc")


@few
@given(drawn("boxes", tuple(name for name in AWKWARD if name != " c"), boxes))
def test_yolo_keeps_every_name_and_number(data: Drawn) -> None:
    for rows in data.splits.values():
        rows[:] = [(name, n, replace(target, crowd=(False,) * len(target))) for name, n, target in rows]
    _, after, notes = round_trip(data, "yolo")
    assert all(one.classes == data.classes for one in after.values())
    assert not any("crowd" in note for note in notes)


@few
@given(drawn("masks", PLAIN, mask), st.sampled_from(["masks", "voc_masks"]))
def test_masks(data: Drawn, to: str) -> None:
    _, after, _ = round_trip(data, to)
    assert all(one.classes == data.classes for one in after.values())


@st.composite
def objects(draw: st.DrawFn, i: int, count: int, number: int) -> Boxes:
    """Draw objects that share no pixel, as runs."""
    height, width = SIZES[number % len(SIZES)]
    most = draw(st.integers(1 if i < count else 0, 4))
    # Stripes with holes, so that no two boxes are equal.
    values = np.tile(np.minimum(np.arange(width), most), (height, 1))
    holes = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2, values.shape) == 0
    values[2:] = np.where(holes[2:], 0, values[2:])
    shapes = [Runs(runs_of(values == value)) for value in range(1, most + 1)]
    corners = [box_of(one, (height, width)) for one in shapes]
    outlines = Outlines(tuple(shapes)) if shapes else None
    return Boxes(tuple(filter(None, corners)), (0,) * most, (False,) * most, (height, width), outlines)


def runs_of(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the lengths of runs outside and inside an object in turn, column by column."""
    runs, inner = [0], False
    for value in pixels.T.reshape(-1).tolist():
        if value != inner:
            runs.append(0)
            inner = value
        runs[-1] += 1
    return tuple(runs)


@few
@given(drawn("boxes", PLAIN, objects), st.sampled_from(PLAIN))
def test_instances(data: Drawn, name: str) -> None:
    data.classes = (name,)
    round_trip(data, "instances")


@settings(few, max_examples=3)
@given(
    drawn("class", AWKWARD, label),
    drawn("classes", AWKWARD, labels),
    drawn("boxes", AWKWARD, boxes),
    drawn("masks", AWKWARD, mask),
)
def test_names_that_a_format_cannot_hold_are_refused(one: Drawn, several: Drawn, boxed: Drawn, masked: Drawn) -> None:
    for data, formats in ((one, ("folder", "csv")), (several, ("csv",)), (boxed, ("voc",)), (masked, ("masks",))):
        for to in formats:
            refused_or_equal(data, to)


# What a format cannot hold, and what goes wrong ---------------------------------------------------------------------


def boxed(root: Path, **options: Any) -> dict[str, Dataset]:
    """Return two images with three objects: one with a polygon, one with runs, one without an outline."""
    ring = Polygons(((1.0, 1.0, 6.0, 1.0, 6.0, 4.0),))
    two = Boxes(
        ((1.0, 1.0, 6.0, 4.0), (0.0, 0.0, 2.0, 1.0)), (2, 0), (False, True), (5, 7), Outlines((ring, Runs((0, 1, 34))))
    )
    one = Boxes(((1.5, 1.0, 6.0, 4.0),), (2,), (False,), (8, 8))
    rows = {"train": [("a.png", 0, two)], "val": [("a.png", 1, one)]}
    return Drawn(rows, ("b", "unused", "a"), "boxes").datasets(root, **options)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    data = boxed(tmp_path / "data")
    data["train"] = replace(data["train"], samples=(replace(data["train"][0], number="x1"),))
    notes = convert_dataset(data, "yolo", tmp_path / "yolo").notes
    assert notes == (
        "2 outlines are not written, because the format has no place for them.",
        "1 mark of a crowd or a difficult object is not written, because the format has no place for them.",
        "the ids of images and categories are not written: the format has none.",
    )
    notes = convert_dataset(data, "voc", tmp_path / "voc").notes
    assert notes == (
        "1 image is renamed, e.g. val/a.png to a_png.png.",
        "2 outlines are not written, because the format has no place for them.",
        "the ids of images and categories are not written: the format has none.",
        "1 class that no image has is not written, because the format has no list of classes: 'unused'.",
    )
    assert convert_dataset(data, "coco", tmp_path / "coco").notes == ()
    assert read(tmp_path / "coco")["train"][0].number == "x1"


def test_outlines_to_polygons_and_masks(tmp_path: Path) -> None:
    data = boxed(tmp_path / "data")
    first = data["train"][0]
    polygon = replace(first, target=first.target.take([0]))
    convert_dataset(replace(data["train"], samples=(polygon,)), "yolo", tmp_path / "yolo")
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["task"] == "segment"
    back = read(tmp_path / "yolo")["all"][0].target
    assert back.masks.shapes[0].rings[0] == pytest.approx(polygon.target.masks.shapes[0].rings[0])
    assert back.boxes[0] == pytest.approx((1, 1, 6, 4)) and back.labels == (2,)
    # As masks: the same pixels as those that a segmenter learns from boxes with outlines.
    done = convert_dataset(replace(data["train"], samples=(first,)), "masks", tmp_path / "masks")
    assert done.classes == ("background", "b", "unused", "a")
    values = read_mask(read(tmp_path / "masks")["all"][0].target)
    assert values[0, 0] == 1 and values[1:3, 2:5].any() and set(np.unique(values)) == {0, 1, 3}
    assert (values == 3).sum() == inside(first.target.masks.shapes[0], (5, 7)).sum()


def test_instance_masks_to_coco(tmp_path: Path) -> None:
    pixels = np.zeros((5, 7), np.uint16)
    pixels[1:3, 0:4], pixels[3:, 2:], pixels[0, 0] = 300, 2, 300
    for folder_, image in (("images", picture(0)), ("masks", b"")):
        (tmp_path / "data" / folder_).mkdir(parents=True)
        (tmp_path / "data" / folder_ / "a.png").write_bytes(image)
    Image.fromarray(pixels).save(tmp_path / "data" / "masks" / "a.png")
    convert_dataset(tmp_path / "data", "coco", tmp_path / "coco", format="instances")
    target = read(tmp_path / "coco")["all"][0].target
    assert target.boxes == ((2, 3, 7, 5), (0, 0, 4, 3))
    for shape, value in zip(target.masks.shapes, (2, 300), strict=True):
        assert (inside(shape, (5, 7)) == (pixels == value)).all()
    convert_dataset(tmp_path / "coco", "instances", tmp_path / "back")
    back = np.asarray(Image.open(tmp_path / "back" / "masks" / "a.png"))
    assert (back == np.where(pixels == 300, 2, pixels // 2)).all() and read(tmp_path / "back")["all"].classes == (
        "object",
    )
    target = replace(target, boxes=(target.boxes[0], (2, 3, 6, 5)), masks=target.masks.take([0, 0]))
    sample = replace(read(tmp_path / "coco")["all"][0], target=target)
    for other, words in ((target, "objects overlap"), (replace(target, masks=None).take([0]), "has no outline")):
        data = Dataset((replace(sample, target=other),), ("object",), "boxes", "data", tmp_path)
        with pytest.raises(DataError, match=words):
            convert_dataset(data, "instances", tmp_path / "x", annotations="drop")


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = boxed(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "data" / "val" / "a.png").unlink()
    with pytest.raises(DataError, match="a.png"):
        convert_dataset(data, "coco", tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == [file for file in before if file.parts[-2:] != ("val", "a.png")]
    data = boxed(tmp_path / "data")

    def wrong(splits: Any, folder: Any) -> None:
        other = {
            split: replace(one, samples=tuple(replace(s, target=s.target.take([])) for s in one))
            for split, one in splits.items()
        }
        write({**splits, "train": other["train"]}, folder)

    write = coco.write
    monkeypatch.setattr(coco, "write", wrong)
    with pytest.raises(
        DataError, match="cannot hold drawn: the annotation of train/a.png is different when it is read back"
    ):
        convert_dataset(data, "coco", tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    data = boxed(tmp_path / "data")
    for out, words in ((tmp_path / "data", "is not empty"), (data["train"][0].image, "is a file")):
        with pytest.raises(ConfigError, match=words):
            convert_dataset(data, "coco", out)
    (tmp_path / "empty").mkdir()
    assert convert_dataset(data, "coco", tmp_path / "empty").folder == tmp_path / "empty"
    assert len(read(tmp_path / "empty")) == 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def zoo_convert(*args: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["zoo", "convert", *map(str, args)])
        code = 0
        try:
            zoo.cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    source, out = tmp_path / "coco", tmp_path / "out"
    convert_dataset(boxed(tmp_path / "data"), "coco", source)
    code, text, err = zoo_convert(source, "--to", "voc", "--out", out, "--link")
    assert code == 0 and text == f"written: {out} (voc), 2 images (train 1, val 1), 3 classes\n"
    assert "2 outlines are not written" in err
    link = out / "JPEGImages" / "a.png"
    assert link.is_symlink() and link.resolve() == (source / "train" / "a.png").resolve()
    code, text, err = zoo_convert(source, "--to", "yolo", "--out", tmp_path / "yolo", "--json")
    done = json.loads(text)
    assert code == 0 and done["splits"] == {"train": 1, "val": 1} and done["classes"] == ["b", "unused", "a"]
    assert "\n".join(done["notes"]) + "\n" == err
    for args, words in {
        (source, "--to", "voc", "--out", out): "is not empty: choose another folder",
        (source, "--to", "voc", "--out", source / "sub" / "voc"): "which would then hold two datasets",
        (source, "--to", "folder", "--out", tmp_path / "x"): "Formats that hold them: coco, instances, voc, yolo",
        (tmp_path / "none", "--to", "voc", "--out", tmp_path / "x"): "does not exist",
        ("a/resnet.pth", "--to", "voc", "--out", tmp_path / "x"): "is a file of weights",
        (source, "--to", "voc", "--out", tmp_path / "data" / "train" / "a.png" / "x"): "cannot be written",
    }.items():
        code, text, err = zoo_convert(*args)
        assert (code, text) == (2, "") and words in err, err
        assert not (tmp_path / "x").exists()
