"""Start from a saved model: its head is kept for the classes that agree by name.

The axis of an array that stands for the classes is found by building the head for one class more, so nothing here knows
a task. An array that depends on the number of classes in another way (an extra background class, four numbers for each
class) is kept only if all classes are the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from zoo.models.saved import HEAD, Saved
from zoo.weights.load import LoadReport
from zoo.weights.mapping import Path, Slot, slots

OTHER_FORM = "the head of the saved model has another form"


def same_classes(before: Sequence[str], labels: Sequence[str]) -> tuple[int | None, ...]:
    """Return for each label the index of the class of that name in a saved model; None for a new class.

    If the saved model's classes are plain numbers and equally many, the order counts.
    """
    if len(before) == len(labels) and list(before) == [str(i) for i in range(len(before))]:
        return tuple(range(len(labels)))
    places = {unicodedata.normalize("NFC", name): index for index, name in enumerate(before)}
    return tuple(places.get(unicodedata.normalize("NFC", name)) for name in labels)


def inherited(saved: Saved, labels: Sequence[str]) -> dict[str, Any]:
    """Return the task options of a saved model, for other classes without those that have a value for each class."""
    count, same = len(saved.labels), tuple(labels) == saved.labels
    return {
        name: value
        for name, value in saved.options.items()
        if same or not (isinstance(value, list) and len(value) == count)
    }


def transfer(
    head: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    before: Sequence[str],
    labels: Sequence[str],
    wider: Callable[[], nnx.Module],
    report: LoadReport,
) -> dict[Path, np.ndarray]:
    """Return arrays for a head, by path, from a saved head. Variables without one keep their initial values.

    Args:
        head: The head to fill.
        tensors: Tensors of the saved head, with the checkpoint's axes.
        before: Classes of the saved head.
        labels: Classes of `head`.
        wider: Builds the same head for one class more, without arrays.
        report: Gets an entry for each array and each tensor.
    """
    mine, places = slots(head), same_classes(before, labels)
    identical = places == tuple(range(len(before)))
    larger: dict[Path, tuple[int, ...]] = {}
    if not identical:
        larger = {slot.path: slot.shape for slot in slots(wider())}
    arrays: dict[Path, np.ndarray] = {}
    for slot in mine:
        name = HEAD + slot.name
        if slot.name not in tensors:
            report.reinitialised[name] = OTHER_FORM
            continue
        array = slot.read(tensors[slot.name])
        if identical or larger.get(slot.path) == slot.shape:
            if array.shape == slot.shape:
                arrays[slot.path] = array
                report.loaded.append(name)
            else:
                report.reinitialised[name] = OTHER_FORM
            continue
        axis = _class_axis(slot, larger.get(slot.path), len(labels))
        if axis is None or array.shape != (*slot.shape[:axis], len(before), *slot.shape[axis + 1 :]):
            report.reinitialised[name] = "it is one for all classes together, and those are others"
        elif all(place is None for place in places):
            report.reinitialised[name] = "the saved model has none of these classes"
        else:
            arrays[slot.path] = _rows(array, places, axis)
            report.adapted[name] = _kept(before, labels, places)
    for name in sorted(tensors.keys() - {slot.name for slot in mine}):
        report.ignored[HEAD + name] = OTHER_FORM
    return arrays


def _class_axis(slot: Slot, wider: tuple[int, ...] | None, classes: int) -> int | None:
    """Return the axis with one entry for each class; None if there is no such axis."""
    if wider is None or len(wider) != len(slot.shape):
        return None
    grown = [axis for axis, (one, other) in enumerate(zip(slot.shape, wider, strict=True)) if one != other]
    if len(grown) != 1 or slot.shape[grown[0]] != classes or wider[grown[0]] != classes + 1:
        return None
    return grown[0]


def _rows(array: np.ndarray, places: Sequence[int | None], axis: int) -> np.ndarray:
    """Return the entries of the classes in their new order.

    A new class starts from the mean of the old ones: random values could be far larger or smaller than learned ones.
    """
    kept = [place for place in places if place is not None]
    mean = np.take(array, kept, axis).mean(axis, keepdims=True)
    both = np.concatenate([array, mean.astype(array.dtype)], axis)
    return np.take(both, [array.shape[axis] if place is None else place for place in places], axis)


def _kept(before: Sequence[str], labels: Sequence[str], places: Sequence[int | None]) -> str:
    """Say which classes were kept, are new, and were left out."""
    new = [label for label, place in zip(labels, places, strict=True) if place is None]
    gone = [name for index, name in enumerate(before) if index not in places]
    text = f"{len(labels) - len(new)} of {len(labels)} classes kept by name"
    if new:
        text += f"; new: {_few(new)}, from the mean of the others"
    if gone:
        text += f"; left out: {_few(gone)}"
    loose = {name.strip().casefold(): name for name in gone}
    if alike := [label for label in new if label.strip().casefold() in loose]:
        other = loose[alike[0].strip().casefold()]
        text += f"; {alike[0]!r} and {other!r} differ by case or spaces alone and count as two classes"
    return text


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
