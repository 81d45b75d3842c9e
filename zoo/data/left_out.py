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
NO_SAMPLE = "without a sample"
NO_IMAGE = "not readable as images"
HIDDEN = "hidden or in system folders"


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
    reasons = unused(folder, used, reads)
    if not reasons:
        return ""
    total = sum(map(len, reasons.values()))
    details = "; ".join(f"{_counts(files)} {reason}" for reason, files in reasons.items())
    places = {_hidden_part(file, folder) for file in reasons.get(HIDDEN, ())}
    shown = f" ({', '.join(sorted(places)[:3])})" if places else ""
    return f"{folder.name}: {counted(total, 'file')} left out: {details}{shown}."


def unused(folder: Path, used: Iterable[Path], reads: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return reason -> paths of the unused files in a folder; see `left_out`."""
    real, skipped, top = locator(), {*reads}, str(folder)
    taken = set(map(str, used))
    # Links are resolved only if a file is not used by its own path, since resolving every path is slow.
    elsewhere: set[str] | None = None
    reasons: dict[str, list[str]] = {}
    for file in walk_text(folder):
        place, name = os.path.split(file)
        suffix = os.path.splitext(name)[1].lower()
        if is_image(name):
            if file in taken:
                continue
            elsewhere = {real(file) for file in taken} if elsewhere is None else elsewhere
            if real(file) not in elsewhere:
                reasons.setdefault(NO_SAMPLE, []).append(file)
        elif suffix not in skipped and (place != top or suffix not in TEXTS | {"", ".md", ".pdf"}):
            reasons.setdefault(NO_IMAGE, []).append(file)
    if hidden_images := list(_hidden_images(folder)):
        reasons[HIDDEN] = hidden_images
    return reasons


def _counts(files: Iterable[str]) -> str:
    counts = Counter(_suffix(file) for file in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1].lower() or "without a suffix"


def _hidden_part(file: str, folder: Path) -> str:
    """Return the hidden folder in a path, else the hidden name."""
    *folders, name = Path(file).relative_to(folder).parts
    return next((f"{part}/" for part in folders if hidden(part)), name)


def _hidden_images(folder: Path) -> Iterable[str]:
    """Yield the images that are hidden or lie in hidden folders."""
    for parent, folders, names in os.walk(folder):
        for name in names:
            if hidden(name) and is_image(name.lstrip("._")):
                yield os.path.join(parent, name)
        for name in [name for name in folders if hidden(name)]:
            folders.remove(name)
            for inner, _, files in os.walk(os.path.join(parent, name)):
                yield from (os.path.join(inner, file) for file in files if is_image(file))
