"""Branches of convolutions side by side, from which the Inception nets are made (arXiv:1512.00567, figures 5 to 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.layers import Chain

EPS = 1e-3  # of every batch norm in these nets

Kernel = int | tuple[int, int]
Convolution = tuple[int, Kernel] | tuple[int, Kernel, int]
"""(channels, kernel), padded to keep the map's size, or (channels, kernel, stride), without padding."""
Layer = Convolution | Callable[[Array], Array]
Step = Mapping[str, Layer | Sequence[Layer]] | Callable[[Array], Array]
"""Attribute name -> one layer, or a list of layers that are numbered below it. Several names split what comes in
between them. A pool has no parameters, so it may stand alone."""


def convolution(inputs: int, spec: Convolution, *, rngs: nnx.Rngs) -> ConvNormAct:
    """Convolution, batch norm and ReLU."""
    channels, kernel, *stride = spec
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = 0 if stride else (sides[0] // 2, sides[1] // 2)
    return ConvNormAct(inputs, channels, kernel, *stride, padding=padding, eps=EPS, rngs=rngs)


def sequence(inputs: int, layers: Sequence[Layer], *, rngs: nnx.Rngs) -> tuple[Chain, int]:
    """The layers one after the other, and the channels of their output."""
    made: list = []
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
        self.channels, plan = 0, []
        for branch in branches:
            widths, steps = [inputs], []
            for step in branch:
                if callable(step):
                    steps.append(step)
                    continue
                width, widths = widths[0], []
                for name, layers in step.items():
                    if isinstance(layers, list):
                        module, outputs = sequence(width, layers, rngs=rngs)
                    else:
                        module, outputs = convolution(width, layers, rngs=rngs), layers[0]
                    setattr(self, name, module)
                    widths.append(outputs)
                steps.append(tuple(step))
            plan.append(tuple(steps))
            self.channels += sum(widths)
        self.plan = tuple(plan)

    def __call__(self, x: Array) -> Array:
        joined = []
        for steps in self.plan:
            found = [x]
            for step in steps:
                found = [step(found[0])] if callable(step) else [getattr(self, name)(found[0]) for name in step]
            joined += found
        return jnp.concatenate(joined, axis=-1)
