"""Prepared samples kept in memory, so that a small data set is decoded once and not once an epoch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from zoo.data.dataset import Sample
from zoo.data.loader import Batch, Load

DEFAULT_LIMIT = 1 << 30


class MemoryCache:
    """A `load` for `Loader` that remembers what another one gave, up to a number of bytes.

    When it is full, further samples are prepared anew every time; nothing is thrown out, because an epoch visits
    every sample once, and the least recently used one is just the one that comes next.

    Args:
        load: must depend on the sample alone. Its arrays are made read-only.
        limit: bytes of array data, 1 GiB by default.
    """

    def __init__(self, load: Load, limit: int = DEFAULT_LIMIT) -> None:
        self.load = load
        self.limit = limit
        self.size = 0
        self._kept: dict[tuple[str, Path], Batch] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Samples that are kept."""
        return len(self._kept)

    def __call__(self, sample: Sample) -> Batch:
        """What `load` gives for the sample."""
        key = (sample.id, sample.image)  # ids alone repeat between data sets
        kept = self._kept.get(key)
        if kept is None:
            kept = self.load(sample)
            self._keep(key, kept)
        return dict(kept)

    def _keep(self, key: tuple[str, Path], arrays: Batch) -> None:
        size = sum(array.nbytes for array in arrays.values())
        with self._lock:
            if key in self._kept or self.size + size > self.limit:
                return
            self._kept[key] = arrays
            self.size += size
        for array in arrays.values():
            # A consumer that wrote into an array would change every later epoch. (Scalars cannot be written into.)
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
