"""Boxes as targets: checked by policy, padded without a silent cut, split fairly, relabelled."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.data import Dataset, Sample, split
from zoo.data.boxes import UNKNOWN, Boxes, InstanceMasks, box_limit, padded_targets
from zoo.data.check import FAULTS, check_boxes, checked
from zoo.data.decode import decode, image_size
from zoo.errors import ConfigError, DataError

SIZE = (40, 60)
GOOD = (10.0, 10.0, 30.0, 30.0)


def picture(path, size=SIZE, orientation=1, pixels=None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((*size, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path, exif=exif if path.suffix == ".tif" else exif.tobytes())
    return path


def target(*boxes, labels=None, crowd=None, size=SIZE, masks=None):
    labels = (0,) * len(boxes) if labels is None else labels
    return Boxes(tuple(boxes), labels, (False,) * len(boxes) if crowd is None else crowd, size, masks)


def data(folder, *targets, **picture_options):
    samples = [
        Sample(picture(folder / f"{i}.png", **picture_options), one, f"{i}.png") for i, one in enumerate(targets)
    ]
    return Dataset(tuple(samples), ("a", "b", "c"), "boxes", "toy", folder)


MANY = [(4.0 * x, 4.0 * y, 4.0 * x + 4, 4.0 * y + 4) for x in range(15) for y in range(10)]


def enough(count=60):
    """Good boxes of all three classes, beside which a few faults are single ones."""
    return target(*MANY[:count], labels=tuple(i % 3 for i in range(count)))


def faults(report):
    return [(fault.kind, fault.id, fault.index, fault.done) for fault in report.faults]


# The target ---------------------------------------------------------------------------------------------------------
def test_a_data_set_of_boxes_counts_boxes_and_knows_its_classes(tmp_path):
    boxes = data(tmp_path, target(GOOD, GOOD, labels=(0, 2)), target(), target(GOOD, labels=(2,)))
    assert boxes.counts() == {"a": 1, "b": 0, "c": 2} and boxes.labels(boxes[0]) == (0, 2)
    assert pickle.loads(pickle.dumps(boxes)) == boxes
    with pytest.raises(DataError, match="class index 3, but there are 3"):
        data(tmp_path, target(GOOD, labels=(3,)))
    with pytest.raises(DataError, match="2 boxes, 1 labels"):
        target(GOOD, GOOD, labels=(0,))


def test_the_fingerprint_follows_the_boxes_and_not_the_place(tmp_path):
    masks = InstanceMasks(tmp_path / "m.png", (1,))
    boxes = data(tmp_path, target(GOOD, masks=masks))
    moved = replace(boxes, samples=(replace(boxes[0], target=target((10.0, 10.0, 30.0, 31.0), masks=masks)),))
    elsewhere = replace(masks, file=Path("/elsewhere/m.png"))
    other = replace(boxes, samples=(replace(boxes[0], target=target(GOOD, masks=elsewhere)),))
    assert boxes.fingerprint() == other.fingerprint() != moved.fingerprint()


def test_labels_are_mapped_and_unknown_ones_stay_unknown():
    assert target(GOOD, GOOD, GOOD, labels=(0, 2, UNKNOWN)).mapped((5, 6, 7)).labels == (5, 7, UNKNOWN)


# Splits -------------------------------------------------------------------------------------------------------------
def unread(labels, classes):
    samples = [
        Sample(Path(f"{i}.png"), target(*[GOOD] * len(one), labels=tuple(one)), str(i)) for i, one in enumerate(labels)
    ]
    return Dataset(tuple(samples), tuple(map(str, range(classes))), "boxes", "toy", Path("."))


def test_a_split_of_boxes_is_fair_and_keeps_rare_classes_on_both_sides():
    rng = np.random.default_rng(0)
    labels = [[0] * int(rng.integers(0, 5)) + [1] * int(rng.random() < 0.3) for _ in range(100)]
    for row, rare in ((3, 2), (50, 2), (7, 3), (70, 3), (20, 4)):
        labels[row] = [*labels[row], rare]
    whole = unread(labels, 6)
    train, val = split(whole, 0.2, seed=1)
    assert sorted(s.id for part in (train, val) for s in part) == sorted(s.id for s in whole)
    assert abs(len(val) - 20) <= 3 and split(whole, 0.2, seed=1)[1] == val != split(whole, 0.2, seed=2)[1]
    images = [sum(1 in one for one in ([s.target.labels for s in part])) for part in (train, val)]
    assert images[1] == pytest.approx(sum(images) * 0.2, abs=2)
    for rare in ("2", "3"):
        assert train.counts()[rare] == val.counts()[rare] == 1
    assert train.counts()["4"] + val.counts()["4"] == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=2, max_size=20), st.integers(0, 3))
def test_no_split_loses_a_class_or_a_side(labels, seed):
    whole = unread(labels, 5)
    train, val = split(whole, 0.25, seed)
    assert len(train) + len(val) == len(whole) and len(train)
    for name, count in whole.counts().items():
        assert train.counts()[name] + val.counts()[name] == count


# The check ----------------------------------------------------------------------------------------------------------
BAD = {
    "outside": (70.0, 10.0, 90.0, 20.0),
    "overhang": (50.0, -5.0, 70.0, 20.0),
    "empty": (10.0, 10.0, 10.0, 20.0),
    "inverted": (30.0, 30.0, 20.0, 15.0),
    "number": (float("nan"), 0.0, 5.0, 5.0),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_kind_of_fault_is_named_and_met(tmp_path, kind):
    boxes = data(tmp_path, target(GOOD), target(GOOD, BAD[kind], (1.0, 1.0, 9.0, 9.0), labels=(1, 1, 2)), enough())
    mended = {"overhang": (50.0, 0.0, 60.0, 20.0), "inverted": (20.0, 15.0, 30.0, 30.0)}
    fixed, report = check_boxes(boxes)
    done = "fixed" if kind in mended else "dropped"
    assert faults(report) == [(kind, "1.png", 1, done)] and report.counts() == {(kind, done): 1}
    assert FAULTS[kind] in report.text() and "1.png, box 1" in report.text() and "toy, 64 boxes in 3" in report.text()
    kept = [GOOD, *([mended[kind]] if kind in mended else []), (1.0, 1.0, 9.0, 9.0)]
    assert list(fixed[1].target.boxes) == kept and fixed[1].target.labels[0] == 1 and fixed[1].target.labels[-1] == 2
    assert fixed[0] is boxes[0] and len(boxes[1].target) == 3
    dropped, report = check_boxes(boxes, "drop")
    assert list(dropped[1].target.boxes) == [GOOD, (1.0, 1.0, 9.0, 9.0)] and report.faults[0].done == "dropped"
    with pytest.raises(DataError, match=f"1 {FAULTS[kind]}.*1.png, box 1.*Correct"):
        check_boxes(boxes, "error")


def test_classes_that_nobody_named_and_doubles(tmp_path):
    boxes = data(tmp_path, target(GOOD, GOOD, GOOD, (1.0, 1.0, 5.0, 5.0), labels=(0, 1, 0, UNKNOWN)), enough())
    fixed, report = check_boxes(boxes)
    assert faults(report) == [("duplicate", "0.png", 2, "dropped"), ("class", "0.png", 3, "dropped")]
    assert fixed[0].target.labels == (0, 1)
    with pytest.raises(DataError, match="unknown class.*repeated"):
        check_boxes(boxes, "error")


def test_a_box_that_becomes_a_double_or_empty_by_mending(tmp_path):
    over = (30.0, 20.0, 10.0, 10.0)
    boxes = data(tmp_path, target((10.0, 10.0, 30.0, 20.0), over, (59.9, 10.0, 80.0, 12.0)), enough())
    fixed, report = check_boxes(boxes)
    assert [kind for kind, *_ in faults(report)] == ["inverted", "duplicate", "overhang", "empty"]
    assert len(fixed[0].target) == 1


def test_nothing_wrong_is_nothing_said(tmp_path):
    edge = (-0.4, 0.0, 60.3, 40.0)  # shares of the image, rounded
    boxes = data(tmp_path, target(), target(GOOD, edge))
    for policy in ("error", "fix", "drop"):
        checked, report = check_boxes(boxes, policy)
        assert report.text() == "" and not report.faults and report.boxes == 2
        assert checked[0] is boxes[0] and checked[1].target.boxes == (GOOD, (0.0, 0.0, 60.0, 40.0))


def test_all_boxes_bad_leaves_an_image_without_boxes(tmp_path):
    fixed, _ = check_boxes(data(tmp_path, target(*BAD.values(), size=SIZE), target(GOOD)), "drop")
    assert [len(sample.target) for sample in fixed] == [0, 1]


def test_masks_follow_their_boxes(tmp_path):
    masks = InstanceMasks(tmp_path / "m.png", (3, 5, 9))
    boxes = data(tmp_path, target(GOOD, BAD["empty"], (1.0, 1.0, 9.0, 9.0), masks=masks), enough())
    assert check_boxes(boxes)[0][0].target.masks.values == (3, 9)


def test_annotations_of_another_size(tmp_path):
    half = target((5.0, 5.0, 15.0, 15.0), size=(20, 30))
    fixed, report = check_boxes(data(tmp_path, half))
    assert faults(report) == [("size", "0.png", None, "fixed")] and "30x20, the file has 60x40" in report.text()
    assert fixed[0].target == target(GOOD)
    other = target(GOOD, (10.0, 10.0, 90.0, 30.0), size=(50, 100))
    fixed, report = check_boxes(data(tmp_path, other))
    assert [kind for kind, *_ in faults(report)] == ["size", "overhang"]
    assert fixed[0].target == target(GOOD, (10.0, 10.0, 60.0, 30.0))
    left, report = check_boxes(data(tmp_path, half, target(GOOD)), "drop")
    assert [s.id for s in left] == ["1.png"] and faults(report) == [("size", "0.png", None, "dropped")]
    with pytest.raises(DataError, match="no image is left"):
        check_boxes(data(tmp_path, half), "drop")
    with pytest.raises(DataError, match="another image size"):
        check_boxes(data(tmp_path, half), "error")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_the_stored_picture_turn_with_it(tmp_path, orientation):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[10:20, 35:55] = 255
    boxes = data(tmp_path, target((35.0, 10.0, 55.0, 20.0)), orientation=orientation, pixels=pixels)
    fixed, report = check_boxes(boxes)
    assert fixed[0].target.size == (60, 40) and faults(report) == [("size", "0.png", None, "fixed")]
    y, x = np.nonzero(decode(boxes[0].image)[..., 0])
    assert fixed[0].target.boxes == ((x.min(), y.min(), x.max() + 1, y.max() + 1),)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_size_by_the_header_is_that_of_the_pixels(tmp_path, suffix):
    for orientation in range(1, 9):
        file = picture(tmp_path / f"{orientation}{suffix}", orientation=orientation)
        assert image_size(file) == (decode(file).shape[:2], orientation)


def test_images_whose_header_cannot_be_read(tmp_path):
    for content, said in ((b"", "empty"), (b"<html>", "not an image"), (b"\x89PNG\r\n\x1a\n\0\0", "image")):
        file = tmp_path / "bad.png"
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"bad.png.*{said}"):
            check_boxes(Dataset((Sample(file, target(GOOD), "bad.png"),), ("a",), "boxes", "toy", tmp_path))
    with pytest.raises(DataError, match="gone.png"):
        image_size(tmp_path / "gone.png")


def test_all_parts_are_checked_and_other_targets_left_alone(tmp_path):
    (tmp_path / "train").mkdir(), (tmp_path / "val").mkdir()
    classes = Dataset((Sample(tmp_path / "x.png", 0, "x"),), ("a",), "class", "other", tmp_path)
    train = data(tmp_path / "train", target(BAD["empty"]), enough())
    parts = {"train": train, "val": data(tmp_path / "val", target(GOOD))}
    found, notes = checked({**parts, "test": classes})
    assert list(found) == ["train", "val", "test"] and found["test"] is classes and found["val"] == parts["val"]
    assert len(notes) == 1 and "1 empty" in notes[0] and not len(found["train"][0].target)
    with pytest.raises(DataError, match="1 empty"):
        checked(parts, "error")


def test_wrong_requests(tmp_path):
    with pytest.raises(ConfigError, match="'ignore'; accepted: error, fix, drop"):
        check_boxes(data(tmp_path, target()), "ignore")
    with pytest.raises(ConfigError, match="kind class"):
        check_boxes(Dataset((), ("a",), "class", "toy", tmp_path))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(*[st.floats(-50, 100) | st.sampled_from([float("nan"), float("inf")])] * 4), max_size=6))
def test_what_is_kept_lies_inside_and_is_counted(tmp_path_factory, boxes):
    folder = tmp_path_factory.getbasetemp()
    file = folder / "whole.png"
    if not file.is_file():
        picture(file)
    boxes = [*MANY[:60], *boxes]
    whole = Dataset((Sample(file, target(*boxes), "x"),), ("a",), "boxes", "toy", folder)
    for policy in ("fix", "drop"):
        checked, report = check_boxes(whole, policy)
        kept = checked[0].target
        for x1, y1, x2, y2 in kept.boxes:
            assert 0 <= x1 < x2 <= 60 and 0 <= y1 < y2 <= 40
        assert len(set(zip(kept.boxes, kept.labels, strict=True))) == len(kept)
        dropped = {fault.index for fault in report.faults if fault.done == "dropped"}
        assert len(kept) == len(boxes) - len(dropped)
        assert check_boxes(checked, "error")[0] == checked


# What a correction may not do ----------------------------------------------------------------------------------------
def scaled(across, down):
    """Good boxes, as if they were read in another unit."""
    return target(*[(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in MANY])


FAR = [
    (scaled(60, 40), "in pixels or per cent instead of shares of the image"),
    (scaled(1 / 60, 1 / 40), "shares of the image .0 to 1. instead of pixels"),
    (target(*[(70 + x1, y1, 70 + x2, y2) for x1, y1, x2, y2 in MANY]), "drawn on larger versions of the images"),
    (target(*[box for box in scaled(4, 4).boxes if box[0] >= 60]), "drawn on larger versions of the images"),
    (target(*MANY, labels=(UNKNOWN,) * len(MANY)), "start at 1 instead of 0"),
    (target(*[(float("nan"),) * 4] * 9), "missing coordinates"),
]


@pytest.mark.parametrize(("wrong", "said"), FAR, ids=["pixels", "shares", "larger", "four times", "class", "missing"])
def test_a_correction_that_would_drop_much_stops_with_the_reason(tmp_path, wrong, said):
    for boxes in (data(tmp_path, wrong), data(tmp_path, wrong, enough())):
        with pytest.raises(DataError, match=rf"would drop \d+ of \d+ boxes.*reason: .*{said}"):
            check_boxes(boxes)
    with pytest.raises(DataError, match=f"no box is left.*{said}"):
        check_boxes(data(tmp_path, wrong), "drop")
    assert check_boxes(boxes, "drop")[0].counts() == {"a": 20, "b": 20, "c": 20}


def test_x_and_y_exchanged_are_found_out(tmp_path):
    meant = [(x, 44.0 + y, x + 10, 50.0 + y) for x in range(20) for y in range(5)]
    wrong = target(*[(y1, x1, y2, x2) for x1, y1, x2, y2 in meant], size=(60, 40))
    with pytest.raises(DataError, match="would drop 100 of 100 boxes.*x and y swapped"):
        check_boxes(data(tmp_path, wrong, size=(60, 40)))


def test_up_to_a_tenth_is_dropped_and_a_repeated_box_is_no_loss(tmp_path):
    wrong = BAD["outside"]
    fixed, report = check_boxes(data(tmp_path, target(*MANY[:18], wrong, wrong, *MANY[:9])))
    assert fixed[0].target.boxes == tuple(MANY[:18])
    assert report.counts() == {("outside", "dropped"): 2, ("duplicate", "dropped"): 9} and not report.losses
    with pytest.raises(DataError, match="would drop 3 of 20 boxes"):
        check_boxes(data(tmp_path, target(*MANY[:17], wrong, wrong, wrong)))


def test_a_correction_never_drops_all_of_a_class(tmp_path):
    boxes = data(tmp_path, enough(), target(BAD["empty"], BAD["outside"], labels=(1, 2)))
    assert check_boxes(boxes)[0].counts() == {"a": 20, "b": 20, "c": 20}
    only = data(tmp_path, target(*MANY[:60]), target(BAD["empty"], labels=(2,)))
    with pytest.raises(DataError, match=r"would drop all boxes of 'c' \(1\)"):
        check_boxes(only)
    assert check_boxes(only, "drop")[0].counts() == {"a": 60, "b": 0, "c": 0}


@pytest.mark.parametrize("read_as", ["a corner and a size", "a centre and a size"])
def test_two_corners_read_as_something_else_stop(tmp_path, read_as):
    meant = [(20.0 + x, 15.0 + y, 45.0 + x, 35.0 + y) for x in range(5) for y in range(3)]
    if read_as == "a corner and a size":
        read, due = [(x1, y1, x1 + x2, y1 + y2) for x1, y1, x2, y2 in meant], "x, y, width and height"
    else:
        read = [(x1 - x2 / 2, y1 - y2 / 2, x1 + x2 / 2, y1 + y2 / 2) for x1, y1, x2, y2 in meant]
        due = "centre, width and height"
    with pytest.raises(DataError, match=f"two corners .x1, y1, x2, y2. instead of {due}"):
        check_boxes(data(tmp_path, target(*read)))
    # One box that these corners cannot explain: objects that reach beyond their images, as some people draw them.
    fixed, report = check_boxes(data(tmp_path, target(*read, (30.0, -9.0, 50.0, 20.0))))
    assert report.counts() == {("overhang", "fixed"): 16} and fixed[0].target.boxes[-1] == (30.0, 0.0, 50.0, 20.0)


# Padding ------------------------------------------------------------------------------------------------------------
def test_padding():
    arrays = padded_targets(target(GOOD, (1.0, 2.0, 3.0, 4.5), labels=(2, 1), crowd=(False, True)), 4)
    assert arrays["boxes"].dtype == np.float32 and arrays["labels"].dtype == np.int32
    np.testing.assert_array_equal(arrays["boxes"], [GOOD, (1, 2, 3, 4.5), (0,) * 4, (0,) * 4])
    assert arrays["labels"].tolist() == [2, 1, 0, 0] and arrays["crowd"].tolist() == [False, True, False, False]
    assert arrays["box_valid"].tolist() == [True, True, False, False] and arrays["box_cut"] == 0
    empty = padded_targets(target(), 3)
    assert empty["boxes"].shape == (3, 4) and not any(values.any() for values in empty.values())
    with pytest.raises(DataError, match="check_boxes"):
        padded_targets(target(GOOD, labels=(UNKNOWN,)), 4)


def test_too_many_boxes_are_counted_and_the_foremost_kept():
    boxes = [(0.0, 0.0, side, side) for side in (5.0, 40.0, 3.0, 20.0)]
    arrays = padded_targets(target(*boxes, labels=(0, 1, 2, 3), crowd=(False, True, False, False)), 2)
    assert arrays["labels"].tolist() == [0, 3] and arrays["box_cut"] == 2 and arrays["box_valid"].all()


def test_the_limit_is_chosen_by_the_data_and_says_what_is_cut(tmp_path):
    parts = [unread([[0] * 3, []], 1), unread([[0] * 9, [0] * 12], 1)]
    assert box_limit(parts) == (16, "") and box_limit(parts[:1]) == (8, "") and box_limit([]) == (8, "")
    limit, note = box_limit(parts, most=8)
    assert limit == 8 and note.startswith("5 boxes in 2 images are left out") and "4, in 1 of toy" in note
    with pytest.raises(ConfigError, match="at least 1"):
        box_limit(parts, most=0)
