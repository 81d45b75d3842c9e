"""The result of `zoo.check`: facts about a dataset, and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.data.inspect.findings import Finding, SplitFacts, shown
from zoo.targets.faults import LEVELS, Check


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
