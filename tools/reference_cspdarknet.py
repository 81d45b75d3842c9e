"""CSPDarknet in torch, for comparison: the backbone of YOLOX (arXiv:2107.08430) and a classifier on its last map.

Module names are those of the detectors' checkpoints below `backbone.backbone.` (`stem.conv.conv`, `dark3.1.m.0.conv2`).
"""

from __future__ import annotations

import torch
from torch import nn

# name: (channels of the stem, bottlenecks in the first stage, depthwise convolutions)
SIZES = {
    "nano": (16, 1, True),
    "tiny": (24, 1, False),
    "s": (32, 1, False),
    "m": (48, 2, False),
    "l": (64, 3, False),
    "x": (80, 4, False),
}


class ConvNormSiLU(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.bn(self.conv(x)))


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.dconv = ConvNormSiLU(inputs, inputs, kernel, stride, groups=inputs)
        self.pconv = ConvNormSiLU(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pconv(self.dconv(x))


class Focus(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv = ConvNormSiLU(12, outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        return self.conv(torch.cat([even[..., ::2, :], even[..., 1::2, :], odd[..., ::2, :], odd[..., 1::2, :]], 1))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool, conv: type[nn.Module]):
        super().__init__()
        self.conv1 = ConvNormSiLU(width, width, 1)
        self.conv2 = conv(width, width, 3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.conv1(x))
        return y + x if self.shortcut else y


class CrossStage(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool, conv: type[nn.Module]):
        super().__init__()
        width = outputs // 2
        self.conv1 = ConvNormSiLU(inputs, width, 1)
        self.conv2 = ConvNormSiLU(inputs, width, 1)
        self.conv3 = ConvNormSiLU(2 * width, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(width, shortcut, conv) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class PyramidPooling(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ConvNormSiLU(channels, channels // 2, 1)
        self.conv2 = ConvNormSiLU(channels * 2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(nn.functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1))


class CSPDarknet(nn.Module):
    """A variant by its letter or word in YOLOX."""

    def __init__(self, size: str, num_classes: int = 10):
        super().__init__()
        width, depth, depthwise = SIZES[size]
        conv = Separable if depthwise else ConvNormSiLU
        self.stem = Focus(width)
        for i, repeats in enumerate((depth, 3 * depth, 3 * depth, depth)):
            channels, last = width * 2 ** (i + 1), i == 3
            pooling = [PyramidPooling(channels)] if last else []
            stage = CrossStage(channels, channels, repeats, not last, conv)
            setattr(self, f"dark{i + 2}", nn.Sequential(conv(channels // 2, channels, 3, 2), *pooling, stage))
        self.classifier = nn.Linear(16 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dark5(self.dark4(self.dark3(self.dark2(self.stem(x)))))
        return self.classifier(x.mean((2, 3)))
