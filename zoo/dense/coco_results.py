"""Image ids and category ids for results in COCO's format (https://cocodataset.org/#format-results).

pycocotools' `loadRes` accepts results only if they use the ids of the dataset's annotation file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.category_ids import Id, completed
from zoo.data.dataset import Dataset
from zoo.data.image_names import names_of
from zoo.data.readers.coco import numbers_of
from zoo.errors import ConfigError


class Numbering:
    """Ids of images and categories for a results file.

    The dataset's ids are used if it has any: those of `data`, else those of the COCO annotation file that lists the
    images. A class without an id there gets an unused one. An image without such an id has the id of its sample, which
    is a relative path; or its file name, if `data` is unknown and no two images have the same. Class ids are then
    `own`, or COCO's category ids if the labels are COCO's, or numbers counted from `first`.

    Args:
        labels: class names of the model.
        files: image files.
        data: dataset that the images come from, if it is known: with the model's classes, or without any classes.
        own: an id for each label, or empty.
        first: lowest id where ids are counted.
    Raises:
        ConfigError: if `own` does not have one id for each label.
    """

    def __init__(
        self,
        labels: Sequence[str],
        files: Sequence[str],
        *,
        data: Dataset | None = None,
        own: Sequence[Id | None] = (),
        first: int = 1,
    ) -> None:
        if own and len(own) != len(labels):
            raise ConfigError(
                f"got {len(own)} category_ids for {len(labels)} labels. Give one for each label, or none."
            )
        images: dict[str, Id]
        known: Mapping[str, Id | None]
        paths = [Path(file) for file in dict.fromkeys(files)]
        if data is not None and data.classes:
            images = {str(sample.image): sample.number for sample in data if sample.number is not None}
            known = dict(zip(data.classes, data.category_ids, strict=False))
        else:
            named, known = numbers_of(paths)
            images = {str(image): number for image, number in named.items()}
        self._images = images
        if data is not None:
            self._names = {str(sample.image): sample.id for sample in data}
        else:
            self._names = dict(zip(map(str, paths), names_of(paths), strict=True))
        self._numbers = completed(labels, known or dict(zip(labels, own, strict=False)), first)

    def image(self, file: str) -> Id:
        """Return the id of an image file."""
        return self._images[file] if file in self._images else self._names.get(file, Path(file).name)

    def category(self, label: str) -> Id:
        """Return the category id of a class."""
        return self._numbers[label]

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The classes and their ids, as in the `categories` of a COCO file."""
        return [{"id": number, "name": label} for label, number in self._numbers.items()]
