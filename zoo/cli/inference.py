"""`zoo evaluate`, `zoo predict`, `zoo export`: commands that use a trained model."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from zoo import settings
from zoo.cli import output
from zoo.cli.adjusting import AdjustingCommand
from zoo.cli.arguments import (
    AcceptLicense,
    Annotations,
    Backbone,
    Background,
    Dtype,
    Format,
    IgnoreTensors,
    Json,
    OnCorrupt,
    Set,
    Size,
    Task,
    Weights,
    check_run,
    kinds_of,
    model_of,
    run_and_images,
    saved_model,
    task_for,
    task_of,
)
from zoo.cli.results import SOME_FAILED, Results, write_json
from zoo.errors import ConfigError, counted
from zoo.numbers import BATCH_SIZE, check_number


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run directory, saved model or hf://org/repo. With --backbone: DATA.")
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Dataset: a folder or a file.")] = "",
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    split: Annotated[
        str, typer.Option("--split", help="Split to evaluate. Default: test, else val, else all data.")
    ] = "",
    format: Format = "",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch.")] = 32,
    annotations: Annotations = "fix",
    on_corrupt: OnCorrupt = "error",
    dtype: Dtype = "float32",
    image_size: Size = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write all predictions to, as JSON with the dataset's image and category ids."
        ),
    ] = None,
    accept_license: AcceptLicense = False,
    ignore_tensors: IgnoreTensors = None,
    background: Background = "",
    as_json: Json = False,
) -> None:
    """Print the metrics of a model on DATA.

    Usage: `zoo evaluate RUN DATA`, or `zoo evaluate DATA --backbone NAME --weights SOURCE`.
    """
    from zoo.data import read

    check_number("batch_size", batch_size, BATCH_SIZE)
    places = [place for place in (run, data) if place]
    if len(places) != (1 if backbone else 2):
        raise ConfigError("give RUN and DATA, or --backbone NAME [--weights SOURCE] and DATA.")
    from zoo.training.data import evaluation_split

    common = (set_, dtype, image_size, accept_license, ignore_tensors, background)
    before = saved_model(weights) if backbone else None
    model = None if backbone else model_of(places[0], backbone, weights, task, *common)
    kinds = model.adapter.targets_from if model else kinds_of(task)
    dataset = evaluation_split(read(places[-1], format or None, kinds), split or None)
    model = model or model_of(places[0], backbone, weights, task or task_for(dataset.kind, before), *common)
    from zoo.training import evaluate as run_evaluation

    evaluation = run_evaluation(
        model,
        dataset,
        batch_size=batch_size,
        annotations=annotations,  # type: ignore[arg-type]
        on_corrupt=on_corrupt,  # type: ignore[arg-type]
        predictions=out is not None,
    )
    if out is not None:
        for file in write_json(model.adapter.results(evaluation.predictions, evaluation.dataset), out):
            output.note(f"written: {file}")
    for note in evaluation.notes:
        output.note(note)
    if as_json:
        output.print_json(evaluation.metrics)
        return
    output.print_metrics(evaluation.metrics, f"{counted(len(evaluation.dataset), 'image')} of {dataset.name}")


def predict(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Run directory, saved model or hf://org/repo. With --backbone: an image."),
    ],
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="Images, or folders of images.")] = None,
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch.")] = 32,
    dtype: Dtype = "float32",
    image_size: Size = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write predictions to: JSON, and images (masks, drawings) if the task has any."
        ),
    ] = None,
    accept_license: AcceptLicense = False,
    ignore_tensors: IgnoreTensors = None,
    background: Background = "",
    as_json: Json = False,
) -> None:
    """Predict labels, boxes or masks for images.

    An image that cannot be predicted does not stop the others: it is named, and the exit code is 3.

    Usage: `zoo predict RUN IMAGE [IMAGE ...]`, or `zoo predict IMAGE --backbone NAME --weights SOURCE`.
    """
    from zoo.data import list_images
    from zoo.data.image_names import as_images
    from zoo.data.left_out import left_out

    check_number("batch_size", batch_size, BATCH_SIZE)
    places, given = run_and_images(run, images, backbone)
    files = list_images(given, strict=False)
    for folder in [path for path in (settings.expanded(place) for place in given) if path.is_dir()]:
        if remark := left_out(folder, files):
            output.note(remark)
    pictures = output.picture_files(files, out, given) if out else []
    task = task or (task_of(backbone, weights) if backbone else "")
    model = model_of(
        places[0], backbone, weights, task, set_, dtype, image_size, accept_license, ignore_tensors, background
    )
    rasters = {name: output.picture_files(files, out / name, given) for name in model.adapter.rasters} if out else {}
    results = Results(model, files, out, pictures, rasters)
    try:
        for row in model.predict_each(files, batch_size=batch_size):
            results.add(row)
    except KeyboardInterrupt:
        if out is not None and results.predictions:
            results.write(as_images(files, given))
        output.note(f"stopped after {results.done} of {counted(len(files), 'image')}.")
        raise typer.Exit(128 + signal.SIGINT) from None
    if len(results.errors) == len(files):
        raise results.failure()
    if out is not None:
        for file in results.write(as_images(files, given)):
            output.note(f"written: {file}")
    if as_json:
        output.print_json(results.plain())
    else:
        table = model.adapter.table(results.predictions)
        output.print_table(table.columns, table.rows, right=table.right)
    if results.errors:
        output.note(f"{len(results.errors)} of {counted(len(files), 'image')} could not be predicted.")
        raise typer.Exit(SOME_FAILED)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, saved model or hf://org/repo.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Export format. Names: {model.export}. Or another key layout of the family, see `zoo show BACKBONE`.",
        ),
    ] = "timm",
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write. Default: RUN/export-FORMAT.")] = None,
) -> None:
    """Export a model for other programs. The key layouts of other libraries are safetensors and config.json."""
    from zoo.models.export import export as write
    from zoo.models.store import load

    check_run(run)
    target = out or Path(run) / f"export-{format.replace('/', '-')}"
    output.line(write(load(run), target, format=format))


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (evaluate, predict):
        app.command(command.__name__, cls=AdjustingCommand)(command)
    app.command()(export)
