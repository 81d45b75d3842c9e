"""Every decoder that the small net serves learns a few drawn scenes; DeepLab needs a backbone that can be dilated."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes_kit import FAST, installed, pyramidnet  # noqa: F401  (fixtures)
from masks_kit import create, drawn_masks
from training_kit import optimised, own_cache  # noqa: F401  (fixture)

import zoo
from zoo.adapters.segmenter.decoders import DECODERS

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("decoder", [name for name in DECODERS if not name.startswith("deeplab")])
def test_scenes_are_told_apart(decoder: str, tmp_path: Path) -> None:
    """The mean IoU of the training images is far above that of one class everywhere, which is below a third."""
    data = drawn_masks(tmp_path / "data", 6)
    options = {**FAST, "epochs": 60, "lr": 1e-2, "weight_decay": 0.0}
    with optimised():
        run = zoo.train(create(decoder), {"train": data, "val": data}, plan="all", out=tmp_path / "run", **options)
    first, last = run.history[0]["miou"], run.metrics["miou"]
    # A linear map sees single positions of the coarsest map alone.
    assert last > (0.35 if decoder == "linear" else 0.5) and last > first + 0.2, (first, last)
