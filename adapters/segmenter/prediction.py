"""Inference of the segmenter: whole images, multi-scale test-time augmentation, or sliding windows in constant memory.

All of them end in a map of logits and the placement of the original image in it (`zoo.data.transform.Frame`). Class
scores at full resolution are computed last, band by band. Test-time augmentation averages logits, not probabilities:
this is the geometric mean of the probabilities up to a factor per pixel, which does not change the best class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

ROOM = 128
"""Sides of results are rounded up to multiples of this, so that images of many sizes share compiled programs."""
WINDOWS = 4
"""Windows in a batch."""


@partial(jax.jit, static_argnums=(0, 3))
def _logits(
    graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: UInt8[Array, "b h w c"], flip: bool
) -> Float[Array, "b H W classes"]:
    model = nnx.merge(graphdef, state)

    def of(pixels: UInt8[Array, "b h w c"]) -> Float[Array, "b H W classes"]:
        logits: Array = model(model.normalize(pixels))["logits"]
        return logits

    return (of(pixels) + of(pixels[:, :, ::-1])[:, :, ::-1]) / 2 if flip else of(pixels)


class Look:
    """The logits of a model for batches of uint8 pixels.

    Args:
        model: the model, which is put in evaluation mode.
        flip: whether to average the logits of images and their mirror images.
    """

    def __init__(self, model: Model, flip: bool):
        model.eval()
        self.parts, self.flip = nnx.split(model), flip

    def __call__(self, pixels: UInt8[np.ndarray, "b h w c"]) -> Float[Array, "b H W classes"]:
        return _logits(*self.parts, pixels, self.flip)


def _labels(logits: Any, frame: np.ndarray, prepared: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return `zoo.dense.originals.labels_at`, cut to `size`."""
    room = tuple(-(-side // ROOM) * ROOM for side in size)
    return np.asarray(labels_of_one(logits, frame.astype(np.float32), prepared, room))[: size[0], : size[1]]


@dataclass(frozen=True)
class MultiScale:
    """Inference on whole images at the training size and, for test-time augmentation, at other scales; see `whole`.

    Attributes:
        scales: factors of the training size to predict at, too.
        flip: whether to average with mirror images.
    """

    scales: tuple[float, ...]
    flip: bool

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterable[dict[str, np.ndarray]]:
        return map(_decoded, whole(model, images, batch_size, flip=self.flip, scales=self.scales))


@dataclass(frozen=True)
class SlidingWindow:
    """Inference on one image at a time in overlapping windows; see `slide`.

    Attributes:
        overlap: share of a window that the next one overlaps.
        scale: factor by which images are resized first.
        flip: whether to average with mirror images.
    """

    overlap: float
    scale: float
    flip: bool

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterable[dict[str, np.ndarray]]:
        del batch_size  # windows are batched within an image
        return (_decoded(slide(model, image, self.overlap, self.scale, flip=self.flip)) for image in images)


def _decoded(mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return a mask in the form of a row of `Segmenter.decode`."""
    return {"mask": mask, "size": np.array(mask.shape, np.float32)}


# Whole images --------------------------------------------------------------------------------------------------


def whole(
    model: Model, images: Sequence[Path | np.ndarray], batch_size: int, *, flip: bool, scales: Sequence[float]
) -> list[np.ndarray]:
    """Return the class of every pixel of each image, uint8 (height, width).

    Args:
        model: a segmenter.
        images: files or pixels.
        batch_size: images in a batch.
        flip: whether to average with mirror images.
        scales: factors of the training size to predict at, too; the logits of all are averaged.

    Raises:
        ConfigError: for scales on a backbone of a fixed image size.
    """
    look = Look(model, flip)
    others = _scaled(model, scales)
    masks: dict[int, np.ndarray] = {}
    for rows, pixels, frames in framed(model.card, images, batch_size):
        logits, prepared = look(pixels), pixels.shape[1:3]
        for scale in others:
            logits = logits + _at_scale(model, look, [images[i] for i in rows], frames, prepared, logits, scale)
        for i, one, frame in zip(rows, logits, frames, strict=False):
            masks[i] = _labels(one, frame, prepared, (int(frame[4]), int(frame[5])))
    return [masks[i] for i in range(len(images))]


def _scaled(model: Model, scales: Sequence[float]) -> tuple[float, ...]:
    """Return the scales. Raises `ConfigError` for a backbone of a fixed image size."""
    if scales and any(model.spec.stage(name).kind == "tokens" for name in model.adapter.taps(model.spec)):
        raise ConfigError(
            f"tta_scales needs a backbone that takes images of any size, and {model.spec.name} takes one size only: "
            "leave tta_scales out, or use tta_flip."
        )
    return tuple(scales)


def _at_scale(
    model: Model,
    look: Look,
    images: Sequence[Path | np.ndarray],
    frames: np.ndarray,
    prepared: tuple[int, int],
    like: Float[Array, "b H W classes"],
    scale: float,
) -> Float[Array, "b H W classes"]:
    """Predict images at another size, and resample the logits to the positions of `like`.

    Args:
        model: a segmenter.
        look: computes its logits.
        images: the images of one batch.
        frames: their placement in the batch, (b, 6).
        prepared: (height, width) of the batch.
        like: logits of the batch.
        scale: factor of that size.
    """
    multiple = int(np.lcm(model.spec.size_multiple, _coarsest(model)))
    height, width = (max(round(side * scale / multiple), 1) * multiple for side in prepared)
    size = (height, width)
    card = replace(model.card, preprocess=replace(model.card.preprocess, size=size, frames=()))
    ((_, pixels, others),) = framed(card, images, len(frames))
    return _moved(look(pixels), others, size, frames, prepared, (like.shape[1], like.shape[2]))


@partial(jax.jit, static_argnums=(2, 4, 5))
def _moved(
    logits: Float[Array, "b h w c"],
    sources: Float[Array, "b 6"],
    size: tuple[int, int],
    frames: Float[Array, "b 6"],
    prepared: tuple[int, int],
    positions: tuple[int, int],
) -> Float[Array, "b H W c"]:
    """Resample logits of images prepared in one way to the positions of a map of the same images prepared in another.

    Args:
        logits: logits of the first preparation.
        sources: placement of the originals in it, see `zoo.data.transform.Frame`.
        size: its (height, width) in pixels.
        frames: placement of the originals in the second preparation.
        prepared: its (height, width) in pixels.
        positions: (rows, columns) of its map.
    """

    def one(x: Float[Array, "h w c"], source: Float[Array, " 6"], frame: Float[Array, " 6"]) -> Float[Array, "H W c"]:
        # The two preparations are scaled and shifted differently. So each position is traced back to the original
        # image, and from there forward to the map of `x`. Centres of pixels lie at half-integers.
        matrices = []
        for axis in (0, 1):
            at = (jnp.arange(positions[axis], dtype=jnp.float32) + 0.5) * (prepared[axis] / positions[axis])
            original = (at - frame[2 + axis]) / frame[axis]
            places = (original * source[axis] + source[2 + axis]) * (x.shape[axis] / size[axis]) - 0.5
            matrices.append(sampling(places, x.shape[axis]))
        return jnp.einsum("Hh,hwc,Ww->HWc", matrices[0], x, matrices[1])

    return jax.vmap(one)(logits, sources, frames)


def _coarsest(model: Model) -> int:
    """Return the largest stride of the stages that the decoder reads."""
    return max(model.spec.stage(name).stride for name in model.adapter.taps(model.spec))


# Sliding windows -----------------------------------------------------------------------------------------------


def starts(length: int, window: int, overlap: float, multiple: int) -> list[int]:
    """Return where windows begin along one side of an image.

    Windows are evenly spaced, and the last ends at the end of the image or just beyond it.

    Args:
        length: side of the image in pixels.
        window: side of a window.
        overlap: smallest share of a window that the next one overlaps, where `multiple` allows it.
        multiple: windows begin at multiples of this.
    """
    last = max(-(-(length - window) // multiple), 0)
    step = max(int(window * (1 - overlap)) // multiple, 1)
    count = -(-last // step)
    return [round(i * last / max(count, 1)) * multiple for i in range(count + 1)]


def profile(begins: Sequence[int], index: int, window: int, overlap: float, places: np.ndarray) -> np.ndarray:
    """Return the blending weight of a window along one axis.

    Args:
        begins: where windows begin, in pixels.
        index: which of them.
        window: side of a window.
        overlap: share of a window that the next one overlaps.
        places: coordinates in pixels from the start of the window, (n,).
    """
    # Near its border a window lacks context, so its logits there differ from those of the whole image. Towards a
    # neighbour the weight is therefore 0 for the outer quarter of the overlap and rises as a raised cosine over the
    # middle half. Where one weight falls the neighbour's rises, so the sum, which blending divides by, is never 0. At
    # the border of the image, where there is no neighbour, the weight is 1.
    gaps = np.diff(begins)
    common = min(overlap * window, window - np.max(gaps)) if len(gaps) else 0.0
    weight = np.ones(len(places))
    if common <= 0:
        return weight
    for has_neighbour, depth in ((index > 0, places), (index < len(begins) - 1, window - places)):
        if has_neighbour:
            rise = np.clip((depth - common / 4) / (common / 2), 0, 1)
            weight = np.minimum(weight, 0.5 - 0.5 * np.cos(np.pi * rise))
    return weight


def slide(
    model: Model, image: Path | np.ndarray, overlap: float, scale: float, *, flip: bool, windows: int = WINDOWS
) -> np.ndarray:
    """Return the class of every pixel of an image, uint8 (height, width), from overlapping windows of the model's size.

    Only one row of windows is in memory at a time. For a convolutional network whose receptive field reaches no
    farther than a quarter of the overlap, the result equals that of the whole image in one piece.

    Args:
        model: a segmenter.
        image: a file or pixels.
        overlap: share of a window that the next one overlaps.
        scale: factor by which the image is resized first.
        flip: whether to average with mirror images.
        windows: windows in a batch.

    Raises:
        ConfigError: if the maps of windows of this size cannot be joined.
    """
    background = model.card.preprocess.background
    pixels = decode(image, background=background) if isinstance(image, Path) else image
    original = (pixels.shape[0], pixels.shape[1])
    resized = _resized(pixels, scale, model.card.preprocess.interpolation)
    check_channels(model.card, place(resized[:1, :1], model.card.preprocess, (1, 1)), image)
    scales = np.array([resized.shape[0] / original[0], resized.shape[1] / original[1]])
    labels = np.empty(original, np.uint8)
    done, last = 0, None  # finished rows of the image, and the last row of logits of the band above
    for first, final, logits, step in _bands(model, resized, overlap, Look(model, flip), windows):
        # `logits` begin at row `first` of the map. Pixels between two rows of logits are interpolated from both, so
        # the last row of the band above is put on top, and pixels below the last row's centre wait for the next band.
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
    """Yield the blended logits of an image in bands, from the top.

    Yields:
        The first row of the map, whether the band is the last, its logits (rows, columns, classes), and the stride of
        the map in pixels.
    """
    window = model.card.preprocess.size
    sides = jax.eval_shape(look, np.zeros((1, *window, model.card.in_channels), np.uint8)).shape[1:3]
    step = max(round(window[0] / sides[0]), 1)
    if (sides[0] * step, sides[1] * step) != window:
        raise ConfigError(
            f"{model.spec.name} gives maps of {sides[0]}x{sides[1]} for windows of {window[0]}x{window[1]} pixels, "
            "which have no common stride and cannot be joined: choose another image_size, or leave sliding_window out."
        )
    # Windows begin at multiples of the coarsest stride, so that convolutions and pooling of stride > 1 meet the same
    # pixels as in the whole image, and maps of neighbouring windows fall on one grid.
    multiple = int(np.lcm(_coarsest(model), step))
    down, across = (starts(image.shape[axis], window[axis], overlap, multiple) for axis in (0, 1))
    places = [(np.arange(side) + 0.5) * step for side in sides]
    columns = (across[-1] + window[1]) // step
    sums: Any = None
    for i, top in enumerate(down):
        # `sums` holds weighted logits and weights of the current row of windows. Rows that no further window touches
        # are yielded; the others move to the top, with what the windows above have added to them.
        if sums is not None:
            finished = (top - down[i - 1]) // step
            sums = [np.concatenate([each[finished:], np.zeros_like(each[:finished])]) for each in sums]
        vertical = profile(down, i, window[0], overlap, places[0])
        for batch, logits in _window_logits(model, image, look, top, across, windows):
            if sums is None:
                sums = [np.zeros((sides[0], columns, depth), np.float32) for depth in (logits.shape[-1], 1)]
            for j, one in zip(batch, logits, strict=False):
                weight = np.outer(vertical, profile(across, j, window[1], overlap, places[1]))[..., None]
                under = slice(across[j] // step, across[j] // step + sides[1])
                sums[0][:, under] += one * weight.astype(np.float32)
                sums[1][:, under] += weight.astype(np.float32)
        rows = (down[i + 1] - top) // step if i + 1 < len(down) else sides[0]
        yield top // step, i + 1 == len(down), sums[0][:rows] / sums[1][:rows], step


def _window_logits(
    model: Model, image: np.ndarray, look: Look, top: int, across: Sequence[int], windows: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield (indices, logits) of a row of windows, in batches of one size so that one compiled program serves all."""
    size = model.card.preprocess.size
    for start in range(0, len(across), windows):
        batch = list(range(start, min(start + windows, len(across))))
        cuts = [image[top : top + size[0], across[j] : across[j] + size[1]] for j in batch]
        pixels = [place(cut, model.card.preprocess, size) for cut in cuts]
        filled = pixels + pixels[-1:] * (min(windows, len(across)) - len(pixels))
        yield batch, np.asarray(look(np.stack(filled)))
