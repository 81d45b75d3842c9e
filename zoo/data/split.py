"""Seeded, stratified splits: the same seed gives the same split on every platform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.data.dataset import Dataset
from zoo.data.unique import require_once
from zoo.errors import ConfigError


def split(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split off a part for validation: (train, val), both in the data set's order.

    With one class a sample, each class is divided in the same proportion. With several labels, boxes or a mask, the
    classes are divided one by one, rarest first. Either way a class with at least two samples is in both parts. Other
    kinds are divided at random.

    Args:
        fraction: share of the samples that goes to `val`, in (0, 1).

    Raises:
        ConfigError: `fraction` is out of range, or there are fewer than two samples.
        DataError: two samples are the same file, which would be on both sides.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction}; it must lie between 0 and 1, e.g. 0.2.")
    if len(dataset) < 2:
        raise ConfigError(f"{dataset.name} has {len(dataset)} sample; at least 2 are needed to split it.")
    require_once(dataset)
    rng = np.random.Generator(np.random.PCG64(seed))
    if dataset.targets.exclusive:
        chosen = _stratified(dataset, fraction, rng)
    elif dataset.targets.labelled:
        labels = _label_table(dataset)
        chosen = np.flatnonzero(_on_both_sides(_by_labels(labels, [1 - fraction, fraction], rng), labels) == 1)
    else:
        chosen = rng.permutation(len(dataset))[: _bounded(fraction * len(dataset), len(dataset))]
    return _parts(dataset, chosen, f"{dataset.name}/train", f"{dataset.name}/val")


def kfold(dataset: Dataset, k: int, seed: int = 0) -> list[tuple[Dataset, Dataset]]:
    """`k` pairs (train, val) whose `val` parts together are the data set, each with about the same class shares.

    Raises `ConfigError` unless 2 <= k <= number of samples, and `DataError` where two samples are the same file.
    """
    if not 2 <= k <= len(dataset):
        raise ConfigError(f"k is {k}; it must be at least 2 and at most the {len(dataset)} samples of {dataset.name}.")
    require_once(dataset)
    rng = np.random.Generator(np.random.PCG64(seed))
    if dataset.targets.labelled and not dataset.targets.exclusive:
        fold = _by_labels(_label_table(dataset), [1 / k] * k, rng)
    else:
        # Dealing the samples class by class, without starting over at each class, also keeps the folds equally large.
        fold = np.empty(len(dataset), np.int64)
        fold[np.concatenate(_shuffled_groups(dataset, rng))] = np.arange(len(dataset)) % k
    names = [(f"{dataset.name}/train{i}", f"{dataset.name}/val{i}") for i in range(k)]
    return [_parts(dataset, np.flatnonzero(fold == i), *names[i]) for i in range(k)]


def _parts(dataset: Dataset, chosen: np.ndarray, rest_name: str, chosen_name: str) -> tuple[Dataset, Dataset]:
    rest = np.setdiff1d(np.arange(len(dataset)), chosen)
    return dataset.subset(rest, rest_name), dataset.subset(np.sort(chosen), chosen_name)


def _shuffled_groups(dataset: Dataset, rng: np.random.Generator) -> list[np.ndarray]:
    """Sample indexes of each class, shuffled; all in one group where a sample is not of one class."""
    if not dataset.targets.exclusive:
        return [rng.permutation(len(dataset))]
    targets = np.array([dataset.labels(sample)[0] for sample in dataset])
    return [rng.permutation(np.flatnonzero(targets == index)) for index in np.unique(targets)]


def _bounded(wanted: float, size: int) -> int:
    """`wanted` rounded, leaving at least one on either side where there are two."""
    return min(max(round(wanted), 1), size - 1) if size > 1 else 0


def _stratified(dataset: Dataset, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Indexes to split off: the share of each class, where the classes with the largest remainders get one more."""
    groups = _shuffled_groups(dataset, rng)
    sizes = np.array([len(group) for group in groups])
    wanted = fraction * sizes
    take = np.array([_bounded(np.floor(w), size) for w, size in zip(wanted, sizes, strict=True)])
    missing = round(fraction * len(dataset)) - int(take.sum())
    for index in np.argsort(take - wanted, kind="stable"):
        if missing > 0 and take[index] < sizes[index] - 1:
            take[index] += 1
            missing -= 1
    return np.concatenate([group[:count] for group, count in zip(groups, take, strict=True)])


def _label_table(dataset: Dataset) -> np.ndarray:
    """Which sample has which class: bool (samples, classes)."""
    labels = np.zeros((len(dataset), len(dataset.classes)), bool)
    for row, sample in zip(labels, dataset, strict=True):
        row[[index for index in dataset.labels(sample) if index >= 0]] = True
    return labels


def _by_labels(labels: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Part number of each sample with several labels: iterative stratification (Sechidis et al., 2011).

    The label with the fewest samples left is dealt out first, each sample to the part that still lacks it most,
    because a rare label cannot be balanced any more once its samples went along with frequent ones.
    """
    lacking = np.outer(shares, labels.sum(0)).astype(np.float64)
    room = np.array(shares, np.float64) * len(labels)
    part = np.full(len(labels), -1)
    left = labels.sum(0)
    while (part < 0).any():
        open_ = part < 0
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        group = np.flatnonzero(open_ & labels[:, rarest]) if left.any() else np.flatnonzero(open_)
        for index in rng.permutation(group):
            need = lacking[:, rarest] if left.any() else room
            target = int(np.lexsort((room, need))[-1])
            part[index] = target
            room[target] -= 1
            lacking[target, labels[index]] -= 1
        left = labels[part < 0].sum(0)
    return part


def _on_both_sides(part: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Part numbers (0 or 1) in which every class with two samples or more is on both sides, where that can be.

    The share of a class of two or three samples rounds to none: one of them is moved over, if this takes no other
    class away from its side; the one with the fewest classes, since the rest of the balance then changes least.
    """
    part, total = part.copy(), labels.sum(0)
    for index in np.argsort(total, kind="stable"):
        sides = [int(labels[part == side, index].sum()) for side in (0, 1)]
        if total[index] < 2 or 0 not in sides:
            continue
        bare = sides.index(0)
        there = labels[part != bare].sum(0)
        free = [i for i in np.flatnonzero(labels[:, index]) if (there[labels[i]] > 1).all()]
        if free:
            part[min(free, key=lambda i: (labels[i].sum(), i))] = bare
    return part
