"""Data: from files to batches on the host. Importing it needs neither jax nor grain.

On-device augmentation is in `zoo.data.augment`, which imports jax and so must be imported separately.
"""

from zoo.data.dataset import Dataset, Sample
from zoo.data.decode import decode
from zoo.data.files import list_images
from zoo.data.loader import Loader
from zoo.data.memory import MemoryCache
from zoo.data.readers import formats, read, suited
from zoo.data.split import kfold, split
from zoo.data.transform import prepare, with_room

__all__ = [
    "Dataset",
    "Loader",
    "MemoryCache",
    "Sample",
    "decode",
    "formats",
    "kfold",
    "list_images",
    "prepare",
    "read",
    "split",
    "suited",
    "with_room",
]
