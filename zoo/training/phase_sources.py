"""The sources of a phase: images, or cached features where the backbone is frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flax import nnx

from zoo.activations.cache import PLAIN, View
from zoo.activations.views import open_views
from zoo.data import Loader, MemoryCache
from zoo.errors import ConfigError
from zoo.layers import BatchNorm
from zoo.models.model import Model
from zoo.models.prepared import evaluation_load, frame_numbers, training_load
from zoo.training.config import Recipe
from zoo.training.rules import Assignment
from zoo.training.session import Interrupted, Session
from zoo.training.sources import CachedFeatures, Images, Source, evaluation_source
from zoo.weights.mapping import dotted

VIEWED = 2000
"""Random views to cache of all images together: they are for small datasets, and fill disks."""


@dataclass(frozen=True)
class Sources:
    """What a phase reads.

    Attributes:
        train: the sources to learn from, by name; the first decides how many steps an epoch has. See
            `zoo.training.sources.joined`.
        val: the source that each epoch is evaluated on.
    """

    train: Mapping[str, Source]
    val: Source


def open_sources(session: Session, assignment: Assignment, images: Images) -> Sources:
    """Open what a phase reads, and compute cached features as far as they are missing.

    Args:
        images: the training images, from `training_images`; cached features come in their order.
    """
    _open_caches(session, assignment)
    train = session.caches.get("train")
    return Sources(
        {"train": images if train is None else CachedFeatures(images.loader, train, varied=True)},
        evaluation_source(session.model, session.val, session.recipe.batch_size, session.caches.get("val")),
    )


def training_images(session: Session, assignment: Assignment) -> Images:
    """Return the training images, shuffled, with room around them where they are going to be cropped."""
    recipe, model = session.recipe, session.model
    augmented = recipe.augmentation is not None and augments(model, assignment) and recipe.augmentation.geometric
    # Images that are only coloured are prepared as for an evaluation: their targets know no other frame.
    load = training_load(model) if augmented else evaluation_load(model)
    size = min(recipe.batch_size, len(session.train))
    groups = frame_numbers(session.train, model.card.preprocess)
    whole = _counts_copies(model, assignment, recipe.statistics)
    if whole and groups is not None and (smallest := min(Counter(groups.tolist()).values())) < size:
        raise ConfigError(
            f"{whole} computes its statistics from all rows of a batch, so batches must be full, but only {smallest} "
            f"images have one of the letterbox sizes: use a batch_size of at most {smallest}, or a single letterbox "
            "size (frames=[])."
        )
    return Images(
        Loader(
            session.train,
            MemoryCache(load),
            size,
            seed=recipe.seed,
            shuffle=True,
            drop_last=bool(whole),
            groups=groups,
        )
    )


def _counts_copies(model: Model, assignment: Assignment, statistics: bool) -> str:
    """Return the path of a training layer whose batch statistics would include padding rows; empty if there is none.

    The last batch is padded with copies. zoo's own layers leave them out (`zoo.layers.statistics_of`); a layer of
    another library cannot, so the incomplete batch has to be left out.
    """
    for path, layer in nnx.iter_modules(model):
        has_statistics = any(isinstance(value, nnx.BatchStat) for value in vars(layer).values())
        name = dotted(path)
        frozen = any(f"{name}.".startswith(f"{module}.") for module in assignment.frozen_modules)
        foreign = has_statistics and not isinstance(layer, BatchNorm)
        if foreign and not frozen and (statistics or path[0] == "head"):
            return name
    return ""


def augments(model: Model, assignment: Assignment) -> bool:
    """Whether images may be augmented: only where the backbone runs in every epoch anyway."""
    return model.adapter.training.backbone == "fixed" or not assignment.backbone_frozen


def moves_images(model: Model, assignment: Assignment, recipe: Recipe) -> bool:
    """Whether a phase trains on augmented images, or on cached features of them."""
    viewed = recipe.cache and model.adapter.training.caches_views
    return recipe.augmentation is not None and (augments(model, assignment) or viewed)


def _open_caches(session: Session, assignment: Assignment) -> None:
    """Cache the features of a backbone that stays frozen; forget those of one that is about to be trained."""
    training = session.model.adapter.training
    if not (session.recipe.cache and assignment.backbone_frozen) or training.backbone == "fixed":
        session.caches.clear()
        return
    if session.caches:
        return  # nothing has trained the backbone since
    for name in ("train", "val"):
        cache_features(session, name)
    session.cached_after = len(session.history)


def cache_features(session: Session, name: str) -> None:
    """Open the cached features of the split `train` or `val`, and compute them as far as they are missing."""
    training, recipe = session.model.adapter.training, session.recipe
    dataset = session.train if name == "train" else session.val
    many = name == "train" and recipe.augmentation is not None

    def progress(done: int, total: int) -> None:
        if session.features:
            session.features(done, total)
        if session.stop:
            raise Interrupted(session.stop)

    session.caches[name] = open_views(
        session.model,
        dataset,
        mirrored=many and training.cached_mirror or name == "val" and training.tta,
        further=min(training.cached_views, VIEWED // len(dataset)) if many else 0,
        random=View(augmentation=recipe.augmentation, seed=recipe.seed) if many else PLAIN,
        progress=progress,
    )
