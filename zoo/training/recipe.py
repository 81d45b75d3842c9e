"""What a task does where it is told nothing, for as many images as there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from zoo.errors import ConfigError
from zoo.models.adapter import Adapter


@dataclass(frozen=True)
class OwnRecipe:
    """How a task trains where a user does not say, see `zoo.models.adapter.Adapter.recipe`.

    Attributes:
        plan: a preset. epochs: over all its phases, or as many as make up `steps` where that is more.
        steps: the least number of updates; few images would else be seen in too few of them. lr: peak learning rate of
            a new head, `HEAD_RATE` where None, and of rules; presets have a far lower one for what is pretrained.
        batch_size, weight_decay, ema: see `zoo.train`. augment: fields of `Augment`.
    """

    plan: str = "head+all"
    epochs: int = 10
    steps: int = 0
    lr: float | None = None
    batch_size: int = 32
    weight_decay: float = 0.01
    ema: float = 0.0
    augment: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, adapter: Adapter) -> OwnRecipe:
        """The recipe of an adapter. Raises `ConfigError` for what is no part of one."""
        known = [one.name for one in fields(cls)]
        if unknown := sorted(adapter.recipe.keys() - set(known)):
            raise ConfigError(
                f"the recipe of {type(adapter).__name__} has {', '.join(unknown)}; accepted: {', '.join(known)}. This "
                "is for the author of the task to correct."
            )
        return cls(**adapter.recipe)

    def epochs_for(self, updates: float) -> int:
        """How many epochs of so many updates."""
        return max(self.epochs, -int(-self.steps // updates))
