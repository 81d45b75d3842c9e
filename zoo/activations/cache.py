"""The feature cache: the features that a frozen backbone gives the head, computed once per image and stored on disk.

A cache is a folder named by a hash of everything that its values depend on: the backbone's parameters, the stages read
by the head, preprocessing, dtype, the content of the images in their order, and the release of JAX. A copy of the
dataset shares it. Rows are written in blocks. The checksum of each finished block goes into `progress.json`, so an
interrupted computation continues where it stopped. Opening a cache verifies every block; it is recomputed from the
first damaged block on. Arrays are memory-mapped, so the features need not fit in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock
from flax import nnx

from zoo import settings
from zoo.data import Dataset, Loader
from zoo.data.augment import Augment, augment_each
from zoo.data.content import images
from zoo.errors import RunError
from zoo.models.backbone import feature_shapes
from zoo.models.model import FEATURES, Model
from zoo.models.prepared import evaluation_load
from zoo.models.store import arrays_of

BLOCK = 64
"""Rows in a block."""
VERSION = 2


@dataclass(frozen=True)
class View:
    """The version of each image whose features are cached: the plain image, its mirror image, or an augmented one.

    Attributes:
        mirrored: flip the images horizontally.
        number: index of the augmented view, from 1; 0 for the plain image.
        augmentation: random augmentation of the images, if any.
        seed: of the augmentation.
    """

    mirrored: bool = False
    number: int = 0
    augmentation: Augment | None = None
    seed: int = 0

    def keys(self, rows: np.ndarray) -> jax.Array:
        """Return a random key for each row of the dataset, (b,)."""
        return view_keys(self.seed, np.full(len(rows), self.number), rows)

    def pixels(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray | jax.Array:
        """Return this view of images, uint8 (b, h, w, c).

        Args:
            images: plain images, uint8 (b, h, w, c).
            rows: their rows in the dataset, which select the random keys.
        """
        if self.augmentation is None:
            return images[:, :, ::-1] if self.mirrored else images
        augmented = augment_each(self.augmentation, self.keys(rows), {"image": images}, images.shape[1:3])["image"]
        # Back to uint8, so that one compiled backbone serves all views.
        return jax.numpy.round(augmented * 255).astype(np.uint8)

    def facts(self) -> dict[str, Any]:
        """Return what distinguishes the view from the plain one, for the key of the cache."""
        if self.augmentation is not None:
            return {"view": [self.number, self.seed, asdict(self.augmentation)]}
        return {"mirrored": True} if self.mirrored else {}


PLAIN = View()


@jax.jit
def view_keys(seed: int, numbers: np.ndarray, rows: np.ndarray) -> jax.Array:
    """Return the random key of each (view number, row of the dataset) pair, (b,)."""
    fold = jax.vmap(jax.random.fold_in)
    return fold(jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers), rows)


def cache_key(model: Model, dataset: Dataset, view: View = PLAIN) -> str:
    """Return the hex digest of everything that cached features depend on."""
    digest = hashlib.sha256()
    card = model.card
    facts = {
        "version": VERSION,
        "backbone": card.backbone,
        "plugin": asdict(card.plugins["backbone"]) if "backbone" in card.plugins else None,
        "options": dict(card.options),
        "preprocess": asdict(card.preprocess),
        "channels": card.in_channels,
        "dtype": card.dtype,
        "taps": list(model.adapter.taps(model.spec)),
        "reduction": _reduction(model),
        "images": images(dataset),
        # Other releases and devices give the same features, but for rounding. A run must be the same in every bit.
        "jax": [jax.__version__, jax.default_backend()],
        **view.facts(),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for path, array in sorted(arrays_of(model.backbone).items(), key=lambda item: str(item[0])):
        digest.update(str(path).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _reduction(model: Model) -> str:
    """Return the jaxpr of the head's reduction of the features, as text."""
    # Features are cached after the reduction, so a change of its operations must change the key of the cache. A jaxpr
    # prints functions with their address, which differs between processes and is removed.
    side, channels = model.card.preprocess.size, model.card.in_channels
    taps = model.adapter.taps(model.spec)
    shapes = feature_shapes(model.spec, side, taps, in_channels=channels, **model.card.options)
    text = str(jax.make_jaxpr(model.head.reduce)(shapes))  # type: ignore[attr-defined]
    return re.sub(r"0x[0-9a-f]+", "", text)


@partial(jax.jit, static_argnums=0)
def _reduced(graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: jax.Array) -> dict[str, jax.Array]:
    model = nnx.merge(graphdef, state)
    return jax.tree.map(lambda y: y.astype(jax.numpy.float32), model.reduced(model.normalize(pixels)))


@dataclass
class ActivationCache:
    """Cached features of a dataset. Row i holds the head's input for image i.

    Attributes:
        folder: location of the cache.
        dataset: the images.
        arrays: stage -> memory-mapped array (images, ...), float32.
        reused: number of rows that were cached before.
    """

    folder: Path
    dataset: Dataset
    arrays: Mapping[str, np.ndarray]
    reused: int

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of the images at `index` (b,), as entries of a batch."""
        return {FEATURES + stage: array[index] for stage, array in self.arrays.items()}


def open_cache(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    view: View = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> ActivationCache:
    """Open the cache for a backbone and a dataset, and compute the rows that are missing.

    Args:
        model: model with the backbone.
        dataset: images.
        batch_size: images of a batch.
        view: version of the images.
        progress: called with (images done, images in total) after each batch.
    Raises:
        RunError: if the disk is too small.
        DataError: if an image cannot be read.
    """
    folder = settings.cache_dir() / "activations" / cache_key(model, dataset, view)[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        return _fill(model, dataset, folder, batch_size, view, progress)


def _fill(
    model: Model,
    dataset: Dataset,
    folder: Path,
    batch_size: int,
    view: View,
    progress: Callable[[int, int], None] | None,
) -> ActivationCache:
    model.eval()
    graphdef, state = nnx.split(model)
    side = model.card.preprocess.size
    pixels = jax.ShapeDtypeStruct((1, *side, model.card.in_channels), np.uint8)
    shapes = {name: s.shape[1:] for name, s in jax.eval_shape(partial(_reduced, graphdef), state, pixels).items()}
    checksums = _read_progress(folder)
    arrays = _map(folder, shapes, len(dataset), bool(checksums))
    if arrays is None:
        checksums, arrays = [], _create(folder, shapes, len(dataset))
    # Keep the blocks before the first damaged one; rows are always computed in order.
    good = next((i for i, known in enumerate(checksums) if _block_checksums(arrays, i) != known), len(checksums))
    checksums = checksums[:good]
    reused = min(good * BLOCK, len(dataset))
    if progress and reused:
        progress(reused, len(dataset))
    if reused < len(dataset):
        rest = dataset.subset(range(reused, len(dataset)), dataset.name)
        loader = Loader(rest, evaluation_load(model), min(batch_size, len(rest)))
        for start, features in _compute(graphdef, state, loader, view, reused):
            first = reused + start
            count = len(next(iter(features.values())))
            for stage, values in features.items():
                arrays[stage][first : first + count] = values
            done = first + count
            # Flush the rows before their checksums are written, so that `progress.json` never lists a block that a
            # crash could still lose.
            full = len(dataset) if done == len(dataset) else done // BLOCK * BLOCK
            if len(checksums) * BLOCK < full:
                for array in arrays.values():
                    array.flush()  # type: ignore[attr-defined]
                while len(checksums) * BLOCK < full:
                    checksums.append(_block_checksums(arrays, len(checksums)))
                _write_progress(folder, checksums)
            if progress:
                progress(done, len(dataset))
    return ActivationCache(folder, dataset, arrays, reused)


def compute_features(model: Model, dataset: Dataset, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Return the head's input for every image, in memory: stage -> (images, ...), float32."""
    model.eval()
    graphdef, state = nnx.split(model)
    loader = Loader(dataset, evaluation_load(model), min(batch_size, len(dataset)))
    batches = [features for _, features in _compute(graphdef, state, loader)]
    return {stage: np.concatenate([features[stage] for features in batches]) for stage in batches[0]}


def _compute(
    graphdef: nnx.GraphDef[Model], state: nnx.State, loader: Loader, view: View = PLAIN, first: int = 0
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield (first row, stage -> features) of each batch.

    Args:
        graphdef: of the model.
        state: of the model.
        loader: batches of the rows from `first` on.
        view: version of the images.
        first: row of the dataset with which the loader starts.
    """
    # One batch stays pending: the device works on the next one while this one is copied to the host.
    pending: tuple[int, int, dict[str, jax.Array]] | None = None
    start = 0
    for batch in loader.epoch(0):
        count = int(batch["valid"].sum())
        pixels = view.pixels(batch["image"], batch["index"] + first)
        current = (start, count, _reduced(graphdef, state, pixels))
        if pending:
            yield pending[0], {name: np.asarray(v)[: pending[1]] for name, v in pending[2].items()}
        pending, start = current, start + count
    if pending:
        yield pending[0], {name: np.asarray(v)[: pending[1]] for name, v in pending[2].items()}


# On disk -------------------------------------------------------------------------------------------------------


def _file(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.npy"


def _create(folder: Path, shapes: Mapping[str, tuple[int, ...]], count: int) -> dict[str, np.ndarray]:
    need = sum(4 * count * int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(folder).free
    if need > 0.95 * free:
        raise RunError(
            f"the feature cache needs {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free. Set "
            "ZOO_CACHE to a directory on another disk, or train without the cache (cache=False, --no-cache)."
        )
    (folder / "progress.json").unlink(missing_ok=True)
    return {
        stage: np.lib.format.open_memmap(_file(folder, stage), mode="w+", dtype=np.float32, shape=(count, *shape))
        for stage, shape in shapes.items()
    }


def _map(folder: Path, shapes: Mapping[str, tuple[int, ...]], count: int, begun: bool) -> dict[str, np.ndarray] | None:
    """Open the arrays of a cache. Return None if it was not begun, or an array is missing or does not match."""
    if not begun:
        return None
    arrays: dict[str, np.ndarray] = {}
    for stage, shape in shapes.items():
        try:
            arrays[stage] = np.lib.format.open_memmap(_file(folder, stage), mode="r+")
        except Exception:  # NumPy raises nearly anything for a damaged header, even tokenize.TokenError
            return None
        if arrays[stage].shape != (count, *shape) or arrays[stage].dtype != np.float32:
            return None
    return arrays


def _block_checksums(arrays: Mapping[str, np.ndarray], block: int) -> dict[str, int]:
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    return {stage: zlib.crc32(np.ascontiguousarray(array[rows]).data) for stage, array in arrays.items()}


def _read_progress(folder: Path) -> list[dict[str, int]]:
    try:
        blocks = json.loads((folder / "progress.json").read_text())["blocks"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return blocks if isinstance(blocks, list) else []


def _write_progress(folder: Path, checksums: list[dict[str, int]]) -> None:
    partial_file = folder / "progress.json.part"
    partial_file.write_text(json.dumps({"blocks": checksums}))
    os.replace(partial_file, folder / "progress.json")
