"""Branches of convolutions side by side, from which the Inception nets are made (arXiv:1512.00567, figures 5 to 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.layers import Chain, Padding, pair

EPS = 1e-3  # of every batch norm in these nets

Kernel = int | tuple[int, int]
Convolution = tuple[int, Kernel] | tuple[int, Kernel, int]
"""(channels, kernel), padded to keep the map's size, or (channels, kernel, stride), without padding."""
Pool = Callable[[Array], Array]
Step = Mapping[str, Convolution | list[Convolution | Pool]] | Pool
"""Attribute name -> a convolution, or a list of layers that are numbered below it. Several names split what comes in
between them. A pool has no parameters, so it may stand alone."""


def convolution(inputs: int, spec: Convolution, *, rngs: nnx.Rngs) -> ConvNormAct:
    """Convolution, batch norm and ReLU."""
    rows, columns = pair(spec[1])
    same: Padding = (rows // 2, columns // 2)
    stride, padding = (spec[2], 0) if len(spec) == 3 else (1, same)
    return ConvNormAct(inputs, spec[0], spec[1], stride, padding, eps=EPS, rngs=rngs)


def sequence(inputs: int, layers: Sequence[Convolution | Pool], *, rngs: nnx.Rngs) -> tuple[Chain, int]:
    """The layers one after the other, and the channels of their output."""
    made: list[Pool] = []
    for layer in layers:
        if isinstance(layer, tuple):
            made.append(convolution(inputs, layer, rngs=rngs))
            inputs = layer[0]
        else:
            made.append(layer)
    return Chain(made), inputs


class Branches(nnx.Module):
    """Branches that all take the module's input; their outputs are joined along the channels in the order given.

    `channels` is the number of them.
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
        """Makes what goes by that name. Returns the channels of its output."""
        if isinstance(layers, list):
            module, outputs = sequence(inputs, layers, rngs=rngs)
            setattr(self, name, module)
            return outputs
        setattr(self, name, convolution(inputs, layers, rngs=rngs))
        return layers[0]

    def __call__(self, x: Array) -> Array:
        joined = []
        for steps in self.plan:
            found = [x]
            for step in steps:
                found = [step(found[0])] if callable(step) else [getattr(self, name)(found[0]) for name in step]
            joined += found
        return jnp.concatenate(joined, axis=-1)
