"""Cached features of several letterbox sizes, and of mirrored and randomly augmented views of the images.

A head on a frozen backbone sees each image once per epoch, always with the same features. If the targets of a task can
be moved with the pixels, features of mirror images and of randomly augmented views are cached too, and each image of a
batch is shown in one of these views. So cached features do not rule out augmentation.
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
"""Numbers of the mirrored view and of the first augmented view; the plain view is 0."""


@dataclass
class CachedViews:
    """Cached features of a dataset, by letterbox size (frame) and view.

    Attributes:
        groups: index of each sample's frame.
        rows_of: row of each sample in the caches of its frame.
        plain: frame -> cache of the plain images.
        mirrored: frame -> cache of the mirror images; empty if there are none.
        further: frame -> cache, for each augmented view.
        frames: frame -> (height, width) in pixels.
        targets: encoded targets of each sample, for the plain view.
        random: the augmentation and seed of the augmented views.
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
        """Return the features of images as entries of a batch.

        Args:
            index: (b,) samples, all of the same frame.
            view: (b,) view of each: 0 is plain, 1 mirrored, 2 and up augmented. None means plain.
        """
        group, rows = int(self.groups[index[0]]), self.rows_of[index]
        features = self.plain[group].rows(rows)
        caches = (self.plain, self.mirrored, *self.further)
        for number in [] if view is None else np.unique(view).astype(int):
            if number:
                other = caches[number][group].rows(rows[view == number])
                for name, values in features.items():
                    values[view == number] = other[name]
        return features

    def mirror_rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of the mirror images of samples `index` (b,), named as `Model.mirrored` reads them.

        The result is empty if mirror images are not cached.
        """
        if not self.mirrored:
            return {}
        features = self.mirrored[int(self.groups[index[0]])].rows(self.rows_of[index])
        return {MIRRORED + name.removeprefix(FEATURES): values for name, values in features.items()}

    def width(self, index: np.ndarray) -> int:
        """Return the width in pixels of the frame that the images at `index` share."""
        return self.frames[int(self.groups[index[0]])][1]

    def turns(self, seed: int, epoch: int) -> np.ndarray | None:
        """Return the view of each sample in an epoch, (samples,), or None if there are no augmented views.

        Every sample goes through all views before one repeats, in a random order that differs between samples.
        """
        if not self.further:
            return None
        views = [0, *[_MIRRORED] * bool(self.mirrored), *range(_FURTHER, _FURTHER + len(self.further))]
        # The seed is that of the round of len(views) epochs, so a resumed run continues with the same orders.
        rng = np.random.Generator(np.random.PCG64([seed, epoch // len(views), 3]))
        orders = rng.permuted(np.tile(views, (len(self.groups), 1)), axis=1)
        turn: np.ndarray = orders[:, epoch % len(views)]
        return turn

    def moved(self, targets: Mapping[str, Any], index: np.ndarray, view: np.ndarray) -> dict[str, Any]:
        """Return the targets of a batch, moved with the pixels where the view is an augmented one.

        Args:
            targets: encoded targets of the batch, for the plain view.
            index: (b,) samples, all of the same frame.
            view: (b,) view of each.
        """
        touched = {name: targets[name] for name in moving(targets, self.moves)}
        where = view >= _FURTHER
        if not touched or not where.any():
            return dict(targets)
        assert self.random.augmentation is not None
        frame = self.frames[int(self.groups[index[0]])]
        numbers, rows = view - _FURTHER + 1, self.rows_of[index]
        moves = tuple(self.moves.items())
        moved = _moved(self.random.augmentation, frame, self.random.seed, numbers, rows, touched, moves)
        new = {name: np.asarray(value).astype(targets[name].dtype) for name, value in moved.items()}
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
    """Return the targets of a batch, moved as `View.pixels` moves the pixels: with the same random keys."""
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
    """Open the caches of all views of a dataset, and compute what is missing.

    Args:
        model: model with the backbone.
        dataset: images.
        mirrored: also cache mirror images.
        further: number of augmented views of each image.
        random: augmentation and seed of the augmented views.
        batch_size: images of a batch.
        progress: called with (images done, images in total, over all views) after each batch.
    Raises:
        RunError: if the disk is too small.
        DataError: if an image cannot be read.
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
    used = {group: frames[group] for group in plain}
    mirror, further_caches = (others[0], others[1:]) if mirrored else ({}, others)
    targets = all_targets(dataset, model)
    moves = model.adapter.training.moves
    return CachedViews(groups, rows_of, plain, mirror, tuple(further_caches), used, targets, random, moves)


def _framed(model: Model, size: tuple[int, int]) -> Model:
    """Return the model with a single frame, as large as `size`."""
    other: Model = nnx.merge(*nnx.split(model))
    other.card = replace(model.card, preprocess=replace(model.card.preprocess, size=size, frames=()))
    return other
