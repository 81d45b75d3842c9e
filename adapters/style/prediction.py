"""Prediction in a style: each image painted by itself, at its own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.adapters.style.pictures import style_files
from zoo.adapters.style.stylize import stylize
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zoo.models.model import Model


@dataclass(frozen=True)
class Stylizer:
    """Each image as `stylize` paints it with its defaults.

    Attributes:
        method: The style method, for messages.
        style: The option `style`: the picture to paint in, or a folder, of which the first is used.
        one_style: Whether the network has a style of its own, and needs no picture.
    """

    method: str
    style: str
    one_style: bool

    def __call__(
        self, model: Model, images: Sequence[Path | np.ndarray], batch_size: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield for each image its painted `picture`, uint8 (h, w, 3 or 4), and its colour profile as bytes, `icc`."""
        del batch_size  # images keep their own sizes, so each is painted by itself
        style = self._style()
        for image in images:
            painted = stylize(model, image, style)
            yield {"picture": painted.with_opacity(), "icc": np.frombuffer(painted.icc, np.uint8)}

    def _style(self) -> tuple[Path, ...]:
        """The picture to paint in. Raises `ConfigError` if there is none."""
        if self.one_style:
            return ()
        command = "name one with `zoo stylize RUN IMAGE --style PICTURE`"
        if not self.style:
            raise ConfigError(f"method={self.method} needs a style picture, and the option style is empty: {command}.")
        try:
            return (style_files(self.style)[0],)
        except DataError as error:
            raise ConfigError(f"the style picture of this model is gone: {error} Or {command}.") from error
