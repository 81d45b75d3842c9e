"""Figures: they are drawn, legible in size, and no name that a folder can have breaks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo import report
from zoo.errors import ConfigError, DataError

ODD_NAMES = ("猫", "$x_1$ & \\alpha", "a\nb\tc", "é_ü %s {}", "\N{CAT FACE}\ufe0f", "\udcff broken", "", "long " * 30)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def history(epochs: int) -> list[dict]:
    return [
        {
            "epoch": e,
            "phase": "head" if e < 3 else "all",
            "train_loss": 1 / e,
            "val_loss": 1.2 / e,
            "accuracy": 1 - 1 / e,
        }
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 5, 40])
def test_curves_of_any_length(tmp_path, epochs):
    drawn = pixels(report.curves(history(epochs), tmp_path / "plots" / "curves.png"))
    assert drawn.shape[1] > 1000 and drawn.std() > 5


def test_curves_take_gaps_and_show_the_first_metric(tmp_path):
    rows = history(4)
    rows[1]["val_loss"], rows[2]["accuracy"] = float("nan"), None
    drawn = pixels(report.curves(rows, tmp_path / "a.png"))
    rows[3]["accuracy"] = 0.1
    assert (pixels(report.curves(rows, tmp_path / "b.png")).shape == drawn.shape) and (
        pixels(tmp_path / "b.png") != drawn
    ).any()


def test_curves_without_a_metric_have_one_panel(tmp_path):
    bare = [{"epoch": 1, "train_loss": 1.0, "seconds": 3.0}, {"epoch": 2, "train_loss": 0.5, "seconds": 2.0}]
    assert pixels(report.curves(bare, tmp_path / "a.png")).shape[1] < 700
    with pytest.raises(ConfigError, match="no epochs"):
        report.curves([], tmp_path / "b.png")


def test_odd_names_are_drawn_without_warnings(tmp_path):
    count = len(ODD_NAMES)
    matrix = np.arange(count * count).reshape(count, count)
    assert report.confusion_matrix(matrix, ODD_NAMES, tmp_path / "m.png").exists()
    Image.new("RGB", (30, 60), "red").save(tmp_path / "photo.png")
    assert report.photo_grid([tmp_path / "photo.png"] * count, ODD_NAMES, tmp_path / "g.png").exists()
    series = {name: [0.1, 0.2] for name in ODD_NAMES}
    with report.figure(6.4, 3.8, 1, 1) as (page, (ax,)):
        report.draw_lines(ax, series)
        assert report.write(page, tmp_path / "c.png").exists()


def test_confusion_matrix_is_darkest_where_a_row_has_most(tmp_path):
    drawn = pixels(report.confusion_matrix(np.array([[1, 99], [3, 0]]), ["a", "b"], tmp_path / "m.png")).astype(int)
    dark = (drawn[..., 2] - drawn[..., 0] > 60) & (drawn.sum(-1) < 350)
    rows, columns = np.nonzero(dark)
    upper, lower = columns[rows < np.median(rows)], columns[rows > np.median(rows)]
    assert upper.mean() > lower.mean() + 20  # row a: predicted b, right; row b: predicted a, left


def test_confusion_matrix_of_a_hundred_classes_gives_each_label_its_line(tmp_path):
    path = report.confusion_matrix(np.eye(100, dtype=int), [f"class {i}" for i in range(100)], tmp_path / "m.png")
    height = pixels(path).shape[0]
    assert 1800 < height < 3000  # some 20 pixels a class
    with pytest.raises(ConfigError, match=r"shape \(2, 2\), but there are 3 labels"):
        report.confusion_matrix(np.eye(2), ["a", "b", "c"], tmp_path / "n.png")


def test_empty_classes_do_not_divide_by_zero(tmp_path):
    assert report.confusion_matrix(np.zeros((3, 3), int), ["a", "b", "c"], tmp_path / "m.png").exists()


def test_photo_grid_shows_every_photo_whole(tmp_path):
    colours = {
        "red": (255, 0, 0),
        "lime": (0, 255, 0),
        "blue": (0, 0, 255),
        "black": (0, 0, 0),
        "yellow": (255, 255, 0),
    }
    files = []
    for index, name in enumerate(colours):
        files.append(tmp_path / f"{name}.png")
        Image.new("RGB", (40, 80) if index % 2 else (80, 40), name).save(files[-1])
    drawn = pixels(report.photo_grid(files, list(colours), tmp_path / "g.png"))
    areas = []
    for colour in colours.values():
        rows, columns = np.nonzero((drawn == colour).all(-1))
        if colour != (0, 0, 0):  # captions are dark, too
            areas.append((np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    assert np.allclose(areas, [0.5, 2, 0.5, 0.5], rtol=0.05)


def test_photo_grid_names_a_file_that_is_no_image(tmp_path):
    (tmp_path / "photo.jpg").write_text("nothing")
    with pytest.raises(DataError, match="photo.jpg"):
        report.photo_grid([tmp_path / "photo.jpg"], ["a"], tmp_path / "g.png")
    with pytest.raises(ConfigError, match="1 images, 2 captions"):
        report.photo_grid([tmp_path / "photo.jpg"], ["a", "b"], tmp_path / "g.png")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    a, b = (report.curves(history(5), tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert a == b


def test_importing_it_loads_neither_matplotlib_nor_jax():
    code = "import sys, zoo.report; print(sorted({'matplotlib', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
