"""The results of `zoo predict`: written while images are predicted, with the images that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli import output
from zoo.errors import DataError, RunError, ZooError

if TYPE_CHECKING:
    from zoo.data import Dataset
    from zoo.models.model import Model

SOME_FAILED = 3
"""Exit code of a command that has done its work for some images and not for others."""


class Results:
    """Collects predictions, and writes their pictures at once, so that these are not kept in memory.

    Args:
        model: the model.
        files: the images.
        out: folder to write; None for none.
        pictures: the file of each image with its prediction drawn on it.
        rasters: for each kind of prediction that is an image itself, the file of each.

    Attributes:
        predictions: those that were made, without pictures.
        errors: index in `files` -> what is wrong with that image.
    """

    def __init__(
        self,
        model: Model,
        files: Sequence[Path],
        out: Path | None,
        pictures: Sequence[Path] = (),
        rasters: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        self.model, self.files, self.out = model, files, out
        self.pictures, self.rasters = pictures, rasters or {}
        self.predictions: list[Any] = []
        self.errors: dict[int, ZooError] = {}
        self._draws: bool | None = None  # a task draws all of its images or none; unknown before the first
        if out is not None:
            _make(out)

    def add(self, row: Any) -> None:
        """Take the prediction of the next image, or the error that stands for it."""
        index = self.done
        try:
            if isinstance(row, ZooError):
                raise row
            if self.out is not None:
                self._draw(index, row)
        except RunError:
            raise
        except ZooError as error:
            self.errors[index] = error
            if len(self.files) > 1:
                output.note(f"failed: {error}")
            return
        from zoo.models.task.output import without_pictures

        self.predictions.append(without_pictures(row))

    @property
    def done(self) -> int:
        """The number of images that were predicted or failed."""
        return len(self.predictions) + len(self.errors)

    def _draw(self, index: int, prediction: Any) -> None:
        from PIL import Image

        from zoo.data import decode

        adapter, pictures = self.model.adapter, {}
        for name, targets in self.rasters.items():
            pictures[targets[index]] = adapter.rasters[name](prediction)
        if self._draws is not False:
            pixels = decode(self.files[index], background=self.model.card.preprocess.background)
            drawn = adapter.picture(pixels, prediction)
            self._draws = drawn is not None
            if drawn is not None:
                pictures[self.pictures[index]] = Image.fromarray(drawn)
        for target, picture in pictures.items():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target, compress_level=3)
            except OSError as error:
                raise RunError(f"{target} cannot be written: {error.strerror or error}.") from error

    def failure(self) -> ZooError:
        """Return the error for no prediction at all."""
        first = next(iter(self.errors.values()))
        if self.out is not None:
            with suppress(OSError):  # it may have other files
                self.out.rmdir()
        if len(self.errors) == 1:
            return first
        return DataError(f"none of the {len(self.errors)} images could be predicted, e.g.: {first}")

    def plain(self) -> list[dict[str, Any]]:
        """Return a row for each image so far, ready for JSON; an image that failed has its `file` and `error`."""
        from zoo.models.task.output import plain

        predictions, rows = iter(self.predictions), list[dict[str, Any]]()
        for index, file in enumerate(self.files[: self.done]):
            if index in self.errors:
                rows.append({"file": str(file), "error": str(self.errors[index])})
                continue
            rows.append(plain(next(predictions)))
            if self.rasters:
                rows[-1]["written"] = {name: str(targets[index]) for name, targets in self.rasters.items()}
        return rows

    def write(self, data: Dataset) -> list[Path]:
        """Write the JSON files. Return them, and one glob for each folder of pictures.

        Args:
            data: the images, whose ids are those of the results.
        """
        assert self.out is not None
        out, files = self.out, dict(self.model.adapter.results(self.predictions, data))
        with suppress(OSError):
            (out / "failed.json").unlink(missing_ok=True)  # of an earlier call
        if self.errors:
            files["failed"] = [row for row in self.plain() if "error" in row]
        written = write_json(files, out)
        folders = [*([(out, self.pictures)] if self._draws else [])]
        folders += [(out / name, targets) for name, targets in self.rasters.items()]
        deep = {folder for folder, targets in folders if any(target.parent != folder for target in targets)}
        return [*written, *(folder / "**" / "*.png" if folder in deep else folder / "*.png" for folder, _ in folders)]


def write_json(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write each value as NAME.json and return the files."""
    from zoo.disk import write_whole

    _make(out)
    try:
        for name, values in results.items():
            write_whole(out / f"{name}.json", [output.json_text(values).encode()])
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from error
    return [out / f"{name}.json" for name in results]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}.") from error
