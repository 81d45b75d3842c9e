"""Check masks: every fault is named and counted, and a policy says how to handle it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from zoo.image_header import image_size
from zoo.targets.faults import ENTRIES, MOST_LOST, Fault, Policy, Report, accepted, entry_faults, require, same_aspect
from zoo.targets.mask_file import mask_values
from zoo.targets.masks import BACKGROUND, IGNORE, Mask, MaskFile, count_pixels, looked_up, read_mask
from zoo.targets.reasons import of_masks

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample

MASK_FAULTS: Mapping[str, str] = {
    **ENTRIES,
    "size": "drawn for an image of another size",
    "value": "with values that are no class",
    "outline": "with an object that has a box but no outline",
    "unknown": "with ignored pixels only",
    "empty": "with background only",
}
"""Kinds of fault: key -> description for reports, after a number of masks."""
_FIXED = {"size": "fixed", "value": "ignored", "outline": "ignored", "empty": "kept"}
"""What the policy `fix` does about each kind of fault, unless it drops the image."""
_THREADS = 4


@dataclass(frozen=True)
class MaskReport(Report):
    """Result of the check of a dataset with masks.

    Attributes:
        merged: a note that values were taken for objects, not classes, or that class numbers may start at 1; or empty.
    """

    merged: str = ""
    kinds: ClassVar[Mapping[str, str]] = MASK_FAULTS

    @property
    def subject(self) -> str:
        return f"{self.name}, {self.images} masks"

    @property
    def remark(self) -> str:
        return self.merged


def check_masks(dataset: Dataset, policy: Policy = "fix") -> tuple[Dataset, MaskReport]:
    """Return (the dataset with corrected masks and their pixels counted by class, a report of the faults).

    Masks of another size than the image are rotated if the image has an EXIF orientation and its stored size fits.
    They are scaled if the aspect ratio is the same, with nearest-neighbour interpolation.

    Args:
        dataset: of kind `masks`. Every mask is read, and the header of every image.
        policy: `fix` rotates and scales masks if the intention is clear. It ignores pixels with values that are no
            class, and boxes of objects without an outline. It keeps masks of background only. It drops images whose
            mask has another size or only ignored pixels. It refuses to drop more than a tenth of the images because of
            their size, to ignore more than a tenth of the pixels with values above 0, to lose a class, or to go on if
            class numbers seem to be counted from another start. `drop` drops every image with a fault. `error`
            accepts no fault.

    Raises:
        DataError: with `error`, there is any fault; the message counts each kind and names the first place. With
            `fix`, too much would be lost; the message gives the likely reason. With any policy, a mask or an image
            header cannot be read, or no image is left.
        ConfigError: the policy is unknown, or the dataset has no masks.
    """
    accepted(policy)
    require(dataset, "masks")
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(partial(_check, classes=dataset.classes, policy=policy), dataset))
    samples = tuple(one.sample for one in results if one.sample is not None)
    read_faults, read_losses = entry_faults(dataset, len(dataset), policy)
    faults = (*read_faults, *(fault for one in results for fault in one.faults))
    losses, reason = _losses(dataset, results)
    losses, merged = (*read_losses, *losses), _merged(dataset) or _shifted(dataset, results)
    report = MaskReport(dataset.name, len(dataset), faults, losses, reason, merged=merged)
    report.enforce(policy, len(samples))
    return replace(dataset, samples=samples, faults=()), report


def faults_of(sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], tuple[Fault, ...]]:
    """Return (class numbers that occur in one mask, all its faults).

    Raises:
        DataError: the mask or the header of its image cannot be read.
    """
    checked = _check(sample, tuple(classes), "error")
    return tuple(np.flatnonzero(checked.counts).tolist()), tuple(checked.faults)


class _Checked(NamedTuple):
    """Result of the check of one sample.

    Attributes:
        sample: the sample with a corrected mask, None if it is left out.
        faults: of the sample.
        counts: pixels of each class, even if the sample is left out.
        strange: (value, pixels) of the values that are no class, most frequent first.
        ignored: whether any pixels are ignored.
    """

    sample: Sample | None
    faults: list[Fault]
    counts: np.ndarray
    strange: Sequence[tuple[int, int]]
    ignored: bool


def _check(sample: Sample, classes: tuple[str, ...], policy: Policy) -> _Checked:
    """Check the mask of one sample. Runs in a thread."""
    faults: list[Fault] = []

    def say(kind: str, detail: str, fixable: bool = True) -> None:
        done = "" if policy == "error" else _FIXED[kind] if policy == "fix" and fixable else "dropped"
        faults.append(Fault(kind, sample.id, None, done, detail))

    size, orientation = image_size(sample.image)
    mask: Mask = sample.target
    if mask.size != size:
        turned = orientation >= 5 and mask.size == size[::-1]
        detail = f"{mask.size[1]}x{mask.size[0]}, the image has {size[1]}x{size[0]}"
        say("size", detail, turned or same_aspect(mask.size, size))
        mask = replace(mask, size=size, orientation=orientation if turned else 1)
    drawn, strange = _drawn(mask)
    if strange:
        say("value", ", ".join(f"{_called(value)} in {count} pixels" for value, count in strange[:3]))
    if not isinstance(mask.source, MaskFile) and IGNORE in mask.source.labels:
        say("outline", f"{mask.source.labels.count(IGNORE)} of {len(mask.source.labels)}")
    counts = count_pixels(drawn)[: len(classes)]
    statistics = counts, strange, bool((drawn == IGNORE).any())
    present = np.flatnonzero(counts).tolist()
    if not present:
        say("unknown", "", fixable=False)
    elif present == [0] and classes[0] == BACKGROUND:
        say("empty", "")
    if any(fault.done == "dropped" for fault in faults):
        return _Checked(None, faults, *statistics)
    mask = replace(mask, pixels=tuple(counts.tolist()))
    return _Checked(sample if mask == sample.target else replace(sample, target=mask), faults, *statistics)


def _losses(dataset: Dataset, results: Sequence[_Checked]) -> tuple[tuple[str, ...], str]:
    """Return (losses that `fix` refuses, their likely reason).

    As for boxes, single faults are mistakes of annotators, and many mean that the masks were misread. Three losses
    are refused: many images of another size, classes that vanish with dropped images, and many pixels whose values
    are no class. Pixels of value 0 are left aside, since most of a mask is background and would hide the loss.
    """
    losses = []
    sizes = sum(fault.kind == "size" and fault.done == "dropped" for one in results for fault in one.faults)
    if sizes > MOST_LOST * len(results):
        losses.append(f"{sizes} of {len(results)} images, whose masks have another size")
    none = np.zeros(len(dataset.classes), np.int64)
    before = sum((one.counts for one in results), none)
    after = sum((one.counts for one in results if one.sample is not None), none)
    if gone := [dataset.classes[i] for i in np.flatnonzero((before > 0) & (after == 0))]:
        losses.append(f"all pixels of {', '.join(map(repr, gone[:5]))}{', ...' * (len(gone) > 5)}")
    strange: Counter[int] = Counter()
    for one in results:
        strange.update(dict(one.strange))
    if not strange:
        white = sum(one.sample is not None and not one.counts[1:].any() and one.ignored for one in results)
        if white and len(before) > 1 and not before[1:].any():
            losses.append(f"everything except {dataset.classes[0]!r} in {white} of {len(results)} masks")
            return tuple(losses), f"objects are drawn with the value {IGNORE}, which means ignored, not a class number"
        return tuple(losses), ""
    source = next(s.target.source for s, one in zip(dataset, results, strict=True) if one.strange)
    known_values = [value for value, label in source.table if label != IGNORE and before[label]]
    reason = of_masks(strange, known_values, source.table, source.colours)
    zero = next((label for value, label in source.table if value == 0 and label != IGNORE), None)
    lost = strange.total()
    rest = int(before.sum()) - (0 if zero is None else int(before[zero]))
    if lost > MOST_LOST * (lost + rest) or reason:
        gone = [name for name, count in zip(dataset.classes, before, strict=True) if not count]
        also = f" (no pixel is left of {', '.join(map(repr, gone[:5]))}{', ...' * (len(gone) > 5)})" if gone else ""
        values = ", ".join(map(_called, sorted(strange)[:5])) + ", ..." * (len(strange) > 5)
        losses.append(f"{lost} of {lost + rest} pixels with values besides 0: those of {values}{also}")
        reason = (
            reason
            or "values that are not in the list of classes: add a line for each, called void if it is to be ignored"
        )
    return tuple(losses), reason


def _drawn(mask: Mask) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the classes of a mask at its final size, and (value, pixels) of values that are no class, most first."""
    source, strange = mask.source, {}
    if not isinstance(source, MaskFile):
        return read_mask(mask), []
    values = mask_values(source.file, source.colours)
    unknown = looked_up(values, source.table) == IGNORE
    if unknown.any():
        ignored = [value for value, label in source.table if label == IGNORE]
        unknown_values, counts = np.unique(values[unknown], return_counts=True)
        strange = {int(v): int(n) for v, n in zip(unknown_values, counts, strict=True) if int(v) not in ignored}
    return read_mask(mask, values), sorted(strange.items(), key=lambda item: -item[1])


def _called(value: int) -> str:
    """Format a value of a mask for messages: a number, or red, green and blue."""
    return str(value) if value < 256 else f"{value & 255},{value >> 8 & 255},{value >> 16}"


def _merged(dataset: Dataset) -> str:
    """Return a note if several values of a mask are one class, because each was taken for an object; else empty."""
    for sample in dataset:
        source = sample.target.source
        if isinstance(source, MaskFile):
            values = [value for value, label in source.table if label == 1 and value <= 0xFFFF]
            if len(values) > 1 and len(dataset.classes) == 2:
                return (
                    f"each value of a mask is taken for one object, and all values except 0 for {dataset.classes[1]}. "
                    "If the values are classes, list these in classes.txt."
                )
    return ""


def _shifted(dataset: Dataset, results: Sequence[_Checked]) -> str:
    """Return a note if no pixel is background, although this is the first of several classes; else empty."""
    if len(dataset.classes) < 3 or dataset.classes[0] != BACKGROUND or any(one.counts[0] for one in results):
        return ""
    return (
        f"no pixel of {dataset.name} is of the first class, {BACKGROUND}. If the class numbers in the masks start at "
        "1, every class is read as the next one in the list."
    )
