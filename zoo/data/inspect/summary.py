"""The note on its data that training prints before the first step: the cheap parts of `zoo.check`."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.content import rows
from zoo.data.dataset import Dataset
from zoo.data.inspect import classes, duplicates
from zoo.data.inspect.findings import Finding, Place, ordered
from zoo.errors import DataError, counted

FEW = 4
"""Number of classes whose counts are given one by one."""


def summary(splits: Mapping[str, Dataset]) -> str:
    """Return splits, classes, and findings on both in a few sentences.

    Equal files are found by the hashes that identify the data of a run. Images are not decoded, and near duplicates
    are not searched for: `zoo.check` does both.

    Args:
        splits: the splits of a training, with checked annotations.
    """
    counts = {name: dataset.counts() for name, dataset in splits.items()}
    unit = next(iter(splits.values())).targets.counted
    facts = "; ".join(
        f"{name} {counted(len(dataset), 'image')}{_classes(counts[name], unit)}" for name, dataset in splits.items()
    )
    found = [one for one in (*_copies(splits), *classes.findings(counts, unit)) if one.check.level != "note"]
    if not found:
        return f"data: {facts}."
    groups: dict[str, list[Finding]] = {}
    for finding in ordered(found):
        groups.setdefault(finding.check.text, []).append(finding)
    listed = "; ".join(f"{text}: {len(group)}, e.g. {group[0]}" for text, group in groups.items())
    return f"data: {facts}. Found: {listed}. `zoo check` shows all, and what to do about each."


def _classes(counts: Mapping[str, int], unit: str) -> str:
    if not counts:
        return ""
    unit = "" if unit == "images" else f" {unit}"
    if len(counts) <= FEW:
        return f" ({', '.join(f'{name} {count}' for name, count in counts.items())}{unit})"
    low, high = min(counts.values()), max(counts.values())
    return f" ({len(counts)} classes of {low if low == high else f'{low} to {high}'}{unit or ' images'})"


def _copies(splits: Mapping[str, Dataset]) -> list[Finding]:
    """Return the images that occur several times; none if a file cannot be read, which training reports itself."""
    candidates = []
    for split, dataset in splits.items():
        try:
            hashed = rows(dataset)
        except DataError:
            return []
        for sample, row in zip(dataset, hashed, strict=True):
            words = dataset.targets.words(sample.target, dataset.classes)
            annotation = repr((row.target, row.files[1:]))
            candidates.append(
                duplicates.Candidate(Place(split, sample.id, sample.image), row.files[0], annotation, words)
            )
    return duplicates.exact(candidates)
