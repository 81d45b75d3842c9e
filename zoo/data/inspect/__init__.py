"""Check a dataset: `check` finds what is wrong or unusual in images, annotations, classes and splits.

What a kind of target can check belongs to that kind (`TargetKind.examined`); this package knows images, files, classes
and splits.
"""

from zoo.data.inspect.findings import Finding, Place, SplitFacts
from zoo.data.inspect.result import Inspection
from zoo.data.inspect.run import check, every_check

__all__ = ["Finding", "Inspection", "Place", "SplitFacts", "check", "every_check"]
