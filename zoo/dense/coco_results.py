"""What COCO's result format calls images and classes: the numbers of the data's own file, else of the label set.

https://cocodataset.org/#format-results; pycocotools' `loadRes` takes the results where the numbers are the data's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset
from zoo.data.readers.coco import numbers_of
from zoo.errors import ConfigError
from zoo.labels import category_numbers
from zoo.targets.masks import BACKGROUND


class Numbering:
    """The numbers of images and classes in results.

    Those of the data are used where they have any: of `data`, else of the data in COCO's format that the files belong
    to. A class that these lack gets a number that they do not use. Other files are called by their names, and classes
    by `own`, else by the numbers of COCO's categories where the labels are its, else from `first` on.

    Args:
        labels: the model's. files: the images. data: what they are from, with the model's classes, where it is known.
        own: a number for each label, or nothing.
    """

    def __init__(
        self,
        labels: Sequence[str],
        files: Sequence[str],
        *,
        data: Dataset | None = None,
        own: Sequence[int | None] = (),
        first: int = 1,
    ) -> None:
        if own and len(own) != len(labels):
            raise ConfigError(f"{len(own)} category_ids for {len(labels)} labels; give one for each, or none.")
        images: dict[str, int | str]
        known: Mapping[str, int | None]
        if data is not None:
            images = {str(sample.image): sample.number for sample in data if sample.number is not None}
            known = dict(zip(data.classes, data.category_ids, strict=False))
        else:
            named, known = numbers_of([Path(file) for file in dict.fromkeys(files)])
            images = {str(image): number for image, number in named.items()}
        self._images = images
        self._numbers = _numbered(
            labels, known or dict(zip(labels, own, strict=False)), category_numbers(labels), first
        )

    def image(self, file: str) -> int | str:
        """What an image is called."""
        return self._images.get(file, Path(file).name)

    def category(self, label: str) -> int:
        """The number of a class."""
        return self._numbers[label]

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The classes with their numbers, as COCO's files list them."""
        return [{"id": number, "name": label} for label, number in self._numbers.items()]


def _numbered(
    labels: Sequence[str], known: Mapping[str, int | None], published: Sequence[int], first: int
) -> dict[str, int]:
    """A number for each label, all different."""
    taken = {number for number in known.values() if number is not None}
    if not taken:
        return dict(zip(labels, published or range(first, first + len(labels)), strict=True))
    given = {label: number for label in labels if (number := known.get(label)) is not None}
    if BACKGROUND in labels and BACKGROUND not in given and 0 not in taken:
        given[BACKGROUND] = 0
    free = count(max(taken) + 1)
    return {label: given[label] if label in given else next(free) for label in labels}
