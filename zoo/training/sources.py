"""Sources: where the batches of a training or an evaluation come from.

The loop takes sources and does not know whether they read images, cached features, or anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zoo.activations.cache import compute_features
from zoo.activations.views import CachedViews
from zoo.data import Dataset, Loader, Sample
from zoo.models.model import Model, features_of
from zoo.models.prepared import evaluation_load, frame_numbers
from zoo.targets.moves import MOVES, Moves, movers

Batch = dict[str, Any]


class Source(Protocol):
    """Batches of one dataset.

    The batches of an epoch depend on the source and on the number of the epoch alone. So a training resumes in the
    middle of an epoch by asking for the rest of its batches; a source has no position that would have to be saved.
    """

    @property
    def dataset(self) -> Dataset:
        """The images, with their file names, and targets where they have labels."""

    @property
    def cached(self) -> bool:
        """Whether batches hold cached features instead of images. Displays tell it; nothing depends on it."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, from batch `start` on.

        A batch holds `image`, or features by stage (`zoo.models.model.FEATURES`), the encoded targets, if any, and the
        loader's `index` and `valid`; each has the batch as its first axis.
        """

    def rows(self, number: int, batch: int) -> np.ndarray:
        """Return the indexes of the samples in a batch of epoch `number`."""

    def sample(self, model: Model, count: int) -> dict[str, np.ndarray]:
        """Return reduced features of at most `count` images spread over the dataset: stage -> (images, ...)."""


@dataclass(frozen=True)
class Images:
    """A source of images, prepared by a loader.

    Attributes:
        loader: prepares the images and decides their order.
    """

    loader: Loader
    cached = False

    @property
    def dataset(self) -> Dataset:
        return self.loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return self.loader.epoch(number, start)

    def rows(self, number: int, batch: int) -> np.ndarray:
        return _rows(self.loader, number, batch)

    def sample(self, model: Model, count: int) -> dict[str, np.ndarray]:
        index = _spread(len(self.dataset), count)
        return compute_features(model, self.dataset.subset(index, self.dataset.name), self.loader.batch_size)


@dataclass(frozen=True)
class CachedFeatures:
    """A source of cached features: the batches that a loader would give, with features instead of images.

    Attributes:
        loader: decides the order; it prepares nothing.
        views: the features of each image, of its mirror image and of its random views, as far as they are cached.
        varied: give each image in one of its views, as training does. Otherwise images are given as they are, with the
            features of their mirror images beside them where they are cached, as test-time augmentation reads them.
        truth: further arrays of a sample, for metrics; read anew for each batch.
    """

    loader: Loader
    views: CachedViews
    varied: bool = False
    truth: Callable[[Sample], Mapping[str, np.ndarray]] | None = None
    cached = True

    @property
    def dataset(self) -> Dataset:
        return self.loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        turns = self.views.turns(self.loader.seed, number) if self.varied else None
        for at, (index, valid) in enumerate(self.loader.batches(number)[start:], start):
            view = self._views_of(number, at, index, turns)
            features = self.views.rows(index, view) | ({} if self.varied else self.views.mirror_rows(index))
            yield {**features, **self._targets(index, valid, view), "index": index, "valid": valid}

    def rows(self, number: int, batch: int) -> np.ndarray:
        return _rows(self.loader, number, batch)

    def sample(self, model: Model, count: int) -> dict[str, np.ndarray]:
        index, groups = _spread(len(self.dataset), count), self.views.groups
        # Features of images of different sizes do not stack: those of the first image's size stand for all.
        return features_of(self.views.rows(index[groups[index] == groups[index[0]]]))

    def _views_of(self, epoch: int, batch: int, index: np.ndarray, turns: np.ndarray | None) -> np.ndarray | None:
        """The number of the view in which each image of a batch is given, (b,); None for images as they are.

        With random views, every image has all its views in turn (`turns`). With mirror images alone, a coin is tossed
        for each image; the toss follows from the seed, the epoch and the batch, so that a resumed epoch repeats it.
        """
        if turns is not None:
            return turns[index]
        if self.varied and self.views.mirrored:
            draws = np.random.Generator(np.random.PCG64([self.loader.seed, epoch, batch, 2]))
            return draws.random(len(index)) < 0.5
        return None

    def _targets(self, index: np.ndarray, valid: np.ndarray, view: np.ndarray | None) -> Batch:
        """The targets of a batch, moved as the pixels of the views were."""
        targets = _stacked([self.views.targets[i] for i in index])
        if self.truth:
            rows = [self.truth(self.dataset[int(i)]) for i in index[valid]]
            targets |= _stacked(rows + rows[-1:] * (len(index) - len(rows)))
        if view is None:
            return targets
        turned = mirrored_targets(targets, view == 1, self.views.width(index), self.views.moves)
        return self.views.moved(turned, index, view)


def _rows(loader: Loader, number: int, batch: int) -> np.ndarray:
    index, valid = loader.batches(number)[batch]
    return index[valid]


def _spread(size: int, count: int) -> np.ndarray:
    """At most `count` indexes spread evenly over `size` samples."""
    return np.linspace(0, size - 1, min(count, size)).astype(int)


def _stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def mirrored_targets(targets: Mapping[str, Any], mirror: np.ndarray, width: int, moves: Moves = MOVES) -> Batch:
    """Return the targets of a batch, mirrored where the image is.

    Args:
        mirror: which images are mirrored, (b,).
        width: of the images, in pixels.
        moves: the targets that lie somewhere in the image, and what each is; others stay as they are.
    """
    mirrored = dict(targets)
    for name, mover in movers(targets, moves):
        mirrored |= mover.mirrored(name, targets, mirror, width)
    return mirrored


def evaluation_source(model: Model, dataset: Dataset, batch_size: int, views: CachedViews | None = None) -> Source:
    """Return the batches that a model is evaluated on, with all that its metrics need.

    Args:
        views: cached features of the dataset, which are then read instead of its images.
    """
    groups = frame_numbers(dataset, model.card.preprocess)
    loader = Loader(dataset, evaluation_load(model, truth=True), min(batch_size, len(dataset)), groups=groups)
    return Images(loader) if views is None else CachedFeatures(loader, views, truth=model.adapter.truth)


def joined(sources: Mapping[str, Source], number: int, start: int = 0) -> Iterator[Batch]:
    """Yield the batch of each step of an epoch.

    An epoch is one of the first source, whose entries keep their names. Entries of each further source are called
    `NAME/entry`; it starts over as often as needed, and where it stands follows from `number` and `start` as well.
    """
    (_, first), *others = sources.items()
    position = number * len(first) + start
    beside = [(name, _endless(source, position)) for name, source in others]
    for batch in first.epoch(number, start):
        step = {name: value for name, value in batch.items() if name != "index"}
        for name, batches in beside:
            step |= {f"{name}/{entry}": value for entry, value in next(batches).items() if entry != "index"}
        yield step


def _endless(source: Source, position: int) -> Iterator[Batch]:
    """The batches of a source from one position on, counted over all epochs."""
    number, start = divmod(position, len(source))
    while True:
        yield from source.epoch(number, start)
        number, start = number + 1, 0
