"""Numbers that a user gives: each is of its kind, finite and in its range, or an error that says what is accepted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Accepted:
    """The numbers that an option takes. Not a number (nan) never is; infinity only where it is asked for.

    Attributes:
        least, above, below: bounds, None for none; `least` itself is accepted. whole: integers alone.
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
    # Numbers of numpy have the methods, but are neither int nor float.
    return hasattr(value, "__index__") or (not whole and hasattr(value, "__float__") and not isinstance(value, str))


def check_number(name: str, value: object, accepted: Accepted) -> None:
    """Raise `ConfigError` for a value that is not accepted."""
    if value not in accepted:
        raise ConfigError(f"{name} is {value!r}; accepted: {accepted}.")


def check_finite(name: str, value: Any) -> None:
    """Raise `ConfigError` where a number, or one in nested sequences, is infinite or not a number."""
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
    """Raise `ConfigError` for factors of the classes' losses that are not one for each class (where the classes are
    known), negative, not finite, or all zero."""
    if labels and len(weights) != len(labels):
        raise ConfigError(f"{len(weights)} class_weights for {len(labels)} classes; give one for each.")
    good = all(weight in Accepted(least=0) for weight in weights)
    if not good or not any(weights):
        raise ConfigError(f"class_weights are {weights}; give finite numbers from 0, not all of them 0.")


EPOCHS = Accepted(least=1, whole=True)
RATE = Accepted(above=0)
BATCH_SIZE = Accepted(least=1, whole=True)
SEED = Accepted(least=0, below=2**32, whole=True)
