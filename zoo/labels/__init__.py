"""Class names of published weights, one text file a set: a line per class, optionally `identifier<TAB>name`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from zoo.errors import DataError, unknown_name


def names(label_set: str) -> tuple[str, ...]:
    """The class names of a set such as `imagenet-1k`, in the order of the outputs."""
    return tuple(line.split("\t")[-1] for line in _lines(label_set))


_COCO = ("coco-80", "coco-90", "coco-91")
_CATEGORIES = "coco-91"
"""The set whose places are the numbers of COCO's categories."""


def category_numbers(labels: Sequence[str]) -> tuple[int, ...]:
    """The number that COCO gives each label (its category `id`), where they are COCO's categories in any of the orders
    that published weights have them in; else nothing. The 80 categories have numbers from 1 to 90."""
    place = {name: number for number, name in enumerate(names(_CATEGORIES))}
    return tuple(place[name] for name in labels) if tuple(labels) in map(names, _COCO) else ()


def _lines(label_set: str) -> list[str]:
    folder = files("zoo.labels")
    file = folder / f"{label_set}.txt"
    if not file.is_file():
        raise unknown_name("label set", label_set, [f.name[:-4] for f in folder.iterdir() if f.name.endswith(".txt")])
    return file.read_text("utf-8").splitlines()


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").strip().casefold()


def align(classes: Sequence[str], labels: Sequence[str], label_set: str = "") -> tuple[int, ...]:
    """For each class of a data set, the index of the model's label it means.

    Names are compared without regard to case, `_` and `-`; identifiers of the label set (ImageNet's `n01440764`) are
    names too. A data set whose classes are plain numbers is taken by position, and so is a class of another or a
    repeated name (ImageNet has two `cardigan`s) in a data set that otherwise lists the model's classes one for one.

    Raises:
        DataError: naming the classes that the model does not know, or a name that several of its labels have.
    """
    if all(name == str(index) for index, name in enumerate(classes)) and len(classes) <= len(labels):
        return tuple(range(len(classes)))
    known = {_plain(name): index for index, name in enumerate(labels)}
    repeated = {name for name, count in Counter(map(_plain, labels)).items() if count > 1}
    if label_set:
        known |= {_plain(line.split("\t")[0]): index for index, line in enumerate(_lines(label_set))}
    if len(classes) == len(labels):
        plain, positions = [_plain(name) for name in classes], {_plain(name) for name in labels}
        other = {i for i, name in enumerate(labels) if plain[i] != _plain(name)}
        if len(other) <= 0.05 * len(labels):
            # A few names may be spelt differently; one that is another label's name means another order.
            moved = any(plain[i] in positions and plain.count(plain[i]) == 1 for i in other)
            return tuple(known.get(name, i) if moved and i in other else i for i, name in enumerate(plain))
    if several := [name for name in classes if _plain(name) in repeated]:
        raise DataError(
            f"the model has several classes called {several[0]!r}: name the data's folder by its identifier in the "
            f"label set{f' {label_set}' if label_set else ''}, or leave it out."
        )
    if missing := [name for name in classes if _plain(name) not in known]:
        shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        own = ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")
        raise DataError(
            f"the data has classes that the model does not know: {shown}. The model's {len(labels)} classes are {own}; "
            "rename the folders, or train on this data."
        )
    return tuple(known[_plain(name)] for name in classes)
