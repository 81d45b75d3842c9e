"""The check of annotations: every fault is named and counted, and a policy says what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.targets import kind
from zoo.targets.check_boxes import FAULTS, BoxReport, check_boxes
from zoo.targets.check_masks import check_masks
from zoo.targets.faults import POLICIES, Policy

__all__ = ["FAULTS", "POLICIES", "BoxReport", "Policy", "check_boxes", "check_masks", "checked"]


def checked(parts: Mapping[str, Dataset], policy: Policy = "fix") -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """All parts of a data set by name, their annotations in order as far as their kind has a check, and a note on each
    part with faults."""
    found, notes, remark = dict(parts), [], ""
    for name, part in parts.items():
        found[name], report = kind(part.kind).checked(part, policy)
        notes.append(report.text())
        remark = remark or report.remark
    return found, tuple(filter(None, [*notes, remark]))
