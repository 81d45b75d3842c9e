"""From images to predictions: prepare, batch by letterbox size, run one compiled program, decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from zoo.data import decode, prepare
from zoo.data.inputs import Input, inputs
from zoo.data.transform import Frame, frame_of
from zoo.errors import ConfigError, ZooError

if TYPE_CHECKING:
    from zoo.models.card import Card
    from zoo.models.model import Model

Image = Path | np.ndarray


@dataclass(frozen=True)
class WholeImages:
    """The usual way to predict: each image once, as a whole. Images of one letterbox size share a compiled program."""

    def __call__(self, model: Model, images: Sequence[Image], batch_size: int) -> list[Mapping[str, np.ndarray]]:
        """Return the decoded arrays of each image, see `zoo.models.task.output.Inference`."""
        arrays: dict[int, Mapping[str, np.ndarray]] = {}
        for rows, pixels, frames in framed(model.card, images, batch_size):
            decoded = {name: np.asarray(value) for name, value in decode_pixels(model, pixels, frames).items()}
            arrays |= {row: {name: value[i] for name, value in decoded.items()} for i, row in enumerate(rows)}
        return [arrays[i] for i in range(len(images))]


@dataclass(frozen=True)
class Predictor:
    """A model's predictions for images, one batch after the other: only the images of one batch are in memory.

    Attributes:
        model: The model; its task says how images are predicted (`Output.inference`).
        batch_size: Images that are computed together. If there are more, all batches are filled up to this size, so
            that they share a compiled program.
    """

    model: Model
    batch_size: int = 32

    def __call__(self, images: Any) -> list[Any]:
        """Return one prediction for each image, see `zoo.data.inputs.ACCEPTED`, in their order.

        Raises:
            DataError: A file is no image; the error names it.
        """
        card, predictions = self.model.card, list[Any]()
        for chunk, size in self._chunks(inputs(images)):
            opened = [one.opened(card.in_channels, card.preprocess.background) for one in chunk]
            predictions += self._predictions(opened, [one.name for one in chunk], size)
        return predictions

    def rows(self, images: Any) -> Iterator[Any]:
        """Yield for each image its prediction, or the `ZooError` that says what is wrong with it.

        One bad file is one bad row: the images beside it are predicted all the same.

        Raises:
            ZooError: What is wrong concerns no image in particular.
        """
        for number, (chunk, size) in enumerate(self._chunks(inputs(images, strict=False))):
            rows = self._rows(chunk, size)
            if number == 0 and len(rows) > 1 and isinstance(rows[0], ConfigError):
                if len({(type(row), str(row)) for row in rows}) == 1:
                    raise rows[0]
            yield from rows

    def _chunks(self, images: Iterator[Input]) -> Iterator[tuple[list[Input], int]]:
        """Yield the images of each batch, and the size to fill the batch up to (0 for none)."""
        chunk, size = list(islice(images, self.batch_size + 1)), 0
        while len(chunk) > self.batch_size:
            size = self.batch_size
            yield chunk[:size], size
            chunk = [*chunk[size:], *islice(images, size)]
        if chunk:
            yield chunk, size

    def _rows(self, chunk: Sequence[Input], size: int) -> list[Any]:
        """Return the predictions of a batch, with errors in place of those that fail."""
        rows: list[Any] = []
        for one in chunk:
            try:
                card = self.model.card
                rows.append(one.opened(card.in_channels, card.preprocess.background))
            except ZooError as error:
                rows.append(error)
        good = [i for i, row in enumerate(rows) if not isinstance(row, ZooError)]
        # All are filled up to one size, so that what is left of a batch needs no further program.
        fill = size if len(good) == len(chunk) else size or len(chunk)
        found = self._found([rows[i] for i in good], [chunk[i].name for i in good], fill)
        for i, row in zip(good, found, strict=True):
            rows[i] = row
        return rows

    def _found(self, images: Sequence[Image], names: Sequence[str], size: int, *, sound: bool = False) -> list[Any]:
        """Return predictions, with the error in place of each that fails.

        Args:
            images: Files or pixels.
            names: Their names.
            size: Size to fill batches up to, 0 for none.
            sound: Whether all images are known to be readable, so that only the task can refuse one.
        """
        found: list[Any] = []
        try:
            for one in self._predictions(images, names, size):
                found.append(one)
            return found
        except ZooError as error:
            if len(images) == 1:
                return [error]
        size = size or len(images)
        if not found and not sound:
            # Only now is it worth finding out which images are damaged: good ones are not read twice.
            errors = [_error_of(self.model.card, image) for image in images]
            good = [i for i, error in enumerate(errors) if error is None]
            rest = iter(self._found([images[i] for i in good], [names[i] for i in good], size, sound=True))
            return [next(rest) if error is None else error for error in errors]
        # A task that takes one image after the other has failed at the next one. Otherwise, halve the batch.
        cut = len(found) + 1 if found else len(images) // 2
        found += self._found(images[len(found) : cut], names[len(found) : cut], size, sound=sound)
        return found + self._found(images[cut:], names[cut:], size, sound=sound)

    def _predictions(self, images: Sequence[Image], names: Sequence[str], size: int) -> Iterator[Any]:
        """Yield the predictions of a batch. Raises `ZooError` for the first one that fails."""
        if not images:
            return
        adapter = self.model.adapter
        inference = adapter.inference or WholeImages()
        for name, arrays in zip(names, inference(self.model, images, size), strict=True):
            yield from adapter.predictions({key: value[None] for key, value in arrays.items()}, [name])


def _error_of(card: Card, image: Image) -> ZooError | None:
    """Return the error that preparing one image raises; None if there is none."""
    try:
        prepare_one(card, image)
    except ZooError as error:
        return error
    return None


def prepare_one(card: Card, image: Image) -> tuple[np.ndarray, Frame]:
    """Return a prepared image, uint8 (h, w, c), and where the original lies in it."""
    pixels = decode(image, background=card.preprocess.background) if isinstance(image, Path) else image
    prepared = prepare(pixels, card.preprocess)
    check_channels(card, prepared, image)
    return prepared, frame_of(pixels.shape[:2], card.preprocess)


def framed(card: Card, images: Sequence[Image], size: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
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


def check_channels(card: Card, prepared: np.ndarray, image: Image) -> None:
    """Raise `ConfigError` if a prepared image does not have the number of channels that the model takes."""
    if prepared.shape[-1] != card.in_channels:
        raise ConfigError(
            f"the model takes images of {card.in_channels} channels, and "
            f"{image if isinstance(image, Path) else 'the array'} has {prepared.shape[-1]}; give arrays of shape "
            f"(height, width, {card.in_channels})."
        )


def as_list(images: Any, card: Card) -> list[Path | np.ndarray]:
    """Return the images one by one as files or pixels for a model, see `zoo.data.inputs.ACCEPTED`."""
    return [one.opened(card.in_channels, card.preprocess.background) for one in inputs(images)]


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
