"""Check numbers that a user gives. Errors say what is accepted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Accepted:
    """The numbers that an option accepts. NaN is never accepted.

    Attributes:
        least: lower bound, itself accepted; None for no bound.
        above: lower bound, itself not accepted; None for no bound.
        below: upper bound, itself not accepted; None for no bound.
        whole: whether only integers are accepted.
        infinite: whether infinity is accepted.
    """

    least: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False
    infinite: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not _is_number(value, self.whole):
            return False
        number = float(value)  # type: ignore[arg-type]
        if math.isnan(number) or (math.isinf(number) and not self.infinite):
            return False
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        bounds = (("at least", self.least), ("above", self.above), ("below", self.below))
        text = " and ".join(f"{word} {bound:.12g}" for word, bound in bounds if bound is not None)
        return f"a {'whole' if self.whole else 'finite'} number" + (f" {text}" if text else "")


def _is_number(value: object, whole: bool) -> bool:
    # Scalars of numpy and jax have these methods, but most are neither int nor float.
    return hasattr(value, "__index__") or (not whole and hasattr(value, "__float__") and not isinstance(value, str))


def check_number(name: str, value: object, accepted: Accepted) -> None:
    """Raise `ConfigError` if the value of the option `name` is not accepted."""
    if value not in accepted:
        raise ConfigError(f"{name} is {value!r}; accepted: {accepted}.")


def check_finite(name: str, value: Any) -> None:
    """Raise `ConfigError` if a value, or any number in nested lists, is infinite or NaN."""
    for number in _floats(value):
        if not math.isfinite(number):
            raise ConfigError(f"{name} is {value!r}; accepted: finite numbers.")


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _floats(one)


def check_class_weights(weights: Sequence[float], labels: Sequence[str]) -> None:
    """Raise `ConfigError` for class weights that are negative, not finite, all zero, or not one for each class.

    The number of weights is not checked if `labels` is empty.
    """
    if labels and len(weights) != len(labels):
        raise ConfigError(
            f"there are {len(weights)} class_weights for {len(labels)} classes; give one weight for each class."
        )
    good = all(weight in Accepted(least=0) for weight in weights)
    if not good or not any(weights):
        raise ConfigError(f"class_weights are {weights}; give finite numbers of at least 0, not all of them 0.")


EPOCHS = Accepted(least=1, whole=True)
RATE = Accepted(above=0)
BATCH_SIZE = Accepted(least=1, whole=True)
SEED = Accepted(least=0, below=2**32, whole=True)
