"""What a phase reads: batches of images or of cached features, features for its preconditioner, validation data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from zoo.activations.cache import PLAIN, View, compute_features
from zoo.activations.views import CachedViews, open_views
from zoo.data import Dataset, Loader, MemoryCache
from zoo.errors import ConfigError
from zoo.layers import BatchNorm
from zoo.models.model import Model, features_of
from zoo.models.prepared import evaluation_load, frame_numbers, training_load
from zoo.training import batches as batching
from zoo.training.config import Recipe
from zoo.training.evaluation import Evaluation, evaluate_batches
from zoo.training.rules import Assignment
from zoo.training.run import scalars
from zoo.training.session import Interrupted, Place, Session, diverged
from zoo.weights.mapping import Path as ModulePath
from zoo.weights.mapping import dotted

SAMPLE = 1024
"""Images that the statistics of features are taken from."""
VIEWED = 2000
"""Random views whose features are kept, of all images together: they are for small data, and fill disks."""


def training_loader(session: Session, assignment: Assignment) -> Loader:
    """Training batches, of images."""
    recipe, model = session.recipe, session.model
    augmented = recipe.augmentation is not None and augments(model, assignment) and recipe.augmentation.geometric
    # Where images are only coloured, they show what they show in an evaluation: targets know no other frame.
    load = training_load(model) if augmented else evaluation_load(model)
    size = min(recipe.batch_size, len(session.train))
    groups = frame_numbers(session.train, model.card.preprocess)
    whole = _counts_copies(model, assignment, recipe.statistics)
    if whole and groups is not None and (smallest := min(Counter(groups.tolist()).values())) < size:
        raise ConfigError(
            f"{whole} takes its statistics from all rows of a batch, so that batches must be full, and one of the "
            f"frames has {smallest} images: use a batch_size of at most {smallest}, or frame all images alike "
            "(frames=[])."
        )
    return Loader(
        session.train,
        MemoryCache(load),
        size,
        seed=recipe.seed,
        shuffle=True,
        drop_last=bool(whole),
        groups=groups,
    )


def _counts_copies(model: Model, assignment: Assignment, statistics: bool) -> str:
    """The path of a layer whose batch statistics would include the copies that fill up a batch, because it is not
    zoo's own (`zoo.layers.statistics_of`); empty where there is none that trains."""
    for path, layer in nnx.iter_modules(model):
        own = any(isinstance(value, nnx.BatchStat) for value in vars(layer).values())
        name = dotted(path)
        frozen = any(f"{name}.".startswith(f"{module}.") for module in assignment.frozen_modules)
        if own and not isinstance(layer, BatchNorm) and not frozen and (statistics or path[0] == "head"):
            return name
    return ""


def augments(model: Model, assignment: Assignment) -> bool:
    """Whether images may be augmented: where the backbone runs in every epoch anyway."""
    return model.adapter.training.backbone == "fixed" or not assignment.backbone_frozen


def moves_images(model: Model, assignment: Assignment, recipe: Recipe) -> bool:
    """Whether a phase trains on images, or on cached features of them, that augmentation has changed."""
    viewed = recipe.cache and model.adapter.training.caches_views
    return recipe.augmentation is not None and (augments(model, assignment) or viewed)


def open_caches(session: Session, assignment: Assignment) -> None:
    """Features of a frozen backbone as it is now; those of one that is going to be trained are forgotten."""
    training = session.model.adapter.training
    if not (session.recipe.cache and assignment.backbone_frozen) or training.backbone == "fixed":
        session.caches.clear()
        return
    if session.caches:
        return  # nothing has trained the backbone since

    def progress(done: int, total: int) -> None:
        if session.features:
            session.features(done, total)
        if session.stop:
            raise Interrupted(session.stop)

    for name, dataset in (("train", session.train), ("val", session.val)):
        recipe = session.recipe
        many = name == "train" and recipe.augmentation is not None
        session.caches[name] = open_views(
            session.model,
            dataset,
            mirrored=many and training.cached_mirror or name == "val" and training.tta,
            further=min(training.cached_views, VIEWED // len(dataset)) if many else 0,
            random=View(augmentation=recipe.augmentation, seed=recipe.seed) if many else PLAIN,
            progress=progress,
        )
    session.cached_after = len(session.history)


def affine_maps(model: Model, assignment: Assignment) -> dict[str, ModulePath]:
    """The head's affine maps that read a reduced feature and train: path in the head -> path in the model."""
    paths = {name: ("head", *name.split(".")) for name in model.head.reads()}  # type: ignore[attr-defined]
    return {name: path for name, path in paths.items() if assignment.trains((*path, "kernel"))}


def sample_features(session: Session, maps: Mapping[str, ModulePath]) -> dict[str, np.ndarray]:
    """What each affine map reads, for at most `SAMPLE` training images spread over the data: (images, ..., in)."""
    model, dataset = session.model, session.train
    index = np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(int)
    if cache := session.caches.get("train"):
        found = features_of(cache.rows(index[cache.groups[index] == cache.groups[index[0]]]))
    else:
        found = compute_features(model, dataset.subset(index, dataset.name), session.recipe.batch_size)
    reads = model.head.reads()  # type: ignore[attr-defined]
    return {name: found[reads[name]] for name in maps}


def train_batches(session: Session, loader: Loader, epoch: int, offset: int) -> Iterator[dict[str, Any]]:
    batches: Iterator[dict[str, Any]] = loader.epoch(epoch, offset)
    if cache := session.caches.get("train"):
        batches = batching.cached_batches(cache, loader, cache.targets, epoch, offset, mirror=True)
    for batch in batches:
        yield {name: value for name, value in batch.items() if name != "index"}


def validated(session: Session, at: Place) -> tuple[dict[str, float], Evaluation]:
    """The single figures of the model as it is, as they stand in a row of the history, and all of them."""
    evaluation = validate(session.model, session.val, session.caches.get("val"), session.recipe.batch_size)
    found = evaluation.metrics
    if not math.isfinite(found["loss"]):
        raise diverged(session, at, "validation loss", found["loss"])
    row = {("val_loss" if k == "loss" else k): v for k, v in scalars(found).items() if k != "images"}
    return row, evaluation


def validate(model: Model, dataset: Dataset, cache: CachedViews | None, batch_size: int) -> Evaluation:
    """Figures of the model on prepared data, from its cached features where there are any."""
    size = min(batch_size, len(dataset))
    groups = frame_numbers(dataset, model.card.preprocess)
    loader = Loader(dataset, evaluation_load(model, truth=True), size, groups=groups)
    if cache is None:
        return evaluate_batches(model, dataset, loader.epoch(0))
    batches = batching.cached_batches(cache, loader, cache.targets, 0, truth=model.adapter.truth)
    return evaluate_batches(model, dataset, batches)
