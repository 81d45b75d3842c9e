"""Arguments that several commands share, and the model that they describe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo import settings
from zoo.cli import output
from zoo.errors import ConfigError, FetchError

if TYPE_CHECKING:
    from zoo.models.model import Model
    from zoo.models.saved import Saved

Backbone = Annotated[
    str,
    typer.Option("--backbone", help="Backbone (resnet18), weights (arch.tag) or model; see `zoo list backbones`."),
]
Weights = Annotated[
    str,
    typer.Option("--weights", help="A safetensors file, a folder with one, a run directory, or hf://org/repo[@rev]."),
]
Task = Annotated[
    str, typer.Option("--task", help="Task, see `zoo list tasks`. Default: the task that fits the data or the weights.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set an option of the task, the backbone or the preprocessing; may be repeated. Write task.KEY, "
        "backbone.KEY or preprocess.KEY if several have it.",
    ),
]
Format = Annotated[
    str, typer.Option("--format", help="Dataset format, see `zoo list formats`. Default: detected from the files.")
]
Background = Annotated[
    str,
    typer.Option(
        "--background",
        help="What transparent images are composed on: white, black, R,G,B, or drop (ignore the transparency). "
        "Default: white. It is kept with the model.",
    ),
]
IgnoreTensors = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-tensors",
        metavar="PATTERN",
        help="Tensors of the weights to leave out, such as 'criterion.*'; may be repeated.",
    ),
]
AcceptLicense = Annotated[
    bool, typer.Option("--accept-license", help="Use weights even if their licence forbids commercial use.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Computation type: float32 or bfloat16.")]
Annotations = Annotated[
    str, typer.Option("--annotations", help="Treatment of faulty boxes and masks: fix, drop (leave out) or error.")
]
OnCorrupt = Annotated[
    str, typer.Option("--on-corrupt", help="Treatment of images and masks that cannot be read: error or skip.")
]
Size = Annotated[
    int | None, typer.Option("--image-size", help="Image side in pixels. Default: the size the weights were made for.")
]

_FLAGS = {
    "image_size": "--image-size",
    "dtype": "--dtype",
    "weights": "--weights",
    "seed": "--seed",
    "ignore_tensors": "--ignore-tensors",
    "background": "--background",
    "accept_license": "--accept-license",
    "pretrained": "--scratch",
}
"""Arguments of `zoo.create` that have an option of their own on the command line."""


def options(items: list[str] | None) -> dict[str, Any]:
    """Return `KEY=VALUE` items as a dict. A value is read as JSON if it is JSON, otherwise as text."""
    values: dict[str, Any] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item!r} is not KEY=VALUE, e.g. --set dropout=0.2.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        if key in values and values[key] != parsed:
            raise ConfigError(f"{key} is given twice, as {values[key]!r} and as {parsed!r}. Give it once.")
        values[key] = parsed
    return values


def model_options(items: list[str] | None, **decided: Any) -> dict[str, Any]:
    """Return the arguments of `zoo.create`: those that the command decides, and the others from `KEY=VALUE` items."""
    chosen = options(items)
    if twice := sorted(decided.keys() & chosen.keys()):
        name = twice[0]
        advice = f"use {_FLAGS[name]}" if name in _FLAGS else "the data decide it"
        raise ConfigError(f"--set {name} is not possible: {advice}.")
    return {**decided, **chosen}


def background_option(background: str) -> dict[str, str]:
    """Return the argument of `zoo.create` for `--background`; none if it was not given."""
    return {"preprocess.background": background} if background else {}


def run_and_images(run: str, images: list[str] | None, backbone: str) -> tuple[list[str], list[str]]:
    """Return the positional arguments of a command on images, and those of them that name images.

    With `--backbone` there is no RUN, and the first argument is an image as well.
    """
    places = [run, *(images or [])]
    given = places if backbone else places[1:]
    if not given:
        raise ConfigError("give RUN and at least one image or folder, or --backbone NAME and images.")
    if not backbone:
        check_run(run)
    return places, given


def check_run(run: str) -> None:
    """Raise if a run is a path that does not exist, or an image, before anything else is read."""
    from zoo.data.files import is_image

    path = settings.expanded(run)
    if "://" not in run and not path.exists():
        raise FetchError(f"there is no run {run!r}. Give a run directory, a saved model or hf://org/repo[@revision].")
    if is_image(path.name) and path.is_file():
        raise ConfigError(f"{run} is an image: give RUN before the images, or --backbone NAME.")


def model_of(
    run: str,
    backbone: str,
    weights: str,
    task: str,
    set_: list[str] | None,
    dtype: str,
    image_size: int | None,
    accept_license: bool,
    ignore_tensors: list[str] | None = None,
    background: str = "",
) -> Model:
    """Load the model of a run or, with a backbone, create one. Its notes are printed."""
    import zoo

    settings.start_jax()
    if not backbone:
        of_the_run = {"weights": weights, "task": task, "image size": image_size, "dtype": dtype != "float32" and dtype}
        of_the_run |= {"ignore tensors": bool(ignore_tensors), "background": background}
        if given := next((name for name, value in of_the_run.items() if value), None):
            flag = f"--{given.replace(' ', '-')}"
            raise ConfigError(f"{flag} needs --backbone; a run already has its {given}.")
        check_run(run)
        model = zoo.load(run)
        for note in model.card.notes:
            output.note(note)
        return model.adjusted(**options(set_)) if set_ else model
    chosen = model_options(
        set_,
        weights=weights or None,
        image_size=image_size,
        dtype=dtype,
        accept_license=accept_license,
        ignore_tensors=ignore_tensors or (),
        **background_option(background),
    )
    model = zoo.create(backbone, task, **chosen)
    for note in model.card.notes:
        output.note(note)
    return model


def saved_model(weights: str) -> Saved | None:
    """Return the description of a saved model or a run; None for other weights, and for none."""
    if not weights:
        return None
    from zoo.models.saved import saved
    from zoo.weights.fetch import fetch
    from zoo.weights.file import read

    return saved(read(fetch(weights).path))


def task_for(kind: str, before: Saved | None = None) -> str:
    """Return the task that learns from data of a kind.

    This is the task of the saved model to start from, if it fits; otherwise zoo's own task; otherwise the only task of
    other plugins.

    Args:
        kind: kind of the dataset, e.g. `class`.
        before: the saved model to start from.

    Raises:
        ConfigError: no task or several tasks fit.
    """
    from zoo.registry import registry

    if before and kind in kinds_of(name := before.card.qualified("adapter")):
        return name
    fitting = [name for name, spec in registry().adapters().items() if kind in spec.adapter.targets_from]
    own = [name for name in fitting if name in registry().own_names("adapters")]
    if len(own or fitting) != 1:
        names = f" ({', '.join(fitting)})" if fitting else ""
        raise ConfigError(f"{len(fitting)} tasks learn from {kind} data{names}; choose one with --task.")
    return (own or fitting)[0]


def kinds_of(task: str) -> tuple[str, ...]:
    """Return the kinds of data that a task learns from; an empty tuple for no task or an unknown one."""
    from zoo.registry import registry

    known = any(task in (row.name, row.qualified) for row in registry().rows("adapters"))
    return registry().adapter(task).adapter.targets_from if known else ()


def task_of(name: str, weights: str) -> str:
    """Return the task that a backbone with these weights is for.

    A saved model and a named model have a task. A bare backbone gets the task that uses the checkpoint's classifier.
    """
    from zoo.registry import registry

    if before := saved_model(weights):
        return before.card.qualified("adapter")
    return registry().parts_of(name)[1] if registry().means_model(name) else task_for("class")
