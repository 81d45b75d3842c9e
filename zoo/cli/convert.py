"""`zoo convert`: write a dataset in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import output
from zoo.cli.arguments import Annotations, Format, Json
from zoo.errors import ConfigError, counted

_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".h5", ".npz", ".onnx", ".msgpack", ".tflite")
"""Suffixes of files with weights."""


def convert(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Dataset: a folder or a file.")],
    to: Annotated[str, typer.Option("--to", help="Format to write. Names: {data.writer}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    format: Format = "",
    annotations: Annotations = "fix",
    link: Annotated[bool, typer.Option("--link", help="Link to the images instead of copying them.")] = False,
    as_json: Json = False,
) -> None:
    """Write a dataset in another format, with its splits, class names and ids."""
    if Path(source).suffix.lower() in _WEIGHTS and not Path(source).expanduser().is_dir():
        raise ConfigError(f"{source} is a file of weights; zoo convert writes datasets. Give a dataset.")
    from zoo.data.convert import convert_dataset

    done = convert_dataset(source, to, out, format=format or None, annotations=annotations, link=link)  # type: ignore[arg-type]
    for note in done.notes:
        output.note(note)
    if as_json:
        output.print_json(
            {
                "folder": str(done.folder),
                "format": done.format,
                "splits": dict(done.splits),
                "classes": list(done.classes),
                "notes": list(done.notes),
            }
        )
        return
    splits = ", ".join(f"{name} {count}" for name, count in done.splits.items())
    images = counted(sum(done.splits.values()), "image")
    classes = counted(len(done.classes), "class", "classes")
    output.line(f"written: {done.folder} ({done.format}), {images} ({splits}), {classes}")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(convert)
