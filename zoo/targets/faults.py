"""Faults of annotations and reports on them. `check_boxes` and `check_masks` find the faults.

`Check` describes a kind of finding of `zoo.check`; each kind of target has its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

Policy = Literal["error", "fix", "drop"]
POLICIES: tuple[Policy, ...] = ("error", "fix", "drop")
ASPECT = 0.01
"""Largest relative difference between two aspect ratios that count as equal."""
MOST_LOST = 0.1
"""Largest share of the annotations that the policy `fix` may drop: more cannot be single mistakes."""
ENTRIES: Mapping[str, str] = {
    "missing": "listed, but without an image file",
    "stray": "of an image that is not listed",
}
"""Faults that readers find: entries of an annotation file that cannot become samples. See `Dataset.faults`."""


@dataclass(frozen=True, slots=True)
class Check:
    """A kind of finding of `zoo.check`.

    Attributes:
        name: unique, in lower case with hyphens, e.g. `box-outside`.
        level: `error` spoils training or the metrics, `warning` is probably a mistake, `note` is often intended.
        text: what was found, as a heading.
        advice: what to do about it.
    """

    name: str
    level: Level
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: a key of the report's `kinds`.
        id: of the sample.
        index: of the box in its annotation, from 0; None if the fault concerns the whole image.
        done: how it was handled, e.g. `fixed` or `dropped`; empty with the policy `error`.
        detail: the coordinates, sizes or values.
    """

    kind: str
    id: str
    index: int | None
    done: str
    detail: str

    def __str__(self) -> str:
        place = f"{self.id}, box {self.index}" if self.index is not None else self.id
        return f"{place} ({self.detail})" if self.detail else place


@dataclass(frozen=True)
class Report:
    """Result of the check of a dataset.

    Attributes:
        name: of the dataset.
        images: number of images before the check.
        faults: all faults, in the dataset's order.
        losses: what `fix` would drop but must not, e.g. `8 of 9 boxes`.
        reason: likely reason of the losses, empty if unknown.
    """

    name: str
    images: int
    faults: tuple[Fault, ...]
    losses: tuple[str, ...] = ()
    reason: str = ""

    kinds: ClassVar[Mapping[str, str]] = {}
    """Kinds of fault: key -> description for reports."""

    @property
    def subject(self) -> str:
        """The checked dataset and its size, for messages."""
        return f"{self.name}, {self.images} images"

    @property
    def remark(self) -> str:
        """A further remark, shown once for all splits; empty if there is none."""
        return ""

    def counts(self) -> dict[tuple[str, str], int]:
        """Return (kind, done) -> number of faults, in the order of `kinds`."""
        number = Counter((fault.kind, fault.done) for fault in self.faults)
        return {key: number[key] for key in sorted(number, key=lambda key: (list(self.kinds).index(key[0]), key[1]))}

    def text(self) -> str:
        """Return the counts as a sentence, with the first place of each kind; empty without faults."""
        if not self.faults:
            return ""
        phrases = []
        for (kind, done), count in self.counts().items():
            first = next(fault for fault in self.faults if (fault.kind, fault.done) == (kind, done))
            phrases.append(f"{count} {self.kinds[kind]}{f' ({done})' * bool(done)}, e.g. {first}")
        return f"{self.subject}: " + "; ".join(phrases) + "."

    def enforce(self, policy: Policy, left: int) -> None:
        """Raise `DataError` for faults with the policy `error`, for losses with `fix`, and if no images are `left`."""
        if self.faults and policy == "error":
            raise DataError(
                f"{self.text()} Correct the annotations, or set the policy for annotations to fix (correct them) or "
                "drop (leave them out)."
            )
        because = f" Likely reason: {self.reason}." if self.reason else ""
        if self.losses and policy == "fix":
            raise DataError(
                f"{self.text()} The correction would drop {' and '.join(self.losses)}, more than single mistakes "
                f"explain.{because} Correct the annotations, or set the policy to drop to leave out all faulty ones "
                "nevertheless."
            )
        if self.images and not left:
            raise DataError(f"no image is left. {self.text()}{because}")


def accepted(policy: Policy) -> None:
    """Raise `ConfigError` for an unknown policy."""
    if policy not in POLICIES:
        raise ConfigError(f"the policy for annotations is {policy!r}; accepted: {', '.join(POLICIES)}.")


def require(dataset: Dataset, kind: str) -> None:
    """Raise `ConfigError` unless a dataset has targets of this kind."""
    if dataset.kind != kind:
        raise ConfigError(f"{dataset.name} has targets of kind {dataset.kind}; only {kind} can be checked as {kind}.")


def entry_faults(dataset: Dataset, annotations: int, policy: Policy) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
    """Return (the faults that the reader found, the losses that `fix` refuses).

    A single missing image is a mistake in a dataset of any size, and no loss.

    Args:
        dataset: its reader left these entries out already.
        annotations: number of annotations that are left.
        policy: how faults are handled.
    """
    counts = Counter(fault.kind for fault in dataset.faults)
    losses = []
    for kind, noun, left in (("missing", "image", len(dataset)), ("stray", "annotation", annotations)):
        every = counts[kind] + left
        if counts[kind] > max(1, MOST_LOST * every):
            losses.append(f"{counts[kind]} of {counted(every, noun)}")
    done = "" if policy == "error" else "dropped"
    return tuple(replace(fault, done=done) for fault in dataset.faults), tuple(losses)


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) have the same aspect ratio, up to rounding."""
    return min(*one, *other) > 0 and abs(one[1] * other[0] / (one[0] * other[1]) - 1) < ASPECT
