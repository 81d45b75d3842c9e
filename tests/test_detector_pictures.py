"""Pictures of detections: boxes stand where they are said to, and any image, name and number of classes draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from zoo.adapters.detector import Detector
from zoo.adapters.detector.pictures import BARS, average_precision, colour_of, draw, photos, precision_recall
from zoo.dense.coco import Curve

GREY = np.full((120, 160, 3), 90, np.uint8)
ODD_NAMES = ("猫", "$x_1$ & \\alpha", "a\nb", "\N{CAT FACE}\ufe0f", "", "long " * 30)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def coloured(image: np.ndarray, colour: str) -> np.ndarray:
    return (image == np.array(ImageColor.getrgb(colour))).all(-1)


def test_a_box_is_where_it_is_said_to_be() -> None:
    done = draw(GREY, np.array([[20.0, 30, 80, 70]]), [colour_of(1)])
    assert done.shape == GREY.shape and done.dtype == np.uint8 and (GREY == 90).all()
    rows, columns = np.nonzero(coloured(done, colour_of(1)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 69, 20, 79)
    changed = (done != GREY).any(-1)
    assert not changed[33:67, 23:77].any() and not changed[:29].any() and not changed[72:].any()


def test_the_first_box_lies_on_top_and_broken_lines_have_gaps() -> None:
    boxes = np.array([[20.0, 30, 80, 70]] * 2)
    done = draw(GREY, boxes, [colour_of(1), colour_of(2)])
    assert coloured(done, colour_of(1)).any() and not coloured(done, colour_of(2)).any()
    broken = draw(GREY, boxes[:1], [colour_of(1)], dashed=True)
    share = coloured(broken, colour_of(1)).sum() / coloured(done, colour_of(1)).sum()
    assert 0.4 < share < 0.7


def test_captions_stand_beside_their_boxes_and_hide_no_other() -> None:
    boxes = np.array([[20.0, 40, 80, 110], [22, 42, 82, 112]])
    bare = draw(GREY, boxes, [colour_of(0), colour_of(1)])
    done = draw(GREY, boxes, [colour_of(0), colour_of(1)], ["cat 90%", "dog 80%"])
    changed = (done != bare).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 40 - 16 and columns.min() >= 20 and columns.max() < 160
    more = [int((coloured(done, colour_of(i)) & changed).sum()) for i in (0, 1)]
    assert min(more) > 200  # both have a plate
    # At the upper edge there is no room above, so it stands inside.
    top = draw(GREY, np.array([[0.0, 0, 100, 100]]), [colour_of(0)], ["cat"])
    assert coloured(top[:14, :20], colour_of(0)).sum() > 100


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (20, 30), (700, 40)], ids=str)
def test_images_of_any_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    boxes = np.array([[0, 0, width, height], [-50, -50, -20, -20], [1e4, 1e4, 2e4, 2e4], [0.2, 0.2, 0.2, 0.2]])
    done = draw(image, boxes, [colour_of(i) for i in range(4)], list(ODD_NAMES[:4]))
    assert done.shape == image.shape and (done != image).any()
    assert np.array_equal(draw(image, np.zeros((0, 4)), []), image)


def test_a_large_photo_has_lines_and_letters_that_are_seen() -> None:
    image = np.zeros((1500, 3000, 3), np.uint8)
    done = draw(image, np.array([[1000.0, 500, 2000, 1000]]), [colour_of(0)], ["cat " * 100])
    assert coloured(done[700], colour_of(0)).sum() == 2 * 10
    rows = np.flatnonzero(coloured(done[:490], colour_of(0)).any(1))
    assert len(rows) > 40


def entry(file: Path, truths: int, found: int, *, labels: int = 3, crowd: int = 0) -> tuple[Path, Any, Any]:
    """An image with boxes in a row; the first detections are the truths."""
    rows = np.arange(6)
    boxes = np.stack([rows * 20, rows * 0 + 5, rows * 20 + 15, rows * 0 + 40], -1).astype(np.float32)
    decoded = {
        "boxes": boxes, "scores": np.linspace(0.9, 0.4, 6), "labels": rows % labels, "found": rows < found
    }  # fmt: skip
    targets = {"true_boxes": boxes, "true_valid": rows < truths, "crowd": rows < crowd, "labels": rows % labels}
    return file, decoded, targets


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(GREY).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_captions_count_what_was_found(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def grid(panels: Any, captions: Any, path: Path, **options: Any) -> Path:
        said.extend(captions)
        return path

    monkeypatch.setattr("zoo.adapters.detector.pictures.photo_grid", grid)
    adapter = Detector(labels=("a", "b", "c"), score_threshold=0.5)
    entries = [entry(photo, 4, 2), entry(photo, 2, 4), entry(photo, 0, 1), entry(photo, 0, 0), entry(photo, 6, 6)]
    entries += [entry(photo, 3, 3, crowd=1)]
    other = entry(photo, 2, 2)
    other[1]["labels"] = other[1]["labels"] + 1
    photos(adapter, [*entries, other], tmp_path / "worst.png")
    assert said == [
        "2 of 4 found",
        "2 of 2 found, 2 false positives",
        "no objects, 1 false positive",
        "no objects",
        "5 of 6 found",  # the last one's score is 0.4
        "2 of 2 found",  # what lies in a crowd is neither right nor wrong
        "0 of 2 found, 2 false positives",
    ]


@pytest.mark.parametrize("labels", [("one",), tuple("abc"), ODD_NAMES, tuple(f"class {i} of many" for i in range(80))])
def test_any_number_of_classes_draws(labels: tuple[str, ...], photo: Path, tmp_path: Path) -> None:
    adapter = Detector(labels=labels)
    one = entry(photo, 4, 3, labels=min(len(labels), 6))
    empty = entry(photo, 0, 0)
    (file,) = photos(adapter, [one, empty] * 6, tmp_path / "worst.png")
    assert pixels(file).shape[1] > 1000
    assert photos(adapter, [], tmp_path / "none.png") == [] and not (tmp_path / "none.png").exists()

    recall = np.linspace(0, 1, 101)
    curves = {label: Curve(recall, 1 - recall**2, recall) for label in labels}
    figures = {label: {"AP": 0.4, "AP50": 0.7, "truths": 12} for label in labels}
    figures[labels[0]] = {"AP": None, "AP50": None, "truths": 0}
    for done in (precision_recall(curves, tmp_path / "pr.png"), average_precision(figures, tmp_path / "ap.png")):
        assert pixels(done).std() > 5


def test_nothing_to_find_draws(tmp_path: Path) -> None:
    assert pixels(precision_recall({}, tmp_path / "pr.png")).std() > 1
    assert pixels(average_precision({}, tmp_path / "ap.png")).std() > 1


def test_hundreds_of_classes_leave_the_middle_out(tmp_path: Path) -> None:
    def figures(count: int) -> dict[str, Any]:
        return {f"class {i}": {"AP": i / count, "AP50": i / count, "truths": i} for i in range(count)}

    many, most = (pixels(average_precision(figures(n), tmp_path / f"{n}.png")) for n in (3 * BARS, BARS))
    assert many.shape == most.shape
