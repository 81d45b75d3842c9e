"""Category ids of classes, for COCO files and results that are compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from zoo.labels import category_numbers
from zoo.targets.masks import BACKGROUND

Id = int | str


def category_ids(labels: Sequence[str], ids: Sequence[Id | None] = (), first: int = 1) -> dict[str, Id]:
    """Return a category id for each class; see `completed`."""
    return completed(labels, dict(zip(labels, ids, strict=False)), first)


def completed(labels: Sequence[str], known: Mapping[str, Id | None], first: int = 1) -> dict[str, Id]:
    """Return a category id for each class, all different.

    Without any known id, they are COCO's if the labels are COCO's, else numbers counted from `first`. A class without
    an id among others gets an unused one.

    Args:
        labels: class names.
        known: class name -> its id in an annotation file, also of classes that are not among the labels.
        first: lowest id where ids are counted.
    """
    taken = {id for id in known.values() if id is not None}
    if not taken:
        numbers = category_numbers(labels) or range(first, first + len(labels))
        return dict(zip(labels, numbers, strict=True))
    # COCO numbers categories from 1 and leaves 0 to the background; other labels that the file lacks get ids above all
    # of its own, so that they cannot be taken for one of its categories.
    given = {label: id for label in labels if (id := known.get(label)) is not None}
    numbers_taken = [int(id) for id in taken if isinstance(id, int) or id.isdecimal()]
    if BACKGROUND in labels and BACKGROUND not in given and 0 not in numbers_taken:
        given[BACKGROUND] = 0
    free = count(max([*numbers_taken, 0]) + 1)
    return {label: given[label] if label in given else next(free) for label in labels}
