"""What a segmenter sees, as pictures: masks over photos, masks as indexed images, figures by class."""

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
"""Images in a picture of the best or the worst."""
SIDE = 456
"""Longer side of their panels in pixels."""
BARS = 80
"""Most classes that have bars."""
LINES = 12
"""Most classes that a key names."""
OPACITY = 0.55
_PALE = "#c9ccd1"


def colours(labels: Sequence[str]) -> np.ndarray:
    """A colour for every value of a mask, uint8 (256, 3): black for the background, white for what is ignored, zoo's
    colours for the first classes, and others of many hues."""
    table = np.zeros((256, 3), np.uint8)
    named = [i for i, label in enumerate(labels) if label.casefold() != BACKGROUND]
    for place, i in enumerate(named):
        if place < len(COLOURS):
            table[i] = ImageColor.getrgb(COLOURS[place])[:3]
        else:  # hues a golden section apart are far from one another, however many there are
            hue, light = place * 0.618034 % 1, 0.42 + 0.16 * (place // 7 % 3)
            table[i] = np.round(255 * np.array(colorsys.hls_to_rgb(hue, light, 0.65)))
    table[IGNORE] = 255
    return table


def indexed(mask: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """A mask, uint8 (h, w), as an image of palette colours, whose values are the classes' numbers."""
    image = Image.fromarray(mask)  # of grey values, to which a palette is given
    image.putpalette(colours(labels).tobytes())
    return image


def overlay(pixels: np.ndarray, mask: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A photo, uint8 (h, w, 3), with its classes in colour: all but the background. Grey and other photos, of another
    number of channels, are shown in grey."""
    pixels = _three_channels(pixels)
    seen = mask != IGNORE
    for i, label in enumerate(labels):
        if label.casefold() == BACKGROUND:
            seen &= mask != i
    painted = pixels.copy()
    # In whole numbers, and only where there is something: photos may be large.
    share = round(256 * OPACITY)
    there = pixels[seen].astype(np.uint16) * (256 - share) + colours(labels)[mask[seen]].astype(np.uint16) * share
    painted[seen] = (there >> 8).astype(np.uint8)
    return painted


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)


def outlined(pixels: np.ndarray, mask: np.ndarray, width: int = 2) -> np.ndarray:
    """A picture, uint8 (h, w, 3), with white lines, on dark ones, where the classes of a mask meet."""
    line = _edges(mask)
    for _ in range(width - 1):
        line = _grown(line)
    drawn = pixels.copy()
    drawn[_grown(line)] = (30, 32, 36)
    drawn[line] = 255
    return drawn


def _edges(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another class; what is ignored has no edge."""
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


# The best and the worst ----------------------------------------------------------------------------------------

Entry = tuple[Path, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]


def photos(adapter: Segmenter, entries: Sequence[Entry], path: Path) -> list[Path]:
    """Images of an evaluation with the outlines of what is there, and in colour what was found: the file, or none
    without images.

    Args:
        entries: (file, decoded arrays, targets), as `zoo.training.Evaluation.worst` gives them.
    """
    if not entries:
        return []
    panels, captions = [], []
    seen: set[int] = set()
    for file, decoded, targets in entries[:SHOWN]:
        height, width = (int(side) for side in targets["frame"][4:])
        true, found = targets["true_mask"][:height, :width], decoded["mask"][:height, :width]
        pixels = _panel(decode(file))
        size = (pixels.shape[0], pixels.shape[1])
        small = [_nearest(mask, size) for mask in (true, found)]
        panels.append(outlined(overlay(pixels, small[1], adapter.labels), small[0]))
        captions.append(_caption(true, found, adapter.labels))
        seen |= {*np.unique(found).tolist(), *np.unique(true[true != IGNORE]).tolist()}
    table = colours(adapter.labels)
    shown = [k for k in sorted(seen) if adapter.labels[k].casefold() != BACKGROUND]
    key: dict[str, tuple[str, Any]] = {}
    if len(shown) <= LINES:
        key = {adapter.labels[k]: ("#{:02x}{:02x}{:02x}".format(*table[k]), "-") for k in shown}
    return [photo_grid(panels, captions, path, columns=3, inches=SIDE / 120, key=key | {"true outline": (_PALE, "-")})]


def _panel(pixels: np.ndarray) -> np.ndarray:
    """An image with its longer side about `SIDE`; small ones keep their pixels visible."""
    pixels, longer = _three_channels(pixels), max(pixels.shape[:2])
    if longer > SIDE // 2:
        return thumbnail(pixels, SIDE) if longer > SIDE else pixels
    times = SIDE // longer
    return pixels.repeat(times, 0).repeat(times, 1)


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[rows[:, None], columns[None, :]]


def _caption(true: np.ndarray, found: np.ndarray, labels: Sequence[str]) -> str:
    """IoU of the class of which the image has the most, beside the background, and the share of pixels that are
    right."""
    counts = confusion(true, found, len(labels))
    right, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    accuracy = f"{right.sum() / max(int(counts.sum()), 1):.1%} right"
    named = [k for k, label in enumerate(labels) if label.casefold() != BACKGROUND and union[k]]
    if not named:
        return accuracy
    k = max(named, key=lambda k: (counts[k].sum(), union[k]))
    return f"{shortened(labels[k], 16)} IoU {right[k] / union[k]:.2f}, {accuracy}"


# Diagrams ------------------------------------------------------------------------------------------------------


def class_figures(per_class: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """IoU and Dice of each class, the best first, and its share of the true pixels.

    Args:
        per_class: class -> `iou`, `dice` (None where the class is nowhere) and `pixels`.
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
            text = "nowhere" if iou is None else f"{iou:.3f}   {dice:.3f}"
            ax.text((dice or 0) + 0.01, row, text, va="center", fontsize=8.5)
        shares = [per_class[label]["pixels"] / total for label in kept]
        names = [f"{shortened(drawable(label), 24)}  ({s:.1%})" for label, s in zip(kept, shares, strict=True)]
        ax.set_yticks(rows, names)
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(0, 1.22), ylim=(len(kept) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.set_title("IoU by class (share of pixels)" + f", {left_out} in the middle left out" * bool(left_out))
        page.legend(["Dice", "IoU"], loc="outside upper right", ncols=2)
        return write(page, path)
