"""Parts that `zoo.models` registers: export formats."""

from __future__ import annotations

from zoo.models.points import EXPORTS, KEY_LAYOUTS
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part


@hookimpl
def zoo_parts() -> list[Part]:
    return [
        Part(EXPORTS.name, name, f"zoo.models.export:{name.upper()}", summary) for name, summary in KEY_LAYOUTS.items()
    ]
