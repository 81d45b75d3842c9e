"""The folder that a dataset is written to: names of its images, and its files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zoo.data.files import hidden, is_image, split_name
from zoo.errors import DataError, counted

if TYPE_CHECKING:
    import numpy as np

    from zoo.data.dataset import Dataset, Sample

_UNFIT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\\]")
"""Characters of file names that lists of files cannot hold."""


class Folder:
    """A folder to write a dataset to.

    Attributes:
        root: the folder, which exists.
        link: whether images are symbolic links to the originals, instead of copies.
        images: original image -> its file in the folder, of all that were written.
        notes: what the format cannot hold, and images that were renamed; shown to the user.
        tolerance: pixels by which coordinates may differ when they are read back.
    """

    def __init__(self, root: Path, *, link: bool = False) -> None:
        self.root, self.link = root, link
        self.images: dict[Path, Path] = {}
        self.notes: list[str] = []
        self.tolerance = 0.01
        # Whether the file system takes `A.jpg` and `a.jpg` for the same file.
        self._folds = root.with_name(root.name.swapcase()).exists()

    def names(
        self, splits: Mapping[str, Dataset], *, together: bool = False, stems: bool = False
    ) -> dict[str, list[str]]:
        """Return split -> a relative path for each image, with `/`; no two images have the same.

        It is the image's own path, without the folders that all images of its split have in common. Images are
        renamed, with a note, if they would have the same name, or a name that would not be read back.

        Args:
            splits: the dataset.
            together: whether the images of all splits go to one folder.
            stems: whether names must differ without their suffixes too, because annotations are named after images.
        """
        wanted = {split: _relative(dataset) for split, dataset in splits.items()}
        taken: dict[str, set[str]] = {}
        names: dict[str, list[str]] = {}
        renamed: list[tuple[str, str]] = []

        def key(name: str) -> str:
            bare = os.path.splitext(name)[0] if stems else name
            return bare.casefold() if self._folds else bare

        for split, dataset in splits.items():
            used = taken.setdefault("" if together else split, set())
            names[split] = []
            for sample, path in zip(dataset, wanted[split], strict=True):
                name = _free(_fit(path, sample.image), split, used, key)
                used.add(key(name))
                names[split].append(name)
                if name != path:
                    renamed.append((sample.id, name))
        if renamed:
            old, new = renamed[0]
            self.notes.append(f"{counted(len(renamed), 'image is', 'images are')} renamed, e.g. {old} to {new}.")
        return names

    def image(self, sample: Sample, name: str) -> None:
        """Copy the image of a sample, or link to it."""
        target = self._file(name)
        try:
            if self.link:
                target.symlink_to(os.path.realpath(sample.image))
            else:
                shutil.copyfile(sample.image, target)
        except OSError as error:
            advice = " Leave out the option to link, to copy the images." if self.link else ""
            raise DataError(f"{sample.image} cannot be written as {target}: {error.strerror or error}.{advice}") from (
                error
            )
        self.images[sample.image] = target

    def text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8."""
        self._file(name).write_text(text, "utf-8", newline="\n")

    def lines(self, name: str, lines: Sequence[str]) -> None:
        """Write a text file of lines."""
        self.text(name, "".join(f"{line}\n" for line in lines))

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file. It is ASCII, so that names of files that are no UTF-8 can be written."""
        self.text(name, json.dumps(value, allow_nan=False) + "\n")

    def mask(self, name: str, values: np.ndarray) -> None:
        """Write values (height, width), uint8 or uint16, as a PNG file of grey values."""
        from PIL import Image

        Image.fromarray(values).save(self._file(name), "PNG")

    def left_out(self, count: int, noun: str, plural: str = "") -> None:
        """Add a note that something of the dataset is not in the format; none if `count` is 0."""
        if count:
            self.notes.append(f"{counted(count, noun, plural)} not written, because the format has no place for them.")

    def without_outlines(self, splits: Mapping[str, Dataset]) -> None:
        """Add a note if the dataset has outlines of objects, which the format has no place for."""
        targets = [sample.target for dataset in splits.values() for sample in dataset]
        outlines = sum(len(target) for target in targets if target.masks is not None)
        self.left_out(outlines, "outline is", "outlines are")

    def without_crowds(self, splits: Mapping[str, Dataset]) -> None:
        """Add a note if the dataset has marks of crowds or difficult objects, which the format has no place for."""
        crowds = sum(sum(sample.target.crowd) for dataset in splits.values() for sample in dataset)
        self.left_out(crowds, "mark of a crowd or a difficult object is", "marks of crowds or difficult objects are")

    def without_ids(self, splits: Mapping[str, Dataset]) -> None:
        """Add a note if the dataset has ids of images and categories, which the format has no place for."""
        if any(sample.number is not None for dataset in splits.values() for sample in dataset):
            self.notes.append("the ids of images and categories are not written: the format has none.")

    def _file(self, name: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def _relative(dataset: Dataset) -> list[str]:
    """Return the path of each image below the folder that all images of a dataset have in common."""
    paths = [PurePosixPath(sample.id) for sample in dataset]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        paths = [PurePosixPath(Path(os.path.abspath(sample.image)).as_posix()) for sample in dataset]
    depth = min((len(path.parts) - 1 for path in paths), default=0)
    first = paths[0].parts if paths else ()
    common = next((i for i in range(depth) if any(path.parts[i] != first[i] for path in paths)), depth)
    return ["/".join(path.parts[common:]) for path in paths]


def _fit(path: str, image: Path) -> str:
    """Return a relative path that every format and reader takes for an image.

    Folders named after splits would be taken for such, and hidden files would not be seen.
    """
    *folders, name = path.split("/")
    stem, suffix = os.path.splitext(name)
    if not is_image(f"a{suffix}"):
        stem, suffix = name, _suffix_of(image)
    folders = [_component(folder) for folder in folders]
    folders = [f"of_{folder}" if split_name(folder) else folder for folder in folders]
    return "/".join([*folders, _component(stem) + suffix])


def _component(name: str) -> str:
    name = _UNFIT.sub("_", name).strip()
    if name.endswith("."):
        name = f"{name[:-1]}_"
    return f"_{name}" if not name or hidden(name) else name


def _suffix_of(image: Path) -> str:
    """Return the suffix of an image by its content; `.png` if its format has none."""
    from PIL import Image

    try:
        with Image.open(image) as opened:
            format = opened.format
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged files
        raise DataError(f"{image} is no image that can be read: {error}.") from error
    named = [suffix for suffix, name in Image.registered_extensions().items() if name == format]
    return ".jpg" if format == "JPEG" else next(iter(named), ".png")


def _free(name: str, split: str, used: Collection[str], key: Callable[[str], str]) -> str:
    """Return a name whose key is not used: the name itself, or one with its suffix, its split or a number in it."""
    path = PurePosixPath(name)
    stem, suffix = path.stem, path.suffix
    folder = "" if path.parent == PurePosixPath() else f"{path.parent}/"
    numbered = (f"{folder}{stem}_{number}{suffix}" for number in count(2))
    candidates = (name, f"{folder}{stem}_{suffix[1:]}{suffix}", f"{folder}{split}_{stem}{suffix}")
    return next(candidate for candidate in chain(candidates, numbered) if key(candidate) not in used)
