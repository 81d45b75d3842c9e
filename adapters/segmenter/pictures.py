"""Pictures of a segmenter's results: masks over images, masks with a palette, and plots of the metrics."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageColor

from zoo.data.decode import decode
from zoo.data.masks import BACKGROUND, IGNORE
from zoo.dense.segmentation import confusion
from zoo.report import COLOURS, drawable, figure, photo_grid, shortened, thumbnail, write

if TYPE_CHECKING:
    from zoo.adapters.segmenter import Segmenter

SHOWN = 9
"""Images in a grid of the best or worst predictions."""
SIDE = 456
"""Longer side of its panels in pixels."""
BARS = 80
"""Most classes in the bar chart."""
LINES = 12
"""Most classes in a legend."""
OPACITY = 0.55
"""Opacity of a mask over an image."""
_PALE = "#c9ccd1"


def colours(labels: Sequence[str]) -> np.ndarray:
    """Return a colour for every value of a mask, uint8 (256, 3).

    The background is black and ignored pixels are white. The first classes have the colours of plots, and further ones
    generated hues.
    """
    table = np.zeros((256, 3), np.uint8)
    named = [i for i, label in enumerate(labels) if label.casefold() != BACKGROUND]
    for place, i in enumerate(named):
        if place < len(COLOURS):
            table[i] = ImageColor.getrgb(COLOURS[place])[:3]
        else:  # hues a golden ratio apart are spread evenly, however many there are
            hue, light = place * 0.618034 % 1, 0.42 + 0.16 * (place // 7 % 3)
            table[i] = np.round(255 * np.array(colorsys.hls_to_rgb(hue, light, 0.65)))
    table[IGNORE] = 255
    return table


def indexed(mask: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """Return a mask, uint8 (h, w), as a palette image whose values are class indices."""
    image = Image.fromarray(mask)  # a greyscale image, which becomes a palette image below
    image.putpalette(colours(labels).tobytes())
    return image


def overlay(pixels: np.ndarray, mask: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return an image with its classes in colour, except the background, uint8 (h, w, 3).

    Args:
        pixels: uint8 (h, w, c); an image that has not three channels is shown in grey.
        mask: class indices, uint8 (h, w).
        labels: names of the classes.
    """
    pixels = _three_channels(pixels)
    coloured = mask != IGNORE
    for i, label in enumerate(labels):
        if label.casefold() == BACKGROUND:
            coloured &= mask != i
    drawn = pixels.copy()
    # Integer arithmetic, and only on coloured pixels, because images may be large.
    share = round(256 * OPACITY)
    blend = pixels[coloured].astype(np.uint16) * (256 - share)
    blend += colours(labels)[mask[coloured]].astype(np.uint16) * share
    drawn[coloured] = (blend >> 8).astype(np.uint8)
    return drawn


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)


def outlined(pixels: np.ndarray, mask: np.ndarray, width: int = 2) -> np.ndarray:
    """Return an image with white lines, edged in black, where the classes of a mask meet, uint8 (h, w, 3).

    Args:
        pixels: uint8 (h, w, 3).
        mask: class indices, uint8 (h, w).
        width: how wide lines are, in steps of two pixels.
    """
    line = _edges(mask)
    for _ in range(width - 1):
        line = _grown(line)
    drawn = pixels.copy()
    drawn[_grown(line)] = (30, 32, 36)
    drawn[line] = 255
    return drawn


def _edges(mask: np.ndarray) -> np.ndarray:
    """Return the pixels whose right or lower neighbour has another class. Ignored pixels have no edge."""
    line = np.zeros(mask.shape, bool)
    known = mask != IGNORE
    line[:-1] |= (mask[:-1] != mask[1:]) & known[:-1] & known[1:]
    line[:, :-1] |= (mask[:, :-1] != mask[:, 1:]) & known[:, :-1] & known[:, 1:]
    return line


def _grown(line: np.ndarray) -> np.ndarray:
    grown = line.copy()
    grown[1:] |= line[:-1]
    grown[:-1] |= line[1:]
    grown[:, 1:] |= line[:, :-1]
    grown[:, :-1] |= line[:, 1:]
    return grown


# Best and worst predictions ------------------------------------------------------------------------------------

Entry = tuple[Path, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]


def image_grid(adapter: Segmenter, entries: Sequence[Entry], path: Path) -> list[Path]:
    """Draw images of an evaluation with true outlines and predicted classes in colour.

    Args:
        adapter: the segmenter.
        entries: (file, decoded arrays, targets) as returned by `zoo.training.Evaluation.worst`.
        path: file to write.

    Returns:
        The file in a list, or an empty list without images.
    """
    if not entries:
        return []
    panels, captions = [], []
    classes: set[int] = set()
    for file, decoded, targets in entries[:SHOWN]:
        height, width = (int(side) for side in targets["frame"][4:])
        true, predicted = targets["true_mask"][:height, :width], decoded["mask"][:height, :width]
        pixels = _panel(decode(file))
        size = (pixels.shape[0], pixels.shape[1])
        small = [_nearest(mask, size) for mask in (true, predicted)]
        panels.append(outlined(overlay(pixels, small[1], adapter.labels), small[0]))
        captions.append(_caption(true, predicted, adapter.labels))
        classes |= {*np.unique(predicted).tolist(), *np.unique(true[true != IGNORE]).tolist()}
    table = colours(adapter.labels)
    shown = [k for k in sorted(classes) if adapter.labels[k].casefold() != BACKGROUND]
    key: dict[str, tuple[str, Any]] = {}
    if len(shown) <= LINES:
        key = {adapter.labels[k]: ("#{:02x}{:02x}{:02x}".format(*table[k]), "-") for k in shown}
    return [photo_grid(panels, captions, path, columns=3, inches=SIDE / 120, key=key | {"true outline": (_PALE, "-")})]


def _panel(pixels: np.ndarray) -> np.ndarray:
    """Return an image with a longer side of about `SIDE`. Small images are enlarged by repeating pixels."""
    pixels, longer = _three_channels(pixels), max(pixels.shape[:2])
    if longer > SIDE // 2:
        return thumbnail(pixels, SIDE) if longer > SIDE else pixels
    times = SIDE // longer
    return pixels.repeat(times, 0).repeat(times, 1)


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[rows[:, None], columns[None, :]]


def _caption(true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> str:
    """Return the IoU of the image's largest class except the background, and the pixel accuracy."""
    counts = confusion(true, predicted, len(labels))
    right, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    accuracy = f"{right.sum() / max(int(counts.sum()), 1):.1%} correct"
    named = [k for k, label in enumerate(labels) if label.casefold() != BACKGROUND and union[k]]
    if not named:
        return accuracy
    k = max(named, key=lambda k: (counts[k].sum(), union[k]))
    return f"{shortened(labels[k], 16)} IoU {right[k] / union[k]:.2f}, {accuracy}"


# Plots ---------------------------------------------------------------------------------------------------------


def class_plot(per_class: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Plot IoU and Dice of each class, best first, with its share of the true pixels.

    Args:
        per_class: `iou`, `dice` and `pixels` of each class; the first two are None for a class neither true nor
            predicted anywhere.
        path: file to write.
    """
    order = sorted(per_class, key=lambda label: (per_class[label]["iou"] is None, -(per_class[label]["iou"] or 0)))
    left_out = max(len(order) - BARS, 0)
    kept = [*order[: BARS // 2], *order[-(BARS // 2) :]] if left_out else order
    total = max(sum(row["pixels"] for row in per_class.values()), 1)
    with figure(6.4, 1.3 + 0.26 * max(len(kept), 1), 1, 1) as (page, (ax,)):
        rows = np.arange(len(kept))
        for name, colour in (("dice", "#a9c4e4"), ("iou", COLOURS[0])):
            ax.barh(rows, [per_class[label][name] or 0 for label in kept], 0.74, color=colour, label=name)
        for row, label in enumerate(kept):
            iou, dice = per_class[label]["iou"], per_class[label]["dice"]
            text = "absent" if iou is None else f"{iou:.3f}   {dice:.3f}"
            ax.text((dice or 0) + 0.01, row, text, va="center", fontsize=8.5)
        shares = [per_class[label]["pixels"] / total for label in kept]
        names = [f"{shortened(drawable(label), 24)}  ({s:.1%})" for label, s in zip(kept, shares, strict=True)]
        ax.set_yticks(rows, names)
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(0, 1.22), ylim=(len(kept) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.set_title("IoU by class (share of pixels)" + f", {left_out} in the middle not shown" * bool(left_out))
        page.legend(["Dice", "IoU"], loc="outside upper right", ncols=2)
        return write(page, path)
