"""What a task learns: targets, and a loss by terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import numpy as np
    from jax import Array

    from zoo.data import Dataset, Sample
    from zoo.models.task.forward import ForwardPass
    from zoo.registry.spec import Preprocess

Terms = Mapping[str, "Array"]
"""Terms of a loss by name, each (b,)."""


class Objective:
    """The part of a task that says what is learned from data."""

    targets_from: ClassVar[tuple[str, ...]] = ()
    """Kinds of dataset (`zoo.data.Dataset.kind`) that the task can learn from."""

    def fitted(self, dataset: Dataset) -> Self:
        """Return this task with what only the training data can tell, e.g. class-balanced weights."""
        return self

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        """Return this task with room for the targets of all these datasets, and a note on what is left out, if any."""
        return self, ""

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        """Return the truth of a sample as arrays of fixed shape. Batches hold them beside the prepared image."""
        raise NotImplementedError

    def truth(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return further arrays of fixed shape for metrics alone, e.g. at the original resolution.

        They are read batch by batch in evaluations; training batches do not have them.
        """
        return {}

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the terms of the loss of each image by name, each (b,).

        The training loss is their sum in the order of this dict, each times its factor in `loss_weights`. Evaluations
        report each of several terms under its name beside the `loss`.

        Args:
            forward: The head's outputs, what the head computes from, and the model.
            batch: The targets, `valid` (b,), and `mix` where images were mixed.
        """
        raise NotImplementedError

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Factors of the terms in the training loss; 1 for a term without one."""
        return {}


def total_loss(task: Objective, terms: Terms) -> Array:
    """Return the training loss of each image, (b,): the weighted sum of its terms, from the first to the last."""
    weights = task.loss_weights
    first, *others = (weights[name] * term if name in weights else term for name, term in terms.items())
    # From left to right, so that rounding does not depend on how terms are gathered.
    return sum(others, first)
