"""Read style transfer networks of other libraries, which are recognised by their tensor names.

- fast_neural_style of PyTorch's examples: `conv1.conv2d.weight`, `in1.weight`, `res1.conv1.conv2d.weight`, ...
- fast-style-transfer in TensorFlow, converted with the names of its variables: `Variable`, `Variable_1`, ... They are,
  layer by layer, a kernel (HWIO, or HWOI if transposed), then shift and scale of its norm.
- The AdaIN decoder of naoto0804, a Sequential: `1.weight`, `5.weight`, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.adapters.style.method import METHODS, Network
from zoo.errors import WeightsError
from zoo.weights.fetch import fetch
from zoo.weights.file import read
from zoo.weights.mapping import common_wrapper

Tensors = Mapping[str, np.ndarray]
HWIO = (3, 2, 0, 1)
"""Permutation of TensorFlow's kernel axes to PyTorch's order."""
HWOI = (2, 3, 0, 1)
"""The same for transposed convolutions."""


def read_net(source: str, method: str) -> Network:
    """Return the network in a file for a style method.

    Args:
        source: a file, or an address of one.
        method: name of the style method.

    Raises:
        WeightsError: if the file has none of the layouts of the method.
    """
    tensors, row = read(fetch(source).path).load(), METHODS[method]
    if row.read and (network := row.read(source, tensors)):
        return network
    raise WeightsError(
        f"{source} is not a network that method={method} can read: it has {len(tensors)} tensors, "
        f"{', '.join(sorted(tensors)[:3])}, ... Accepted layouts: {row.layouts}."
    )


def read_transform_net(source: str, tensors: Tensors) -> Network | None:
    """Return a transform net; None for a file of another layout."""
    if "Variable" in tensors:
        return _tensorflow(source, tensors)
    prefix = common_wrapper(list(tensors), {"conv1.conv2d.weight", "in1.weight", "deconv3.conv2d.weight"})
    if prefix + "conv1.conv2d.weight" in tensors:
        return _pytorch(source, {n.removeprefix(prefix): a for n, a in tensors.items()})
    return None


def read_decoder(source: str, tensors: Tensors) -> Network | None:
    """Return a decoder of AdaIN; None for a file of another layout."""
    if any(re.fullmatch(r"(.*\.)?\d+\.weight", name) for name in tensors):
        return {"width": 0, "joined": False, "normalized": False}, _decoder(tensors)
    return None


def _pytorch(source: str, tensors: Tensors) -> Network:
    kept = {n: a for n, a in tensors.items() if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    blocks = len({name.split(".")[0] for name in kept if name.startswith("res")})
    width = kept["conv1.conv2d.weight"].shape[0]
    options = {
        "width": width, "blocks": blocks, "padding": "reflect", "upsample": "nearest", "output": "linear", "eps": 1e-5,
    }  # fmt: skip
    return options, {f"net.{name}": array for name, array in kept.items()}


def _tensorflow(source: str, tensors: Tensors) -> Network:
    count = len(tensors)
    names = ["Variable" if i == 0 else f"Variable_{i}" for i in range(count)]
    blocks = (count // 3 - 6) // 2
    if sorted(names) != sorted(tensors) or count != 3 * (6 + 2 * blocks) or blocks < 1:
        raise WeightsError(
            f"{source} has {count} variables; a transform net has three for each of its layers, 48 with five residual "
            "blocks."
        )
    layers = ["conv1", "conv2", "conv3"]
    norms = ["in1", "in2", "in3"]
    for i in range(1, blocks + 1):
        layers += [f"res{i}.conv1", f"res{i}.conv2"]
        norms += [f"res{i}.in1", f"res{i}.in2"]
    layers += ["deconv1", "deconv2", "deconv3"]
    norms += ["in4", "in5", "in6"]
    named: dict[str, np.ndarray] = {}
    for i, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        kernel, shift, scale = (tensors[name] for name in names[3 * i : 3 * i + 3])
        axes = HWOI if layer in ("deconv1", "deconv2") else HWIO
        named[f"net.{layer}.conv2d.weight"] = kernel.transpose(axes)
        # These convolutions have no bias, because the norm after each would remove it.
        named[f"net.{layer}.conv2d.bias"] = np.zeros(len(shift), np.float32)
        named[f"net.{norm}.weight"], named[f"net.{norm}.bias"] = scale, shift
    width = int(tensors["Variable"].shape[-1])
    options = {
        "width": width, "blocks": blocks, "padding": "same", "upsample": "transposed", "output": "tanh", "eps": 1e-3,
    }  # fmt: skip
    return options, named


def _decoder(tensors: Tensors) -> dict[str, np.ndarray]:
    def order(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: int(name.split(".")[-2]))

    # The indices in the Sequential count padding, ReLU and upsampling, too; only the order of convolutions matters.
    named: dict[str, np.ndarray] = {}
    for leaf in ("weight", "bias"):
        names = order([name for name in tensors if name.endswith(f".{leaf}")])
        named |= {f"decoder.convs.{i}.{leaf}": tensors[name] for i, name in enumerate(names)}
    return named
