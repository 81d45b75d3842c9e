"""Decoders learn a few drawn scenes.

Those that need a dilated backbone are left out: deeper nets take minutes to learn as much from random weights.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes_kit import FAST, installed, pyramidnet  # noqa: F401  (fixtures)
from masks_kit import create, drawn_masks
from training_kit import optimised, own_cache  # noqa: F401  (fixture)

import zoo
from zoo.adapters.segmenter.decoders import DECODERS

pytestmark = pytest.mark.exhaustive

LEAST = {"linear": 0.35}
"""Mean IoU to reach. A linear map of single positions of a coarse map draws no outlines; 0.5 for all others."""


@pytest.mark.parametrize("decoder", [name for name, row in DECODERS.items() if not row.dilated])
def test_scenes_are_told_apart(decoder: str, tmp_path: Path) -> None:
    """Training images reach a mean IoU far above a third, which one class everywhere cannot exceed."""
    data = drawn_masks(tmp_path / "data", 6)
    model = create(decoder)
    options = {**FAST, "epochs": 60, "lr": 1e-2, "weight_decay": 0.0}
    with optimised():
        run = zoo.train(model, {"train": data, "val": data}, plan="all", out=tmp_path / "run", **options)
    first, last = run.history[0]["miou"], run.metrics["miou"]
    assert last > LEAST.get(decoder, 0.5) and last > first + 0.2, (first, last)
