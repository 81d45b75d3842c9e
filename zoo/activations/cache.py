"""The activation cache: what a frozen backbone gives the head, computed once per image and kept on disk.

A cache is a folder named by everything its numbers depend on: the parameters below the head, the cut, preprocessing,
dtype and the data. Rows are written in blocks; each finished block's checksum goes into `progress.json`, so an
interrupted computation goes on where it stopped. Opening a cache verifies every block; from the first damaged one on
it is computed anew. Arrays are memory mapped: the data never has to fit in memory.
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
from zoo.errors import RunError
from zoo.models.backbone import feature_shapes
from zoo.models.model import FEATURES, Model
from zoo.models.prepared import evaluation_load
from zoo.models.store import arrays_of

BLOCK = 64
"""Rows in a block."""
VERSION = 1


@dataclass(frozen=True)
class View:
    """How images are looked at whose features are cached.

    Attributes:
        mirrored: from the other side.
        number: of the random view that `augmentation` gives of each image with `seed`; 0 for the image as it is.
    """

    mirrored: bool = False
    number: int = 0
    augmentation: Augment | None = None
    seed: int = 0

    def keys(self, rows: np.ndarray) -> jax.Array:
        """A random key for each row of the data, (b,)."""
        return view_keys(self.seed, np.full(len(rows), self.number), rows)

    def pixels(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray | jax.Array:
        """What is seen of images, uint8 (b, h, w, c), which are these rows of the data."""
        if self.augmentation is None:
            return images[:, :, ::-1] if self.mirrored else images
        seen = augment_each(self.augmentation, self.keys(rows), {"image": images}, images.shape[1:3])["image"]
        # Back to whole levels, so that the backbone is compiled once for all views.
        return jax.numpy.round(seen * 255).astype(np.uint8)

    def facts(self) -> dict[str, Any]:
        """What tells it from the plain view."""
        if self.augmentation is not None:
            return {"view": [self.number, self.seed, asdict(self.augmentation)]}
        return {"mirrored": True} if self.mirrored else {}


PLAIN = View()


@jax.jit
def view_keys(seed: int, numbers: np.ndarray, rows: np.ndarray) -> jax.Array:
    """The random key of a view (b,) of a row (b,) of the data."""
    fold = jax.vmap(jax.random.fold_in)
    return fold(jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers), rows)


def cache_key(model: Model, dataset: Dataset, view: View = PLAIN) -> str:
    """The hex digest of all that cached features depend on."""
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
        "data": dataset.fingerprint(),
        "root": str(dataset.root.resolve()),
        **view.facts(),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for path, array in sorted(arrays_of(model.backbone).items(), key=lambda item: str(item[0])):
        digest.update(str(path).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _reduction(model: Model) -> str:
    """What the head does to the features before they are kept, as the operations it is made of."""
    # A function inside them is printed with its address, which says nothing and is another one in each process.
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
    """Cached features of a data set: row i is what the head computes from for image i.

    Attributes:
        folder: where it lies. dataset: whose images. arrays: stage -> memory-mapped array (images, ...), float32.
        reused: rows that were found and not computed.
    """

    folder: Path
    dataset: Dataset
    arrays: Mapping[str, np.ndarray]
    reused: int

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Features of the images at `index` (b,), as entries of a batch."""
        return {FEATURES + stage: array[index] for stage, array in self.arrays.items()}


def open_cache(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    view: View = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> ActivationCache:
    """The cache for a model's backbone and a data set, computed as far as it is missing.

    Args:
        view: how the images are looked at.
        progress: called with (images done, images in all) after each batch.
    Raises:
        RunError: when the disk is too small. DataError: for an image that cannot be read.
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
    good = next((i for i, known in enumerate(checksums) if _block_checksums(arrays, i) != known), len(checksums))
    checksums = checksums[:good]
    reused = min(good * BLOCK, len(dataset))
    if progress and reused:
        progress(reused, len(dataset))
    if reused < len(dataset):
        rest = dataset.subset(range(reused, len(dataset)), dataset.name)
        loader = Loader(rest, evaluation_load(model), min(batch_size, len(rest)))
        for start, found in _compute(graphdef, state, loader, view, reused):
            first = reused + start
            count = len(next(iter(found.values())))
            for stage, values in found.items():
                arrays[stage][first : first + count] = values
            done = first + count
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
    """What the head computes from, for every image, in memory: stage -> (images, ...), float32."""
    model.eval()
    graphdef, state = nnx.split(model)
    loader = Loader(dataset, evaluation_load(model), min(batch_size, len(dataset)))
    parts = [found for _, found in _compute(graphdef, state, loader)]
    return {stage: np.concatenate([part[stage] for part in parts]) for stage in parts[0]}


def _compute(
    graphdef: nnx.GraphDef[Model], state: nnx.State, loader: Loader, view: View = PLAIN, first: int = 0
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(first row, stage -> features of the batch's images), with the next batch started before one is waited for.
    The loader's data are the rows from `first` on."""
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
            f"the activation cache needs {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: set "
            "ZOO_CACHE to another disk, or train without it (cache=False, --no-cache)."
        )
    (folder / "progress.json").unlink(missing_ok=True)
    return {
        stage: np.lib.format.open_memmap(_file(folder, stage), mode="w+", dtype=np.float32, shape=(count, *shape))
        for stage, shape in shapes.items()
    }


def _map(folder: Path, shapes: Mapping[str, tuple[int, ...]], count: int, begun: bool) -> dict[str, np.ndarray] | None:
    """The arrays of a cache that was begun, or None when they are not all there as they should be."""
    if not begun:
        return None
    arrays: dict[str, np.ndarray] = {}
    for stage, shape in shapes.items():
        try:
            arrays[stage] = np.lib.format.open_memmap(_file(folder, stage), mode="r+")
        except Exception:  # of a damaged header NumPy's parser raises nearly anything, also tokenize.TokenError
            return None
        if arrays[stage].shape != (count, *shape) or arrays[stage].dtype != np.float32:
            return None
    return arrays


def _block_checksums(arrays: Mapping[str, np.ndarray], block: int) -> dict[str, int]:
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    return {stage: zlib.crc32(np.ascontiguousarray(array[rows]).data) for stage, array in arrays.items()}


def _read_progress(folder: Path) -> list[dict[str, int]]:
    try:
        found = json.loads((folder / "progress.json").read_text())["blocks"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _write_progress(folder: Path, checksums: list[dict[str, int]]) -> None:
    partial_file = folder / "progress.json.part"
    partial_file.write_text(json.dumps({"blocks": checksums}))
    os.replace(partial_file, folder / "progress.json")
