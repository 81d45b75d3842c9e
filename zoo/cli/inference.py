"""`zoo evaluate`, `zoo predict`, `zoo export`: commands that use a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import output
from zoo.cli.arguments import (
    AcceptLicense,
    Annotations,
    Backbone,
    Dtype,
    Format,
    Json,
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
from zoo.errors import ConfigError, counted
from zoo.numbers import BATCH_SIZE, check_number

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.models.model import Model


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
    dtype: Dtype = "float32",
    image_size: Size = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write all predictions to, as JSON with the dataset's image and category ids."
        ),
    ] = None,
    accept_license: AcceptLicense = False,
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

    common = (set_, dtype, image_size, accept_license)
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
        predictions=out is not None,
    )
    if out is not None:
        for file in _write_json(model.adapter.results(evaluation.predictions, evaluation.dataset), out):
            output.note(f"written: {file}")
    for note in evaluation.notes:
        output.note(note)
    if as_json:
        output.print_json(evaluation.metrics)
        return
    output.print_metrics(evaluation.metrics, f"{counted(len(dataset), 'image')} of {dataset.name}")


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
    as_json: Json = False,
) -> None:
    """Predict labels, boxes or masks for images.

    Usage: `zoo predict RUN IMAGE [IMAGE ...]`, or `zoo predict IMAGE --backbone NAME --weights SOURCE`.
    """
    from zoo.data import list_images
    from zoo.data.image_names import as_images
    from zoo.data.left_out import left_out

    check_number("batch_size", batch_size, BATCH_SIZE)
    places, given = run_and_images(run, images, backbone)
    files = list_images(given)
    for folder in [path for path in (Path(place).expanduser() for place in given) if path.is_dir()]:
        if remark := left_out(folder, files):
            output.note(remark)
    pictures = output.picture_files(files, out, given) if out else []
    task = task or (task_of(backbone, weights) if backbone else "")
    model = model_of(places[0], backbone, weights, task, set_, dtype, image_size, accept_license)
    rasters = {name: output.picture_files(files, out / name, given) for name in model.adapter.rasters} if out else {}
    predictions = model.predict(files, batch_size=batch_size)

    if out is not None:
        data = as_images(files, given)
        for file in _write_results(model, predictions, files, pictures, rasters, out, data):
            output.note(f"written: {file}")
    if as_json:
        from zoo.models.task.output import plain

        rows = [plain(one) for one in predictions]
        for i, row in enumerate(rows if rasters else ()):
            row["written"] = {name: str(targets[i]) for name, targets in rasters.items()}
        output.print_json(rows)
        return
    table = model.adapter.table(predictions)
    output.print_table(table.columns, table.rows, right=table.right)


def _write_json(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write each value as NAME.json and return the files."""
    from zoo.errors import RunError
    from zoo.weights.disk import write_whole

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, values in results.items():
            write_whole(out / f"{name}.json", [output.json_text(values).encode()])
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from error
    return [out / f"{name}.json" for name in results]


def _write_results(
    model: Model,
    predictions: Sequence[Any],
    files: Sequence[Path],
    pictures: Sequence[Path],
    rasters: Mapping[str, Sequence[Path]],
    out: Path,
    data: Dataset,
) -> list[Path]:
    """Write predictions. Returns the JSON files, and one glob for each folder of pictures and rasters."""
    from PIL import Image

    from zoo.data import decode
    from zoo.errors import RunError

    written, drawn = _write_json(model.adapter.results(predictions, data), out), False
    try:
        for name, targets in rasters.items():
            for prediction, target in zip(predictions, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                model.adapter.rasters[name](prediction).save(target)
        for file, prediction, target in zip(files, predictions, pictures, strict=True):
            picture = model.adapter.picture(decode(file), prediction)
            if picture is None:
                break
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(target, compress_level=3)
            drawn = True
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from error
    folders = [*([(out, pictures)] if drawn else []), *((out / name, targets) for name, targets in rasters.items())]
    deep = {folder for folder, targets in folders if any(target.parent != folder for target in targets)}
    return [*written, *(folder / "**" / "*.png" if folder in deep else folder / "*.png" for folder, _ in folders)]


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
    for command in (evaluate, predict, export):
        app.command(command.__name__)(command)
