"""Helpers for tests of detectors: torchvision's on ResNet-50 with name-seeded weights, targets and detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import parity_kit
import seeded
from flax import nnx
from jax import Array
from PIL import Image

from zoo.weights.mapping import Slot, locate, slots

SPEC = parity_kit.backbones()["resnet50"]


class Detector(nnx.Module):
    """Return torchvision's detector as zoo composes it; `top(rngs=)` makes the module of neck and head."""

    def __init__(self, top: Callable[..., nnx.Module], *, rngs: nnx.Rngs):
        self.backbone = SPEC.build(rngs=rngs)
        self.head: Any = top(rngs=rngs)


def abstract(top: Callable[..., nnx.Module]) -> Detector:
    """Return an abstract detector in evaluation mode."""
    detector = nnx.eval_shape(lambda: Detector(top, rngs=nnx.Rngs(0)))
    detector.eval()
    return detector


def checkpoint_names(detector: nnx.Module, layout: Mapping[str, Any]) -> dict[str, Slot]:
    """Return name in a file of this layout -> slot."""
    return {locate(slot.name, layout).names[0]: slot for slot in slots(detector)}


def digest(detector: nnx.Module, layout: Mapping[str, Any]) -> str:
    """Return a digest of the names and shapes in a file of this layout."""
    return seeded.digest({name: slot.native_shape for name, slot in checkpoint_names(detector, layout).items()})


def fill(
    detector: nnx.Module, layout: Mapping[str, Any], scales: Sequence[float], gains: Mapping[str, float] | None = None
) -> None:
    """Fill in name-seeded weights, by the names of a layout; `gains` are factors for some of them."""
    named = checkpoint_names(detector, layout)
    tensors = seeded.tensors({name: slot.native_shape for name, slot in named.items()}, scales)
    nodes = dict(nnx.iter_graph(detector))
    for name, slot in named.items():
        tensor = tensors[name] * np.float32((gains or {}).get(name, 1))
        nodes[slot.path].set_value(jnp.asarray(slot.read(tensor)))


def photo(assets: Path, wanted: Mapping[str, Any]) -> Array:
    """Return every second pixel of an image (1, h, w, 3), normalised and padded with zeros to a multiple of 32.

    torchvision pads in the same way. The sides are multiples of no stride.
    """
    file = assets / "datasets" / "pennfudan" / "PNGImages" / wanted["file"]
    pixels = np.asarray(Image.open(file).convert("RGB"), np.float32)[::2, ::2] / 255
    assert list(pixels.shape[:2]) == wanted["size"]
    mean, std = (np.array(values, np.float32)[None, None] for values in (SPEC.preprocess.mean, SPEC.preprocess.std))
    x = np.pad((pixels - mean) / std, [(0, -side % 32) for side in pixels.shape[:2]] + [(0, 0)])
    return jnp.asarray(x[None], jnp.float32)


def padded(targets: Sequence[Mapping[str, Any]], count: int) -> dict[str, Array]:
    """Return the targets of a batch as tasks encode them, with `count` boxes for each image."""
    boxes, labels = np.zeros((len(targets), count, 4), np.float32), np.zeros((len(targets), count), np.int32)
    valid = np.zeros((len(targets), count), bool)
    for i, target in enumerate(targets):
        n = len(target["boxes"])
        boxes[i, :n], labels[i, :n], valid[i, :n] = np.reshape(target["boxes"], (n, 4)), target["labels"], True
    return {"boxes": jnp.asarray(boxes), "labels": jnp.asarray(labels), "box_valid": jnp.asarray(valid)}


def assert_detections(found: Mapping[str, Any], wanted: Mapping[str, Any], row: int, *, scores: float = 1e-5) -> None:
    """Assert that one image has the golden boxes, scores and labels, and no others; scores: their tolerance."""
    count = len(wanted["scores"])
    assert found["valid"][row].tolist() == [True] * count + [False] * (100 - count)
    assert found["labels"][row][:count].tolist() == wanted["labels"]
    np.testing.assert_allclose(found["scores"][row][:count], wanted["scores"], atol=scores)
    np.testing.assert_allclose(found["boxes"][row][:count], wanted["boxes"], atol=5e-3)
