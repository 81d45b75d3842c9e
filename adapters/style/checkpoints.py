"""Networks for style transfer as others store them, recognised by their tensors.

- PyTorch's examples, fast_neural_style: `conv1.conv2d.weight`, `in1.weight`, `res1.conv1.conv2d.weight`, ...
- TensorFlow's fast-style-transfer checkpoints, converted with their variables' names: `Variable`, `Variable_1`, ...,
  a convolution (HWIO; a transposed one HWOI), then shift and scale of its norm, layer by layer.
- naoto0804's AdaIN decoder, a Sequential: `1.weight`, `5.weight`, ...
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
"""TensorFlow's kernel axes in PyTorch's order."""
HWOI = (2, 3, 0, 1)


def read_net(source: str, method: str) -> Network:
    """Return a network from a file, as the style method reads it.

    Raises:
        WeightsError: The file has none of the method's layouts.
    """
    tensors, row = read(fetch(source).path).load(), METHODS[method]
    if row.read and (network := row.read(source, tensors)):
        return network
    raise WeightsError(
        f"{source} holds {', '.join(sorted(tensors)[:3])}, ... ({len(tensors)} tensors), which is no network that "
        f"method={method} reads. It reads {row.layouts}."
    )


def read_transform_net(source: str, tensors: Tensors) -> Network | None:
    """Return a transform net of one style; None for another file."""
    if "Variable" in tensors:
        return _tensorflow(source, tensors)
    prefix = common_wrapper(list(tensors), {"conv1.conv2d.weight", "in1.weight", "deconv3.conv2d.weight"})
    if prefix + "conv1.conv2d.weight" in tensors:
        return _pytorch(source, {n.removeprefix(prefix): a for n, a in tensors.items()})
    return None


def read_decoder(source: str, tensors: Tensors) -> Network | None:
    """Return a decoder of AdaIN; None for another file."""
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
            f"{source} has {count} variables; a transform net has three for each of its layers, 16 in all."
        )
    layers = ["conv1", "conv2", "conv3"]
    norms = ["in1", "in2", "in3"]
    for i in range(1, blocks + 1):
        layers += [f"res{i}.conv1", f"res{i}.conv2"]
        norms += [f"res{i}.in1", f"res{i}.in2"]
    layers += ["deconv1", "deconv2", "deconv3"]
    norms += ["in4", "in5", "in6"]
    found: dict[str, np.ndarray] = {}
    for i, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        kernel, shift, scale = (tensors[name] for name in names[3 * i : 3 * i + 3])
        axes = HWOI if layer in ("deconv1", "deconv2") else HWIO
        found[f"net.{layer}.conv2d.weight"] = kernel.transpose(axes)
        # These convolutions have no bias: the norm after each would take it away again.
        found[f"net.{layer}.conv2d.bias"] = np.zeros(len(shift), np.float32)
        found[f"net.{norm}.weight"], found[f"net.{norm}.bias"] = scale, shift
    width = int(tensors["Variable"].shape[-1])
    options = {
        "width": width, "blocks": blocks, "padding": "same", "upsample": "transposed", "output": "tanh", "eps": 1e-3,
    }  # fmt: skip
    return options, found


def _decoder(tensors: Tensors) -> dict[str, np.ndarray]:
    def order(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: int(name.split(".")[-2]))

    found: dict[str, np.ndarray] = {}
    for leaf in ("weight", "bias"):
        own = order([name for name in tensors if name.endswith(f".{leaf}")])
        found |= {f"decoder.convs.{i}.{leaf}": tensors[name] for i, name in enumerate(own)}
    return found
