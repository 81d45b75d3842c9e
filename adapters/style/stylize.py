"""`stylize`: paint one image in a style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zoo.adapters.style import colour, tiles
from zoo.adapters.style.method import CHUNK, METHODS, Painting, Preview
from zoo.adapters.style.pictures import Picture, fitted, open_picture, read_mask, resized
from zoo.errors import ConfigError
from zoo.numbers import Accepted, check_number

if TYPE_CHECKING:
    from zoo.models.model import Model

Source = str | Path | np.ndarray | Picture
Colours = Literal["style", "luminance", "match"]
TILE = 1024
"""Default side of tiles in pixels."""


def stylize(
    model: Model,
    content: Source,
    style: Source | Sequence[Source] = (),
    *,
    strength: float = 1.0,
    mix: Sequence[float] | None = None,
    masks: Sequence[str | Path | np.ndarray] = (),
    colours: Colours = "style",
    size: int = 0,
    style_size: int = 0,
    tile: int = TILE,
    preview: Preview | None = None,
    every: int = 0,
    untrained: bool = False,
) -> Picture:
    """Paint an image in a style, at its own size, with its colour profile and EXIF data.

    Args:
        model: a model of the task `style`.
        content: a file, or a uint8 array (height, width, 3).
        style: one style image or several. A model of method `fast` has its own style and takes none.
        strength: from 0 for the content image itself to 1.
        mix: share of each style; equal shares if None.
        masks: images that are white where a style applies: one for each style, or one for all.
        colours: `style` takes the colours of the style; `luminance` keeps those of the content, and takes only the
            luminance of the painted image; `match` gives the style image the colours of the content first.
        size: longer side of the result in pixels; 0 for that of the content (method `gatys`: at most 512).
        style_size: longer side to which style images are resized, which sets the scale of brush strokes; 0 for that of
            the result.
        tile: side of the tiles that larger images are painted in (`adain`, `fast`); 0 for one piece.
        preview: called with (step, total steps, loss, pixels) while `gatys` paints.
        every: steps between two previews; 0 for 50.
        untrained: allow a network that is not trained, to watch training progress.

    Raises:
        ConfigError: for arguments that cannot work, before anything is computed.
        DataError: for files that are missing or no images.
    """
    options = _options(model)
    styles = [style] if isinstance(style, str | Path | np.ndarray | Picture) else list(style)
    _check(model, styles, strength, mix, masks, colours, tile, every, untrained)
    shares = _mix(mix, max(len(styles), 1))
    background = model.card.preprocess.background
    looks = [open_picture(one, background) for one in styles]
    picture = open_picture(content, background)
    for name, side in (("size", size), ("style_size", style_size)):
        check_number(name, side, Accepted(least=0, whole=True))
    row = METHODS[options.method]
    if not size and row.long_side:
        size = min(max(picture.size), row.long_side)
    pixels = resized(picture.pixels, size) if size else picture.pixels
    _check_size(model, picture, pixels.shape[:2])
    regions = [read_mask(mask, (pixels.shape[0], pixels.shape[1])) for mask in masks]
    brushes = [resized(look.pixels, style_size or max(pixels.shape[:2])) for look in looks]
    if colours == "match":
        brushes = [colour.matched(brush, pixels) for brush in brushes]
    model.eval()
    painting = Painting(pixels, brushes, shares, regions, strength, tile, preview, every)
    painted = np.clip(row.paint(options, model, painting), 0, 1)
    if colours == "luminance":
        painted = colour.luminance_of(painted, pixels)
    opacity = None if picture.opacity is None else fitted(picture.opacity, (painted.shape[0], painted.shape[1]))
    return replace(picture, pixels=painted.astype(np.float32), opacity=opacity)


def _options(model: Model) -> Any:
    from zoo.adapters.style import Style

    if not isinstance(model.adapter, Style):
        raise ConfigError(
            f"this model on {model.card.backbone} was created for the task {model.card.adapter}; stylize needs a model "
            "of the task style."
        )
    return model.adapter


def _check(
    model: Model, styles: Sequence[Source], strength: float, mix: Sequence[float] | None, masks: Sequence[Any],
    colours: str, tile: int, every: int, untrained: bool,
) -> None:  # fmt: skip
    method = _options(model).method
    row = METHODS[method]
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; accepted: 0 to 1.")
    if model.card.in_channels != 3:
        raise ConfigError(
            f"this model takes images of {model.card.in_channels} channels; style transfer needs a model for 3 (RGB)."
        )
    if row.one_style and styles:
        raise ConfigError(
            f"this model has one style of its own (method={method}): leave style out, or use method=adain."
        )
    if not row.one_style and not styles:
        raise ConfigError(f"method={method} needs a style: give at least one style image (--style IMAGE).")
    if colours not in ("style", "luminance", "match"):
        raise ConfigError(f"colours is {colours!r}; accepted: style, luminance, match.")
    if colours == "match" and row.one_style:
        raise ConfigError(
            f"colours=match changes the style image, and method={method} takes none; use colours=luminance."
        )
    if mix is not None and len(mix) != len(styles):
        raise ConfigError(f"mix has {len(mix)} shares for {len(styles)} styles; give one number for each style.")
    if mix is not None and (any(share not in Accepted(least=0) for share in mix) or sum(mix) <= 0):
        raise ConfigError(f"mix is {list(mix)}; shares must be 0 or more, and not all 0.")
    if masks and len(masks) not in (1, max(len(styles), 1)):
        raise ConfigError(f"{len(masks)} masks for {len(styles)} styles; give one, or one for each style.")
    if tile and tile < tiles.SMALLEST:
        raise ConfigError(f"tile is {tile}; it must be at least {tiles.SMALLEST} pixels, or 0 for one piece.")
    if every < 0 or every > CHUNK:
        raise ConfigError(f"every is {every}; accepted: 1 to {CHUNK} steps between previews, or 0 for {CHUNK}.")
    if row.loss is not None and model.card.new_head and not untrained:
        raise ConfigError(
            f"the network of method={method} is untrained: train it (zoo train IMAGES --task style), load its weights "
            "(--set net=FILE), or use method=gatys, which needs no training."
        )


def _check_size(model: Model, picture: Picture, size: tuple[int, ...]) -> None:
    least = max(model.spec.min_size, 16)
    if min(size) < least:
        raise ConfigError(
            f"{picture.name} would be painted at {size[1]}x{size[0]} pixels; each side needs at least {least}: give a "
            "larger image or size."
        )


def _mix(mix: Sequence[float] | None, count: int) -> np.ndarray:
    shares = np.asarray(mix if mix is not None else [1.0] * count, np.float32)
    return shares / shares.sum()
