"""Networks for style transfer in torch, independent of zoo's, for golden values and the benchmark.

The transform net in the layout of PyTorch's examples, TensorFlow's form of it on a converted checkpoint, the decoder of
AdaIN in naoto0804's layout, and a loss network from torchvision's SqueezeNet weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, upsample: int = 0):
        super().__init__()
        self.upsample, self.pad = upsample, kernel // 2
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=self.upsample, mode="nearest")
        return self.conv2d(F.pad(x, [self.pad] * 4, mode="reflect"))


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.in1 = Conv(channels, channels, 3, 1), nn.InstanceNorm2d(channels, affine=True)
        self.conv2, self.in2 = Conv(channels, channels, 3, 1), nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))


class TransformNet(nn.Module):
    """Transform net: pixels (b, 3, h, w) from 0 to 255 -> the same."""

    def __init__(self, width: int = 32, blocks: int = 5):
        super().__init__()
        self.blocks = blocks
        self.conv1, self.in1 = Conv(3, width, 9, 1), nn.InstanceNorm2d(width, affine=True)
        self.conv2, self.in2 = Conv(width, 2 * width, 3, 2), nn.InstanceNorm2d(2 * width, affine=True)
        self.conv3, self.in3 = Conv(2 * width, 4 * width, 3, 2), nn.InstanceNorm2d(4 * width, affine=True)
        for i in range(1, blocks + 1):
            self.add_module(f"res{i}", Block(4 * width))
        self.deconv1, self.in4 = Conv(4 * width, 2 * width, 3, 1, 2), nn.InstanceNorm2d(2 * width, affine=True)
        self.deconv2, self.in5 = Conv(2 * width, width, 3, 1, 2), nn.InstanceNorm2d(width, affine=True)
        self.deconv3 = Conv(width, 3, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"in{i}")(self.get_submodule(f"conv{i}")(x)))
        for i in range(1, self.blocks + 1):
            x = self.get_submodule(f"res{i}")(x)
        for i in (1, 2):
            x = F.relu(self.get_submodule(f"in{i + 3}")(self.get_submodule(f"deconv{i}")(x)))
        return self.deconv3(x)


def decoder() -> nn.Sequential:
    """Features of relu4_1 (b, 512, h, w) -> pixels in [0, 1] (b, 3, 8h, 8w)."""
    rows = (
        (512, 256),
        "up",
        (256, 256),
        (256, 256),
        (256, 256),
        (256, 128),
        "up",
        (128, 128),
        (128, 64),
        "up",
        (64, 64),
    )
    layers: list[nn.Module] = []
    for row in rows:
        if row == "up":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(int(row[0]), int(row[1]), 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(1), nn.Conv2d(64, 3, 3))


def tensorflow_net(variables: Tensors, x: Tensor) -> Tensor:
    """A converted TensorFlow transform net on pixels (1, 3, h, w) from 0 to 255, by plain operations.

    TensorFlow's `SAME` puts an odd pixel of padding below and to the right; `conv2d_transpose` is the gradient of such
    a convolution.
    """
    count = iter(range(len(variables)))

    def take() -> Tensor:
        i = next(count)
        return variables["Variable" if i == 0 else f"Variable_{i}"]

    def norm(y: Tensor) -> Tensor:
        shift, scale = take(), take()
        mean, variance = y.mean((2, 3), keepdim=True), y.var((2, 3), keepdim=True, unbiased=False)
        return (y - mean) / torch.sqrt(variance + 1e-3) * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def conv(y: Tensor, stride: int = 1) -> Tensor:
        kernel = take().permute(3, 2, 0, 1)
        pads = []
        for side in (y.shape[3], y.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        return norm(F.conv2d(F.pad(y, pads), kernel, stride=stride))

    def up(y: Tensor) -> Tensor:
        kernel = take().permute(3, 2, 0, 1)
        whole = F.conv_transpose2d(y, kernel, stride=2)
        return norm(whole[:, :, : 2 * y.shape[2], : 2 * y.shape[3]])

    y = F.relu(conv(x))
    y = F.relu(conv(y, 2))
    y = F.relu(conv(y, 2))
    for _ in range(5):
        inner = F.relu(conv(y))
        y = y + conv(inner)
    y = F.relu(up(y))
    y = F.relu(up(y))
    return torch.tanh(conv(y)) * 150 + 127.5


def squeezenet_maps(weights: Tensors, x: Tensor, deepest: int = 12) -> list[Tensor]:
    """The maps of SqueezeNet 1.0 before each pooling and the last, for normalised images (b, 3, h, w)."""
    y = F.relu(F.conv2d(x, weights["features.0.weight"], weights["features.0.bias"], stride=2))
    found = [y]
    for index in range(2, deepest + 1):
        if index in (2, 6, 11):
            y = F.max_pool2d(y, 3, 2, ceil_mode=True)
            found.append(y)
            continue
        name = f"features.{index}"
        y = F.relu(F.conv2d(y, weights[f"{name}.squeeze.weight"], weights[f"{name}.squeeze.bias"]))
        one = F.conv2d(y, weights[f"{name}.expand1x1.weight"], weights[f"{name}.expand1x1.bias"])
        three = F.conv2d(y, weights[f"{name}.expand3x3.weight"], weights[f"{name}.expand3x3.bias"], padding=1)
        y = F.relu(torch.cat([one, three], 1))
        found[-1] = y
    return found
