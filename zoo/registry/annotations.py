"""Read the `Annotated` types of dataclass fields, also if annotations are postponed (stored as text)."""

from __future__ import annotations

import sys
from dataclasses import Field
from typing import Annotated, Any, get_args, get_origin


class NamesParts:
    """Metadata of an option that names parts of an extension point; see `zoo.registry.parts.Point`.

    Attributes:
        name: The extension point's name.
        choice: What stands before the names of the parts where the values of the option are listed.
    """

    name: str
    choice = ""


def annotation(cls: type, option: Field[Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return the type of a field and its `Annotated` metadata (empty for other annotations).

    Args:
        cls: the dataclass.
        option: one of its fields; it may be inherited.
    """
    hint: Any = option.type
    if isinstance(hint, str) and hint.startswith("Annotated["):
        # The names in the text belong to the module that declares the field. For an inherited field this is the module
        # of the base class.
        owner = next(base for base in cls.__mro__ if option.name in vars(base).get("__annotations__", {}))
        hint = eval(hint, vars(sys.modules[owner.__module__]))
    if get_origin(hint) is not Annotated:
        return hint, ()
    kind, *metadata = get_args(hint)
    return kind, tuple(metadata)
