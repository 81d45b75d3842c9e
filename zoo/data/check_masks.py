"""The check of masks: every fault is named and counted, and a policy says what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from zoo.data.dataset import Dataset, Sample
from zoo.data.decode import image_size
from zoo.data.faults import Fault, Policy, Report, accepted, same_aspect
from zoo.data.masks import BACKGROUND, IGNORE, Mask, MaskFile, count_pixels, looked_up, mask_values, read_mask
from zoo.errors import ConfigError

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
        merged: that values of masks were taken for objects and not for classes, for people; or nothing.
    """

    merged: str = ""
    kinds: ClassVar[Mapping[str, str]] = MASK_FAULTS

    @property
    def subject(self) -> str:
        return f"{self.name}, {self.images} masks"


def check_masks(dataset: Dataset, policy: Policy = "fix") -> tuple[Dataset, MaskReport]:
    """The data set with its masks in order and their pixels counted by class, and what was wrong with them.

    Args:
        dataset: of kind `masks`. Every mask is read, and the header of every image.
        policy: `fix` turns and scales masks where it is plain what was meant, ignores the pixels of values that stand
            for no class and the boxes of objects without an outline, keeps masks of nothing but background, and drops
            images with masks of another size, or of which no pixel is known. `drop` drops every image with a fault.
            `error` accepts none.

    Masks of another size: where the file stores the picture turned (EXIF) and they fit its stored size, they are
    turned with it; where the aspect is the same, they are scaled, each pixel to the nearest value.

    Raises:
        DataError: with `error`, for any fault: says how many of each kind, and where the first is. With any policy,
            for a mask or an image's header that cannot be read, or when no image is left.
        ConfigError: the policy is unknown, or the data set has no masks.
    """
    accepted(policy)
    if dataset.kind != "masks":
        raise ConfigError(f"{dataset.name} has targets of kind {dataset.kind}; only masks can be checked as masks.")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(_check, classes=dataset.classes, policy=policy), dataset))
    samples = tuple(sample for sample, _ in found if sample is not None)
    faults = tuple(fault for _, faults in found for fault in faults)
    report = MaskReport(dataset.name, len(dataset), faults, merged=_merged(dataset))
    report.enforce(policy, len(samples))
    return replace(dataset, samples=samples), report


def _check(sample: Sample, classes: tuple[str, ...], policy: Policy) -> tuple[Sample | None, list[Fault]]:
    """A sample with its mask in order, or None where it is left out, and its faults."""
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
    counts = count_pixels(drawn)
    present = np.flatnonzero(counts).tolist()
    if not present:
        say("unknown", "", fixable=False)
    elif present == [0] and classes[0] == BACKGROUND:
        say("empty", "")
    if any(fault.done == "dropped" for fault in found):
        return None, found
    mask = replace(mask, pixels=tuple(counts[: len(classes)].tolist()))
    return (sample if mask == sample.target else replace(sample, target=mask)), found


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
