"""The data of a training: its splits, with targets as indexes of the model's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zoo.data import Dataset, read, split, suited
from zoo.data.augment import Augment
from zoo.data.files import subfolders
from zoo.data.unique import unified
from zoo.errors import ConfigError, DataError
from zoo.labels import Alignment, align, numbered, shown
from zoo.models.model import Model
from zoo.targets import natures
from zoo.targets.moves import unmoved

Data = str | Path | Dataset | Mapping[str, Dataset]


def splits(data: Data, format: str | None = None, kinds: Sequence[str] = ()) -> dict[str, Dataset]:
    """Return the splits of data by name; each file occurs once, in one split. See `zoo.data.read`."""
    if isinstance(data, Dataset):
        data = {"all": data}
    return suited(unified(data, deliberate=True), kinds) if isinstance(data, Mapping) else read(data, format, kinds)


def training_splits(parts: Mapping[str, Dataset], fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return the training and the validation data: the split `val`, else a stratified share of the training data.

    If no image can be set aside, because no class has two, the validation data are the training images.

    Args:
        parts: the splits by name. `test` is never used.
        fraction: share of the training data to validate on, if there is no split `val`.
        seed: seed of the random choice.

    Raises:
        DataError: there is no training data, or it has a single class.
    """
    pool = training_pool(parts)
    if "val" in parts:
        return pool, parts["val"]
    train, val = split(pool, fraction, seed)
    if len(val):
        return train, val
    # One image for each class, such as reference pictures of products: to set one aside would lose its class.
    note = (
        "no class has a second image that could be set aside for validation: metrics are those of the training images, "
        "and say nothing about new ones. Add images, or a validation split."
    )
    return pool, replace(pool, name=f"{pool.name}/val", notes=(*pool.notes, note))


def training_pool(parts: Mapping[str, Dataset]) -> Dataset:
    """Return the data to train on, before a share for validation is set aside. No files are read.

    Raises:
        DataError: there is no training data, or it has a single class.
    """
    pool = parts.get("train") or parts.get("all")
    if pool is None:
        raise DataError(
            f"there is nothing to train on: the splits are {', '.join(parts)}; a split train, or no splits, is needed."
        )
    if pool.targets.exclusive and len(pool.classes) == 1:
        inner = pool.root / pool.classes[0]
        deeper = inner.is_dir() and len(subfolders(inner)) > 1
        raise DataError(
            f"{pool.name} has a single class ({pool.classes[0]}); training needs images of at least two classes."
            + f" If {inner} holds the folders of the classes, give that path." * deeper
        )
    return pool


def evaluation_split(parts: Mapping[str, Dataset], name: str | None = None) -> Dataset:
    """Return the split to evaluate on: the named one, else `test`, else `val`, else the first one."""
    if name is not None and name not in parts:
        raise DataError(f"the data has no split {name!r}; it has {', '.join(parts)}.")
    order = [name] if name else [*(n for n in ("test", "val") if n in parts), *parts]
    return parts[order[0]]


def relabelled(dataset: Dataset, model: Model, *, by_position: bool = False) -> Dataset:
    """Return a dataset with its targets as indexes of the model's labels.

    Args:
        dataset: the data.
        model: the model.
        by_position: for training: if the model's labels are numbers, they stand for the data's classes in order.

    Raises:
        ConfigError: the task cannot learn from this kind of data.
        DataError: the data's classes do not fit the model's labels.
    """
    adapter, labels = model.adapter, model.labels
    if dataset.kind not in adapter.targets_from:
        raise ConfigError(
            f"{model.card.adapter} learns from {', '.join(adapter.targets_from)} targets; {dataset.name} has "
            f"{dataset.kind}. Choose another task or dataset format."
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
    """Return the index of the model's label for each class of the data."""
    label_set, fits = model.card.label_set, len(dataset.classes) == len(model.labels)
    numbers = not dataset.targets.several_numberings or not label_set or fits
    try:
        return align(dataset.classes, model.labels, label_set, dataset.targets.used(dataset), numbers=numbers)
    except DataError:
        if by_position and numbered(model.labels):
            return Alignment(tuple(range(len(model.labels))))
        raise


def named_after(model: Model, dataset: Dataset) -> None:
    """Name the classes of a model after the training data, if its labels are only numbers."""
    if dataset.classes == model.labels or not numbered(model.labels):
        return
    indexes = _meaning(dataset, model, True).indexes
    if -1 not in indexes:
        model.adapter = replace(
            model.adapter, labels=tuple(dataset.classes[indexes.index(i)] for i in range(len(indexes)))
        )


def check_moved(model: Model, dataset: Dataset, augmentation: Augment) -> None:
    """Raise `ConfigError` for an augmentation that would make the targets of the data wrong."""
    training, task = model.adapter.training, model.card.adapter
    if augmentation.mixes and not training.mixup:
        raise ConfigError(
            f"mixup and cutmix mix two images, but the loss of {task} does not mix their targets: set both to 0. A "
            "task with a loss that reads `mix` declares it: training = Training(mixup=True)."
        )
    if not augmentation.geometric:
        return
    names = model.adapter.targets(dataset[0], model.card.preprocess)
    if lost := [name for name in unmoved(names, training.moves) if name not in training.invariant]:
        raise ConfigError(
            f"augmentation would crop and mirror images, but not move the targets {', '.join(lost)} of {task}; it "
            f'moves only {" and ".join(training.moves) or "nothing"}. Train with augment="none" (--augment none), or '
            "change only colours: Augment(hflip=False, scale=(1, 1), ratio=(1, 1)). For task authors: targets that "
            "do not depend on positions in the image are declared by training = "
            f"Training(invariant={(*training.invariant, *lost)!r}), and others by Training(moves={{name: nature}}); "
            f"natures are {', '.join(natures())}."
        )
