"""What the fields of a dataclass are annotated with, also where the annotation is text (`from __future__`)."""

from __future__ import annotations

import sys
from dataclasses import Field
from typing import Annotated, Any, get_args, get_origin


def beside_type(cls: type, option: Field[Any]) -> tuple[Any, ...]:
    """What stands beside the type of a field in `Annotated[type, ...]`; nothing for other annotations."""
    hint: Any = option.type
    if isinstance(hint, str):
        if not hint.startswith("Annotated["):
            return ()
        hint = eval(hint, vars(sys.modules[cls.__module__]))
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()
