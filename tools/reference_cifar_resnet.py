"""The CIFAR ResNets in torch, for comparison: section 4.2 of arXiv:1512.03385 with parameter-free shortcuts.

Module names are those of the published checkpoints (`conv1`, `layer1.0.bn2`, `linear`).
"""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.stride = outputs // inputs
        self.extra = outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            zeros = shortcut.new_zeros(len(x), self.extra // 2, *shortcut.shape[2:])
            shortcut = torch.cat([zeros, shortcut, zeros], 1)
        return torch.relu(y + shortcut)


class CifarResNet(nn.Module):
    """6n + 2 layers; by default the 10 classes of CIFAR-10."""

    def __init__(self, layers: int, num_classes: int = 10):
        super().__init__()
        depth = (layers - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU()
        self.layer1 = self._stage(16, 16, depth)
        self.layer2 = self._stage(16, 32, depth)
        self.layer3 = self._stage(32, 64, depth)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
        return nn.Sequential(Block(inputs, outputs), *(Block(outputs, outputs) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.act1(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))
