"""How samples are prepared for a model, and which of them share a letterbox size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.data import Dataset, Sample, decode, prepare, with_room
from zoo.image_header import image_size
from zoo.models.model import Model
from zoo.models.predictor import prepare_one
from zoo.registry.spec import Preprocess


def evaluation_load(model: Model, *, truth: bool = False) -> Callable[[Sample], dict[str, np.ndarray]]:
    """Return a function that prepares a sample as the weights want it; with `truth`, also what metrics need."""
    card, adapter = model.card, model.adapter

    def load(sample: Sample) -> dict[str, np.ndarray]:
        image, targets = prepare_one(card, sample.image)[0], adapter.targets(sample, card.preprocess)
        return {"image": image, **targets, **(adapter.truth(sample) if truth else {})}

    return load


def training_load(model: Model) -> Callable[[Sample], dict[str, np.ndarray]]:
    """Return a function that prepares a sample with a margin for random crops on the device."""
    preprocess, targets = with_room(model.card.preprocess), model.adapter.targets

    def load(sample: Sample) -> dict[str, np.ndarray]:
        return {
            "image": prepare(decode(sample.image, background=preprocess.background), preprocess),
            **targets(sample, preprocess),
        }

    return load


def frame_numbers(dataset: Dataset, preprocess: Preprocess) -> np.ndarray | None:
    """Return the index of each sample's letterbox size in `(size, *frames)`, (samples,); None if there is one size."""
    if preprocess.crop_mode != "letterbox" or not preprocess.frames:
        return None
    frames = (preprocess.size, *preprocess.frames)
    sizes = [dataset.targets.size(sample.target) or image_size(sample.image)[0] for sample in dataset]
    return np.array([frames.index(preprocess.frame(size)) for size in sizes], np.int32)


def all_targets(dataset: Dataset, model: Model) -> list[dict[str, np.ndarray]]:
    """Return the encoded targets of each sample."""
    return [model.adapter.targets(sample, model.card.preprocess) for sample in dataset]
