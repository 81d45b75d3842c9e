"""Photos to predictions: prepared, put into batches of one frame, computed by one compiled program, decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from zoo.data import decode, list_images, prepare
from zoo.data.transform import Frame, frame_of
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.models.card import Card
    from zoo.models.model import Model

Image = str | Path | np.ndarray


@dataclass(frozen=True)
class Predictor:
    """What a model sees in photos, a batch after the other.

    Attributes:
        model: whose task decides how it looks at a photo, see `Adapter.predict`.
        batch_size: photos that are computed together. Where there are more, all batches are of this size, so that they
            share a compiled program.
    """

    model: Model
    batch_size: int = 32

    def __call__(self, images: Sequence[Path | np.ndarray]) -> list[Any]:
        """One prediction for each image, a file or uint8 (h, w, c), in their order."""
        found: list[Any] = []
        size = self.batch_size if len(images) > self.batch_size else 0
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            names = [str(item) if isinstance(item, Path) else f"image {start + i}" for i, item in enumerate(chunk)]
            found.extend(self.model.adapter.predict(self.model, chunk, names, size))
        return found


def prepare_one(card: Card, image: Path | np.ndarray) -> tuple[np.ndarray, Frame]:
    """One image, ready for normalisation, uint8 (h, w, c), and how it shows the original."""
    pixels = decode(image) if isinstance(image, Path) else image
    prepared = prepare(pixels, card.preprocess)
    check_channels(card, prepared, image)
    return prepared, frame_of(pixels.shape[:2], card.preprocess)


def framed(
    card: Card, images: Sequence[Path | np.ndarray], size: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """(which images, their pixels (b, h, w, c), how they show the originals (b, 6)) for each frame that images have,
    in a batch of `size` where that is given, filled up with the last one."""
    with ThreadPoolExecutor(4) as pool:
        prepared = list(pool.map(partial(prepare_one, card), images))
    shapes = [pixels.shape for pixels, _ in prepared]
    for shape in dict.fromkeys(shapes):
        rows = [i for i, other in enumerate(shapes) if other == shape]
        filled = rows + rows[-1:] * (size - len(rows))
        yield (
            rows,
            np.stack([prepared[i][0] for i in filled]),
            np.array([prepared[i][1] for i in filled], np.float32),
        )


def predict_framed(model: Model, images: Sequence[Path | np.ndarray], names: Sequence[str], size: int) -> list[Any]:
    """One prediction for each image. Those of one frame are computed together, in a batch of `size` where that is
    given."""
    found: dict[int, Any] = {}
    for rows, pixels, frames in framed(model.card, images, size):
        decoded = {k: np.asarray(v)[: len(rows)] for k, v in decode_pixels(model, pixels, frames).items()}
        found |= dict(zip(rows, model.adapter.predictions(decoded, [names[i] for i in rows]), strict=True))
    return [found[i] for i in range(len(images))]


def check_channels(card: Card, prepared: np.ndarray, image: Path | np.ndarray) -> None:
    """Raise `ConfigError` where a prepared image has not as many channels as the model takes."""
    if prepared.shape[-1] != card.in_channels:
        raise ConfigError(
            f"the model takes images of {card.in_channels} channels, and "
            f"{image if isinstance(image, Path) else 'the array'} has {prepared.shape[-1]}; give arrays of shape "
            f"(height, width, {card.in_channels})."
        )


def as_list(images: Image | Iterable[Image]) -> list[Path | np.ndarray]:
    """The images one by one, folders and patterns expanded. An array of four axes is a batch."""
    if isinstance(images, str | Path):
        return list(list_images(images))
    if isinstance(images, np.ndarray):
        if images.ndim not in (3, 4) or images.dtype != np.uint8:
            raise ConfigError(
                f"an image array must be uint8 (height, width, channels), or several (n, height, width, channels); "
                f"this one is {images.dtype} {images.shape}."
            )
        return [images] if images.ndim == 3 else list(images)
    return [item for image in images for item in as_list(image)]


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: nnx.GraphDef[Model], state: nnx.State, batch: Mapping[str, Array]) -> dict[str, Array]:
    model = nnx.merge(graphdef, state)
    return model.adapter.decoded(model, model.reduced(model.normalize(batch["image"])), batch)


def decode_pixels(model: Model, pixels: np.ndarray, frames: np.ndarray | None = None) -> dict[str, Array]:
    """The task's decoded arrays for a uint8 batch (b, h, w, c), by one compiled program, in evaluation mode.

    `frames` (b, 6) tells how each shows its original (`zoo.data.transform.Frame`); without it, they are originals.
    """
    model.eval()
    graphdef, state = nnx.split(model)
    if frames is None:
        frames = np.tile(np.array([1, 1, 0, 0, *pixels.shape[1:3]], np.float32), (len(pixels), 1))
    return _decode(graphdef, state, {"image": pixels, "frame": frames})
