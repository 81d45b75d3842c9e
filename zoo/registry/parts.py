"""Extension points: tables of parts that are chosen by name and that plugins, zoo's own and others, add to.

The code that uses parts declares a `Point`, which is a mapping from names to values:

    HEADS = Point("detector.head", "detector head", Method)
    HEADS["fcos"]                   # raises UnknownNameError with the nearest names
    list(HEADS)

A plugin adds a part with the hook `zoo_parts`: `Part("detector.head", "fcos", Method(...), "Summary in one line.")`. A
bare name means zoo's own part, whatever else is installed; `distribution/name` always works as well.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar

from zoo.errors import PluginError, UnknownNameError, unknown_name
from zoo.registry.annotations import NamesParts, annotation
from zoo.registry.loader import same_distribution
from zoo.registry.lookup import Registry, registry
from zoo.registry.resolve import split
from zoo.registry.spec import Part

T = TypeVar("T")


class Point(Mapping[str, T], NamesParts, Generic[T]):
    """An extension point, as a mapping from the names of its parts to their values.

    Args:
        name: two words with a dot between them: the user of the parts, and what they are, e.g. `detector.head`.
        noun: what one part is called in messages, e.g. `detector head`.
        kind: the type that values must have; None for any.
    """

    def __init__(self, name: str, noun: str, kind: type[T] | None = None) -> None:
        self.name, self.noun, self.kind = name, noun, kind
        self._registry: Registry | None = None
        self._names: list[str] = []
        self._values: dict[str, T] = {}

    def __repr__(self) -> str:
        return f"Point({self.name!r})"

    @property
    def plural(self) -> str:
        """What `zoo list` calls the parts."""
        return f"{self.name.partition('.')[2]}s"

    def key(self, name: str) -> str:
        """Return the registry's name of a part that is given as `name` or `distribution/name`."""
        distribution, slash, bare = name.rpartition("/")
        return f"{distribution}{slash}{self.name}:{bare}"

    def __getitem__(self, name: str) -> T:
        """Return the part called `name`.

        Raises:
            UnknownNameError: no plugin gives it; the message has the nearest names.
            PluginError: it cannot be imported, or it is not of the type that the point requires.
        """
        names = self._current()
        if name not in self._values:
            try:
                part = registry().part(self.key(name))
            except UnknownNameError:
                raise unknown_name(self.noun, name, names) from None
            self._values[name] = self._value(part)
        return self._values[name]

    def _current(self) -> list[str]:
        """Return the names of the parts. Names and values are cached until the registry of the process is reset."""
        if self._registry is not registry():
            self._registry, self._values = registry(), {}
            self._names = self._registry.part_names(self.name)
        return self._names

    def _value(self, part: Part) -> T:
        value = part.value
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            try:
                value = importlib.import_module(module)
                for name in filter(None, attribute.split(".")):
                    value = getattr(value, name)
            except Exception as error:
                raise PluginError(
                    f"the {self.noun} {part.id!r} cannot be loaded from {part.value}: {type(error).__name__}: {error}."
                ) from error
        if self.kind is not None and not isinstance(value, self.kind):
            raise PluginError(
                f"the {self.noun} {part.id!r} is {value!r}; the extension point {self.name} accepts a "
                f"{self.kind.__name__}."
            )
        return value

    def __contains__(self, name: object) -> bool:
        """Return whether `self[name]` finds a part; as there, `distribution/name` is accepted too."""
        if not isinstance(name, str):
            return False
        if name in self._current():
            return True
        # A part is listed under its bare name where that name means it; its qualified form is then not in the list.
        distribution, key = split(self.key(name))
        rows = registry().part_rows(self.name)
        return any(row.name == key and same_distribution(row.distribution, distribution) for row in rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def check(self, choice: str) -> None:
        """Raise as `self[name]` does unless the value of an option names parts that there are."""
        self[choice]

    def names_in(self, choice: str) -> list[str]:
        """Return the names of the parts that the value of an option names."""
        return [choice]

    def with_names(self, choice: str, rename: Callable[[str], str]) -> str:
        """Return the value of an option with other names for its parts."""
        return rename(choice)

    def summaries(self) -> dict[str, str]:
        """Return the summary of each part by name. Nothing is imported."""
        rows = registry().part_rows(self.name)
        return {name: row.data.get("summary", "") for name, row in zip(self, rows, strict=True)}


def points_of(cls: type) -> dict[str, Point[Any]]:
    """Return the fields of a dataclass that name a part (`field: Annotated[str, POINT]`), with their points."""
    return {
        option.name: point for option in fields(cls) for point in annotation(cls, option)[1] if isinstance(point, Point)
    }
