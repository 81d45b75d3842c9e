"""Cache prepared samples in memory, so that a small dataset is decoded once, not once per epoch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from zoo.data.dataset import Sample
from zoo.data.loader import Batch, Load

DEFAULT_LIMIT = 1 << 30


class MemoryCache:
    """A `load` function for `Loader` that caches the results of another one, up to a number of bytes.

    When the cache is full, further samples are prepared anew every time, and nothing is evicted. An LRU policy would
    be useless here: an epoch visits every sample once, so the least recently used one is needed next.

    Args:
        load: prepares a sample; must depend on the sample alone. Its arrays become read-only.
        limit: bytes of array data, 1 GiB by default.
    """

    def __init__(self, load: Load, limit: int = DEFAULT_LIMIT) -> None:
        self.load = load
        self.limit = limit
        self.size = 0
        self._cached: dict[tuple[str, Path], Batch] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of cached samples."""
        return len(self._cached)

    def __call__(self, sample: Sample) -> Batch:
        """Return the result of `load` for the sample."""
        key = (sample.id, sample.image)  # different datasets may use the same ids
        arrays = self._cached.get(key)
        if arrays is None:
            arrays = self.load(sample)
            self._store(key, arrays)
        return dict(arrays)

    def _store(self, key: tuple[str, Path], arrays: Batch) -> None:
        size = sum(array.nbytes for array in arrays.values())
        with self._lock:
            if key in self._cached or self.size + size > self.limit:
                return
            self._cached[key] = arrays
            self.size += size
        for array in arrays.values():
            # Writing into a cached array would change every later epoch. (Scalars are immutable anyway.)
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
