"""What `zoo.check` finds in the boxes of one image: all faults that training would correct, and suspicious boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.targets.boxes import UNKNOWN, Boxes, InstanceMasks
from zoo.targets.check_boxes import faults_of
from zoo.targets.faults import Check, Fault
from zoo.targets.mask_file import mask_values

if TYPE_CHECKING:
    from zoo.data.dataset import Sample

TINY = 3
"""A box with a side shorter than this many pixels is more likely a slip of the mouse than an object."""
HUGE = 0.98
"""Share of both sides of the image from which a box covers the whole image."""
SAME = 0.9
"""IoU from which two boxes are the same object, drawn twice."""

CHECKS: Mapping[str, Check] = {
    "size": Check(
        "box-size",
        "warning",
        "boxes annotated for another image size",
        "Training turns or scales them if the aspect ratio fits. Export the annotations again for these image files.",
    ),
    "number": Check(
        "box-number", "error", "boxes with a coordinate that is not a finite number", "Annotate these boxes again."
    ),
    "class": Check(
        "box-class", "error", "boxes of an unknown class", "Add the class to the list of classes, or correct its name."
    ),
    "inverted": Check(
        "box-inverted",
        "warning",
        "boxes with left and right or top and bottom swapped",
        "Training swaps the corners back. Check the order of coordinates in your converter.",
    ),
    "outside": Check(
        "box-outside", "error", "boxes outside the image", "Check whether the annotation belongs to this image."
    ),
    "overhang": Check(
        "box-overhang",
        "warning",
        "boxes partly outside the image",
        "Training clips them. If there are many, the coordinates may be in another unit or order.",
    ),
    "empty": Check("box-empty", "error", "boxes that are empty or a single pixel", "Remove them or draw them again."),
    "duplicate": Check(
        "box-duplicate", "warning", "boxes repeated with the same class", "Remove the repetition; training ignores it."
    ),
    "twice": Check(
        "box-twice",
        "warning",
        "objects with two nearly equal boxes of the same class",
        "Remove one of them: the object counts twice in training and in the metrics.",
    ),
    "classes": Check(
        "box-classes",
        "warning",
        "objects with two nearly equal boxes of different classes",
        "Keep the right class, unless the classes overlap on purpose.",
    ),
    "tiny": Check(
        "box-tiny",
        "warning",
        f"boxes less than {TINY} pixels wide or high",
        "Remove slips of the mouse. Real objects of this size need a larger --image-size, or images cut into tiles.",
    ),
    "huge": Check(
        "box-huge",
        "note",
        "boxes that cover the whole image",
        "Right for close-ups; otherwise draw the box around the object.",
    ),
    "none": Check(
        "no-boxes",
        "note",
        "images without boxes",
        "Right for images without objects, which teach the model to find none; otherwise annotate them.",
    ),
}


def examine(sample: Sample, classes: Sequence[str]) -> tuple[Fault, ...]:
    """Return all faults and suspicions about the boxes of one image. Its header is read, and its mask if it has one.

    If the boxes were annotated for another image size, their coordinates mean little, so this is the only fault.

    Raises:
        DataError: the mask or the header cannot be read.
    """
    if isinstance(sample.target.masks, InstanceMasks):
        mask_values(sample.target.masks.file)
    faults, corrected = faults_of(sample)
    if resized := [fault for fault in faults if fault.kind == "size"]:
        return tuple(resized)
    if not len(sample.target):
        return (Fault("none", sample.id, None, "", ""),)
    return (*faults, *_suspicious(sample, corrected, classes))


def _suspicious(sample: Sample, target: Boxes, classes: Sequence[str]) -> Iterator[Fault]:
    boxes = np.array(target.boxes, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    height, width = target.size

    def fault(kind: str, index: int, more: str = "") -> Fault:
        place = " ".join(f"{value:g}" for value in target.boxes[index])
        # The index is that in the annotation, from which faulty boxes are not removed.
        number = sample.target.boxes.index(target.boxes[index]) if target.boxes[index] in sample.target.boxes else None
        return Fault(kind, sample.id, number, "", f"{place}{more}")

    for index in np.flatnonzero(sides.min(1, initial=np.inf) < TINY):
        yield fault("tiny", int(index))
    for index in np.flatnonzero((sides >= HUGE * np.array([width, height])).all(1)):
        yield fault("huge", int(index))
    for one, other in _pairs(boxes, np.array(target.crowd, bool)):
        names = [classes[target.labels[i]] if target.labels[i] != UNKNOWN else "?" for i in (one, other)]
        same = names[0] == names[1]
        called = f" ({names[0]!r}) and " if same else f" ({names[1]!r} and {names[0]!r}), also "
        place = " ".join(f"{value:g}" for value in target.boxes[one])
        yield fault("twice" if same else "classes", other, f"{called}{place}")


def _pairs(boxes: np.ndarray, crowd: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of boxes with an IoU of at least `SAME`. Crowds hold other boxes, and are left out."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    same = common >= SAME * (area[:, None] + area[None] - common)
    same &= ~(crowd[:, None] | crowd[None])
    return [(int(one), int(other)) for one, other in zip(*np.nonzero(np.triu(same, 1)), strict=True)]
