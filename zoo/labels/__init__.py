"""Class names: the label sets of published weights, and the matching of a dataset's classes with a model's labels.

A label set is a text file with one class a line, optionally as `identifier<TAB>name`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zoo.errors import DataError, counted
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
"""The label sets: text files (paths, or resources from `importlib.resources.files`), or tuples of their lines."""


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
    source = LABEL_SETS[label_set]
    return list(source) if isinstance(source, tuple) else source.read_text("utf-8").splitlines()


def numbered(labels: Sequence[str]) -> bool:
    """Return whether the labels are just the class numbers `0`, `1`, ... in order."""
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
            f"the model has several classes called {classes[twice[0]]!r}: rename the class in the data to the exact "
            f"label or to its identifier in the label set{f' {label_set}' if label_set else ''}, or remove the class."
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
    """Return the message for classes that the model does not know, with advice that fits the model's labels."""
    known = shown([repr(label) for label in labels])
    message = f"the data has classes that the model does not know: {shown(list(map(repr, missing)))}. "
    if by_number:
        return message + (
            f"Classes that are numbers are the model's class numbers, here from 0 to {len(labels) - 1} ({known}). "
            "Rename the classes to the model's names or numbers, or train a model on this data."
        )
    if numbered(labels):
        return message + (
            f"The model knows its {counted(len(labels), 'class', 'classes')} by number only. Rename the classes to the "
            "numbers, or create the model with labels=[...], in the order of its outputs."
        )
    return message + (
        f"The model has {counted(len(labels), 'class', 'classes')}: {known}. Rename the classes of the data, or train "
        "a model on this data."
    )


def _notes(
    classes: Sequence[str],
    labels: Sequence[str],
    found: Sequence[int],
    identifiers: Mapping[str, list[int]],
    by_number: bool,
) -> list[str]:
    """Return remarks on the classes that were not matched by their exact name."""
    matched = [(name, labels[index]) for name, index in zip(classes, found, strict=True) if index >= 0]
    notes = []
    if by_number:
        notes.append(
            f"the classes of the data are numbers and are used as class numbers of the model, from 0: "
            f"{shown([f'{name} is {label}' for name, label in matched])}."
        )
    elif respelt := [(n, label) for n, label in matched if nfc(n) != nfc(label) and n not in identifiers]:
        notes.append(
            f"{counted(len(respelt), 'class is', 'classes are')} spelt differently in the data and in the model, and "
            f"matched: {shown([f'{name!r} as {label!r}' for name, label in respelt])}."
        )
    if unused := [repr(name) for name, index in zip(classes, found, strict=True) if index < 0]:
        notes.append(
            f"{counted(len(unused), 'class', 'classes')} of the data, without any sample, "
            f"{'is' if len(unused) == 1 else 'are'} unknown to the model: {shown(unused)}."
        )
    return notes


def shown(texts: Sequence[str], count: int = _SHOWN) -> str:
    """Return the first `count` texts, joined by commas, and the number of those left out: `a, b and 3 more`."""
    more = len(texts) - count
    return ", ".join(texts[:count]) + (f" and {more} more" if more > 0 else "")
