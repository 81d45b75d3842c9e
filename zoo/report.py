"""Plots of a run. matplotlib is imported when the first one is drawn.

Class names are the user's, or names of folders, so every text is made drawable first: a `$` starts no formula, control
characters are removed, and a box stands for a character that no installed font has.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import settings
from zoo.data.decode import decode
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#d96b0b", "#2f8f5b", "#8a4fa3", "#b5313c", "#6b6f76")
COLUMNS = 4
WITH_COUNTS = 20
"""Largest number of classes for which a confusion matrix shows its counts."""

_INK, _PALE = "#2b2d31", "#8b8f96"
_STYLE: Any = {  # matplotlib's stubs accept only a dict whose keys are literals
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e7ea",
    "grid.linewidth": 0.8,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 120,
}
# Fonts for scripts that matplotlib's own font lacks, as Linux, Windows and macOS name them.
_FURTHER_FONTS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "Malgun Gothic", "Yu Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai",
    "Noto Sans Symbols2",
)  # fmt: skip


def curves(history: Sequence[Mapping[str, Any]], path: str | Path, metric: str = "") -> Path:
    """Draw the losses and a metric by epoch; shading separates the phases of the plan.

    Args:
        history: one mapping for each epoch: `epoch`, `phase`, `train_loss`, `val_loss` and metrics, where known.
        path: the PNG file to write.
        metric: the metric to draw. Default: the first number that is not a loss, a rate or a time.

    Returns:
        The PNG file.

    Raises:
        ConfigError: the history is empty.
    """
    if not history:
        raise ConfigError("the history has no epochs to draw.")
    metric = metric or _first_metric(history[0])
    panels = [("loss", {"train_loss": "training", "val_loss": "validation"})]
    panels += [(metric, {metric: "validation"})] if metric else []
    with figure(4.6 * len(panels), 3.4, 1, len(panels)) as (page, axes):
        for ax, (title, names) in zip(axes, panels, strict=True):
            _shade_phases(ax, history)
            for colour, (name, label) in zip(COLOURS, names.items(), strict=False):
                _line(ax, [h["epoch"] for h in history], [h.get(name) for h in history], label, colour)
            best = _mark_best(ax, history, title) if title == metric else ""
            ax.set_title(drawable(title.replace("_", " ") + best), pad=18 if _phases(history) else 6)
            _epochs(ax, [h["epoch"] for h in history])
            if len(ax.get_legend_handles_labels()[0]) > 1:
                ax.legend()
        return write(page, path)


def draw_lines(ax: Axes, series: Mapping[str, Sequence[float]]) -> None:
    """Draw a line for each run, with the run's name at the end of the line; names that would overlap are moved apart.

    Args:
        ax: the axes to draw in.
        series: name -> one value for each epoch. The first epoch is 1.
    """
    ends = []
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        _line(ax, range(1, len(values) + 1), values, name, colour)
        known = [(epoch, value) for epoch, value in enumerate(values, 1) if _finite(value)]
        if known:
            ends.append((*known[-1], name, colour))
    _epochs(ax, range(1, max(map(len, series.values())) + 1))
    # From the lowest end upwards, each name is at least a line's height (7% of the axis) above the one before.
    low, high = ax.get_ylim()
    gap, last = (high - low) * 0.07, -math.inf
    for epoch, value, name, colour in sorted(ends, key=lambda end: end[1]):
        last = max(value, last + gap)
        text = f"{shortened(drawable(name), 24)}  {value:.3g}"
        ax.annotate(
            text, (epoch, last), (8, 0), textcoords="offset points", color=colour, va="center", fontweight="bold",
            annotation_clip=False,
        )  # fmt: skip


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str], path: str | Path, *, percent: bool = False) -> Path:
    """Draw a confusion matrix: rows are true classes, columns predicted ones.

    Colours are shares of a row, so that rare classes are visible too. Cells show counts for up to 20 classes.

    Args:
        matrix: counts, (classes, classes).
        labels: names of the classes.
        path: the PNG file to write.
        percent: show shares of a row instead of counts, e.g. where counts are numbers of pixels.

    Returns:
        The PNG file.

    Raises:
        ConfigError: the matrix is not of shape (labels, labels).
    """
    matrix = np.asarray(matrix)
    classes = len(labels)
    if matrix.shape != (classes, classes):
        raise ConfigError(f"the confusion matrix has shape {matrix.shape}, but there are {classes} labels.")
    cell = 0.55 if classes <= WITH_COUNTS else max(0.15, 0.3 - classes * 0.0015)
    size = 10 if classes <= WITH_COUNTS else cell * 40
    names = [shortened(drawable(label), 24) for label in labels]
    side = max(cell * classes, 1.6)
    with figure(side + 1.6, side + 1.6, 1, 1) as (page, (ax,)):
        shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        # Among many classes, each confusion is a small share; the square root makes it visible.
        shown = shares if classes <= WITH_COUNTS else np.sqrt(shares)
        ax.pcolormesh(shown, cmap="Blues", vmin=0, vmax=1, edgecolors="#eef0f3", linewidth=0.5)
        ax.set_aspect("equal")
        ax.invert_yaxis()
        centres = np.arange(classes) + 0.5
        ax.set_xticks(centres, names, rotation=90 if max(map(len, names)) > 4 or classes > 12 else 0)
        ax.set_yticks(centres, names)
        ax.tick_params(labelsize=size, length=0)
        ax.set(xlabel="predicted", ylabel="true")
        ax.grid(False)
        ax.spines[:].set_visible(False)
        accuracy = np.trace(matrix) / max(matrix.sum(), 1)
        right = f"{int(np.trace(matrix)):,} of {int(matrix.sum()):,} right ({accuracy:.1%})"
        ax.set_title(f"{accuracy:.1%} right" if percent else right)
        if classes <= WITH_COUNTS:
            _write_counts(ax, np.round(100 * shares, 1) if percent else matrix, shares)
        return write(page, path)


def photo_grid(
    files: Sequence[str | Path | np.ndarray],
    captions: Sequence[str],
    path: str | Path,
    *,
    columns: int = COLUMNS,
    inches: float = 2.3,
    key: Mapping[str, tuple[str, Any]] | None = None,
) -> Path:
    """Draw images in rows, each with a caption below.

    Args:
        files: image files, or pixels, uint8 (h, w, 3), which are not resized.
        captions: a caption for each image.
        path: the PNG file to write.
        columns: largest number of images in a row.
        inches: width of a column.
        key: the legend of lines in the images: name -> (colour, line style).

    Returns:
        The PNG file.

    Raises:
        ConfigError: there are no images, or not one caption for each.
        DataError: a file is not an image; the message names it.
    """
    if len(files) != len(captions) or not files:
        raise ConfigError(
            f"{len(files)} images, {len(captions)} captions; give a caption for each, and at least one image."
        )
    columns = min(columns, len(files))
    rows = -(-len(files) // columns)
    images = [file if isinstance(file, np.ndarray) else thumbnail(decode(file)) for file in files]
    tallest = [max(p.shape[0] / p.shape[1] for p in images[i : i + columns]) for i in range(0, len(images), columns)]
    heights = [min(ratio, 1.0) for ratio in tallest]
    high = sum(inches * height + 0.5 for height in heights) + (0.4 if key else 0)
    with figure(inches * columns, high, rows, columns, heights) as (page, axes):
        for ax in axes[len(files) :]:
            ax.set_axis_off()
        for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
            show_photo(axes[index], image, caption, heights[index // columns], round(13 * inches))
        if key:
            _write_key(page, key, round(inches * columns / 1.7))
        return write(page, path)


def _write_key(page: Figure, key: Mapping[str, tuple[str, Any]], columns: int) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, linestyle=style, linewidth=2) for colour, style in key.values()]
    names = [shortened(drawable(name), 24) for name in key]
    page.legend(lines, names, loc="outside upper left", ncols=min(len(names), max(columns, 1)), fontsize=9)


def show_photo(ax: Axes, pixels: np.ndarray, caption: str = "", height: float = 1.0, letters: int = 30) -> None:
    """Draw an image at the bottom of a frame, with a caption below.

    Small images are enlarged without smoothing, so that their pixels stay visible.

    Args:
        ax: the axes to draw in.
        pixels: the image, uint8 (h, w, 3).
        caption: text of at most three lines; the rest is cut.
        height: height of the frame, in widths.
        letters: characters in a line of the caption.
    """
    rows, columns = pixels.shape[:2]
    ax.imshow(pixels, interpolation="nearest" if max(rows, columns) < 100 else "antialiased")
    wide = max(columns, rows / height)
    ax.set_xlim((columns - wide) / 2 - 0.5, (columns + wide) / 2 - 0.5)
    ax.set_ylim(rows - 0.5, rows - wide * height - 0.5)
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    lines = textwrap.wrap(drawable(caption), letters, max_lines=3, placeholder=" …")
    ax.set_xlabel("\n".join(lines), fontsize=9, labelpad=3)


def thumbnail(pixels: np.ndarray, side: int = 280) -> np.ndarray:
    """Return an image, uint8 (h, w, 3), shrunk so that its longer side has at most `side` pixels."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    return np.asarray(image)


# Parts ---------------------------------------------------------------------------------------------------------


@contextmanager
def figure(
    width: float, height: float, rows: int, columns: int, heights: Sequence[float] | None = None
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure in zoo's style, and its axes row by row. No window is opened and no global state changed.

    Args:
        width: width in inches.
        height: height in inches.
        rows: rows of axes.
        columns: columns of axes.
        heights: relative heights of the rows. Default: all equal.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.family": [*_families()]}):
        page = Figure(figsize=(width, height), layout="constrained")
        yield page, list(page.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)


def write(page: Figure, path: str | Path) -> Path:
    """Write a figure as PNG and return the file. Equal figures give equal bytes. Missing folders are created."""
    path = settings.expanded(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return path


def _line(ax: Axes, epochs: Sequence[int] | range, values: Sequence[Any], label: str, colour: str) -> None:
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if _finite(value)]
    if points:
        # Markers show the epochs of a short line; a line of a single point would be invisible without one.
        ax.plot(
            *zip(*points, strict=True),
            label=shortened(drawable(label), 24),
            color=colour,
            marker="o" * (len(points) <= 12),
        )
        ax.lines[-1].set_markersize(4)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _epochs(ax: Axes, epochs: Sequence[int] | range) -> None:
    """Label the horizontal axis with whole epochs, and leave half an epoch free on either side."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _first_metric(row: Mapping[str, Any]) -> str:
    other = ("epoch", "phase", "step", "rate", "lr", "seconds", "time", "images")
    names = [name for name, value in row.items() if _finite(value) and not isinstance(value, bool)]
    return next((n for n in names if "loss" not in n and not n.startswith(other)), "")


def _phases(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Return (name, first epoch, last epoch) of each phase; empty if there is only one."""
    stretches = [(name, list(rows)) for name, rows in groupby(history, lambda h: str(h.get("phase", "")))]
    phases = [(name, rows[0]["epoch"], rows[-1]["epoch"]) for name, rows in stretches]
    return phases if len(phases) > 1 else []


def _shade_phases(ax: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    for index, (name, first, last) in enumerate(_phases(history)):
        if index % 2 == 0:
            ax.axvspan(first - 0.5, last + 0.5, color="#f1f3f6", zorder=0, linewidth=0)
        ax.text(
            (first + last) / 2, 1.01, drawable(name), transform=ax.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8.5, color=_PALE,
        )  # fmt: skip


def _mark_best(ax: Axes, history: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Draw a ring around the best epoch, the first of equal ones. Return the text to add to the title."""
    known = [(h[metric], h["epoch"]) for h in history if _finite(h.get(metric))]
    if not known:
        return ""
    value, epoch = max(known, key=lambda point: (point[0], -point[1]))
    ax.plot([epoch], [value], "o", color=COLOURS[0], markersize=8, markerfacecolor="white", markeredgewidth=2)
    return f", best {value:.3g} in epoch {epoch}"


def _write_counts(ax: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.55 else _INK
            size = 10 if count < 10_000 else 7
            number = f"{count:.1f}" if matrix.dtype.kind == "f" else f"{int(count)}"
            text = ax.text(column + 0.5, row + 0.5, number, ha="center", va="center", color=colour)
            text.set(fontsize=size, in_layout=False)  # measuring hundreds of texts would take a second


# Texts ---------------------------------------------------------------------------------------------------------


@cache
def _families() -> dict[str, tuple[str, frozenset[int]]]:
    """Return the installed font families, matplotlib's own first: name -> (font file, code points that it has)."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    files = {name: font_manager.findfont(name) for name in ("DejaVu Sans", *_FURTHER_FONTS) if name in installed}
    return {name: (file, frozenset(font_manager.get_font(file).get_charmap())) for name, file in files.items()}


@cache
def _code_points() -> frozenset[int]:
    """Return the code points that some installed font has."""
    return frozenset[int]().union(*(points for _, points in _families().values()))


def font_file(text: str) -> str:
    """Return the file of the font that has most characters of a text, for pictures drawn without matplotlib."""
    return max(_families().values(), key=lambda font: sum(ord(character) in font[1] for character in text))[0]


def drawable(text: str) -> str:
    """Return a text on one line, in characters that the fonts have; a box stands for any other."""
    points = _code_points()
    kept = []
    for character in " ".join(str(text).split()):
        if unicodedata.category(character) in ("Cc", "Cf", "Mn") and ord(character) not in points:
            continue  # invisible characters, such as joiners and variation selectors
        kept.append(character if ord(character) in points else "\N{WHITE SQUARE}")
    return "".join(kept)


def shortened(text: str, length: int) -> str:
    """Return a text cut to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
