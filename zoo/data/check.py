"""Check annotations: every fault is named and counted, and a policy says how to handle it."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.targets import kind
from zoo.targets.check_boxes import FAULTS, BoxReport, check_boxes
from zoo.targets.check_masks import check_masks
from zoo.targets.faults import POLICIES, Policy

__all__ = ["FAULTS", "POLICIES", "BoxReport", "Policy", "check_boxes", "check_masks", "checked"]


def checked(parts: Mapping[str, Dataset], policy: Policy = "fix") -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Check the annotations of all splits.

    Kinds of target without a check pass through unchanged.

    Args:
        parts: split name -> dataset.
        policy: how to handle faults, one of `POLICIES`.

    Returns:
        The checked splits by name, and a note for each split with faults.
    """
    checked_splits, notes, remark = dict(parts), [], ""
    for name, dataset in parts.items():
        checked_splits[name], report = kind(dataset.kind).checked(dataset, policy)
        notes.append(report.text())
        remark = remark or report.remark
    return checked_splits, tuple(filter(None, [*notes, remark]))
