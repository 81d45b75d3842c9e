"""`zoo train`: the same options as `zoo.train` in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo import settings
from zoo.cli import output
from zoo.cli.arguments import (
    AcceptLicense,
    Backbone,
    Background,
    Dtype,
    IgnoreTensors,
    Json,
    Set,
    Size,
    Task,
    Weights,
    background_option,
    kinds_of,
    model_options,
    saved_model,
    task_for,
)
from zoo.cli.config import values, with_flags
from zoo.errors import ConfigError
from zoo.numbers import Accepted, check_number
from zoo.training.config import OPTIONS, TrainConfig
from zoo.training.lock import require_usable

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.models.model import Model
    from zoo.models.saved import Saved
    from zoo.training.run import Run


@with_flags(OPTIONS)
def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Dataset: a folder or a file.")],
    out: Annotated[Path, typer.Option("--out", help="Run directory to write; new or empty.")],
    backbone: Backbone = "",
    weights: Weights = "",
    task: Task = "",
    set_: Set = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random parameters instead of pretrained ones.")
    ] = False,
    dtype: Dtype = "float32",
    image_size: Size = None,
    accept_license: AcceptLicense = False,
    ignore_tensors: IgnoreTensors = None,
    background: Background = "",
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Train a model on DATA and write a run directory. Start from a finished run with --weights RUN."""
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
        ignore_tensors=ignore_tensors or (),
        **background_option(background),
    )
    require_usable(out, resume=chosen["resume"])  # before anything heavy is imported or read
    config = TrainConfig(out=out, **chosen)
    if image_size is not None:
        check_number("image_size", image_size, Accepted(least=1, whole=True))
    settings.start_jax()
    before = saved_model(weights)
    if not backbone:
        if before is None:
            raise ConfigError(
                "no backbone: give --backbone NAME (see `zoo list backbones`), or --weights RUN to start from a "
                "finished run."
            )
        backbone, task = before.card.qualified("backbone"), task or before.card.qualified("adapter")
    model, splits = _model_for_data(data, backbone, task, creation, config, before)
    for note in model.card.notes:
        output.note(note)
    run = _run(model, splits, config)
    if as_json:
        output.print_json(run.metrics)
        return
    output.print_metrics(run.metrics, f"best epoch {run.metrics['best_epoch']} of {run.metrics['epochs']}")
    verbs = f"zoo predict {out} IMAGE, zoo evaluate {out} DATA, zoo export {out} --format timm"
    print()
    output.line(f"run directory: {out}")
    output.line(f"next: {run.model.adapter.next_step(out) or verbs}")


def _model_for_data(
    data: str, backbone: str, task: str, creation: dict[str, Any], config: TrainConfig, before: Saved | None
) -> tuple[Model, dict[str, Dataset]]:
    """Read the data and create a model with its classes. Wrong options raise before the data are read."""
    import zoo
    from zoo.data import read
    from zoo.models.create import check_options
    from zoo.training.data import training_pool

    if task:
        check_options(backbone, task, creation)
    splits = read(data, config.format, kinds_of(task))
    pool = training_pool(splits)
    return zoo.create(backbone, task or task_for(pool.kind, before), **{**creation, "labels": pool.classes}), splits


def _run(model: Model, data: dict[str, Dataset], config: TrainConfig) -> Run:
    """Train. A signal ends the command with the signal's exit code and a note on how to resume."""
    import zoo
    from zoo.training.session import Interrupted

    try:
        return zoo.train(model, data, config)
    except Interrupted as stop:
        output.note(f"stopped; to resume, repeat the command with --resume (run directory {config.out})")
        raise typer.Exit(128 + stop.number) from None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(train)
