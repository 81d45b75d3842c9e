"""Findings of `zoo.check`, and facts about a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.targets.faults import LEVELS, Check


def shown(text: str) -> str:
    """Return a text that can be printed: bytes of a file name that are no UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found.

    Attributes:
        split: name of the split, empty for the whole dataset.
        id: id of the sample, path of a file relative to the dataset's folder, or name of a class.
        file: the file; None if it is not about a file.
    """

    split: str
    id: str
    file: Path | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the id, with the split if there are several and the id does not start with it."""
        whole = self.split in ("", "all") or self.id.startswith(f"{self.split}/")
        return shown(self.id if whole else f"{self.split}: {self.id}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        check: the kind of finding, with its level and advice.
        places: where; the copies of an image are several places.
        detail: sizes, coordinates, values or the error; may be empty.
        index: number of the annotation in the image, from 0; None if it is about the whole image.
        area: x1, y1, x2, y2 in pixels around the annotation, None without one.
    """

    check: Check
    places: tuple[Place, ...]
    detail: str = ""
    index: int | None = None
    area: tuple[float, float, float, float] | None = None

    def __str__(self) -> str:
        where = " = ".join(map(str, self.places[:4])) + (
            f" and {len(self.places) - 4} more" if len(self.places) > 4 else ""
        )
        where += f", annotation {self.index}" if self.index is not None else ""
        detail = shown(self.detail)
        return f"{where} ({detail})" if where and detail else where or detail


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """Facts about one split.

    Attributes:
        images: number of images.
        classes: class name -> count, in the order of the classes; of what, `Inspection.counted` says.
        sizes: (width, height) of the readable images -> number of images, most frequent first.
        grey: number of grey images.
    """

    images: int
    classes: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    grey: int


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings by level, then by check; within a check, the most copies first."""
    first: dict[str, int] = {}
    for finding in findings:
        first.setdefault(finding.check.name, len(first))
    return tuple(
        sorted(findings, key=lambda one: (LEVELS.index(one.check.level), first[one.check.name], -len(one.places)))
    )
