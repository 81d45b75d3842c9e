"""Findings on the classes of a dataset: missing and rare ones, and names that are nearly the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from statistics import median

from zoo.data.inspect.checks import BALANCE, IMBALANCE, MISSING, NOT_TRAINED, RARE, SIMILAR, UNUSED
from zoo.data.inspect.findings import Finding, Place
from zoo.labels.spelling import loose, number

USUAL = 5
"""A class with a single sample is reported if the median class has at least this many."""
LONG_NAME = 8
"""Names of at least this many letters that differ by one letter more are taken for a slip."""


def findings(counts: Mapping[str, Mapping[str, int]], counted: str = "images") -> list[Finding]:
    """Return the findings on the classes.

    Args:
        counts: split name -> class name -> count.
        counted: what the counts count.
    """
    names = list(dict.fromkeys(name for one in counts.values() for name in one))
    total = {name: sum(one.get(name, 0) for one in counts.values()) for name in names}
    found = [Finding(UNUSED, (Place("", name),)) for name in names if not total[name]]
    for split, one in counts.items():
        check = NOT_TRAINED if split == "train" else MISSING
        for name in names:
            if total[name] and not one.get(name, 0):
                others = ", ".join(f"{each[name]} in {other}" for other, each in counts.items() if each.get(name))
                found.append(Finding(check, (Place(split, name),), f"{others}, none in {split}"))
    found += _balance(next((counts[name] for name in ("train", "all") if name in counts), total), counted)
    used = [name for name in names if total[name]]
    return found + [Finding(SIMILAR, tuple(Place("", name) for name in group)) for group in similar(used)]


def _balance(counts: Mapping[str, int], counted: str) -> list[Finding]:
    """Return the rare classes of the training data."""
    used = {name: count for name, count in counts.items() if count}
    if len(used) < 2:
        return []
    most = max(used, key=lambda name: used[name])
    found = []
    for name, count in used.items():
        detail = f"{count} of {sum(used.values())} {counted}; {most}: {used[most]}"
        if count == 1 and median(used.values()) >= USUAL:
            found.append(Finding(RARE, (Place("", name),), detail))
        elif count * BALANCE <= used[most]:
            found.append(Finding(IMBALANCE, (Place("", name),), detail))
    return found


def similar(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of class names that are probably one class.

    They are equal but for case, accents, spaces, `_`, `-` or a plural `s`; or long names with a letter too many, or
    two letters swapped. Numbers in names always count, and so does a different letter (`house`, `mouse`).
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_stem(name), []).append(name)
    stems = [stem for stem in groups if len(stem) >= LONG_NAME]
    by_slip: dict[str, str] = {}
    for stem in stems:
        for form in _slips(stem):
            other = by_slip.setdefault(form, stem)
            if other != stem and other in groups and stem in groups and _slip(stem, other):
                groups[other] += groups.pop(stem)
                break
    return [group for group in groups.values() if len(group) > 1]


def _stem(name: str) -> str:
    """Return the form in which names are compared."""
    if number(name) is not None:
        return loose(name)
    plain = "".join(c for c in unicodedata.normalize("NFKD", loose(name)) if not unicodedata.combining(c))
    joined = plain.replace(" ", "")
    return joined[:-1] if re.search(r"[a-z]{3,}(?<!s)s$", joined) else joined


def _slips(stem: str) -> set[str]:
    """Return keys of which two stems that differ by one letter too many, or by a swap, share at least one."""
    return {stem, *(stem[:i] + stem[i + 1 :] for i in range(1, len(stem)))}


def _slip(one: str, other: str) -> bool:
    """Whether two stems differ by one letter too many, or by two neighbouring letters that are swapped."""
    if re.sub(r"\D", "", one) != re.sub(r"\D", "", other) or one[0] != other[0]:
        return False
    if len(one) != len(other):
        return True  # they share a key, so one of them is the other without a letter
    different = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    swapped = len(different) == 2 and different[1] == different[0] + 1
    return swapped and one[different[0]] == other[different[1]] and one[different[1]] == other[different[0]]
