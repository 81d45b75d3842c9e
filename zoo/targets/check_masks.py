"""The check of masks: every fault is named and counted, and a policy says what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from zoo.image_header import image_size
from zoo.targets.faults import MOST_LOST, Fault, Policy, Report, accepted, require, same_aspect
from zoo.targets.mask_file import mask_values
from zoo.targets.masks import BACKGROUND, IGNORE, Mask, MaskFile, count_pixels, looked_up, read_mask
from zoo.targets.reasons import of_masks

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset, Sample

MASK_FAULTS: Mapping[str, str] = {
    "size": "drawn for an image of another size",
    "value": "with values that stand for no class",
    "outline": "with an object of which only the box is known",
    "unknown": "of which no pixel is known",
    "empty": "with nothing but background",
}
_MENDED = {"size": "fixed", "value": "ignored", "outline": "ignored", "empty": "kept"}
_THREADS = 4


@dataclass(frozen=True)
class MaskReport(Report):
    """What the check of a data set of masks found.

    Attributes:
        merged: that values of masks were taken for objects and not for classes, or may be counted from 1, for people;
            or nothing.
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
    """The data set with its masks in order and their pixels counted by class, and what was wrong with them.

    Args:
        dataset: of kind `masks`. Every mask is read, and the header of every image.
        policy: `fix` turns and scales masks where it is plain what was meant, ignores the pixels of values that stand
            for no class and the boxes of objects without an outline, keeps masks of nothing but background, and drops
            images with masks of another size, or of which no pixel is known. It never drops more than a tenth of the
            images for their size, ignores more than a tenth of the pixels that are not of the value 0, or all of a
            class, nor goes on where the numbers seem to be counted otherwise than the classes. `drop` drops every image
            with a fault. `error` accepts none.

    Masks of another size: where the file stores the picture turned (EXIF) and they fit its stored size, they are
    turned with it; where the aspect is the same, they are scaled, each pixel to the nearest value.

    Raises:
        DataError: with `error`, for any fault: says how many of each kind, and where the first is. With `fix`, where
            too much would be lost: says the likely reason. With any policy, for a mask or an image's header that
            cannot be read, or when no image is left.
        ConfigError: the policy is unknown, or the data set has no masks.
    """
    accepted(policy)
    require(dataset, "masks")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(_check, classes=dataset.classes, policy=policy), dataset))
    samples = tuple(one.sample for one in found if one.sample is not None)
    faults = tuple(fault for one in found for fault in one.faults)
    losses, reason = _losses(dataset, found)
    report = MaskReport(
        dataset.name, len(dataset), faults, losses, reason, merged=_merged(dataset) or _shifted(dataset, found)
    )
    report.enforce(policy, len(samples))
    return replace(dataset, samples=samples), report


class _Checked(NamedTuple):
    """What was found of one sample.

    Attributes:
        sample: with its mask in order, or None where it is left out. faults: of it.
        counts: pixels of each class, whether it is left out or not. strange: (value, pixels) of those of no class.
        ignored: whether others do not count.
    """

    sample: Sample | None
    faults: list[Fault]
    counts: np.ndarray
    strange: Sequence[tuple[int, int]]
    ignored: bool


def _check(sample: Sample, classes: tuple[str, ...], policy: Policy) -> _Checked:
    found: list[Fault] = []

    def say(kind: str, detail: str, fixable: bool = True) -> None:
        done = "" if policy == "error" else _MENDED[kind] if policy == "fix" and fixable else "dropped"
        found.append(Fault(kind, sample.id, None, done, detail))

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
    said = counts, strange, bool((drawn == IGNORE).any())
    present = np.flatnonzero(counts).tolist()
    if not present:
        say("unknown", "", fixable=False)
    elif present == [0] and classes[0] == BACKGROUND:
        say("empty", "")
    if any(fault.done == "dropped" for fault in found):
        return _Checked(None, found, *said)
    mask = replace(mask, pixels=tuple(counts.tolist()))
    return _Checked(sample if mask == sample.target else replace(sample, target=mask), found, *said)


def _losses(dataset: Dataset, found: Sequence[_Checked]) -> tuple[tuple[str, ...], str]:
    """(what is too much to drop or to ignore, the likely reason)."""
    losses = []
    sizes = sum(fault.kind == "size" and fault.done == "dropped" for one in found for fault in one.faults)
    if sizes > MOST_LOST * len(found):
        losses.append(f"{sizes} of {len(found)} images, whose masks are of another size")
    none = np.zeros(len(dataset.classes), np.int64)
    before = sum((one.counts for one in found), none)
    after = sum((one.counts for one in found if one.sample is not None), none)
    if gone := [dataset.classes[i] for i in np.flatnonzero((before > 0) & (after == 0))]:
        losses.append(f"all pixels of {', '.join(map(repr, gone[:5]))}{', ...' * (len(gone) > 5)}")
    strange: Counter[int] = Counter()
    for one in found:
        strange.update(dict(one.strange))
    if not strange:
        white = sum(one.sample is not None and not one.counts[1:].any() and one.ignored for one in found)
        if white and len(before) > 1 and not before[1:].any():
            losses.append(f"all that is not {dataset.classes[0]!r} in {white} of {len(found)} masks")
            return tuple(
                losses
            ), f"the value {IGNORE}, which stands for what does not count, where class numbers are due"
        return tuple(losses), ""
    source = next(s.target.source for s, one in zip(dataset, found, strict=True) if one.strange)
    there = [value for value, label in source.table if label != IGNORE and before[label]]
    reason = of_masks(strange, there, source.table, source.colours)
    zero = next((label for value, label in source.table if value == 0 and label != IGNORE), None)
    lost = strange.total()
    rest = int(before.sum()) - (0 if zero is None else int(before[zero]))
    if lost > MOST_LOST * (lost + rest) or reason:
        bare = [name for name, count in zip(dataset.classes, before, strict=True) if not count]
        also = f" (no pixel is left of {', '.join(map(repr, bare[:5]))}{', ...' * (len(bare) > 5)})" if bare else ""
        values = ", ".join(map(_called, sorted(strange)[:5])) + ", ..." * (len(strange) > 5)
        losses.append(f"{lost} of {lost + rest} pixels that are not of the value 0: those of {values}{also}")
        reason = (
            reason
            or "values that the list of classes lacks: give each a line there, called void where it does not count"
        )
    return tuple(losses), reason


def _drawn(mask: Mask) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The classes of a mask at its final size, and (value, pixels) of values that stand for no class, most first."""
    source, strange = mask.source, {}
    if not isinstance(source, MaskFile):
        return read_mask(mask), []
    values = mask_values(source.file, source.colours)
    unknown = looked_up(values, source.table) == IGNORE
    if unknown.any():
        ignored = [value for value, label in source.table if label == IGNORE]
        there, counts = np.unique(values[unknown], return_counts=True)
        strange = {int(v): int(n) for v, n in zip(there, counts, strict=True) if int(v) not in ignored}
    return read_mask(mask, values), sorted(strange.items(), key=lambda item: -item[1])


def _called(value: int) -> str:
    """A value of a mask for people: a number, or red, green and blue."""
    return str(value) if value < 256 else f"{value & 255},{value >> 8 & 255},{value >> 16}"


def _merged(dataset: Dataset) -> str:
    """A note where several values of a mask are the same class, because each was taken for one object."""
    for sample in dataset:
        source = sample.target.source
        if isinstance(source, MaskFile):
            values = [value for value, label in source.table if label == 1 and value <= 0xFFFF]
            if len(values) > 1 and len(dataset.classes) == 2:
                return (
                    f"each value of a mask is taken for one object, and all but 0 for {dataset.classes[1]}; where "
                    "values stand for classes, list these in classes.txt."
                )
    return ""


def _shifted(dataset: Dataset, found: Sequence[_Checked]) -> str:
    """A note where no pixel is background, though it is the first of several classes."""
    if len(dataset.classes) < 3 or dataset.classes[0] != BACKGROUND or any(one.counts[0] for one in found):
        return ""
    return (
        f"no pixel of {dataset.name} is of the first class, {BACKGROUND}; where the masks' numbers are counted from 1, "
        "each class has the name of the one before it."
    )
