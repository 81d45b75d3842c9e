"""Class names: the label sets of published weights, and the matching of a dataset's classes with a model's labels.

A label set is a text file with one class a line, optionally as `identifier<TAB>name`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zoo.errors import DataError
from zoo.labels.spelling import index_of, loose, nfc, number
from zoo.registry.parts import Point

_SHOWN = 5


class Alignment(NamedTuple):
    """The label of each class of a dataset.

    Attributes:
        indexes: index of the label of each class; -1 for a class that the model does not know and no sample has.
        notes: remarks on the classes that were not matched by their exact name.
    """

    indexes: tuple[int, ...]
    notes: tuple[str, ...] = ()


LABEL_SETS: Point[Any] = Point("labels.set", "label set")
"""The label sets: text files (paths, or what `importlib.resources.files` gives), or tuples of their lines."""


def names(label_set: str) -> tuple[str, ...]:
    """Return the class names of a set such as `imagenet-1k`, in the order of the model's outputs."""
    return tuple(line.split("\t")[-1] for line in _lines(label_set))


_COCO = ("coco-80", "coco-90", "coco-91")
_CATEGORIES = "coco-91"
"""The set in which the position of a name is its COCO category id."""


def category_numbers(labels: Sequence[str]) -> tuple[int, ...]:
    """Return the COCO category `id` of each label, from 1 to 90 for the 80 categories.

    The labels must be COCO's categories, in one of the orders that published weights use; else the result is empty.
    """
    place = {name: number for number, name in enumerate(names(_CATEGORIES))}
    return tuple(place[name] for name in labels) if tuple(labels) in map(names, _COCO) else ()


def _lines(label_set: str) -> list[str]:
    found = LABEL_SETS[label_set]
    return list(found) if isinstance(found, tuple) else found.read_text("utf-8").splitlines()


def numbered(labels: Sequence[str]) -> bool:
    """Return whether labels are mere class numbers: `0`, `1`, ... in this order."""
    return tuple(labels) == tuple(map(str, range(len(labels))))


def align(
    classes: Sequence[str],
    labels: Sequence[str],
    label_set: str = "",
    used: Collection[int] | None = None,
    *,
    numbers: bool = True,
) -> Alignment:
    """Find the model's label for each class of a dataset.

    A class is matched by its exact name after Unicode normalisation; else by its identifier in the label set
    (ImageNet's `n01440764`); else ignoring case, spaces, `_` and `-`. If all classes are numbers and no label is, they
    are class numbers from 0. The position decides only between labels of the same name, and only if the dataset has
    as many classes as the model.

    Args:
        classes: the class names of the dataset.
        labels: the class names of the model.
        label_set: name of the label set of the model, for its identifiers; empty for none.
        used: indexes of the classes that samples have; only these must be known. None for all.
        numbers: whether numbers may be class numbers; if not, they are names like others.

    Raises:
        DataError: naming the classes that the model does not know, a name that several of its labels have, or two
            classes that are the same label.
    """
    found: list[int] = []
    several: list[int] = []
    tables = [_places(map(nfc, labels)), {}, _places(map(loose, labels))]
    if label_set:
        tables[1] = _places(line.split("\t")[0] for line in _lines(label_set))
    indexes = [index_of(name) for name in classes]
    by_number = numbers and None not in indexes and not any(number(name) is not None for name in labels)
    for place, name in enumerate(classes):
        if by_number:
            index = indexes[place]
            fitting = [index] if index is not None and index < len(labels) else []
        else:
            keys = (nfc(name), name, loose(name))
            fitting = next((table[key] for table, key in zip(tables, keys, strict=True) if key in table), [])
        if len(fitting) > 1:
            fitting = [place] if place in fitting and len(classes) == len(labels) else []
            several += [] if fitting else [place]
        found.append(fitting[0] if fitting else -1)

    needed = set(range(len(classes)) if used is None else used)
    if twice := [place for place in several if place in needed]:
        raise DataError(
            f"the model has several classes called {classes[twice[0]]!r}: name the data's folder exactly as the label "
            f"or by its identifier in the label set{f' {label_set}' if label_set else ''}, or leave it out."
        )
    if missing := [classes[place] for place in sorted(needed) if found[place] < 0]:
        raise DataError(_unknown(missing, labels, by_number))
    found = _single(classes, labels, found, needed)
    return Alignment(tuple(found), tuple(_notes(classes, labels, found, tables[1], by_number)))


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the positions of each name."""
    found = defaultdict(list)
    for place, name in enumerate(names):
        found[name].append(place)
    return dict(found)


def _single(classes: Sequence[str], labels: Sequence[str], found: Sequence[int], needed: Collection[int]) -> list[int]:
    """Give each label at most one class. Of several classes without samples, the one with the exact name wins."""
    single = list(found)
    by_label: dict[int, list[int]] = defaultdict(list)
    for place, index in enumerate(found):
        if index >= 0:
            by_label[index].append(place)
    for index, places in by_label.items():
        if len(places) == 1:
            continue
        used = [place for place in places if place in needed]
        if len(used) > 1:
            raise DataError(
                f"two classes of the data, {classes[used[0]]!r} and {classes[used[1]]!r}, have the same label in the "
                f"model, {labels[index]!r}: rename or merge them."
            )
        kept = (used or sorted(places, key=lambda place: classes[place] != labels[index]))[0]
        for place in set(places) - {kept}:
            single[place] = -1
    return single


def _unknown(missing: Sequence[str], labels: Sequence[str], by_number: bool) -> str:
    own = shown([repr(label) for label in labels])
    said = f"the data has classes that the model does not know: {shown(list(map(repr, missing)))}. "
    if by_number:
        return said + (
            f"The classes are numbers, and the model's {len(labels)} classes are numbered from 0 to {len(labels) - 1} "
            f"({own}): name the folders by the classes' names or by these numbers, or train on this data."
        )
    if numbered(labels):
        return said + (
            f"It knows its {len(labels)} classes by number only: rename the folders to the numbers, or create the "
            "model with labels=[...], in the order of its outputs."
        )
    return said + (
        f"The model's {len(labels)} classes are {own}; rename the folders, or create the model with the data's own "
        "classes as labels, and train on this data."
    )


def _notes(
    classes: Sequence[str],
    labels: Sequence[str],
    found: Sequence[int],
    identifiers: Mapping[str, list[int]],
    by_number: bool,
) -> list[str]:
    known = [(name, labels[index]) for name, index in zip(classes, found, strict=True) if index >= 0]
    said = []
    if by_number:
        said.append(
            f"the data's classes are numbers; they are taken as class numbers of the model, from 0: "
            f"{shown([f'{name} is {label}' for name, label in known])}."
        )
    elif other := [(n, label) for n, label in known if nfc(n) != nfc(label) and n not in identifiers]:
        said.append(
            f"{len(other)} of the data's classes are spelt differently in the model and taken as the same: "
            f"{shown([f'{name!r} as {label!r}' for name, label in other])}."
        )
    if idle := [repr(name) for name, index in zip(classes, found, strict=True) if index < 0]:
        said.append(f"{len(idle)} classes that no sample has are not the model's: {shown(idle)}.")
    return said


def shown(texts: Sequence[str], count: int = _SHOWN) -> str:
    """Return the first texts of a list as one text, with the number of those left out."""
    more = len(texts) - count
    return ", ".join(texts[:count]) + (f" and {more} more" if more > 0 else "")
