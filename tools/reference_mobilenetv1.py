"""The quarter-width MobileNet of RetinaFace's published implementation in torch, for comparison: arXiv:1704.04861 with
leaky ReLU. Module names are those of its checkpoints (`stage1.0.0`, `stage3.1.4`, `fc`).
"""

from __future__ import annotations

import torch
from torch import nn

# Of each stage: (channels, stride) of its separable convolutions, after the stem of the first.
STAGES = (
    ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)),
    ((128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1)),
)


def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]


class MobileNetV1(nn.Module):
    def __init__(self, num_classes: int = 1000):
        super().__init__()
        inputs = 8
        for index, stage in enumerate(STAGES):
            layers = [] if index else [nn.Sequential(*convolution(3, inputs, 3, 2))]
            for outputs, stride in stage:
                depthwise = convolution(inputs, inputs, 3, stride, groups=inputs)
                layers.append(nn.Sequential(*depthwise, *convolution(inputs, outputs, 1, 1)))
                inputs = outputs
            setattr(self, f"stage{index + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))
