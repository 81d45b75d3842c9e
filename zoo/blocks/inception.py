"""Parallel branches of convolutions, the blocks of the Inception networks (arXiv:1512.00567, figures 5 to 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.layers import Chain, Padding, pair

if TYPE_CHECKING:
    from jaxtyping import Float

EPS = 1e-3  # of every batch norm in these networks

Kernel = int | tuple[int, int]
Convolution = tuple[int, Kernel] | tuple[int, Kernel, int]
"""(channels, kernel) pads to keep the size of the map; (channels, kernel, stride) does not pad."""
Pool = Callable[[Array], Array]
Step = Mapping[str, Convolution | list[Convolution | Pool]] | Pool
"""Attribute name -> a convolution, or a list of layers numbered below that name. Several names are parallel layers with
the same input. A pool has no parameters, so it needs no name."""


def convolution(inputs: int, spec: Convolution, *, rngs: nnx.Rngs) -> ConvNormAct:
    """Return a convolution with batch norm and ReLU."""
    rows, columns = pair(spec[1])
    same: Padding = (rows // 2, columns // 2)
    stride, padding = (spec[2], 0) if len(spec) == 3 else (1, same)
    return ConvNormAct(inputs, spec[0], spec[1], stride, padding, eps=EPS, rngs=rngs)


def sequence(inputs: int, layers: Sequence[Convolution | Pool], *, rngs: nnx.Rngs) -> tuple[Chain, int]:
    """Return the layers as a chain, and the number of channels of its output."""
    made: list[Pool] = []
    for layer in layers:
        if isinstance(layer, tuple):
            made.append(convolution(inputs, layer, rngs=rngs))
            inputs = layer[0]
        else:
            made.append(layer)
    return Chain(made), inputs


class Branches(nnx.Module):
    """Branches with the same input, whose outputs are concatenated along the channels in the given order.

    Attributes:
        channels: of the output.
        plan: the steps of each branch, as pools and names of attributes.
    """

    def __init__(self, inputs: int, *branches: Sequence[Step], rngs: nnx.Rngs):
        self.channels = 0
        plan: list[tuple[Pool | tuple[str, ...], ...]] = []
        for branch in branches:
            widths = [inputs]
            for step in branch:
                if not callable(step):
                    widths = [self._add(name, widths[0], layers, rngs) for name, layers in step.items()]
            plan.append(tuple(step if callable(step) else tuple(step) for step in branch))
            self.channels += sum(widths)
        self.plan = tuple(plan)

    def _add(self, name: str, inputs: int, layers: Convolution | list[Convolution | Pool], rngs: nnx.Rngs) -> int:
        """Build the layers and set them as the attribute `name`. Return the number of channels of their output."""
        if isinstance(layers, list):
            module, outputs = sequence(inputs, layers, rngs=rngs)
            setattr(self, name, module)
            return outputs
        setattr(self, name, convolution(inputs, layers, rngs=rngs))
        return layers[0]

    def __call__(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b _h _w channels"]:
        joined = []
        for steps in self.plan:
            maps = [x]
            for step in steps:
                maps = [step(maps[0])] if callable(step) else [getattr(self, name)(maps[0]) for name in step]
            joined += maps
        return jnp.concatenate(joined, axis=-1)
