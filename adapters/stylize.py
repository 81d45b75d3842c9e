"""The command `zoo stylize`: photos painted in a style, by a run, a saved model, or a backbone alone.

It lies beside the task, not in it, so that its help imports no jax.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import output
from zoo.cli.arguments import AcceptLicense, Backbone, Dtype, Set, Weights, model_options
from zoo.cli.commands import COMMANDS
from zoo.errors import ConfigError
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part

if TYPE_CHECKING:
    from zoo.models.model import Model

TASK = "style"


def stylize(
    run: Annotated[str, typer.Argument(help="Run folder, saved model or hf://org/repo; or the first photo.")],
    photos: Annotated[list[str] | None, typer.Argument(help="Photos, or folders of them.")] = None,
    style: Annotated[
        list[str] | None, typer.Option("--style", help="A picture of the style; several are mixed.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Picture to write; a folder for several photos.")] = Path(
        "stylized.png"
    ),
    strength: Annotated[float, typer.Option("--strength", help="From 0, the photo itself, to 1.")] = 1.0,
    mix: Annotated[list[float] | None, typer.Option("--mix", help="How much of each style, once for each.")] = None,
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="Where a style goes: white. One, or one a style.")
    ] = None,
    colours: Annotated[str, typer.Option("--colours", help="style, luminance (keep the photo's) or match.")] = "style",
    size: Annotated[int, typer.Option("--size", help="Longer side of the result in pixels; 0 for the photo's.")] = 0,
    style_size: Annotated[
        int, typer.Option("--style-size", help="Longer side of the style: how coarse strokes are.")
    ] = 0,
    tile: Annotated[int, typer.Option("--tile", help="Side of the parts large photos are painted in; 0: one.")] = 1024,
    preview_every: Annotated[int, typer.Option("--preview-every", help="Steps between previews (gatys).")] = 0,
    backbone: Backbone = "",
    weights: Weights = "",
    set_: Set = None,
    dtype: Dtype = "float32",
    accept_license: AcceptLicense = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Paint photos: `zoo stylize RUN PHOTO... --style PICTURE`, or with --backbone NAME --set method=gatys for RUN."""
    from zoo.data import list_images

    places = [run, *(photos or [])]
    given = places if backbone else places[1:]
    if not given:
        raise ConfigError("give RUN and at least one photo, or --backbone NAME and photos.")
    files = list_images(given)
    targets = _targets(files, out)
    model = _model(places[0], backbone, weights, set_, dtype, accept_license)
    how: dict[str, Any] = {
        "strength": strength, "mix": mix or None, "masks": mask or (), "colours": colours, "size": size,
        "style_size": style_size, "tile": tile, "every": preview_every,
    }  # fmt: skip
    for file, target in zip(files, targets, strict=True):
        show = _progress(target, bool(preview_every))
        picture = model.adapter.stylize(model, file, style or [], preview=show, **how)  # type: ignore[attr-defined]
        picture.save(target)
        if not as_json:
            print(target)
    if as_json:
        output.print_json([{"photo": str(f), "picture": str(t)} for f, t in zip(files, targets, strict=True)])


def _targets(files: list[Path], out: Path) -> list[Path]:
    """Where each picture goes. Raises `ConfigError` for one that cannot be written, before anything is painted."""
    from PIL import Image

    known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
    folder = len(files) > 1 or out.is_dir() or not out.suffix
    if folder and out.suffix.lower() in known:
        raise ConfigError(f"--out {out} is one picture, and there are {len(files)} photos: name a folder.")
    if not folder and out.suffix.lower() not in known:
        raise ConfigError(f"--out {out}: no picture format has the suffix {out.suffix!r}; use .png or .jpg.")
    return output.picture_files(files, out) if folder else output.kept_images(files, [out])


def _progress(target: Path, keep: bool) -> Any:
    """Says how far a picture is; with `keep` also writes what there is beside it."""

    def show(step: int, steps: int, loss: float, pixels: Any) -> None:
        output.note(f"step {step} of {steps}  loss {loss:.4f}")
        if keep and step < steps:
            import numpy as np
            from PIL import Image

            file = target.with_name(f"{target.stem}-step{step:04}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(file)

    return show


def _model(run: str, backbone: str, weights: str, given: list[str] | None, dtype: str, accept_license: bool) -> Model:
    import zoo
    from zoo import settings

    settings.keep_compiled_programs()
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
    return [Part(COMMANDS.name, "stylize", stylize, "Paint photos in a style.")]
