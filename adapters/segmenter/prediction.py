"""Photos to masks of their own size: as a whole, several times, or in overlapping windows of constant memory.

Every way ends in a map of logits and a frame that says how it shows the photo; only then are there as many numbers as
pixels, band by band. Logits of several looks are averaged before: a mean of logarithms, which needs no normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from PIL import Image

from zoo.data import decode
from zoo.data.transform import place
from zoo.dense.originals import labels_of_one, sampling
from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.models.predictor import check_channels, framed

ROOM = 128
"""Sides of results are computed as multiples of this, so that photos of many sizes share programs."""
WINDOWS = 4
"""Windows that are looked at together."""


@partial(jax.jit, static_argnums=(0, 3))
def _logits(graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array, flip: bool) -> Array:
    model = nnx.merge(graphdef, state)

    def of(pixels: Array) -> Array:
        logits: Array = model(model.normalize(pixels))["logits"]
        return logits

    return (of(pixels) + of(pixels[:, :, ::-1])[:, :, ::-1]) / 2 if flip else of(pixels)


class Look:
    """The logits that a model has of uint8 batches (b, h, w, c), (b, h', w', classes); with `flip`, the mean of those
    of images and mirror images."""

    def __init__(self, model: Model, flip: bool):
        model.eval()
        self.parts, self.flip = nnx.split(model), flip

    def __call__(self, pixels: np.ndarray) -> Array:
        return _logits(*self.parts, pixels, self.flip)


def _labels(logits: Any, frame: np.ndarray, prepared: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """See `zoo.dense.originals.labels_at`; of exactly this size."""
    room = tuple(-(-side // ROOM) * ROOM for side in size)
    return np.asarray(labels_of_one(logits, frame.astype(np.float32), prepared, room))[: size[0], : size[1]]


@dataclass(frozen=True)
class MultiScale:
    """Each image as a whole, at the sizes of training and at others; see `whole`."""

    scales: tuple[float, ...]
    flip: bool

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterable[dict[str, np.ndarray]]:
        return map(_decoded, whole(model, images, batch_size, flip=self.flip, scales=self.scales))


@dataclass(frozen=True)
class SlidingWindow:
    """Each image by itself, in overlapping windows; see `slide`."""

    overlap: float
    scale: float
    flip: bool

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterable[dict[str, np.ndarray]]:
        del batch_size  # windows are batched within an image
        return (_decoded(slide(model, image, self.overlap, self.scale, flip=self.flip)) for image in images)


def _decoded(mask: np.ndarray) -> dict[str, np.ndarray]:
    """A mask as `Segmenter.decode` gives those of a batch."""
    return {"mask": mask, "size": np.array(mask.shape, np.float32)}


# As a whole ----------------------------------------------------------------------------------------------------


def whole(
    model: Model, images: Sequence[Path | np.ndarray], batch_size: int, *, flip: bool, scales: Sequence[float]
) -> list[np.ndarray]:
    """The class of every pixel of each photo, uint8 (height, width).

    Args:
        scales: further sizes that the photos are looked at, as factors of the frames'.
    """
    look = Look(model, flip)
    others = _scaled(model, scales)
    found: dict[int, np.ndarray] = {}
    for rows, pixels, frames in framed(model.card, images, batch_size):
        logits, prepared = look(pixels), pixels.shape[1:3]
        for scale in others:
            logits = logits + _at_scale(model, look, [images[i] for i in rows], frames, prepared, logits, scale)
        for i, one, frame in zip(rows, logits, frames, strict=False):
            found[i] = _labels(one, frame, prepared, (int(frame[4]), int(frame[5])))
    return [found[i] for i in range(len(images))]


def _scaled(model: Model, scales: Sequence[float]) -> tuple[float, ...]:
    """The scales. Raises `ConfigError` where the backbone takes images of one size only."""
    if scales and any(model.spec.stage(name).kind == "tokens" for name in model.adapter.taps(model.spec)):
        raise ConfigError(f"{model.spec.name} was built for images of one size: leave tta_scales out, or use tta_flip.")
    return tuple(scales)


def _at_scale(
    model: Model,
    look: Look,
    images: Sequence[Path | np.ndarray],
    frames: np.ndarray,
    prepared: tuple[int, int],
    like: Array,
    scale: float,
) -> Array:
    """The logits of photos of one frame, looked at in another size, where those of `prepared` pixels have theirs."""
    multiple = int(np.lcm(model.spec.size_multiple, _coarsest(model)))
    height, width = (max(round(side * scale / multiple), 1) * multiple for side in prepared)
    size = (height, width)
    card = replace(model.card, preprocess=replace(model.card.preprocess, size=size, frames=()))
    ((_, pixels, others),) = framed(card, images, len(frames))
    return _moved(look(pixels), others, size, frames, prepared, (like.shape[1], like.shape[2]))


@partial(jax.jit, static_argnums=(2, 4, 5))
def _moved(
    logits: Array,
    seen: Array,
    size: tuple[int, int],
    frames: Array,
    prepared: tuple[int, int],
    positions: tuple[int, int],
) -> Array:
    """Logits of images of `size` that show originals as `seen` (b, 6) says, where a map of so many positions of images
    of `prepared` pixels, which show them as `frames` says, has its own."""

    def one(x: Array, seen: Array, frame: Array) -> Array:
        matrices = []
        for axis in (0, 1):
            at = (jnp.arange(positions[axis], dtype=jnp.float32) + 0.5) * (prepared[axis] / positions[axis])
            original = (at - frame[2 + axis]) / frame[axis]
            there = (original * seen[axis] + seen[2 + axis]) * (x.shape[axis] / size[axis]) - 0.5
            matrices.append(sampling(there, x.shape[axis]))
        return jnp.einsum("Hh,hwc,Ww->HWc", matrices[0], x, matrices[1])

    return jax.vmap(one)(logits, seen, frames)


def _coarsest(model: Model) -> int:
    """The largest stride among the maps that are read."""
    return max(model.spec.stage(name).stride for name in model.adapter.taps(model.spec))


# In windows ----------------------------------------------------------------------------------------------------


def starts(length: int, window: int, overlap: float, multiple: int) -> list[int]:
    """Where windows begin along a side of `length` pixels: at multiples of `multiple`, evenly, the last one at the end
    or just beyond it, each with at least a share `overlap` in common with the next as far as that can be."""
    last = max(-(-(length - window) // multiple), 0)
    step = max(int(window * (1 - overlap)) // multiple, 1)
    count = -(-last // step)
    return [round(i * last / max(count, 1)) * multiple for i in range(count + 1)]


def profile(begins: Sequence[int], index: int, window: int, overlap: float, places: np.ndarray) -> np.ndarray:
    """The weight of a window at `places` (n,), in pixels from where it begins.

    At a side where there is another window it is 0 for a quarter of the overlap, where what lies beyond would matter
    most, then rises as a raised cosine over half of it; together, windows weigh something everywhere.
    """
    gaps = np.diff(begins)
    common = min(overlap * window, window - np.max(gaps)) if len(gaps) else 0.0
    weight = np.ones(len(places))
    if common <= 0:
        return weight
    for there, depth in ((index > 0, places), (index < len(begins) - 1, window - places)):
        if there:
            rise = np.clip((depth - common / 4) / (common / 2), 0, 1)
            weight = np.minimum(weight, 0.5 - 0.5 * np.cos(np.pi * rise))
    return weight


def slide(
    model: Model, image: Path | np.ndarray, overlap: float, scale: float, *, flip: bool, windows: int = WINDOWS
) -> np.ndarray:
    """The class of every pixel of a photo, uint8 (height, width), from windows as large as the model's images.

    Only one row of windows is kept at a time. On a convolutional net whose outputs depend on no more than a quarter of
    the overlap around them, the result is that of the whole photo in one piece.

    Args:
        overlap: share that neighbouring windows have in common. scale: the photo is resized by it before.
    """
    pixels = decode(image) if isinstance(image, Path) else image
    original = (pixels.shape[0], pixels.shape[1])
    seen = _resized(pixels, scale, model.card.preprocess.interpolation)
    check_channels(model.card, place(seen[:1, :1], model.card.preprocess, (1, 1)), image)
    scales = np.array([seen.shape[0] / original[0], seen.shape[1] / original[1]])
    labels = np.empty(original, np.uint8)
    done, last = 0, None  # rows of the photo that are ready, and the last row of logits above
    for first, final, logits, step in _bands(model, seen, overlap, Look(model, flip), windows):
        # `logits` begin at row `first` of the map; the row above them is kept, as pixels lie between rows.
        rows = logits if last is None else np.concatenate([last, logits])
        first -= len(rows) - len(logits)
        last = logits[-1:]
        ends = (first + len(rows) - 0.5) * step / scales[0] - 0.5  # pixels up to the last row's centre
        until = original[0] if final else min(math.floor(ends) + 1, original[0])
        if until > done:
            shift = (done * scales[0]) - first * step
            frame = np.array([*scales, shift, 0, until - done, original[1]])
            size = (rows.shape[0] * step, rows.shape[1] * step)
            labels[done:until] = _labels(rows, frame, size, (until - done, original[1]))
            done = until
    return labels


def _resized(pixels: np.ndarray, scale: float, interpolation: str) -> np.ndarray:
    if scale == 1:
        return pixels
    size = tuple(max(round(side * scale), 1) for side in (pixels.shape[1], pixels.shape[0]))
    kernel = Image.Resampling[interpolation.upper()]
    bands = [Image.fromarray(pixels[..., band]).resize(size, kernel) for band in range(pixels.shape[2])]
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _bands(
    model: Model, image: np.ndarray, overlap: float, look: Look, windows: int
) -> Iterator[tuple[int, bool, np.ndarray, int]]:
    """(first row, whether it is the last band, blended logits (rows, columns, classes), pixels from one position to
    the next) of an image, from the top."""
    window = model.card.preprocess.size
    sides = jax.eval_shape(look, np.zeros((1, *window, model.card.in_channels), np.uint8)).shape[1:3]
    step = max(round(window[0] / sides[0]), 1)
    if (sides[0] * step, sides[1] * step) != window:
        raise ConfigError(
            f"{model.spec.name} gives maps of {sides[0]}x{sides[1]} for windows of {window[0]}x{window[1]}, which "
            "cannot be put side by side: choose another image_size, or leave sliding_window out."
        )
    multiple = int(np.lcm(_coarsest(model), step))
    down, across = (starts(image.shape[axis], window[axis], overlap, multiple) for axis in (0, 1))
    places = [(np.arange(side) + 0.5) * step for side in sides]
    columns = (across[-1] + window[1]) // step
    sums: Any = None
    for i, top in enumerate(down):
        if sums is not None:  # what the windows above have given to these rows
            kept = (top - down[i - 1]) // step
            sums = [np.concatenate([part[kept:], np.zeros_like(part[:kept])]) for part in sums]
        vertical = profile(down, i, window[0], overlap, places[0])
        for batch, logits in _looked_at(model, image, look, top, across, windows):
            if sums is None:
                sums = [np.zeros((sides[0], columns, depth), np.float32) for depth in (logits.shape[-1], 1)]
            for j, one in zip(batch, logits, strict=False):
                weight = np.outer(vertical, profile(across, j, window[1], overlap, places[1]))[..., None]
                there = slice(across[j] // step, across[j] // step + sides[1])
                sums[0][:, there] += one * weight.astype(np.float32)
                sums[1][:, there] += weight.astype(np.float32)
        rows = (down[i + 1] - top) // step if i + 1 < len(down) else sides[0]
        yield top // step, i + 1 == len(down), sums[0][:rows] / sums[1][:rows], step


def _looked_at(
    model: Model, image: np.ndarray, look: Look, top: int, across: Sequence[int], windows: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """(numbers of windows, their logits) of a row of windows, a few at a time; always as many, for one program."""
    size = model.card.preprocess.size
    for start in range(0, len(across), windows):
        batch = list(range(start, min(start + windows, len(across))))
        cuts = [image[top : top + size[0], across[j] : across[j] + size[1]] for j in batch]
        pixels = [place(cut, model.card.preprocess, size) for cut in cuts]
        filled = pixels + pixels[-1:] * (min(windows, len(across)) - len(pixels))
        yield batch, np.asarray(look(np.stack(filled)))
