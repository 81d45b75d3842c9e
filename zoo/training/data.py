"""The data of a training: its splits, and targets in the order of the model's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zoo.data import Dataset, read, split, suited
from zoo.data.augment import Augment
from zoo.data.unique import unified
from zoo.errors import ConfigError, DataError
from zoo.labels import Alignment, align, numbered, shown
from zoo.models.model import Model
from zoo.targets import natures
from zoo.targets.moves import unmoved

Data = str | Path | Dataset | Mapping[str, Dataset]


def splits(data: Data, format: str | None = None, kinds: Sequence[str] = ()) -> dict[str, Dataset]:
    """A data set's parts by name, from wherever it is, each file once and in one part. See `zoo.data.read`."""
    if isinstance(data, Dataset):
        data = {"all": data}
    return suited(unified(data, deliberate=True), kinds) if isinstance(data, Mapping) else read(data, format, kinds)


def training_splits(parts: Mapping[str, Dataset], fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(to train on, to validate on): a ready `val`, else a stratified part of the rest; `test` is left alone."""
    pool = parts.get("train") or parts.get("all")
    if pool is None:
        raise DataError(
            f"there is nothing to train on: found {', '.join(parts)}; a train folder, or no splits, is needed."
        )
    return (pool, parts["val"]) if "val" in parts else split(pool, fraction, seed)


def evaluation_split(parts: Mapping[str, Dataset], name: str | None = None) -> Dataset:
    """The part to evaluate on: the named one, else `test`, `val`, or whatever there is."""
    if name is not None and name not in parts:
        raise DataError(f"the data has no split {name!r}; it has {', '.join(parts)}.")
    order = [name] if name else [*(n for n in ("test", "val") if n in parts), *parts]
    return parts[order[0]]


def relabelled(dataset: Dataset, model: Model, *, by_position: bool = False) -> Dataset:
    """Return the data set with its targets as indexes of the model's labels.

    Args:
        by_position: for training. A model whose labels are mere numbers takes classes of other names in their order.
    Raises:
        ConfigError: when the task cannot learn from this kind of data. DataError: for classes that do not fit.
    """
    adapter, labels = model.adapter, model.labels
    if dataset.kind not in adapter.targets_from:
        raise ConfigError(
            f"{model.card.adapter} learns from {', '.join(adapter.targets_from)} targets; {dataset.name} has "
            f"{dataset.kind}. Choose another task or data format."
        )
    if by_position and len(dataset.classes) != len(labels):
        raise DataError(
            f"the model has {len(labels)} classes ({shown(labels)}) and {dataset.name} has {len(dataset.classes)} "
            f"({shown(dataset.classes)}): create the model with labels={list(dataset.classes[:20])}."
        )
    indexes, notes = _meaning(dataset, model, by_position)
    if dataset.classes == labels:
        return dataset
    samples = tuple(replace(s, target=dataset.targets.mapped(s.target, indexes)) for s in dataset)
    known = dict(zip(indexes, dataset.category_ids, strict=False))
    ids = tuple(known.get(index) for index in range(len(labels))) if known else ()
    return replace(dataset, classes=labels, samples=samples, category_ids=ids, notes=(*dataset.notes, *notes))


def _meaning(dataset: Dataset, model: Model, by_position: bool) -> Alignment:
    """Find the model's label that each class of the data is."""
    label_set, fits = model.card.label_set, len(dataset.classes) == len(model.labels)
    numbers = not dataset.targets.several_numberings or not label_set or fits
    try:
        return align(dataset.classes, model.labels, label_set, dataset.targets.used(dataset), numbers=numbers)
    except DataError:
        if by_position and numbered(model.labels):
            return Alignment(tuple(range(len(model.labels))))
        raise


def named_after(model: Model, dataset: Dataset) -> None:
    """Give a model whose labels are mere numbers the names of the data it is trained on."""
    if dataset.classes == model.labels or not numbered(model.labels):
        return
    indexes = _meaning(dataset, model, True).indexes
    if -1 not in indexes:
        model.adapter = replace(
            model.adapter, labels=tuple(dataset.classes[indexes.index(i)] for i in range(len(indexes)))
        )


def check_moved(model: Model, dataset: Dataset, augmentation: Augment) -> None:
    """Raise `ConfigError` for an augmentation after which the targets of this data would no longer be true."""
    training, task = model.adapter.training, model.card.adapter
    if augmentation.mixes and not training.mixup:
        raise ConfigError(
            f"mixup and cutmix mix two images, and the loss of {task} does not mix their targets: set both to 0. A "
            "task whose loss reads `mix` declares it: training = Training(mixup=True)."
        )
    if not augmentation.geometric:
        return
    names = model.adapter.targets(dataset[0], model.card.preprocess)
    if lost := [name for name in unmoved(names, training.moves) if name not in training.invariant]:
        raise ConfigError(
            f"augmentation would crop and mirror images and leave the targets {', '.join(lost)} of {task} where they "
            f'were: it moves {" and ".join(training.moves) or "nothing"} alone. Train with augment="none" (--augment '
            "none), or change colours alone: Augment(hflip=False, scale=(1, 1), ratio=(1, 1)). A task whose targets do "
            "not depend on where things are in the image declares so: training = "
            f"Training(invariant={(*training.invariant, *lost)!r}). One whose targets lie somewhere says what each is: "
            f"Training(moves={{name: nature}}), of the natures {', '.join(natures())}."
        )
