"""Extension points whose parts are chosen together, as a weighted sum such as `ce+0.5*dice`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from zoo.errors import ConfigError
from zoo.registry.parts import Point

T = TypeVar("T")


class Term(NamedTuple, Generic[T]):
    """One term of a weighted sum.

    Attributes:
        factor: A number above 0.
        name: The part's name.
        value: The part.
    """

    factor: float
    name: str
    value: T


class SumPoint(Point[T]):
    """An extension point whose options name a weighted sum of parts: `ce`, `ce+dice`, `ce+0.5*dice`."""

    choice = "a weighted sum of"

    def terms(self, text: str) -> tuple[Term[T], ...]:
        """Return the terms of a sum, in its order.

        Raises:
            UnknownNameError: For a name that no part has, with the nearest names.
            ConfigError: For a factor that is not a number above 0, or a part that is named twice.
        """
        found = []
        for term in _split(text):
            factor, times, name = term.rpartition("*")
            value = self[name]
            try:
                number = float(factor) if times else 1.0
            except ValueError:
                number = math.nan
            if not (number > 0 and math.isfinite(number)):
                raise ConfigError(
                    f"{self.noun} {term!r}: {factor!r} is not a number above 0. Write the factor before the name, such "
                    f"as 0.5*{name}."
                )
            found.append(Term(number, name, value))
        names = [term.name for term in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{self.noun} {text!r} names {twice[0]} twice. Give it a factor instead: 2*{twice[0]}.")
        return tuple(found)

    def check(self, choice: str) -> None:
        self.terms(choice)

    def names_in(self, choice: str) -> list[str]:
        return [term.rpartition("*")[2] for term in _split(choice)]

    def with_names(self, choice: str, rename: Callable[[str], str]) -> str:
        pieces = (term.rpartition("*") for term in _split(choice))
        return "+".join(f"{factor}{times}{rename(name)}" for factor, times, name in pieces)


def _split(text: str) -> list[str]:
    return text.replace(" ", "").split("+")
