"""Pictures of detections: boxes on images, precision-recall curves, and average precision by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from zoo.data.decode import decode
from zoo.dense.boxes import pairwise_iou
from zoo.dense.coco import Curve
from zoo.report import COLOURS, drawable, figure, font_file, photo_grid, shortened, thumbnail, write

if TYPE_CHECKING:
    from zoo.adapters.detector import Detector

SHOWN = 9
"""Number of images in the picture of the best or the worst ones."""
SIDE = 456
"""Longer side of the panel of an image, in pixels."""
LINES = 10
"""Most classes with their own line in a plot of precision-recall curves."""
BARS = 80
"""Most classes in a bar chart."""
_PALE, _CROWD = "#b9bec6", "#8b8f96"
_LEAST_TEXT = 11
"""Smallest legible height of letters in pixels. An image less than nine times as long has no room for text."""


def colour_of(label: int) -> str:
    """Return the colour of a class. If there are more classes than colours, several share one."""
    return COLOURS[label % len(COLOURS)]


# Boxes on an image ---------------------------------------------------------------------------------------------


def draw(
    pixels: np.ndarray,
    boxes: np.ndarray,
    colours: Sequence[str],
    captions: Sequence[str] = (),
    *,
    dashed: bool = False,
) -> np.ndarray:
    """Return a copy of an image with boxes drawn on it.

    Args:
        pixels: uint8 (h, w, 3).
        boxes: (n, 4) as x1, y1, x2, y2 in pixels, the most important first: it lies on top.
        colours: one for each box.
        captions: text for each box, drawn where there is room. Images too small for legible text have none.
        dashed: whether lines are dashed instead of solid.

    Returns:
        uint8 (h, w, 3).
    """
    image = Image.fromarray(pixels)
    brush = ImageDraw.Draw(image)
    line = max(round(max(image.size) / 300), 1)
    corners = [_corners(box, image.size) for box in np.asarray(boxes, np.float64)]
    for box, colour in reversed([*zip(corners, colours, strict=True)]):
        if dashed:
            _dashes(brush, box, colour, line)
            continue
        halo = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
        brush.rectangle(halo, outline="white", width=line + 2)
        brush.rectangle(box, outline=colour, width=line)
    if captions and max(image.size) >= 9 * _LEAST_TEXT:
        _write(brush, image.size, corners, colours, captions)
    return np.asarray(image)


def _corners(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last pixels of a box, x1, y1, x2, y2; a box without area has one pixel."""
    first = [min(max(int(np.floor(low)), 0), side - 1) for low, side in zip(box[:2], size, strict=True)]
    last = [max(min(int(np.ceil(high)), side) - 1, one) for high, side, one in zip(box[2:], size, first, strict=True)]
    return first[0], first[1], last[0], last[1]


def _dashes(brush: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str, line: int) -> None:
    """Draw a dashed outline, on a white one that separates it from the image."""
    x1, y1, x2, y2 = box
    brush.rectangle(box, outline="white", width=line)
    dash = 5 * line
    for start in range(x1, x2 + 1, 2 * dash):
        end = min(start + dash - 1, x2)
        for y in (y1, max(y2 - line + 1, y1)):
            brush.rectangle((start, y, end, min(y + line - 1, y2)), fill=colour)
    for start in range(y1, y2 + 1, 2 * dash):
        end = min(start + dash - 1, y2)
        for x in (x1, max(x2 - line + 1, x1)):
            brush.rectangle((x, start, min(x + line - 1, x2), end), fill=colour)


def _write(
    brush: ImageDraw.ImageDraw,
    size: tuple[int, int],
    boxes: Sequence[tuple[int, int, int, int]],
    colours: Sequence[str],
    captions: Sequence[str],
) -> None:
    """Draw captions on plates of the boxes' colours, first boxes first. One that would hide another is left out."""
    letter = max(round(max(size) / 55), _LEAST_TEXT)
    pad = max(letter // 5, 2)
    taken: list[tuple[int, int, int, int]] = []
    for box, colour, caption in zip(boxes, colours, captions, strict=True):
        text = drawable(caption)
        font = ImageFont.truetype(font_file(text), letter)
        text = _fitting(text, font, size[0] - 2 * pad)
        if not text:
            continue
        width, height = round(font.getlength(text)) + 2 * pad, letter + 2 * pad
        for x, y in _places(box, width, height, size):
            plate = (x, y, x + width, y + height)
            if not any(_overlaps(plate, other) for other in taken):
                taken.append(plate)
                brush.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
                ink = "white" if _dark(colour) else "black"
                brush.text((x + pad, y + height / 2), text, fill=ink, font=font, anchor="lm")
                break


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the text shortened to 40 letters and to a width in pixels, or nothing if not even three letters fit."""
    length = next((n for n in range(min(len(text), 40), 2, -1) if font.getlength(shortened(text, n)) <= width), 0)
    return shortened(text, length) if length else text if font.getlength(text) <= width else ""


def _places(
    box: tuple[int, int, int, int], width: int, height: int, size: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield the possible upper left corners of a plate, best first: above the box, at its top, below, at its bottom."""
    x1, y1, x2, y2 = box
    for y in (y1 - height, y1, y2 + 1, y2 + 1 - height):
        for x in (x1, x2 + 1 - width):
            if 0 <= y <= size[1] - height:
                yield min(max(x, 0), max(size[0] - width, 0)), y


def _overlaps(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _dark(colour: str) -> bool:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue < 150  # ITU-R BT.601


# The best and the worst ----------------------------------------------------------------------------------------

Entry = tuple[Path, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]


def photos(adapter: Detector, entries: Sequence[Entry], path: Path) -> list[Path]:
    """Draw images of an evaluation with their true boxes, dashed, and their detections.

    Args:
        adapter: the task.
        entries: (file, decoded arrays, targets), as `zoo.training.Evaluation.worst` gives them.
        path: file to write.

    Returns:
        The file in a list; nothing if there are no images.
    """
    if not entries:
        return []
    entries = entries[:SHOWN]
    named = len(adapter.labels) > len(COLOURS)
    panels, captions, present = [], [], set()
    for file, decoded, targets in entries:
        valid = np.asarray(targets["true_valid"], bool)
        shown = np.asarray(decoded["found"], bool) & (decoded["scores"] >= adapter.score_threshold)
        truths, true_labels, crowd = (np.asarray(targets[name])[valid] for name in ("true_boxes", "labels", "crowd"))
        boxes, labels, scores = (np.asarray(decoded[name])[shown] for name in ("boxes", "labels", "scores"))
        present |= {*true_labels[~crowd].tolist(), *labels.tolist()}
        pixels, scale = _panel(decode(file))
        outlines = [_CROWD if many else colour_of(label) for label, many in zip(true_labels, crowd, strict=True)]
        texts = [f"{adapter.labels[k]} {score:.0%}" for k, score in zip(labels, scores, strict=True)] if named else []
        pixels = draw(pixels, truths * scale, outlines, dashed=True)
        panels.append(draw(pixels, boxes * scale, [colour_of(k) for k in labels], texts))
        captions.append(_caption(decoded, targets, shown))
    # Colours tell classes apart as long as no two share one; with more classes, the boxes have captions instead.
    key: dict[str, tuple[str, Any]] = {} if named else {adapter.labels[k]: (colour_of(k), "-") for k in sorted(present)}
    key |= {
        "ground truth": ("#2b2d31", (0, (2, 1))),
        f"detection, score \N{GREATER-THAN OR EQUAL TO} {adapter.score_threshold:g}": ("#2b2d31", "-"),
    }
    return [photo_grid(panels, captions, path, columns=3, inches=SIDE / 120, key=key)]


def _panel(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return an image resized to a longer side of about `SIDE`, and its scale. Small ones keep their pixels visible."""
    longer = max(pixels.shape[:2])
    if longer > SIDE // 2:
        small = thumbnail(pixels, SIDE) if longer > SIDE else pixels
        return small, max(small.shape[:2]) / longer
    times = SIDE // longer
    return pixels.repeat(times, 0).repeat(times, 1), float(times)


def _caption(decoded: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], shown: np.ndarray) -> str:
    """Return how many objects were detected at an IoU of 0.5, and how many false positives there are."""
    valid, crowd = np.asarray(targets["true_valid"], bool), np.asarray(targets["crowd"], bool)
    # With all rows, valid or not: the shapes are the same for every image, so the program is compiled once.
    iou = np.array(pairwise_iou(jnp.asarray(decoded["boxes"]), jnp.asarray(targets["true_boxes"])))
    same = np.asarray(decoded["labels"])[:, None] == np.asarray(targets["labels"])[None]
    iou = np.where(same & valid[None], iou, 0.0)
    # An object counts for one detection only. A detection on a crowd is neither right nor wrong.
    free, wrong = valid & ~crowd, 0
    for row in np.flatnonzero(shown):
        best = int(np.argmax(iou[row] * free))
        if iou[row, best] >= 0.5 and free[best]:
            free[best] = False
        elif not (iou[row] * crowd).max(initial=0) >= 0.5:
            wrong += 1
    objects = int((valid & ~crowd).sum())
    said = f"{objects - int(free.sum())} of {objects} found" if objects else "no objects"
    return f"{said}, {wrong} false positive{'s' * (wrong > 1)}" if wrong else said


# Plots ---------------------------------------------------------------------------------------------------------


def precision_recall(curves: Mapping[str, Curve], path: Path) -> Path:
    """Plot precision-recall curves at an IoU of 0.5.

    Args:
        curves: curve of each class that has objects. With more than `LINES` classes, only their mean is coloured.
        path: file to write.
    """
    with figure(6.4, 4.4, 1, 1) as (page, (ax,)):
        ax.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        ax.set_title("precision-recall curves at an IoU of 0.5")
        ax.grid(True, axis="both")
        if not curves:
            ax.text(0.5, 0.5, "no objects", ha="center", va="center")
        several = len(curves) > LINES
        order = sorted(curves, key=lambda label: -float(curves[label].precision.mean()))
        for i, label in enumerate(order):
            recall, precision, _ = curves[label]
            name = f"{shortened(drawable(label), 24)}  {precision.mean():.3f}"
            if several:
                ax.plot(recall, precision, color=_PALE, linewidth=0.8, zorder=1)
            else:
                style = "-" if i < len(COLOURS) else "--"
                ax.plot(recall, precision, style, color=colour_of([*curves].index(label)), label=name)
        if several:
            recall = curves[order[0]].recall
            mean = np.mean([curves[label].precision for label in order], axis=0)
            name = f"mean of {len(order)} classes  {mean.mean():.3f}"
            ax.plot(recall, mean, color=COLOURS[0], linewidth=2.5, label=name)
        if curves:
            page.legend(loc="outside right upper", title="class, AP50", alignment="left")
        return write(page, path)


def average_precision(per_class: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Plot the average precision of each class, best first, with its number of objects.

    Args:
        per_class: class -> `AP` and `AP50`, None for a class without objects, and `truths`, its number of objects.
        path: file to write.
    """
    order = sorted(per_class, key=lambda label: (per_class[label]["AP"] is None, -(per_class[label]["AP"] or 0)))
    left_out = max(len(order) - BARS, 0)
    kept = [*order[: BARS // 2], *order[-(BARS // 2) :]] if left_out else order
    with figure(6.4, 1.3 + 0.26 * max(len(kept), 1), 1, 1) as (page, (ax,)):
        rows = np.arange(len(kept))
        for name, colour, height in (("AP50", "#a9c4e4", 0.74), ("AP", COLOURS[0], 0.74)):
            ax.barh(rows, [per_class[label][name] or 0 for label in kept], height, color=colour, label=name)
        for row, label in enumerate(kept):
            ap, ap50 = (per_class[label][name] for name in ("AP", "AP50"))
            text = "no objects" if ap is None or ap50 is None else f"{ap:.3f}   {ap50:.3f}"
            ax.text(max(ap50 or 0, ap or 0) + 0.01, row, text, va="center", fontsize=8.5)
        names = [f"{shortened(drawable(label), 24)}  ({per_class[label]['truths']:,})" for label in kept]
        ax.set_yticks(rows, names)
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(0, 1.22), ylim=(len(kept) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.set_title("average precision by class (objects)" + f", {left_out} in the middle omitted" * bool(left_out))
        if kept:
            page.legend(loc="outside upper right", ncols=2)
        return write(page, path)
