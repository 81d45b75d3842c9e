"""Parts that `zoo.data` registers: the data formats, those that can be written, and one augmentation."""

from __future__ import annotations

import importlib
import pkgutil

from zoo.data import readers, writers
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part


@hookimpl
def zoo_parts() -> list[Part]:
    formats = []
    for package, point in ((readers, readers.FORMATS), (writers, writers.WRITERS)):
        names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
        modules = map(importlib.import_module, names)
        formats += [Part(point.name, module.NAME, module, module.LAYOUT) for module in modules]
    erasing = "Random erasing: noise in a random rectangle, in a quarter of the images (arXiv:1708.04896)."
    return [*formats, Part("augment.operation", "erasing", "zoo.data.operations:ERASING", erasing)]
