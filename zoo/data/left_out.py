"""Report files in a dataset's folder that are not used by any sample, counted by suffix and reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from zoo.data.dataset import Dataset
from zoo.data.files import hidden, is_image, walk_text
from zoo.data.unique import locator
from zoo.errors import counted

TEXTS = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".names", ".data"})
"""Suffixes of annotation files. Samples are read from them, but do not name them."""


def files_of(datasets: Iterable[Dataset]) -> set[Path]:
    """Return the files that samples use: images and masks."""
    used: set[Path] = set()
    for dataset in datasets:
        for sample in dataset:
            used.update((sample.image, *dataset.targets.read_from(sample.target)))
    return used


def left_out(folder: Path, used: Iterable[Path], reads: Iterable[str] = ()) -> str:
    """Return a note on the unused files in a folder; empty if all are used.

    Args:
        folder: the dataset's folder. Text files directly in it (a README, a licence) are not counted.
        used: files that samples use.
        reads: suffixes of annotation files, which are not counted either.
    """
    real, skipped, top = locator(), {*reads}, str(folder)
    taken = set(map(str, used))
    # Links are resolved only if a file is not used by its own path, since resolving every path is slow.
    elsewhere: set[str] | None = None
    reasons: dict[str, Counter[str]] = {}

    def count(reason: str, suffix: str) -> None:
        reasons.setdefault(reason, Counter())[suffix or "without a suffix"] += 1

    for file in walk_text(folder):
        place, name = os.path.split(file)
        suffix = os.path.splitext(name)[1].lower()
        if is_image(name):
            if file in taken:
                continue
            elsewhere = {real(file) for file in taken} if elsewhere is None else elsewhere
            if real(file) not in elsewhere:
                count("without a sample", suffix)
        elif suffix not in skipped and (place != top or suffix not in TEXTS | {"", ".md", ".pdf"}):
            count("not readable as images", suffix)
    places: set[str] = set()
    for suffix, place in _hidden_images(folder):
        count("hidden or in system folders", suffix)
        places.add(place)
    if not reasons:
        return ""
    total = sum(sum(counts.values()) for counts in reasons.values())
    details = "; ".join(f"{_counts(counts)} {reason}" for reason, counts in reasons.items())
    shown = f" ({', '.join(sorted(places)[:3])})" if places else ""
    return f"{folder.name}: {counted(total, 'file')} left out: {details}{shown}."


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


def _hidden_images(folder: Path) -> Iterable[tuple[str, str]]:
    """Yield (suffix, name of the hidden file or folder) of images that are hidden or lie in hidden folders."""
    for parent, folders, names in os.walk(folder):
        for name in names:
            if hidden(name) and is_image(name.lstrip("._")):
                yield os.path.splitext(name)[1].lower(), name
        for name in [name for name in folders if hidden(name)]:
            folders.remove(name)
            for _, _, inner in os.walk(os.path.join(parent, name)):
                yield from ((os.path.splitext(file)[1].lower(), f"{name}/") for file in inner if is_image(file))
