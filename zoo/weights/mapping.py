"""From NNX modules to checkpoint tensors, and back, by one table per module type.

Because a family's attribute names are its source checkpoint's names, the name of a tensor is the module's path plus the
leaf's name there, and its axes are permuted as the module's type says. Nothing here knows a family.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from zoo.layers import BatchNorm, ConvTranspose, GroupNorm, LayerNorm
from zoo.registry.spec import Stored

Path = tuple[Any, ...]
"""Where a variable lies in a module: attribute names and list positions."""

_NORM = {"scale": ("weight", None), "bias": ("bias", None)}
_BATCH_NORM = {**_NORM, "mean": ("running_mean", None), "var": ("running_var", None)}
# Module type -> leaf here -> (leaf in the checkpoint, axes of the checkpoint's tensor in the order we keep them).
TABLES: tuple[tuple[tuple[type, ...], Mapping[str, tuple[str, tuple[int, ...] | None]]], ...] = (
    ((nnx.Conv,), {"kernel": ("weight", (2, 3, 1, 0)), "bias": ("bias", None)}),
    ((ConvTranspose,), {"kernel": ("weight", (2, 3, 0, 1)), "bias": ("bias", None)}),
    ((nnx.Linear,), {"kernel": ("weight", (1, 0)), "bias": ("bias", None)}),
    ((BatchNorm, nnx.BatchNorm), _BATCH_NORM),
    ((GroupNorm, LayerNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.RMSNorm), _NORM),
    ((nnx.Embed,), {"embedding": ("weight", None)}),
)
UNUSED_LEAVES = {"num_batches_tracked": "a batch counter, which only torch's cumulative averaging reads"}


@dataclass(frozen=True)
class Slot:
    """One array of a module and the checkpoint tensor it corresponds to.

    Attributes:
        path: of the variable in the module's state. name: of the tensor in the native checkpoint layout.
        shape: of the array here. axes: permutation from the checkpoint's axes to ours; None keeps them.
        owner: type name of the module that holds it.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    owner: str

    @property
    def native_shape(self) -> tuple[int, ...]:
        """The shape with the checkpoint's axes."""
        return self.shape if self.axes is None else tuple(self.shape[i] for i in np.argsort(self.axes))

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """The checkpoint's tensor with our axes."""
        return tensor if self.axes is None or tensor.ndim != len(self.axes) else tensor.transpose(self.axes)

    def write(self, array: np.ndarray) -> np.ndarray:
        """Our array with the checkpoint's axes, contiguous."""
        axes = self.axes
        return np.ascontiguousarray(array if axes is None else array.transpose(np.argsort(axes)))


def dotted(path: Iterable[Any]) -> str:
    """A path as `a.0.b`."""
    return ".".join(map(str, path))


def slots(module: nnx.Module) -> list[Slot]:
    """Every parameter and running statistic of `module` (abstract or not)."""
    nodes = dict(nnx.iter_graph(module))
    found = []
    for path, node in nodes.items():
        if not isinstance(node, nnx.Param | nnx.BatchStat):
            continue
        owner, leaf = nodes[path[:-1]], str(path[-1])
        table = next((table for types, table in TABLES if isinstance(owner, types)), {})
        name, axes = table.get(leaf, (leaf, None))
        shape = tuple(node.get_value().shape)
        found.append(Slot(path, dotted((*path[:-1], name)), shape, axes, type(owner).__name__))
    return found


def locate(name: str, layout: Mapping[str, str | Stored]) -> Stored:
    """Where another layout keeps the tensor `name`: as its own entry says, else with its module path replaced by that
    of the longest matching entry (path here -> path there)."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        there = layout.get(".".join(parts[:cut]))
        if isinstance(there, Stored):
            return there
        if there is not None:
            return Stored((".".join([there, *parts[cut:]]),))
    return Stored((name,))


def join(parts: Sequence[np.ndarray], stored: Stored, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that a layout stores as `parts`; `shape` is that of the native checkpoint."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.reshape(shape) if stored.shape is not None and whole.size == math.prod(shape) else whole


def split(whole: np.ndarray, stored: Stored) -> Iterator[tuple[str, np.ndarray]]:
    """The reverse of `join`: (name there, array)."""
    for name, part in zip(stored.names, np.split(whole, len(stored.names)), strict=True):
        yield name, part if stored.shape is None else part.reshape(stored.shape)


def common_wrapper(names: Iterable[str], expected: set[str]) -> str:
    """The prefix, such as `module.` or `state_dict.model.`, to strip so that most names are expected ones.

    Saving a wrapped module (data parallelism, a training framework) puts such a prefix before every name.
    """
    covered = Counter({"": 0})
    for name in names:
        starts = (0, *(i + 1 for i, character in enumerate(name) if character == "."))
        covered.update(name[:start] for start in starts if name[start:] in expected)
    return max(sorted(covered, key=len), key=covered.__getitem__)
