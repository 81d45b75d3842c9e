"""From images to predictions: prepare, batch by letterbox size, run one compiled program, decode."""

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
from zoo.errors import ConfigError, ZooError

if TYPE_CHECKING:
    from zoo.models.card import Card
    from zoo.models.model import Model

Image = str | Path | np.ndarray


@dataclass(frozen=True)
class WholeImages:
    """The usual way to predict: each image once, as a whole. Images of one letterbox size share a compiled program."""

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> list[Mapping[str, np.ndarray]]:
        """Return the decoded arrays of each image, see `zoo.models.task.output.Inference`."""
        arrays: dict[int, Mapping[str, np.ndarray]] = {}
        for rows, pixels, frames in framed(model.card, images, batch_size):
            decoded = {name: np.asarray(value) for name, value in decode_pixels(model, pixels, frames).items()}
            arrays |= {row: {name: value[i] for name, value in decoded.items()} for i, row in enumerate(rows)}
        return [arrays[i] for i in range(len(images))]


@dataclass(frozen=True)
class Predictor:
    """A model's predictions for images, one batch after the other.

    Attributes:
        model: The model; its task says how images are predicted (`Output.inference`).
        batch_size: Images that are computed together. If there are more, all batches are filled up to this size, so
            that they share a compiled program.
    """

    model: Model
    batch_size: int = 32

    def __call__(self, images: Sequence[Path | np.ndarray]) -> list[Any]:
        """Return one prediction for each image, a file or uint8 (h, w, c), in their order.

        Raises:
            DataError: A file is no image; the error names it.
        """
        return [one for chunk in self._chunks(images) for one in self._predicted(*chunk)]

    def rows(self, images: Sequence[Path | np.ndarray]) -> Iterator[Any]:
        """Yield for each image its prediction, or the `ZooError` that says what is wrong with it.

        One bad file is one bad row: the images beside it are predicted all the same.
        """
        for chunk, names, size in self._chunks(images):
            try:
                yield from self._predicted(chunk, names, size)
            except ZooError:
                # Only now is it worth finding out which: good files are not read twice.
                errors = [_error_of(self.model.card, image) for image in chunk]
                good = [i for i, error in enumerate(errors) if error is None]
                if len(good) == len(chunk):
                    raise
                known = iter(self._predicted([chunk[i] for i in good], [names[i] for i in good], size))
                yield from (next(known) if error is None else error for error in errors)

    def _chunks(
        self, images: Sequence[Path | np.ndarray]
    ) -> Iterator[tuple[Sequence[Path | np.ndarray], list[str], int]]:
        """Yield each batch: the images, their names, and the size to fill the batch up to (0 for none)."""
        size = self.batch_size if len(images) > self.batch_size else 0
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            yield (
                chunk,
                [str(one) if isinstance(one, Path) else f"image {start + i}" for i, one in enumerate(chunk)],
                size,
            )

    def _predicted(self, images: Sequence[Path | np.ndarray], names: Sequence[str], size: int) -> list[Any]:
        adapter, predictions = self.model.adapter, list[Any]()
        inference = adapter.inference or WholeImages()
        for name, arrays in zip(names, inference(self.model, images, size), strict=True):
            predictions += adapter.predictions({key: value[None] for key, value in arrays.items()}, [name])
        return predictions


def _error_of(card: Card, image: Path | np.ndarray) -> ZooError | None:
    """Return the error that preparing one image raises; None if there is none."""
    try:
        prepare_one(card, image)
    except ZooError as error:
        return error
    return None


def prepare_one(card: Card, image: Path | np.ndarray) -> tuple[np.ndarray, Frame]:
    """Return a prepared image, uint8 (h, w, c), and where the original lies in it."""
    pixels = decode(image) if isinstance(image, Path) else image
    prepared = prepare(pixels, card.preprocess)
    check_channels(card, prepared, image)
    return prepared, frame_of(pixels.shape[:2], card.preprocess)


def framed(
    card: Card, images: Sequence[Path | np.ndarray], size: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield a batch for each letterbox size among the images.

    Args:
        size: Size that batches are filled up to with copies of their last image; 0 to leave them as they are.

    Yields:
        Indices of the images, their pixels (b, h, w, c), and where the originals lie in them (b, 6).
    """
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


def check_channels(card: Card, prepared: np.ndarray, image: Path | np.ndarray) -> None:
    """Raise `ConfigError` if a prepared image does not have the number of channels that the model takes."""
    if prepared.shape[-1] != card.in_channels:
        raise ConfigError(
            f"the model takes images of {card.in_channels} channels, and "
            f"{image if isinstance(image, Path) else 'the array'} has {prepared.shape[-1]}; give arrays of shape "
            f"(height, width, {card.in_channels})."
        )


def as_list(images: Image | Iterable[Image]) -> list[Path | np.ndarray]:
    """Return the images one by one, with folders and patterns expanded. An array of four axes is a batch."""
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
    return model.adapter.decode(model.forward(batch), batch)


def decode_pixels(model: Model, pixels: np.ndarray, frames: np.ndarray | None = None) -> dict[str, Array]:
    """Return the task's decoded arrays for a uint8 batch (b, h, w, c). One compiled program, in evaluation mode.

    Args:
        frames: Where the original lies in each image, (b, 6), see `zoo.data.transform.Frame`. By default the images
            are the originals.
    """
    model.eval()
    graphdef, state = nnx.split(model)
    if frames is None:
        frames = np.tile(np.array([1, 1, 0, 0, *pixels.shape[1:3]], np.float32), (len(pixels), 1))
    return _decode(graphdef, state, {"image": pixels, "frame": frames})
