"""Data on disk to `Dataset`s. One file a format, each with `NAME`, `LAYOUT` (one line for people), `detect(path)`
and `read(path)`; a new format is one new file here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from zoo.data.dataset import Dataset
from zoo.data.files import describe
from zoo.errors import DataError, unknown_name


@cache
def formats() -> dict[str, ModuleType]:
    """The known formats: name -> module, in the order of their names."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.NAME: module for module in sorted(modules, key=lambda module: module.NAME)}


def format_for(kinds: Sequence[str]) -> str | None:
    """The format to read data in for a task that learns from these kinds, where that alone decides: any folder of
    images will do for a task that needs nothing but images."""
    return "images" if tuple(kinds) == ("images",) else None


def read(path: str | Path, format: str | None = None) -> dict[str, Dataset]:
    """The data sets at `path`: split name (`train`, `val`, `test`, as found) -> data set, or the single key `all`.

    Args:
        path: a folder or a file.
        format: name of the format; by default it is recognised by the layout.

    Raises:
        DataError: nothing is there, no known layout fits, or more than one does.
        UnknownNameError: `format` is not a known one.
    """
    path = Path(path).expanduser()
    if format is not None and format not in formats():
        raise unknown_name("data format", format, formats())
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a folder or a file with data.")
    return (formats()[format] if format else _recognise(path)).read(path)


def _recognise(path: Path) -> ModuleType:
    fitting = [module for module in formats().values() if module.detect(path)]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"{path} holds {describe(path)}" if path.is_dir() else f"{path} is a single file"
    if fitting:
        names = ", ".join(module.NAME for module in fitting)
        raise DataError(f"{seen}, which fits several formats: {names}. Name the one that is meant as the format.")
    layouts = "; ".join(f"{module.NAME}: {module.LAYOUT}" for module in formats().values())
    raise DataError(f"{seen}, which is no known layout of data. Known layouts: {layouts}.")
