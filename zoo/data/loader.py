"""Load batches in a reproducible order, prepared by grain's reading threads, resumable at any batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from zoo.data.dataset import Dataset, Sample
from zoo.errors import ConfigError, DataError, RunError

Batch = dict[str, np.ndarray]
Load = Callable[[Sample], Batch]
RESERVED = ("index", "valid")


@dataclass
class Loader:
    """Load batches of equal shape from a dataset.

    The order of an epoch depends only on `seed` and the number of the epoch, not on the threads. With s shards, shard
    i gets every s-th sample of that order, starting at sample i, and all shards have the same number of batches.

    Attributes:
        dataset: the samples.
        load: function that prepares one sample as named arrays, with the same shapes and types for all samples of a
            batch. It runs in threads.
        batch_size: samples per batch of this shard.
        seed: of the order.
        shuffle: whether to use a new order every epoch, rather than the dataset's order.
        shard: (number of this process, number of processes).
        drop_last: leave out an incomplete last batch, rather than padding it.
        threads: number of reading threads; each prepares a whole batch. 0 reads in the caller's thread.
        groups: a group number for each sample, None for a single group. A batch has samples of one group only, e.g.
            an aspect-ratio bucket.
    """

    dataset: Dataset
    load: Load
    batch_size: int
    _: KW_ONLY
    seed: int = 0
    shuffle: bool = False
    shard: tuple[int, int] = (0, 1)
    drop_last: bool = False
    threads: int = 4
    groups: Sequence[int] | np.ndarray | None = None
    _position: tuple[int, int] = field(default=(0, 0), init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for invalid options, and `DataError` if there are too few samples for one batch."""
        number, count = self.shard
        if self.batch_size < 1 or min(self.threads, self.seed) < 0 or not 0 <= number < count:
            raise ConfigError(
                f"batch_size {self.batch_size}, threads {self.threads}, seed {self.seed}, shard {self.shard}: "
                "batch_size must be at least 1, threads and seed at least 0, and a shard is (number from 0, count)."
            )
        smallest = min(map(len, self._members(np.arange(len(self.dataset)))), default=0)
        if self.groups is not None and smallest < count:
            raise DataError(
                f"{self.dataset.name} has an aspect-ratio bucket of {smallest} samples, too few for {count} processes: "
                "use fewer processes, or a single size for all images (frames=[])."
            )
        if len(self) == 0:
            raise DataError(
                f"{self.dataset.name} has {len(self.dataset)} samples, too few for one batch of {self.batch_size} in "
                f"each of {count} shards" + (" with drop_last." if self.drop_last else ".")
            )

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return sum(self._count(len(members)) for members in self._members(np.arange(len(self.dataset))))

    def _count(self, samples: int) -> int:
        """Return the number of batches for a number of samples in one group."""
        count = self.shard[1]
        if self.drop_last:
            return samples // count // self.batch_size
        return _ceil(_ceil(samples, count), self.batch_size) if samples >= count else 0

    def _members(self, order: np.ndarray) -> list[np.ndarray]:
        """Return the positions of each group, in the given order."""
        if self.groups is None:
            return [order]
        groups = np.asarray(self.groups)
        return [order[groups[order] == group] for group in np.unique(groups)]

    def batches(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the plan of epoch `number`: for each batch, positions in the dataset and which of them are valid.

        Both have shape (batch_size,). Batches of several groups come group by group, or shuffled if `shuffle` is set.
        """
        plan: list[tuple[np.ndarray, np.ndarray]] = []
        for members in self._members(self.order(number)):
            mine = members[self.shard[0] :: self.shard[1]]
            for batch in range(self._count(len(members))):
                rows = mine[batch * self.batch_size : (batch + 1) * self.batch_size]
                index = np.concatenate([rows, np.repeat(mine[-1:], self.batch_size - len(rows))])
                plan.append((index.astype(np.int32), np.arange(self.batch_size) < len(rows)))
        if self.groups is None or not self.shuffle:
            return plan
        # Mix the batches of all groups. Otherwise each epoch would train on one image shape after the other.
        turn = np.random.Generator(np.random.PCG64([self.seed, number, 1])).permutation(len(plan))
        return [plan[i] for i in turn]

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, from batch `start` on.

        A batch has the arrays of `load`, stacked on a new first axis, plus `index` (int32, position in the dataset)
        and `valid` (bool). An incomplete batch is padded by repeating a sample with `valid` False.

        Raises:
            ConfigError: `start` is not a batch of the epoch.
            DataError: a sample cannot be prepared; names its file.
        """
        if not 0 <= start <= len(self):
            raise ConfigError(f"an epoch has {len(self)} batches; it cannot start at batch {start}.")
        self._position = (number, start)
        for done, batch in enumerate(self._read(number, start), start + 1):
            self._position = (number, done)
            yield batch

    def state(self) -> dict[str, Any]:
        """Return the position after the last batch, and the options that it depends on, as plain JSON values."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def resume(self, state: dict[str, Any]) -> Iterator[Batch]:
        """Yield the rest of the epoch in which `state` was taken. The number of threads may differ.

        Raises:
            RunError: the order would be different; names the option that differs.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise RunError(
                    f"the data loader cannot resume: {name} was {state.get(name)!r} and is now {value!r}. Resume with "
                    "the same data and options, or start a new run."
                )
        return self.epoch(state["epoch"], state["batch"])

    def order(self, number: int) -> np.ndarray:
        """Return positions in the dataset in the order of epoch `number`, over all shards: int64 (samples,)."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.Generator(np.random.PCG64([self.seed, number])).permutation(len(self.dataset))

    def _identity(self) -> dict[str, Any]:
        return {
            "samples": len(self.dataset),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "batch_size": self.batch_size,
            "shard": list(self.shard),
            "drop_last": self.drop_last,
            **({} if self.groups is None else {"groups": zlib.crc32(np.asarray(self.groups, np.int32).tobytes())}),
        }

    def _read(self, number: int, start: int) -> Iterator[Batch]:
        # Imported here, because importing grain takes 1.3 s. Grain's own shuffle and map cost 40 us per sample in
        # Python, 1.4 ms per batch of 32. Mapping whole batches over a precomputed permutation costs 0.3 ms.
        from grain import MapDataset, ReadOptions

        plan = self.batches(number)

        def prepare(batch: int) -> Batch:
            return self._batch(*plan[batch])

        batches = MapDataset.range(len(self)).map(prepare)[start:]
        options = ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * self.threads)
        yield from batches.to_iter_dataset(options)

    def _batch(self, index: np.ndarray, valid: np.ndarray) -> Batch:
        """Return the samples at `index`, stacked. Padding repeats the last sample without preparing it again."""
        rows = [int(row) for row in index[: max(int(valid.sum()), 1)]]
        loaded = [self._example(row) for row in rows]
        padding = self.batch_size - len(loaded)
        batch = _stack(loaded + loaded[-1:] * padding, [self.dataset[row] for row in rows])
        return {**batch, "index": index, "valid": valid}

    def _example(self, index: int) -> Batch:
        sample = self.dataset[index]
        try:
            example = self.load(sample)
        except Exception as error:
            if isinstance(error, DataError) and str(sample.image) in str(error):
                raise
            problem = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            raise DataError(f"{sample.image} cannot be prepared: {problem}") from error
        for name in RESERVED:
            if name in example:
                raise ConfigError(f"load returned {name!r}, a name that the loader itself uses; choose another name.")
        return example


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _stack(examples: Sequence[Batch], samples: Sequence[Sample]) -> Batch:
    """Stack named arrays over the examples. Raise `DataError` for an example whose arrays differ from the first's."""
    first = examples[0]
    for example, sample in zip(examples, samples, strict=False):
        for name in first.keys() | example.keys():
            kinds = [(np.shape(e[name]), np.asarray(e[name]).dtype) if name in e else None for e in (first, example)]
            if kinds[0] != kinds[1]:
                raise DataError(
                    f"{sample.image}: {name!r} is {kinds[1]}, but {kinds[0]} for {samples[0].image}; load must return "
                    "the same shape and type for every sample."
                )
    return {name: np.stack([example[name] for example in examples]) for name in first}
