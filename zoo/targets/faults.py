"""Faults of annotations: named, counted, and told to people. `check_boxes` and `check_masks` say what is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zoo.data.dataset import Dataset

Policy = Literal["error", "fix", "drop"]
POLICIES: tuple[Policy, ...] = ("error", "fix", "drop")
ASPECT = 0.01
"""Largest relative difference of two aspects that are taken for the same."""
MOST_LOST = 0.1
"""Largest share of what was annotated that a correction may drop: more is no fault of single annotations."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: a key of the report's `kinds`.
        id: of the sample.
        index: of the box in its annotation, from 0; None where the whole image is meant.
        done: what was done about it: `fixed`, `dropped`, or the like, or nothing.
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
    """What the check of a data set found.

    Attributes:
        name: of the data set. images: how many there were.
        faults: all of them, in the data set's order.
        losses: what a correction would drop and may not, e.g. `8 of 9 boxes`. reason: the likely one for it, if known.
    """

    name: str
    images: int
    faults: tuple[Fault, ...]
    losses: tuple[str, ...] = ()
    reason: str = ""

    kinds: ClassVar[Mapping[str, str]] = {}
    """The kinds of fault, as people call them."""

    @property
    def subject(self) -> str:
        """What was checked, for people."""
        return f"{self.name}, {self.images} images"

    @property
    def remark(self) -> str:
        """What else people should know, once for all parts of the data; or nothing."""
        return ""

    def counts(self) -> dict[tuple[str, str], int]:
        """How many faults of each kind were met how: (kind, done) -> number, in the order of `kinds`."""
        found = Counter((fault.kind, fault.done) for fault in self.faults)
        return {key: found[key] for key in sorted(found, key=lambda key: (list(self.kinds).index(key[0]), key[1]))}

    def text(self) -> str:
        """The counts for people, each with the first place where it was met; empty without a fault."""
        if not self.faults:
            return ""
        said = []
        for (kind, done), count in self.counts().items():
            first = next(fault for fault in self.faults if (fault.kind, fault.done) == (kind, done))
            said.append(f"{count} {self.kinds[kind]}{f' ({done})' * bool(done)}, e.g. {first}")
        return f"{self.subject}: " + "; ".join(said) + "."

    def enforce(self, policy: Policy, left: int) -> None:
        """Raise `DataError` for any fault with `error`, for losses with `fix`, and where no image is `left`."""
        if self.faults and policy == "error":
            raise DataError(
                f"{self.text()} Correct the annotations, or have them corrected (fix) or left out (drop) by the policy "
                "for annotations."
            )
        because = f" The likely reason: {self.reason}." if self.reason else ""
        if self.losses and policy == "fix":
            raise DataError(
                f"{self.text()} The correction would drop {' and '.join(self.losses)}, more than single mistakes "
                f"explain.{because} Correct the annotations, or have what is faulty left out nevertheless by the "
                "policy drop."
            )
        if self.images and not left:
            raise DataError(f"no image is left. {self.text()}{because}")


def accepted(policy: Policy) -> None:
    """Raise `ConfigError` for an unknown policy."""
    if policy not in POLICIES:
        raise ConfigError(f"the policy for annotations is {policy!r}; accepted: {', '.join(POLICIES)}.")


def require(dataset: Dataset, kind: str) -> None:
    """Raise `ConfigError` unless a data set has targets of this kind."""
    if dataset.kind != kind:
        raise ConfigError(f"{dataset.name} has targets of kind {dataset.kind}; only {kind} can be checked as {kind}.")


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) are the same image at two scales."""
    return min(*one, *other) > 0 and abs(one[1] * other[0] / (one[0] * other[1]) - 1) < ASPECT
