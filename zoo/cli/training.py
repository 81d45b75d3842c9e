"""`zoo train`, `zoo evaluate`, `zoo predict`, `zoo export`: the verbs of the Python API, word for word."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo import settings
from zoo.cli import output
from zoo.cli.config import values, with_flags
from zoo.errors import ConfigError
from zoo.numbers import BATCH_SIZE, Accepted, check_number
from zoo.training.config import OPTIONS, TrainConfig

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.models.model import Model
    from zoo.models.saved import Saved
    from zoo.training.run import Run

Backbone = Annotated[
    str, typer.Option("--backbone", help="Architecture, arch.tag, or a named model; see `zoo list backbones`.")
]
Weights = Annotated[
    str, typer.Option("--weights", help="A safetensors file, a folder with one, a run, or hf://org/repo[@revision].")
]
Task = Annotated[str, typer.Option("--task", help="Task adapter. Without it, the one that learns from such data.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the adapter, the backbone or the preprocessing; task.KEY, backbone.KEY or preprocess.KEY "
        "where several have it.",
    ),
]
Format = Annotated[str, typer.Option("--format", help="Format of the data, where its layout does not tell.")]
AcceptLicense = Annotated[
    bool, typer.Option("--accept-license", help="Take weights whose licence forbids commercial use.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Arithmetic: float32 or bfloat16.")]
Annotations = Annotated[
    str, typer.Option("--annotations", help="What becomes of faulty boxes and masks: fix, drop (leave out) or error.")
]
Size = Annotated[
    int | None, typer.Option("--image-size", help="Side of the images in pixels, in place of the weights' own.")
]


def options(given: list[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` items as a dict; a value is read as JSON where it is JSON, else as text."""
    found: dict[str, Any] = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item!r} is not KEY=VALUE, e.g. --set dropout=0.2.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def model_options(given: list[str] | None, **own: Any) -> dict[str, Any]:
    """Arguments of `zoo.create`: those that a command decides itself, and the `KEY=VALUE` items, which name others."""
    chosen = options(given)
    if twice := sorted(own.keys() & chosen.keys()):
        raise ConfigError(
            f"--set {twice[0]} is not possible: the data or an option of the command's own, such as --dtype, decide "
            "that. See --help."
        )
    return {**own, **chosen}


@with_flags(OPTIONS)
def train(
    data: Annotated[str, typer.Argument(help="Folder or file with the data.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder: new, or empty.")],
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random values, not pretrained ones.")] = False,
    dtype: Dtype = "float32",
    image_size: Size = None,
    accept_license: AcceptLicense = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Train a model on DATA and write a run folder. With `--weights RUN`, go on with a finished run."""
    chosen = values(OPTIONS, flags)
    creation = model_options(
        set_,
        weights=weights or None,
        pretrained=not scratch,
        labels=None,
        image_size=image_size,
        dtype=dtype,
        seed=chosen["seed"],
        accept_license=accept_license,
    )
    _refuse_occupied(out, chosen["resume"])
    config = TrainConfig(out=out, **chosen)
    if image_size is not None:
        check_number("image_size", image_size, Accepted(least=1, whole=True))
    settings.keep_compiled_programs()
    before = _saved(weights)
    if not backbone:
        if before is None:
            raise ConfigError(
                "give --backbone NAME (see `zoo list backbones`), or --weights RUN to go on with a finished run."
            )
        backbone, task = before.card.qualified("backbone"), task or before.card.qualified("adapter")
    model, splits = _model_for_data(data, backbone, task, creation, config, before)
    for note in model.card.notes:
        output.note(note)
    run = _run(model, splits, config)
    if as_json:
        output.print_json(run.metrics)
        return
    _print_metrics(run.metrics, f"best epoch {run.metrics['best_epoch']} of {run.metrics['epochs']}")
    verbs = f"zoo predict {out} PHOTO, zoo evaluate {out} DATA, zoo export {out} --format timm"
    print(f"\nrun folder: {out}\nnext: {run.model.adapter.next_step(out) or verbs}")


def _model_for_data(
    data: str, backbone: str, task: str, creation: dict[str, Any], config: TrainConfig, before: Saved | None
) -> tuple[Model, dict[str, Dataset]]:
    """Read the data and make a model with its classes. Options are refused before data are read."""
    import zoo
    from zoo.data import read
    from zoo.models.create import check_options
    from zoo.training.data import training_splits

    if task:
        check_options(backbone, task, creation)
    splits = read(data, config.format, _kinds_of(task))
    pool, _ = training_splits(splits, config.val_fraction, config.seed)
    return zoo.create(backbone, task or _task_for(pool.kind, before), **{**creation, "labels": pool.classes}), splits


def _run(model: Model, data: dict[str, Dataset], config: TrainConfig) -> Run:
    """Train; a signal ends the command with its usual code, and what to do to go on."""
    import zoo
    from zoo.training.session import Interrupted

    try:
        return zoo.train(model, data, config)
    except Interrupted as stop:
        output.note(f"stopped; go on with the same command and --resume (run folder {config.out})")
        raise typer.Exit(128 + stop.number) from None


def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder, saved model or hf://org/repo; or only DATA.")],
    data: Annotated[str, typer.Argument(help="Folder or file with the data.")] = "",
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    split: Annotated[str, typer.Option("--split", help="Part of the data; else test, val or all there is.")] = "",
    format: Format = "",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images at once.")] = 32,
    annotations: Annotations = "fix",
    dtype: Dtype = "float32",
    image_size: Size = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for all that was predicted, as JSON with the data's own numbers."),
    ] = None,
    accept_license: AcceptLicense = False,
    as_json: Json = False,
) -> None:
    """Figures of a model on DATA: `zoo evaluate RUN DATA`, or `zoo evaluate --backbone NAME --weights SOURCE DATA`."""
    from zoo.data import read

    check_number("batch_size", batch_size, BATCH_SIZE)
    places = [place for place in (run, data) if place]
    if len(places) != (1 if backbone else 2):
        raise ConfigError("give RUN and DATA, or --backbone NAME [--weights SOURCE] and DATA.")
    from zoo.training.data import evaluation_split

    common = (set_, dtype, image_size, accept_license)
    before = _saved(weights) if backbone else None
    model = None if backbone else _model(places[0], backbone, weights, task, *common)
    kinds = model.adapter.targets_from if model else _kinds_of(task)
    part = evaluation_split(read(places[-1], format or None, kinds), split or None)
    model = model or _model(places[0], backbone, weights, task or _task_for(part.kind, before), *common)
    from zoo.training import evaluate as run_evaluation

    found = run_evaluation(
        model,
        part,
        batch_size=batch_size,
        annotations=annotations,  # type: ignore[arg-type]
        predictions=out is not None,
    )
    if out is not None:
        for file in _write_json(model.adapter.results(found.predictions, found.dataset), out):
            output.note(f"written: {file}")
    for note in found.notes:
        output.note(note)
    if as_json:
        output.print_json(found.metrics)
        return
    _print_metrics(found.metrics, f"{len(part)} images of {part.name}")


def predict(
    run: Annotated[str, typer.Argument(help="Run folder, saved model or hf://org/repo; or the first image.")],
    images: Annotated[list[str] | None, typer.Argument(help="Photos, or folders of them.")] = None,
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images at once.")] = 32,
    dtype: Dtype = "float32",
    image_size: Size = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for what was found: JSON, and pictures where it can be drawn.")
    ] = None,
    accept_license: AcceptLicense = False,
    as_json: Json = False,
) -> None:
    """What a model sees in photos: `zoo predict RUN IMAGE...`, or with `--backbone NAME --weights SOURCE` for RUN."""
    from zoo.data import list_images
    from zoo.data.left_out import left_out

    check_number("batch_size", batch_size, BATCH_SIZE)
    places = [run, *(images or [])]
    photos = places if backbone else places[1:]
    if not photos:
        raise ConfigError("give RUN and at least one photo or folder, or --backbone NAME and photos.")
    files = list_images(photos)
    for folder in [Path(photo).expanduser() for photo in photos if Path(photo).expanduser().is_dir()]:
        if said := left_out(folder, files):
            output.note(said)
    pictures = output.picture_files(files, out) if out else []
    own = task or (_own_task(backbone, weights) if backbone else "")
    model = _model(places[0], backbone, weights, own, set_, dtype, image_size, accept_license)
    rasters = {name: output.picture_files(files, out / name) for name in model.adapter.rasters} if out else {}
    found = model.predict(files, batch_size=batch_size)

    if out is not None:
        for file in _write_results(model, found, files, pictures, rasters, out):
            output.note(f"written: {file}")
    if as_json:
        import msgspec

        output.print_json(msgspec.to_builtins(found))
        return
    table = model.adapter.table(found)
    output.print_table(table.columns, table.rows, right=table.right)


def _write_json(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write each value as NAME.json."""
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
    found: Sequence[Any],
    files: Sequence[Path],
    pictures: Sequence[Path],
    rasters: Mapping[str, Sequence[Path]],
    out: Path,
) -> list[Path]:
    """Write what a task sees in photos: the files, and of the pictures and rasters only the folders."""
    from PIL import Image

    from zoo.data import decode
    from zoo.errors import RunError

    written, drawn = _write_json(model.adapter.results(found), out), False
    try:
        for name, targets in rasters.items():
            (out / name).mkdir(exist_ok=True)
            for prediction, target in zip(found, targets, strict=True):
                model.adapter.rasters[name](prediction).save(target)
        for file, prediction, target in zip(files, found, pictures, strict=True):
            picture = model.adapter.picture(decode(file), prediction)
            if picture is None:
                break
            Image.fromarray(picture).save(target, compress_level=3)
            drawn = True
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from error
    folders = [*([out] if drawn else []), *(out / name for name in rasters)]
    return [*written, *(folder / "*.png" for folder in folders)]


def export(
    run: Annotated[str, typer.Argument(help="Run folder, saved model or hf://org/repo.")],
    format: Annotated[str, typer.Option("--format", help="Key layout: timm, torchvision, ...")] = "timm",
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; RUN/export-FORMAT without it.")] = None,
) -> None:
    """Write a model as other libraries read it: safetensors and config.json."""
    from zoo.models.export import export as write
    from zoo.models.store import load

    target = out or Path(run) / f"export-{format}"
    print(write(load(run), target, format=format))


def _print_metrics(metrics: dict[str, Any], title: str) -> None:
    """The single metrics, then those of each class where there are not too many."""
    print(title)
    single = {k: v for k, v in metrics.items() if isinstance(v, float) and k != "seconds"}
    output.print_table(
        ("metric", "value"), [(name, f"{value:.4f}") for name, value in single.items()], right=("value",)
    )
    classes = metrics.get("per_class", {})
    if 0 < len(classes) <= 20:
        print()
        columns = list(next(iter(classes.values())))
        rows = [
            (name, *(f"{row[c]:.3f}" if isinstance(row[c], float) else row[c] for c in columns))
            for name, row in classes.items()
        ]
        output.print_table(("class", *columns), rows, right=tuple(columns))
    if "test" in metrics:
        print()
        _print_metrics(metrics["test"], "test data")


def _refuse_occupied(out: Path, resume: bool) -> None:
    """Say at once, before anything is imported or read, that the run folder cannot be used."""
    from zoo.errors import RunError

    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not empty: choose another --out, delete it, or go on with --resume.")


def _saved(weights: str) -> Saved | None:
    """What a saved model or a run says of itself; None for other weights, and for none."""
    if not weights:
        return None
    from zoo.models.saved import saved
    from zoo.weights.fetch import fetch
    from zoo.weights.file import read

    return saved(read(fetch(weights).path))


def _task_for(kind: str, before: Saved | None = None) -> str:
    """The task that learns from such data: that of the saved model to go on with where it does, else zoo's own, else
    the only one of other plugins. Raises `ConfigError` when none or several do."""
    from zoo.registry import registry

    if before and kind in _kinds_of(name := before.card.qualified("adapter")):
        return name
    fitting = [name for name, spec in registry().adapters().items() if kind in spec.adapter.targets_from]
    own = [name for name in fitting if name in registry().own_names("adapters")]
    if len(own or fitting) != 1:
        raise ConfigError(f"{len(fitting)} tasks learn from {kind} data ({', '.join(fitting)}); name one with --task.")
    return (own or fitting)[0]


def _kinds_of(task: str) -> tuple[str, ...]:
    """The kinds of data that a task learns from; none for no task or an unknown one."""
    from zoo.registry import registry

    known = any(task in (row.name, row.qualified) for row in registry().rows("adapters"))
    return registry().adapter(task).adapter.targets_from if known else ()


def _own_task(name: str, weights: str) -> str:
    """The task that weights are for: a saved model's or a named model's own; for a bare backbone's, the one that takes
    over the checkpoint's classifier."""
    from zoo.registry import registry

    if before := _saved(weights):
        return before.card.qualified("adapter")
    return registry().parts_of(name)[1] if registry().means_model(name) else _task_for("class")


def _model(
    run: str,
    backbone: str,
    weights: str,
    task: str,
    set_: list[str] | None,
    dtype: str,
    image_size: int | None,
    accept_license: bool,
) -> Model:
    import zoo

    settings.keep_compiled_programs()
    if not backbone:
        if weights:
            raise ConfigError("--weights goes with --backbone; a run has its own.")
        model = zoo.load(run)
        for note in model.card.notes:
            output.note(note)
        return model.adjusted(**options(set_)) if set_ else model
    chosen = model_options(
        set_, weights=weights or None, image_size=image_size, dtype=dtype, accept_license=accept_license
    )
    model = zoo.create(backbone, task, **chosen)
    for note in model.card.notes:
        output.note(note)
    return model


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (train, evaluate, predict, export):
        app.command(command.__name__)(command)
