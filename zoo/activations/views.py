"""Cached features of images of several frames, of their mirror images, and of random views of them.

A head on a frozen backbone sees each image as often as there are epochs. Where a task's targets can be moved with the
pixels, the features of mirror images and of further, randomly augmented views are cached as well, and each image of a
batch is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.activations.cache import PLAIN, ActivationCache, View, open_cache, view_keys
from zoo.data import Dataset
from zoo.data.augment import Augment, move_each
from zoo.models.model import FEATURES, MIRRORED, Model
from zoo.models.prepared import all_targets, frame_numbers
from zoo.targets.moves import MOVES, Moves, moving

_MIRRORED, _FURTHER = 1, 2
"""Numbers of the mirrored view, and of the first random one; the plain view is 0."""


@dataclass
class CachedViews:
    """Cached features of a data set, by frame and view.

    Attributes:
        groups: number of each sample's frame. rows_of: its row in the frame's caches.
        plain, mirrored: a cache for each frame there is; mirrored is empty where no mirror images are kept.
        further: the same for each random view.
        frames: (height, width) of each frame, in pixels.
        targets: the encoded targets of each sample, for the plain view.
        random: how the random views came about.
        moves: which targets move with the pixels, and how (`Training.moves`).
    """

    groups: np.ndarray
    rows_of: np.ndarray
    plain: Mapping[int, ActivationCache]
    mirrored: Mapping[int, ActivationCache]
    further: tuple[Mapping[int, ActivationCache], ...]
    frames: Mapping[int, tuple[int, int]]
    targets: Sequence[Mapping[str, np.ndarray]]
    random: View = PLAIN
    moves: Moves = field(default_factory=lambda: MOVES)

    def rows(self, index: np.ndarray, view: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Features of the images at `index` (b,), which share a frame, as entries of a batch. `view` (b,) says how each
        is seen: 0 as it is, 1 mirrored, 2 and up in a random view."""
        group, rows = int(self.groups[index[0]]), self.rows_of[index]
        found = self.plain[group].rows(rows)
        caches = (self.plain, self.mirrored, *self.further)
        for number in [] if view is None else np.unique(view).astype(int):
            if number:
                other = caches[number][group].rows(rows[view == number])
                for name, values in found.items():
                    values[view == number] = other[name]
        return found

    def mirror_rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Features of the mirror images of those at `index` (b,), named as `Model.mirrored` reads them; empty where
        none are kept."""
        if not self.mirrored:
            return {}
        found = self.mirrored[int(self.groups[index[0]])].rows(self.rows_of[index])
        return {MIRRORED + name.removeprefix(FEATURES): values for name, values in found.items()}

    def width(self, index: np.ndarray) -> int:
        """Of the frame that the images at `index` share."""
        return self.frames[int(self.groups[index[0]])][1]

    def turns(self, seed: int, epoch: int) -> np.ndarray | None:
        """Which view each sample has in an epoch, (samples,): of the views that there are, each in turn, in an order of
        its own. None where there are no random ones."""
        if not self.further:
            return None
        views = [0, *[_MIRRORED] * bool(self.mirrored), *range(_FURTHER, _FURTHER + len(self.further))]
        rng = np.random.Generator(np.random.PCG64([seed, epoch // len(views), 3]))
        orders = rng.permuted(np.tile(views, (len(self.groups), 1)), axis=1)
        found: np.ndarray = orders[:, epoch % len(views)]
        return found

    def moved(self, targets: Mapping[str, Any], index: np.ndarray, view: np.ndarray) -> dict[str, Any]:
        """The targets of a batch, moved as the pixels are where the view (b,) is a random one."""
        touched = {name: targets[name] for name in moving(targets, self.moves)}
        where = view >= _FURTHER
        if not touched or not where.any():
            return dict(targets)
        assert self.random.augmentation is not None
        frame = self.frames[int(self.groups[index[0]])]
        numbers, rows = view - _FURTHER + 1, self.rows_of[index]
        moves = tuple(self.moves.items())
        found = _moved(self.random.augmentation, frame, self.random.seed, numbers, rows, touched, moves)
        new = {name: np.asarray(value).astype(targets[name].dtype) for name, value in found.items()}
        return {
            **targets,
            **{n: np.where(where.reshape(-1, *[1] * (v.ndim - 1)), v, targets[n]) for n, v in new.items()},
        }


@partial(jax.jit, static_argnums=(0, 1, 6))
def _moved(
    config: Augment,
    frame: tuple[int, int],
    seed: int,
    numbers: jax.Array,
    rows: jax.Array,
    targets: Mapping[str, Any],
    moves: tuple[tuple[str, str], ...],
) -> dict[str, jax.Array]:
    """Targets of a batch as `View.pixels` moves the pixels."""
    return move_each(config, view_keys(seed, numbers, rows), targets, frame, dict(moves))


def open_views(
    model: Model,
    dataset: Dataset,
    *,
    mirrored: bool = False,
    further: int = 0,
    random: View = PLAIN,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> CachedViews:
    """The caches for a data set, computed as far as they are missing. See `zoo.activations.cache.open_cache`.

    Args:
        mirrored: also of the mirror images. further: of so many random views of each image, which come about as
            `random` says.
    """
    preprocess = model.card.preprocess
    numbers = frame_numbers(dataset, preprocess)
    groups = np.zeros(len(dataset), np.int32) if numbers is None else numbers
    frames = (preprocess.size, *preprocess.frames)
    views = [PLAIN, *[View(mirrored=True)] * mirrored, *(replace(random, number=i + 1) for i in range(further))]
    caches: dict[View, dict[int, ActivationCache]] = {view: {} for view in views}
    rows_of, done = np.zeros(len(dataset), np.int64), 0
    for group in map(int, np.unique(groups)):
        members = np.flatnonzero(groups == group)
        rows_of[members] = np.arange(len(members))
        part = dataset if len(members) == len(dataset) else dataset.subset(members, dataset.name)
        framed = model if numbers is None else _framed(model, frames[group])
        for view in views:

            def advanced(count: int, _: int, before: int = done) -> None:
                if progress:
                    progress(before + count, len(dataset) * len(views))

            caches[view][group] = open_cache(framed, part, view=view, batch_size=batch_size, progress=advanced)
            done += len(members)
    plain, others = caches[PLAIN], [caches[view] for view in views[1:]]
    there = {group: frames[group] for group in plain}
    seen = (others[0], tuple(others[1:])) if mirrored else ({}, tuple(others))
    return CachedViews(
        groups, rows_of, plain, *seen, there, all_targets(dataset, model), random, model.adapter.training.moves
    )


def _framed(model: Model, size: tuple[int, int]) -> Model:
    """The model for a single frame."""
    other: Model = nnx.merge(*nnx.split(model))
    other.card = replace(model.card, preprocess=replace(model.card.preprocess, size=size, frames=()))
    return other
