"""Cached features of images of several frames, and of their mirror images.

A head on a frozen backbone sees each image as often as there are epochs. Where a task's targets can be mirrored, the
features of the mirror images are cached as well, and each image of a batch is the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from flax import nnx

from zoo.data import Dataset
from zoo.model import Model
from zoo.training.batches import all_targets, frame_numbers
from zoo.training.cache import ActivationCache, open_cache


@dataclass
class CachedViews:
    """Cached features of a data set, by frame and view.

    Attributes:
        groups: number of each sample's frame. rows_of: its row in the frame's caches.
        plain, mirrored: a cache for each frame there is; mirrored is empty where no mirror images are kept.
        widths: of each frame, in pixels.
        targets: the encoded targets of every sample, stacked.
    """

    groups: np.ndarray
    rows_of: np.ndarray
    plain: Mapping[int, ActivationCache]
    mirrored: Mapping[int, ActivationCache]
    widths: Mapping[int, int]
    targets: Mapping[str, np.ndarray]

    def rows(self, index: np.ndarray, mirror: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Features of the images at `index` (b,), which share a frame, as entries of a batch; of the mirror image
        where `mirror` (b,) says so."""
        group, rows = int(self.groups[index[0]]), self.rows_of[index]
        found = self.plain[group].rows(rows)
        if mirror is not None and mirror.any():
            other = self.mirrored[group].rows(rows[mirror])
            for name, values in found.items():
                values[mirror] = other[name]
        return found

    def width(self, index: np.ndarray) -> int:
        """Of the frame that the images at `index` share."""
        return self.widths[int(self.groups[index[0]])]


def open_views(
    model: Model,
    dataset: Dataset,
    *,
    mirrored: bool = False,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> CachedViews:
    """The caches for a data set, computed as far as they are missing. See `zoo.training.cache.open_cache`."""
    preprocess = model.card.preprocess
    numbers = frame_numbers(dataset, preprocess)
    groups = np.zeros(len(dataset), np.int32) if numbers is None else numbers
    frames = (preprocess.size, *preprocess.frames)
    views = (False, True) if mirrored else (False,)
    caches: dict[bool, dict[int, ActivationCache]] = {view: {} for view in (False, True)}
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

            caches[view][group] = open_cache(framed, part, mirrored=view, batch_size=batch_size, progress=advanced)
            done += len(members)
    widths = {group: frames[group][1] for group in caches[False]}
    return CachedViews(groups, rows_of, caches[False], caches[True], widths, all_targets(dataset, model))


def _framed(model: Model, size: tuple[int, int]) -> Model:
    """The model for a single frame."""
    other: Model = nnx.merge(*nnx.split(model))
    other.card = replace(model.card, preprocess=replace(model.card.preprocess, size=size, frames=()))
    return other
