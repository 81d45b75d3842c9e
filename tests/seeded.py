"""Weights and images that depend on names alone, so that two frameworks can be given the same ones.

Used by the tests and by the scripts in `tools/` that make goldens with torch; needs numpy only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PERIOD = 65537
"""Numbers drawn for a tensor at most; a larger one repeats them. A prime, so that no two of its rows are alike."""


def generator(name: str) -> np.random.Generator:
    """A generator seeded by a stable hash of `name`."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")))


def tensor(name: str, shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
    """The float32 tensor called `name` in a torch state_dict, shape in torch's order (outputs first).

    Kernels have the variance of He's rule, and a part of their mean over what one output sees is taken off. With
    nothing taken off, the mean that every ReLU adds grows with depth until all images look alike; with all of it taken
    off, a deep net amplifies rounding errors a hundredfold. Scales and variances are positive and differ by
    channel; scales are well below one, so that residual branches add little to what they branch from.

    Args:
        scale: variance of what a batch norm sees, for its `running_mean` and `running_var`.
    """
    drawn = generator(name).standard_normal(min(math.prod(shape), PERIOD), np.float32)
    values = np.resize(drawn, tuple(shape))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return np.float32(scale) * np.exp(np.float32(0.2) * values)
    if leaf == "running_mean":
        return np.float32(0.2 * math.sqrt(scale)) * values
    if leaf in ("weight", "gamma") and len(shape) == 1:  # of a norm, or a layer scale
        return np.float32(0.5) + np.float32(0.1) * values
    if len(shape) < 2:
        return np.float32(0.1) * values
    if leaf not in ("weight", "in_proj_weight"):  # position embeddings, class tokens, tables of biases
        return np.float32(0.5) * values
    axes = tuple(range(1, len(shape)))
    values -= np.float32(0.4) * values.mean(axes, keepdims=True, dtype=np.float64).astype(np.float32)
    return values * np.float32(math.sqrt(2 / math.prod(shape[1:])))


def tensors(shapes: Mapping[str, Sequence[int]], scales: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """All tensors of a state_dict given by name -> shape; `scales` belong to its running variances in sorted order."""
    norms = norm_names(shapes)
    by_norm = dict(zip(norms, scales if scales is not None else [1.0] * len(norms), strict=True))
    return {name: tensor(name, shape, by_norm.get(_owner(name), 1.0)) for name, shape in shapes.items()}


def norm_names(names: Any) -> list[str]:
    """Module paths of the batch norms among these tensor names, sorted."""
    return sorted(_owner(name) for name in names if name.endswith("running_var"))


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def images(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Float32 images (count, h, w, c) of order one with blocks of noise at every scale and different contrasts."""
    random, total = generator("images"), np.zeros((count, height, width, channels))
    block = 1
    while block <= max(height, width):
        coarse = random.standard_normal((count, -(-height // block), -(-width // block), channels))
        total += coarse.repeat(block, 1).repeat(block, 2)[:, :height, :width]
        block *= 2
    contrast = np.linspace(0.7, 1.3, count).reshape(-1, 1, 1, 1)
    return (contrast * total / total.std()).astype(np.float32)


def image_size(native: int, min_size: int, multiple: int) -> tuple[int, int]:
    """(height, width) for a parity run: small and not square, odd somewhere on the way down, where it may be."""
    wanted = (native + 2, native - 3) if native <= 64 else (max(72, min_size + 16), max(56, min_size))
    return tuple(-(-max(side, min_size) // multiple) * multiple for side in wanted)  # type: ignore[return-value]


CLASSES = 10
"""Classes that a model is given where its checkpoints have none of their own."""


def summary(values: np.ndarray) -> dict[str, Any]:
    """A few numbers that tell an array (channels last) from any other: shape, a dozen elements, mean, standard
    deviation, and the projection on a fixed random direction, which every element takes part in."""
    flat = np.asarray(values, np.float64).ravel()
    direction = generator("projection").standard_normal(flat.size)
    return {
        "shape": list(values.shape),
        "values": [round(float(v), 6) for v in flat[np.linspace(0, flat.size - 1, 12).astype(int)]],
        "mean": round(float(flat.mean()), 6),
        "std": round(float(flat.std()), 6),
        "projection": round(float(flat @ direction / math.sqrt(flat.size)), 6),
    }


def error(values: np.ndarray, golden: Mapping[str, Any]) -> float:
    """Largest deviation of an array's summary from the golden one, in units of the array's standard deviation; infinite
    where the shape differs."""
    if list(values.shape) != golden["shape"]:
        return math.inf
    found = summary(values)
    pairs = [*zip(found["values"], golden["values"], strict=True)]
    pairs += [(found[key], golden[key]) for key in ("mean", "std", "projection")]
    return max(abs(a - b) for a, b in pairs) / golden["std"]


def digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """A hash of tensor names and shapes, whatever their order; torch's batch counters are left out."""
    lines = sorted(f"{n} {tuple(s)}" for n, s in shapes.items() if not n.endswith("num_batches_tracked"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def family_file(family: str) -> str:
    """File name of a family's goldens."""
    return f"backbone_{family.lower().replace(' ', '_')}.json"
