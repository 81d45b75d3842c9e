"""Register the label sets that come with zoo."""

from __future__ import annotations

from importlib.resources import files

from zoo.labels import LABEL_SETS
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part


@hookimpl
def zoo_parts() -> list[Part]:
    texts = [file for file in files("zoo.labels").iterdir() if file.name.endswith(".txt")]
    rows = {file.name.removesuffix(".txt"): file for file in texts}
    return [Part(LABEL_SETS.name, name, rows[name], f"{_count(rows[name])} classes") for name in sorted(rows)]


def _count(file: object) -> int:
    return len(file.read_text("utf-8").splitlines())  # type: ignore[attr-defined]
