"""Seeded, stratified splits: the same seed gives the same split on every platform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.data.dataset import Dataset
from zoo.data.unique import require_once
from zoo.errors import ConfigError


def split(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Return (train, val), a stratified split, both in the dataset's order.

    With one class per sample, each class is divided in the same proportion. With several labels, boxes or a mask per
    sample, the classes are divided one by one, rarest first. A class with at least two samples ends up in both splits
    wherever that is possible; `val` is empty if no class has two. Targets without classes are divided at random.

    Args:
        dataset: the samples to split.
        fraction: share of the samples that goes to `val`, in (0, 1).
        seed: of the random generator.

    Raises:
        ConfigError: `fraction` is out of range, or there are fewer than two samples.
        DataError: two samples are the same file, which could then end up in both splits.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction}; it must be between 0 and 1, e.g. 0.2.")
    if len(dataset) < 2:
        raise ConfigError(f"{dataset.name} has {len(dataset)} sample(s); at least 2 are needed to split it.")
    require_once(dataset)
    rng = np.random.Generator(np.random.PCG64(seed))
    if dataset.targets.exclusive:
        chosen = _stratified(dataset, fraction, rng)
    elif dataset.targets.labelled:
        labels = _label_table(dataset)
        chosen = np.flatnonzero(_on_both_sides(_by_labels(labels, [1 - fraction, fraction], rng), labels) == 1)
    else:
        chosen = rng.permutation(len(dataset))[: _bounded(fraction * len(dataset), len(dataset))]
    return _divided(dataset, chosen, f"{dataset.name}/train", f"{dataset.name}/val")


def kfold(dataset: Dataset, k: int, seed: int = 0) -> list[tuple[Dataset, Dataset]]:
    """Return `k` pairs (train, val) for cross-validation, stratified by class.

    Every sample is in exactly one `val` split.

    Raises:
        ConfigError: `k` is not between 2 and the number of samples.
        DataError: two samples are the same file.
    """
    if not 2 <= k <= len(dataset):
        raise ConfigError(f"k is {k}; it must be at least 2 and at most the {len(dataset)} samples of {dataset.name}.")
    require_once(dataset)
    rng = np.random.Generator(np.random.PCG64(seed))
    if dataset.targets.labelled and not dataset.targets.exclusive:
        fold = _by_labels(_label_table(dataset), [1 / k] * k, rng)
    else:
        # Deal the samples out class by class, like cards. The count runs on from one class to the next, which keeps
        # the folds equally large as well: sizes differ by at most one.
        fold = np.empty(len(dataset), np.int64)
        fold[np.concatenate(_shuffled_groups(dataset, rng))] = np.arange(len(dataset)) % k
    names = [(f"{dataset.name}/train{i}", f"{dataset.name}/val{i}") for i in range(k)]
    return [_divided(dataset, np.flatnonzero(fold == i), *names[i]) for i in range(k)]


def _divided(dataset: Dataset, chosen: np.ndarray, rest_name: str, chosen_name: str) -> tuple[Dataset, Dataset]:
    """Return (all samples but those at `chosen`, those at `chosen`)."""
    rest = np.setdiff1d(np.arange(len(dataset)), chosen)
    return dataset.subset(rest, rest_name), dataset.subset(np.sort(chosen), chosen_name)


def _shuffled_groups(dataset: Dataset, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the shuffled sample indexes of each class; one group of all samples unless each has exactly one class."""
    if not dataset.targets.exclusive:
        return [rng.permutation(len(dataset))]
    targets = np.array([dataset.labels(sample)[0] for sample in dataset])
    return [rng.permutation(np.flatnonzero(targets == index)) for index in np.unique(targets)]


def _bounded(count: float, size: int) -> int:
    """Round `count` so that at least one of `size` samples is on either side; 0 if there is only one sample."""
    return min(max(round(count), 1), size - 1) if size > 1 else 0


def _stratified(dataset: Dataset, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return the indexes to split off, the same share of each class.

    This is the largest remainder method. Each class first gives the integer part of its share. The samples still
    missing from the total then come one each from the classes that were rounded down most. So the split has the size
    that was asked for, even with many small classes, unless the rule "at least one on either side" forbids it.
    """
    groups = _shuffled_groups(dataset, rng)
    sizes = np.array([len(group) for group in groups])
    exact = fraction * sizes
    take = np.array([_bounded(np.floor(share), size) for share, size in zip(exact, sizes, strict=True)])
    missing = round(fraction * len(dataset)) - int(take.sum())
    for index in np.argsort(take - exact, kind="stable"):
        if missing > 0 and take[index] < sizes[index] - 1:
            take[index] += 1
            missing -= 1
    return np.concatenate([group[:count] for group, count in zip(groups, take, strict=True)])


def _label_table(dataset: Dataset) -> np.ndarray:
    """Return which sample has which class, bool (samples, classes). Unknown classes (negative indexes) are skipped."""
    labels = np.zeros((len(dataset), len(dataset.classes)), bool)
    for row, sample in zip(labels, dataset, strict=True):
        row[[index for index in dataset.labels(sample) if index >= 0]] = True
    return labels


def _by_labels(labels: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the split number of each sample by iterative stratification (Sechidis et al., 2011).

    The label with the fewest samples left is dealt out first, because it cannot be balanced any more once its samples
    were dealt out with those of frequent labels. Each of its samples goes to the split that still lacks most of this
    label, ties to the split with the most room left. Samples without labels come last, and only fill the splits up.

    Args:
        labels: which sample has which label, bool (samples, classes).
        shares: desired share of the samples in each split; their sum is 1.
        rng: shuffles the samples of each label.
    """
    lacking = np.outer(shares, labels.sum(0)).astype(np.float64)
    room = np.array(shares, np.float64) * len(labels)
    split_of = np.full(len(labels), -1)
    left = labels.sum(0)
    while (split_of < 0).any():
        open_ = split_of < 0
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        group = np.flatnonzero(open_ & labels[:, rarest]) if left.any() else np.flatnonzero(open_)
        for index in rng.permutation(group):
            need = lacking[:, rarest] if left.any() else room
            target = int(np.lexsort((room, need))[-1])
            split_of[index] = target
            room[target] -= 1
            lacking[target, labels[index]] -= 1
        left = labels[split_of < 0].sum(0)
    return split_of


def _on_both_sides(split_of: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return split numbers (0 or 1) changed so that each class with at least two samples is on both sides, if possible.

    The share of a class with two or three samples may round to zero. Then one of its samples moves over, unless this
    would take another class away from its side. The sample with the fewest classes moves, because this disturbs the
    balance of the other classes least.
    """
    split_of, total = split_of.copy(), labels.sum(0)
    for index in np.argsort(total, kind="stable"):
        per_side = [int(labels[split_of == side, index].sum()) for side in (0, 1)]
        if total[index] < 2 or 0 not in per_side:
            continue
        empty = per_side.index(0)
        other_side = labels[split_of != empty].sum(0)
        movable = [i for i in np.flatnonzero(labels[:, index]) if (other_side[labels[i]] > 1).all()]
        if movable:
            split_of[min(movable, key=lambda i: (labels[i].sum(), i))] = empty
    return split_of
