"""Map between NNX modules and checkpoint tensors, with one table for each type of module.

The attribute names of a family are those of its source checkpoint. So the name of a tensor is the path of the module
plus the checkpoint's name for the leaf, and the type of the module determines the order of axes. Nothing here depends
on a family.
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
"""Location of a variable in a module: attribute names and list indices."""

_NORM = {"scale": ("weight", None), "bias": ("bias", None)}
_BATCH_NORM = {**_NORM, "mean": ("running_mean", None), "var": ("running_var", None)}
# Module type -> leaf here -> (leaf in the checkpoint, permutation of the checkpoint's axes that gives ours).
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
    """One array of a module and the checkpoint tensor that it corresponds to.

    Attributes:
        path: of the variable in the module's state.
        name: of the tensor in the native checkpoint layout.
        shape: of the array here.
        axes: permutation from the checkpoint's axes to ours; None keeps them.
        owner: type name of the module that holds the array.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    owner: str

    @property
    def native_shape(self) -> tuple[int, ...]:
        """The shape in the checkpoint's order of axes."""
        return self.shape if self.axes is None else tuple(self.shape[i] for i in np.argsort(self.axes))

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Return a tensor of the checkpoint in our order of axes."""
        return tensor if self.axes is None or tensor.ndim != len(self.axes) else tensor.transpose(self.axes)

    def write(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the model in the checkpoint's order of axes, contiguous."""
        axes = self.axes
        return np.ascontiguousarray(array if axes is None else array.transpose(np.argsort(axes)))


def dotted(path: Iterable[Any]) -> str:
    """Return a path as `a.0.b`."""
    return ".".join(map(str, path))


def slots(module: nnx.Module) -> list[Slot]:
    """Return a slot for every parameter and running statistic of a module, abstract or not."""
    nodes = dict(nnx.iter_graph(module))
    result = []
    for path, node in nodes.items():
        if not isinstance(node, nnx.Param | nnx.BatchStat):
            continue
        owner, leaf = nodes[path[:-1]], str(path[-1])
        table = next((table for types, table in TABLES if isinstance(owner, types)), {})
        name, axes = table.get(leaf, (leaf, None))
        shape = tuple(node.get_value().shape)
        result.append(Slot(path, dotted((*path[:-1], name)), shape, axes, type(owner).__name__))
    return result


def locate(name: str, layout: Mapping[str, str | Stored]) -> Stored:
    """Return where another layout stores the tensor `name`.

    An entry for the tensor itself decides. Otherwise the longest entry for one of its parent modules replaces that part
    of the path. Without either, the name stays the same.

    Args:
        name: native name.
        layout: path here -> path there.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        target = layout.get(".".join(parts[:cut]))
        if isinstance(target, Stored):
            return target
        if target is not None:
            return Stored((".".join([target, *parts[cut:]]),))
    return Stored((name,))


def join(parts: Sequence[np.ndarray], stored: Stored, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor that a layout stores as `parts`.

    Args:
        parts: tensors of the file.
        stored: how the layout stores the tensor.
        shape: shape in the native checkpoint.
    """
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.reshape(shape) if stored.shape is not None and whole.size == math.prod(shape) else whole


def split(whole: np.ndarray, stored: Stored) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name there, array) of the parts of a tensor: the inverse of `join`."""
    for name, part in zip(stored.names, np.split(whole, len(stored.names)), strict=True):
        yield name, part if stored.shape is None else part.reshape(stored.shape)


def common_wrapper(names: Iterable[str], expected: set[str]) -> str:
    """Return the prefix, such as `module.` or `state_dict.model.`, whose removal gives most expected names.

    Saving a wrapped module (data parallelism, a training framework) puts such a prefix before every name.
    """
    # Count, for every possible prefix, the names that are expected without it; of equal counts the shortest wins.
    covered = Counter({"": 0})
    for name in names:
        starts = (0, *(i + 1 for i, character in enumerate(name) if character == "."))
        covered.update(name[:start] for start in starts if name[start:] in expected)
    return max(sorted(covered, key=len), key=covered.__getitem__)
