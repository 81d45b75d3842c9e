"""Check bounding boxes: every fault is named and counted, and a policy says how to handle it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.faults import ENTRIES, MOST_LOST, Fault, Policy, Report, accepted, entry_faults, require, same_aspect
from zoo.targets.reasons import Dropped, of_boxes, other_corners

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample

FAULTS: Mapping[str, str] = {
    **ENTRIES,
    "size": "annotated for another image size",
    "number": "with a coordinate that is not a finite number",
    "class": "of an unknown class",
    "inverted": "with left and right or top and bottom swapped",
    "outside": "outside the image",
    "overhang": "partly outside the image",
    "empty": "empty, or of a single pixel",
    "duplicate": "repeated, with the same class",
}
"""Kinds of fault: key -> description for reports, after a number."""

_ROUNDING = 0.5
"""Pixels by which a box may reach outside without being a fault: shares of the image are written with few digits."""


@dataclass(frozen=True)
class BoxReport(Report):
    """Result of the check of a dataset with boxes.

    Attributes:
        boxes: number of boxes before the check.
    """

    boxes: int = 0
    kinds: ClassVar[Mapping[str, str]] = FAULTS

    @property
    def subject(self) -> str:
        return f"{self.name}, {self.boxes} boxes in {self.images} images"


def check_boxes(dataset: Dataset, policy: Policy = "fix") -> tuple[Dataset, BoxReport]:
    """Return (the dataset with corrected boxes, a report of the faults).

    Boxes annotated for another image size are rotated if the image has an EXIF orientation and its stored size fits.
    They are scaled if the aspect ratio is the same. Otherwise their coordinates stay unchanged. A box that reaches up
    to half a pixel outside the image is clipped without a remark: this is how shares of the image are rounded.

    Args:
        dataset: of kind `boxes`. The header of every image is read, but no pixels.
        policy: `fix` rotates, scales, swaps and clips boxes if the intention is clear. It drops the others: boxes that
            are empty, wholly outside, of an unknown class, without finite numbers, or repeated. It refuses to drop
            more than a tenth of the boxes (repeated ones not counted), or all boxes of a class. `drop` drops every box
            with a fault, and every image annotated for another size. `error` accepts no fault.

    Raises:
        DataError: with `error`, there is any fault; the message counts each kind and names the first place. With
            `fix`, too much would be dropped; the message gives the likely reason. With any policy, an image header
            cannot be read, or no image or no box is left.
        ConfigError: the policy is unknown, or the dataset has no boxes.
    """
    accepted(policy)
    require(dataset, "boxes")
    boxes = sum(len(sample.target) for sample in dataset)
    read_faults, read_losses = entry_faults(dataset, boxes, policy)
    samples, faults, dropped = [], [*read_faults], []
    for sample in dataset:
        checked = _Check(sample, policy)
        faults += checked.faults
        dropped += checked.dropped
        if checked.target is not None:
            samples.append(replace(sample, target=checked.target) if checked.target != sample.target else sample)
    corrected = replace(dataset, samples=tuple(samples), faults=())
    losses, reason = _losses(dataset, corrected, dropped)
    report = BoxReport(dataset.name, len(dataset), tuple(faults), (*read_losses, *losses), reason, boxes=boxes)
    report.enforce(policy, len(samples))
    if boxes and policy != "error" and not any(len(sample.target) for sample in corrected):
        raise DataError(f"no box is left. {report.text()}{f' Likely reason: {reason}.' if reason else ''}")
    return corrected, report


def faults_of(sample: Sample) -> tuple[tuple[Fault, ...], Boxes]:
    """Return (all faults of the boxes of one image, the corrected boxes). The image's header is read."""
    checked = _Check(sample, "fix")
    return tuple(checked.faults), sample.target if checked.target is None else checked.target


def _losses(before: Dataset, after: Dataset, dropped: Sequence[Dropped]) -> tuple[tuple[str, ...], str]:
    """Return (losses that `fix` refuses, their likely reason).

    A few faulty boxes are mistakes of annotators. Many faulty boxes, or a class that vanishes, mean that the whole
    annotation was misread, e.g. in another unit. Dropping them would hide this, so the user must decide.
    """
    every = [(box, s.target.size) for s in before for box in s.target.boxes]
    losses = []
    if len(dropped) > MOST_LOST * len(every):
        losses.append(f"{len(dropped)} of {len(every)} boxes")
    was, left = before.counts(), after.counts()
    if gone := [f"{name!r} ({count})" for name, count in was.items() if count and not left[name]]:
        losses.append(f"all boxes of {', '.join(gone[:5])}{', ...' * (len(gone) > 5)}")
    # Corners read as x, y, width and height still overlap the image, so nothing is dropped, but most are clipped.
    if not losses and (misread := other_corners(every, _ROUNDING)):
        return (f"what lies outside the image of most of {len(every)} boxes",), misread
    return tuple(losses), of_boxes(dropped) if losses else ""


class _Check:
    """The check of one sample.

    Attributes:
        faults: all faults of the sample.
        dropped: the dropped boxes, except repeated ones, which are no loss.
        target: the corrected boxes, None if the image is left out.
    """

    def __init__(self, sample: Sample, policy: Policy) -> None:
        self.id, self.policy = sample.id, policy
        self.faults: list[Fault] = []
        self.dropped: list[Dropped] = []
        self.target: Boxes | None = None
        size, orientation = image_size(sample.image)
        target = self._resized(sample.target, size, orientation)
        if target is None:
            return
        boxes, kept, seen = list(target.boxes), [], set()
        for index, label in enumerate(target.labels):
            box = self._box(index, boxes[index], label, size)
            if box is None:
                self.dropped.append(Dropped(self.faults[-1].kind, boxes[index], size))
            if box is not None and (box, label) in seen:
                self._say("duplicate", index, box)
                box = box if policy == "error" else None
            if box is not None:
                boxes[index] = box
                kept.append(index)
                seen.add((box, label))
        self.target = replace(target, boxes=tuple(boxes)).take(kept)

    def _say(self, kind: str, index: int | None, detail: str | Box, fixable: bool = False) -> bool:
        """Record a fault. Return whether it is fixed, rather than dropped or refused."""
        fixed = fixable and self.policy == "fix"
        done = "" if self.policy == "error" else "fixed" if fixed else "dropped"
        text = detail if isinstance(detail, str) else " ".join(f"{value:g}" for value in detail)
        self.faults.append(Fault(kind, self.id, index, done, text))
        return fixed

    def _box(self, index: int, box: Box, label: int, size: tuple[int, int]) -> Box | None:
        """Return the corrected box, or None to drop it.

        The order matters: corners are swapped before the box is compared with the image, and the area is measured
        after clipping, so that a sliver at the border counts as empty.
        """
        if not all(map(math.isfinite, box)):
            self._say("number", index, box)
            return None
        if label == UNKNOWN:
            self._say("class", index, box)
            return None
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            if not self._say("inverted", index, box, fixable=True):
                return None
            x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        if x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0:
            self._say("outside", index, box)
            return None
        inside = _inside((x1, y1, x2, y2), size)
        if max(abs(a - b) for a, b in zip(inside, (x1, y1, x2, y2), strict=True)) > _ROUNDING:
            if not self._say("overhang", index, box, fixable=True):
                return None
        if (inside[2] - inside[0]) * (inside[3] - inside[1]) <= 1:
            self._say("empty", index, inside)
            return None
        return inside

    def _resized(self, target: Boxes, size: tuple[int, int], orientation: int) -> Boxes | None:
        """Return the boxes in pixels of the upright image, or None to leave the image out."""
        if target.size == size:
            return target
        detail = f"{target.size[1]}x{target.size[0]}, the file has {size[1]}x{size[0]}"
        if not self._say("size", None, detail, fixable=True):
            return None
        (height, width), (stored_height, stored_width) = size, target.size
        boxes = target.boxes
        if orientation >= 5 and target.size == size[::-1]:
            boxes = tuple(_turned(box, target.size, orientation) for box in boxes)
        elif same_aspect(target.size, size):
            across, down = width / stored_width, height / stored_height
            boxes = tuple((x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in boxes)
        return replace(target, boxes=boxes, size=size)


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Clip a box to an image of `size`."""
    x1, y1, x2, y2 = box
    height, width = map(float, size)
    return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)


def _turned(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Map a box on the stored image of `size` to the upright image, as `zoo.data.decode` rotates it.

    EXIF orientations 5 to 8 transpose the image; all but 1 and 5 then mirror one or both axes.
    """
    x1, y1, x2, y2 = box
    height, width = size
    if orientation >= 5:
        (x1, y1, x2, y2), (height, width) = (y1, x1, y2, x2), (width, height)
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2
