"""What a task predicts: arrays, typed values, and what people and other programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from jax import Array
    from PIL import Image

    from zoo.data import Dataset
    from zoo.models.model import Model
    from zoo.models.task.forward import ForwardPass


class Table(NamedTuple):
    """Predictions for people.

    Attributes:
        columns: Their names.
        rows: A cell for each column.
        right: Names of the columns that are aligned to the right.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    right: tuple[str, ...] = ()


class Inference(Protocol):
    """How the decoded arrays of images are computed, e.g. in sliding windows or at several scales.

    `zoo.models.predictor.WholeImages` is the usual way.
    """

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterable[Mapping[str, np.ndarray]]:
        """Return the arrays of each image as `Output.decode` gives them, without the batch axis.

        Args:
            images: Files, or uint8 arrays (h, w, c).
            batch_size: Size that all batches are filled up to, so that they share a compiled program; 0 for any.
        """


class Output:
    """The part of a task that turns outputs into predictions."""

    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return predictions as arrays, each (b, ...). This is part of the compiled step.

        Args:
            forward: The head's outputs, what the head computes from, and the model.
            batch: In an evaluation the targets; where images are predicted, `image` and `frame` (b, 6), which says
                where the original lies in the prepared image (`zoo.data.transform.Frame`).
        """
        raise NotImplementedError

    @property
    def inference(self) -> Inference | None:
        """How images are predicted, if not each once as a whole; None for the usual way."""
        return None

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Any]:
        """Return decoded arrays as one typed value (a msgspec.Struct) for each image.

        A field may hold an image, as `PIL.Image.Image` or array. JSON and tables leave it out; `rasters` write it.
        """
        raise NotImplementedError

    def unabridged(self) -> Self:
        """Return this task with nothing left out of predictions that metrics are computed from."""
        return self

    def table(self, predictions: Sequence[Any]) -> Table:
        """Return predictions as a table: the fields of the typed values. Of a long list it has the length only."""
        rows = [plain(one) for one in predictions]
        columns = tuple(rows[0]) if rows else ()
        return Table(columns, [tuple(map(_cell, row.values())) for row in rows])

    def results(self, predictions: Sequence[Any], data: Dataset | None = None) -> dict[str, Any]:
        """Return predictions as files for other programs: name without suffix -> plain values, ready for JSON.

        The format is the field's own where there is one.

        Args:
            data: The dataset they were made for, if known; it may number images and classes (`Sample.number`,
                `Dataset.category_ids`).
        """
        return {"predictions": [plain(one) for one in predictions]}

    def picture(self, pixels: np.ndarray, prediction: Any) -> np.ndarray | None:
        """Return an image, uint8 (h, w, 3), with its prediction drawn on it; None for a task without pictures."""
        return None

    @property
    def rasters(self) -> Mapping[str, Callable[[Any], Image.Image]]:
        """Predictions that are images themselves, for other programs: name -> function of a prediction."""
        return {}


def plain(prediction: Any) -> dict[str, Any]:
    """Return a typed prediction as plain values, ready for JSON.

    Fields that hold an image or an array are left out: `Output.rasters` writes those.
    """
    values: dict[str, Any] = msgspec.to_builtins(without_pictures(prediction))
    return values


def without_pictures(prediction: Any) -> Any:
    """Return a typed prediction without its fields that hold an image or an array, which take most of its memory."""
    from numpy import ndarray
    from PIL.Image import Image

    names = getattr(prediction, "__struct_fields__", ())
    images = [name for name in names if isinstance(getattr(prediction, name), ndarray | Image)]
    # msgspec cannot encode an image, and omits fields that are UNSET.
    return msgspec.structs.replace(prediction, **dict.fromkeys(images, msgspec.UNSET)) if images else prediction


def _cell(value: Any) -> Any:
    """Return a value as a cell of a table."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(_cell(one)) for one in value) if len(value) <= 4 else f"{len(value)} values"
    return value
