"""The result of `zoo.check`: facts about a dataset, and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.targets.faults import LEVELS, Check


def shown(text: str) -> str:
    """Return a text that can be printed: bytes of a file name that are no UTF-8 become marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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
        """Return the id, with the split unless the id starts with it. A name that is no UTF-8 is shown with marks."""
        return shown(self.id if not self.split or self.id.startswith(f"{self.split}/") else f"{self.split}: {self.id}")


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


@dataclass(frozen=True)
class Inspection:
    """The result of `zoo.check`.

    Attributes:
        data: the dataset that was checked.
        format: its format; empty for datasets in memory.
        kind: kind of the targets.
        counted: what the counts of the classes count: images, boxes or masks.
        classes: class names.
        splits: split name -> facts.
        findings: errors first, then warnings and notes.
        searched: whether near duplicates were searched for.
        seconds: time that the check took.
    """

    data: str
    format: str
    kind: str
    counted: str
    classes: tuple[str, ...]
    splits: Mapping[str, SplitFacts]
    findings: tuple[Finding, ...]
    searched: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there are neither errors nor warnings."""
        return all(finding.check.level == "note" for finding in self.findings)

    @property
    def images(self) -> int:
        """Number of images in all splits."""
        return sum(split.images for split in self.splits.values())

    def sizes(self) -> Counter[tuple[int, int]]:
        """Return (width, height) -> number of images of all splits."""
        total: Counter[tuple[int, int]] = Counter()
        for split in self.splits.values():
            total.update(split.sizes)
        return total

    def counts(self) -> dict[str, int]:
        """Return the name of each check -> number of its findings, worst first."""
        return dict(Counter(finding.check.name for finding in self.findings))

    def by_check(self) -> dict[Check, list[Finding]]:
        """Return the findings of each check, worst first."""
        groups: dict[Check, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.check, []).append(finding)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """Return the whole result as values that JSON knows."""
        total: Counter[str] = Counter(finding.check.level for finding in self.findings)
        return {
            "data": shown(self.data),
            "format": self.format,
            "kind": self.kind,
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "near_duplicates_searched": self.searched,
            "images": self.images,
            "counted": self.counted,
            "classes": [shown(name) for name in self.classes],
            "splits": {name: _facts(split) for name, split in self.splits.items()},
            "levels": {level: total[level] for level in LEVELS},
            "counts": self.counts(),
            "checks": {
                check.name: {k: v for k, v in asdict(check).items() if k != "name"} for check in self.by_check()
            },
            "findings": [_row(finding) for finding in self.findings],
        }

    def text(self, most: int = 3) -> str:
        """Return the result as text, with at most `most` places of each kind of finding."""
        from zoo.data.inspect.text import text

        return text(self, most)

    def save_page(self, file: str | Path) -> Path:
        """Write the result as one self-contained HTML page, with thumbnails of the worst findings. Returns the file.

        Raises:
            DataError: the file cannot be written.
        """
        from zoo.data.inspect.page import write

        return write(self, Path(file))


def _facts(split: SplitFacts) -> dict[str, Any]:
    sizes = [{"width": w, "height": h, "images": count} for (w, h), count in split.sizes.items()]
    classes = {shown(name): count for name, count in split.classes.items()}
    return {"images": split.images, "grey_images": split.grey, "classes": classes, "sizes": sizes}


def _row(finding: Finding) -> dict[str, Any]:
    places = [
        {"split": place.split, "id": shown(place.id), "file": None if place.file is None else shown(str(place.file))}
        for place in finding.places
    ]
    return {
        "check": finding.check.name,
        "level": finding.check.level,
        "places": places,
        "annotation": finding.index,
        "detail": shown(finding.detail),
    }


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings by level, then by check; within a check, the most copies first."""
    first: dict[str, int] = {}
    for finding in findings:
        first.setdefault(finding.check.name, len(first))
    return tuple(
        sorted(findings, key=lambda one: (LEVELS.index(one.check.level), first[one.check.name], -len(one.places)))
    )
