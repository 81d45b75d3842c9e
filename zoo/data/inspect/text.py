"""The result of `zoo.check` as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.errors import counted
from zoo.targets.faults import LEVELS

if TYPE_CHECKING:
    from zoo.data.inspect.result import Inspection

MOST_CLASSES = 20
"""Longest table of classes; of more, the most and the least frequent are shown."""


def text(result: Inspection, most: int) -> str:
    """Return the result as text, with at most `most` places of each kind of finding."""
    lines = [headline(result), "", *table(class_rows(result)), "", *images_lines(result)]
    for check, findings in result.by_check().items():
        lines += ["", f"{check.level}: {check.text}: {len(findings)}  [{check.name}]"]
        lines += [f"    {finding}" for finding in findings[:most]]
        if len(findings) > most:
            lines.append(f"    ... {len(findings) - most} more")
        lines.append(f"    -> {check.advice}")
    return "\n".join([*lines, "", verdict(result)]) + "\n"


def headline(result: Inspection) -> str:
    """Return the dataset and its size in one line."""
    format = f", format {result.format}" if result.format else ""
    classes = f", {counted(len(result.classes), 'class', 'classes')}" if result.classes else ""
    return f"{result.data}: {counted(result.images, 'image')}{classes}{format}, targets of kind {result.kind}"


def class_rows(result: Inspection) -> list[list[str]]:
    """Return the table of splits and classes, the header first."""
    splits = result.splits
    rows = [["", *splits], ["images", *(str(split.images) for split in splits.values())]]
    total = {name: sum(split.classes.get(name, 0) for split in splits.values()) for name in result.classes}
    shown = list(result.classes)
    if len(shown) > MOST_CLASSES:
        by_count = sorted(shown, key=lambda name: -total[name])
        half = MOST_CLASSES // 2
        shown = by_count[:half] + by_count[-half:]
    unit = "" if result.counted == "images" else f" ({result.counted})"
    for number, name in enumerate(shown):
        if len(result.classes) > MOST_CLASSES and number == MOST_CLASSES // 2:
            rows.append([f"... {len(result.classes) - MOST_CLASSES} more classes", *("" for _ in splits)])
        rows.append([f"{name}{unit}", *(str(split.classes.get(name, 0)) for split in splits.values())])
    return rows


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column is aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def images_lines(result: Inspection) -> list[str]:
    """Return the facts about the images."""
    sizes = result.sizes()
    if not sizes:
        return ["no image can be read"]
    (width, height), count = sizes.most_common(1)[0]
    if len(sizes) == 1:
        lines = [f"all images have {width}x{height} pixels"]
    else:
        low = min(sizes, key=lambda size: size[0] * size[1])
        high = max(sizes, key=lambda size: size[0] * size[1])
        often = f"; most often {width}x{height} ({counted(count, 'image')})" if count > 1 else ""
        lines = [f"{len(sizes)} image sizes, from {low[0]}x{low[1]} to {high[0]}x{high[1]}{often}"]
    grey = sum(split.grey for split in result.splits.values())
    colour = sum(sizes.values()) - grey
    return [*lines, f"{counted(colour, 'colour image')}, {counted(grey, 'grey image')}"]


def verdict(result: Inspection) -> str:
    """Return the number of findings in one line."""
    number = {level: sum(finding.check.level == level for finding in result.findings) for level in LEVELS}
    listed = ", ".join(counted(count, level) for level, count in number.items() if count)
    searched = "" if result.searched else " Near duplicates were not searched for."
    return f"{listed or 'nothing found'}, in {result.seconds:.1f} s.{searched}"
