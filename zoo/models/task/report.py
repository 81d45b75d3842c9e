"""What a task reports: metrics, pictures of the training, plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Dataset
    from zoo.models.model import Model


class Metrics(Protocol):
    """Accumulates metrics over batches, on the host.

    Metrics of a task with classes may have a method `class_counts()` that gives class -> (times predicted, times true).
    Training then warns of classes that are never predicted.
    """

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Add a batch.

        Copies that fill up a batch were removed from both arguments: every row is an image of the data.

        Args:
            decoded: What `decode` returned.
            batch: The targets and `valid` (b,).
        """

    def compute(self) -> dict[str, Any]:
        """Return the metrics so far: plain floats, ints, lists and dicts, ready for JSON."""


class ImageCount:
    """The number of images: metrics of a task that is judged by its losses, such as one with image outputs."""

    def __init__(self) -> None:
        self.images = 0

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        self.images += int(batch["valid"].sum())

    def compute(self) -> dict[str, Any]:
        return {"images": self.images}


class Report:
    """The part of a task that says how well it went."""

    @property
    def primary(self) -> str:
        """The metric that the best epoch is chosen by. Greater is better, except for the loss."""
        return "loss"

    def metrics(self) -> Metrics:
        """Return a new accumulator."""
        return ImageCount()

    def next_step(self, run: Path) -> str:
        """Return the command that uses a finished run, where it is not the usual one."""
        return ""

    def preview(self, model: Model, dataset: Dataset, path: Path) -> Path | None:
        """Draw what the model makes of a few images after each epoch, and return the file; None for no picture."""
        return None

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        """Draw plots of a `zoo.training.Evaluation` into a folder, and return the files."""
        return []
