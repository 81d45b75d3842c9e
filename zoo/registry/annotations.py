"""Read `Annotated` types of dataclass fields. Postponed annotations (text) are understood, too."""

from __future__ import annotations

import sys
from dataclasses import Field
from typing import Annotated, Any, get_args, get_origin


def annotation(cls: type, option: Field[Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return the type of a field and its `Annotated` metadata, which is empty for any other annotation.

    Args:
        cls: The dataclass.
        option: One of its fields, perhaps inherited.
    """
    hint: Any = option.type
    if isinstance(hint, str) and hint.startswith("Annotated["):
        # The names in the text are those of the module that declares the field, which may be a base class's.
        owner = next(base for base in cls.__mro__ if option.name in vars(base).get("__annotations__", {}))
        hint = eval(hint, vars(sys.modules[owner.__module__]))
    if get_origin(hint) is not Annotated:
        return hint, ()
    kind, *metadata = get_args(hint)
    return kind, tuple(metadata)
