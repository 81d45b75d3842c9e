"""Helpers for tests of loading: whole checkpoints of name-seeded tensors on disk, and models made from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import parity_kit as kit
from flax import nnx

import zoo
from zoo.models.store import arrays_of
from zoo.weights.file import write
from zoo.weights.mapping import Slot, slots

FAMILIES = kit.one_per_family()
NAME = FAMILIES[0]
SPEC = kit.backbones()[NAME]
HEAD = SPEC.classifier.path


def tensors(name: str = NAME) -> dict[str, np.ndarray]:
    return kit.checkpoint(name)


def saved(folder: Path, arrays: dict[str, np.ndarray], config: dict[str, object] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", arrays, {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def create(source: str, **kwargs: object) -> zoo.Model:
    return zoo.create(NAME, "classifier", weights=source, **kwargs)  # type: ignore[arg-type]


def values(module: nnx.Module) -> list[tuple[Slot, np.ndarray]]:
    """Return the slots of a module with their arrays."""
    arrays = arrays_of(module)
    return [(slot, arrays[slot.path]) for slot in slots(module)]
