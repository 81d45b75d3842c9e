"""The command `zoo stylize`: paint images in a style, with a run, a saved model, or a backbone alone.

It lies beside the task, not in it, so that its help imports no jax.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import output
from zoo.cli.arguments import (
    AcceptLicense,
    Backbone,
    Background,
    Dtype,
    Set,
    Weights,
    model_options,
    run_and_images,
)
from zoo.cli.commands import COMMANDS
from zoo.cli.results import SOME_FAILED
from zoo.errors import ConfigError, UnreadableError
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part
from zoo.text import printable

if TYPE_CHECKING:
    from zoo.models.model import Model

TASK = "style"


def stylize(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Run directory, saved model or hf://org/repo. With --backbone: an image."),
    ],
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="Images, or folders of images.")] = None,
    style: Annotated[
        list[str] | None, typer.Option("--style", help="Style image; may be repeated, and the styles are mixed.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Image to write, or a folder for several images.")] = Path(
        "stylized.png"
    ),
    strength: Annotated[float, typer.Option("--strength", help="From 0, the image itself, to 1.")] = 1.0,
    mix: Annotated[list[float] | None, typer.Option("--mix", help="Weight of a style; once for each --style.")] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option("--mask", help="Mask, white where the style applies; one for all styles, or one each."),
    ] = None,
    colours: Annotated[
        str, typer.Option("--colours", help="style, luminance (keep the image's) or match (change the style's).")
    ] = "style",
    size: Annotated[
        int, typer.Option("--size", help="Longer side of the result in pixels; 0 for that of the image.")
    ] = 0,
    style_size: Annotated[
        int, typer.Option("--style-size", help="Longer side of the style image; larger gives coarser strokes.")
    ] = 0,
    tile: Annotated[
        int, typer.Option("--tile", help="Side of the tiles in which large images are processed; 0 for no tiles.")
    ] = 1024,
    preview_every: Annotated[
        int, typer.Option("--preview-every", help="Steps between previews (method gatys); 0 for none.")
    ] = 0,
    backbone: Backbone = "",
    weights: Weights = "",
    set_: Set = None,
    dtype: Dtype = "float32",
    accept_license: AcceptLicense = False,
    background: Background = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Paint images in a style.

    Usage: `zoo stylize RUN IMAGE [IMAGE ...] --style FILE`, or `zoo stylize IMAGE --style FILE --backbone NAME --set
    method=gatys`.
    """
    from zoo.data import list_images

    places, given = run_and_images(run, images, backbone)
    files = list_images(given, strict=False)
    targets = _targets(files, out, given)
    model = _model(places[0], backbone, weights, set_, dtype, accept_license)
    if background:
        model = _on(background, model)
    how: dict[str, Any] = {
        "strength": strength, "mix": mix or None, "masks": mask or (), "colours": colours, "size": size,
        "style_size": style_size, "tile": tile, "every": preview_every,
    }  # fmt: skip
    rows, failed = list[dict[str, str]](), 0
    for file, target in zip(files, targets, strict=True):
        show = _progress(target, bool(preview_every))
        rows.append({"photo": str(file)})
        try:
            picture = model.adapter.stylize(model, file, style or [], preview=show, **how)  # type: ignore[attr-defined]
            picture.save(target)
        except (UnreadableError, ConfigError) as error:
            # An error about this image begins with its name. Any other concerns all of them, such as a bad style image.
            if len(files) == 1 or not str(error).startswith((printable(file), printable(file.name))):
                raise
            output.note(f"failed: {error}")
            rows[-1]["error"], failed = str(error), failed + 1
            continue
        rows[-1]["picture"] = str(target)
        if not as_json:
            output.line(target)
    if as_json:
        output.print_json(rows)
    if failed:
        output.note(f"{failed} of {len(files)} images could not be painted.")
        raise typer.Exit(SOME_FAILED)


def _targets(files: list[Path], out: Path, given: list[str]) -> list[Path]:
    """Return the file of each result. Raise `ConfigError` for one that cannot be written, before painting starts."""
    from PIL import Image

    known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
    folder = len(files) > 1 or out.is_dir() or not out.suffix
    if folder and out.suffix.lower() in known:
        raise ConfigError(f"--out {out} is a single file, but there are {len(files)} images: give a folder.")
    if not folder and out.suffix.lower() not in known:
        raise ConfigError(f"--out {out}: no image format has the suffix {out.suffix!r}; use .png or .jpg.")
    return output.picture_files(files, out, given) if folder else output.kept_images(files, [out])


def _progress(target: Path, keep: bool) -> Any:
    """Return a function that prints the progress; with `keep` it also writes previews beside the result."""

    def show(step: int, steps: int, loss: float, pixels: Any) -> None:
        output.note(f"step {step} of {steps}  loss {loss:.4f}")
        if keep and step < steps:
            import numpy as np
            from PIL import Image

            file = target.with_name(f"{target.stem}-step{step:04}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(file)

    return show


def _on(background: str, model: Model) -> Model:
    """Return a model that composes transparent images on another background. What it was trained on does not matter."""
    from dataclasses import replace

    from zoo.models.request import background as colour

    model.card = replace(model.card, preprocess=replace(model.card.preprocess, background=colour(background)))
    return model


def _model(run: str, backbone: str, weights: str, given: list[str] | None, dtype: str, accept_license: bool) -> Model:
    import zoo
    from zoo import settings

    settings.start_jax()
    if backbone:
        chosen = model_options(given, weights=weights or None, dtype=dtype, accept_license=accept_license)
        model = zoo.create(backbone, TASK, **chosen)
        for note in model.card.notes:
            output.note(note)
        return model
    if weights or given:
        raise ConfigError("--weights and --set go with --backbone; a run has its own.")
    model = zoo.load(run)
    if model.card.adapter != TASK:
        raise ConfigError(f"{run} was trained for {model.card.adapter}; zoo stylize needs a run of --task {TASK}.")
    return model


@hookimpl
def zoo_parts() -> list[Part]:
    return [Part(COMMANDS.name, "stylize", stylize, "Paint images in a style.")]
