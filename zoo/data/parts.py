"""What the data room adds to extension points: the formats that zoo reads."""

from __future__ import annotations

import importlib
import pkgutil

from zoo.data import readers
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part


@hookimpl
def zoo_parts() -> list[Part]:
    names = [f"{readers.__name__}.{found.name}" for found in pkgutil.iter_modules(readers.__path__)]
    modules = map(importlib.import_module, names)
    formats = [Part(readers.FORMATS.name, module.NAME, module, module.LAYOUT) for module in modules]
    erasing = "A quarter of the images has noise in a rectangle (arXiv:1708.04896)."
    return [*formats, Part("augment.operation", "erasing", "zoo.data.operations:ERASING", erasing)]
