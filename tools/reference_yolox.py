"""YOLOX in torch, for comparison: backbone, pyramid and head (arXiv:2107.08430), with the checkpoints' module names."""

from __future__ import annotations

import torch
from reference_cspdarknet import SIZES, ConvNormSiLU, CrossStage, CSPDarknet, Separable
from torch import nn
from torchvision.ops import batched_nms

STRIDES = (8, 16, 32)


class Pyramid(nn.Module):
    """Backbone with top-down and bottom-up paths -> levels of strides 8, 16 and 32."""

    def __init__(self, size: str):
        super().__init__()
        stem, depth, depthwise = SIZES[size]
        a, b, c = 4 * stem, 8 * stem, 16 * stem
        conv = Separable if depthwise else ConvNormSiLU
        self.backbone = CSPDarknet(size)
        del self.backbone.classifier
        self.lateral_conv0 = ConvNormSiLU(c, b, 1)
        self.C3_p4 = CrossStage(2 * b, b, depth, False, conv)
        self.reduce_conv1 = ConvNormSiLU(b, a, 1)
        self.C3_p3 = CrossStage(2 * a, a, depth, False, conv)
        self.bu_conv2 = conv(a, a, 3, 2)
        self.C3_n3 = CrossStage(2 * a, b, depth, False, conv)
        self.bu_conv1 = conv(b, b, 3, 2)
        self.C3_n4 = CrossStage(2 * b, c, depth, False, conv)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        net = self.backbone
        fine = net.dark3(net.dark2(net.stem(x)))
        middle = net.dark4(fine)
        top = self.lateral_conv0(net.dark5(middle))
        down = self.C3_p4(torch.cat([_doubled(top), middle], 1))
        reduced = self.reduce_conv1(down)
        first = self.C3_p3(torch.cat([_doubled(reduced), fine], 1))
        second = self.C3_n3(torch.cat([self.bu_conv2(first), reduced], 1))
        return [first, second, self.C3_n4(torch.cat([self.bu_conv1(second), top], 1))]


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Head(nn.Module):
    """Logits and raw boxes of every position: `cls_preds`, `reg_preds`, `obj_preds`, each (b, positions, n)."""

    def __init__(self, size: str, classes: int):
        super().__init__()
        stem, _, depthwise = SIZES[size]
        conv, width = Separable if depthwise else ConvNormSiLU, 4 * stem
        inputs = (width, 2 * width, 4 * width)
        self.stems = nn.ModuleList(ConvNormSiLU(n, width, 1) for n in inputs)
        for branch in ("cls", "reg"):
            towers = (nn.Sequential(conv(width, width, 3), conv(width, width, 3)) for _ in inputs)
            setattr(self, f"{branch}_convs", nn.ModuleList(towers))
        for branch, outputs in (("cls", classes), ("reg", 4), ("obj", 1)):
            setattr(self, f"{branch}_preds", nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in inputs))

    def forward(self, levels: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {"cls_preds": [], "reg_preds": [], "obj_preds": []}
        for i, x in enumerate(levels):
            x = self.stems[i](x)
            towers = {"cls": self.cls_convs[i](x), "reg": self.reg_convs[i](x)}
            for name, ys in found.items():
                y = getattr(self, name)[i](towers["cls" if name == "cls_preds" else "reg"])
                ys.append(y.flatten(2).transpose(1, 2))
        return {name: torch.cat(ys, 1) for name, ys in found.items()}


class YOLOX(nn.Module):
    """Return a variant by its letter or word."""

    def __init__(self, size: str, classes: int = 80):
        super().__init__()
        self.backbone = Pyramid(size)
        self.head = Head(size, classes)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        levels = self.backbone(x)
        return levels, self.head(levels)


def predictions(outputs: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """(b, positions, 5 + classes): centre, width and height in pixels, probabilities of an object and of each class."""
    raw, rows = outputs["reg_preds"], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij")
        rows.append(torch.stack([x.flatten(), y.flatten(), torch.full((x.numel(),), stride)], 1))
    corner, stride = torch.cat(rows).float().split([2, 1], 1)
    boxes = [(raw[..., :2] + corner) * stride, raw[..., 2:].exp() * stride]
    return torch.cat([*boxes, outputs["obj_preds"].sigmoid(), outputs["cls_preds"].sigmoid()], 2)


def detections(found: torch.Tensor, score: float, overlap: float) -> list[dict[str, torch.Tensor]]:
    """Return the boxes of each image after NMS, as corners, with scores and labels, best first."""
    kept = []
    for rows in found:
        best, labels = rows[:, 5:].max(1)
        scores = rows[:, 4] * best
        corners = torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
        above = scores >= score
        one = {"boxes": corners[above], "scores": scores[above], "labels": labels[above]}
        index = batched_nms(one["boxes"], one["scores"], one["labels"], overlap)
        kept.append({name: values[index] for name, values in one.items()})
    return kept
