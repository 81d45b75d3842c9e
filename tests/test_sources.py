"""Sources: one or several, each with or without labels, and resumable at any batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zoo.data import Dataset
from zoo.models.model import Model
from zoo.training.sources import Source, joined


@dataclass
class Counting:
    """Batches that tell which they are."""

    batches: int
    labelled: bool = True
    cached = False

    @property
    def dataset(self) -> Dataset:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Any]]:
        for batch in range(start, self.batches):
            label = {"label": np.array([batch])} if self.labelled else {}
            yield {"image": np.array([number, batch]), **label, "index": np.array([0])}

    def sample(self, model: Model, count: int) -> dict[str, np.ndarray]:
        return {}


def steps(sources: dict[str, Source], epoch: int, start: int = 0) -> list[dict[str, list[int]]]:
    return [{name: value.tolist() for name, value in step.items()} for step in joined(sources, epoch, start)]


def test_a_single_source_keeps_its_names():
    assert steps({"train": Counting(2)}, 3) == [{"image": [3, i], "label": [i]} for i in range(2)]


@pytest.mark.parametrize("further", [2, 3, 7])
def test_a_further_source_without_labels_goes_on_from_epoch_to_epoch(further: int):
    sources: dict[str, Source] = {"train": Counting(3), "unlabelled": Counting(further, labelled=False)}
    taken = [step for epoch in range(4) for step in steps(sources, epoch)]
    assert [step["image"] for step in taken] == [[epoch, i] for epoch in range(4) for i in range(3)]
    assert [step["unlabelled/image"] for step in taken] == [[*divmod(i, further)] for i in range(12)]
    assert all(step.keys() == {"image", "label", "unlabelled/image"} for step in taken)
    for epoch in range(4):
        for start in range(4):
            assert steps(sources, epoch, start) == taken[3 * epoch + start : 3 * epoch + 3], "resumed as it went on"
