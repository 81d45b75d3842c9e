"""Decide parameter by parameter what trains, and how fast.

    python examples/freezing_rules.py DATA

A rule is a pattern over parameter paths and a multiplier of the learning rate; None freezes. The first rule that
matches counts, every parameter must be matched, and a rule without effect is an error.
"""

from __future__ import annotations

import sys
from typing import Any

import zoo
from zoo.data import read

RULES = [
    ("head.*", 1.0),  # the new head learns at the full rate
    ("backbone.layer4.*", 0.1),  # the last stage follows slowly
    ("*", None),  # everything before it stays as it was pretrained
]


def main(data: str, backbone: str = "resnet18.a1_in1k", rules: Any = RULES, **options: Any) -> zoo.training.Run:
    """Train with `rules` instead of a plan."""
    classes = next(iter(read(data).values())).classes
    model = zoo.create(backbone, "classifier", labels=classes)
    run = zoo.train(model, data, **{"rules": rules, "epochs": 5, "lr": 1e-3, **options})
    print(f"validation accuracy {run.metrics['accuracy']:.1%}")
    return run


if __name__ == "__main__":
    main(sys.argv[1])
