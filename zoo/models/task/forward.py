"""One pass of a batch through a model, which the loss and the decoding of a task share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax import Array

    from zoo.models.model import Model


@dataclass
class ForwardPass:
    """A batch on its way through a model.

    Attributes:
        model: The model, in training or evaluation mode.
        reduced: What the head computes from: `head.reduce` of the backbone's features, or the same from the cache.
    """

    model: Model
    reduced: Mapping[str, Array]

    @cached_property
    def outputs(self) -> Any:
        """The head's outputs in float32, computed when they are first read.

        A task that calls the head in its own way, such as a second stage that is fed the truth, does not pay for them.
        """
        return self.model.outputs(self.reduced)
