"""torchvision's FCOS on a frozen MobileNetV2, as people write it by hand. Run by `detector.py`, in an environment with
torch.

The features of every image and of its mirror image are computed once. A feature pyramid and torchvision's FCOS head,
with its target assignment, losses and NMS, train and run on them. Images are prepared and padded as the weights expect.
The job is read as JSON from standard input. The script prints a line of JSON when it is ready, and one for each epoch
with the detections in the test images.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

with contextlib.suppress(ImportError):
    import torchvision_cpu  # noqa: F401  declares torchvision's operators where its build does not match torch's
from PIL import Image
from torch import nn
from torch_head import backbone
from torch_side import rate_at, say
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

Job = Mapping[str, Any]
TAPS, CHANNELS = (6, 13, 18), (32, 96, 1280)
"""Modules of MobileNetV2 with the maps of strides 8, 16 and 32, and their channels."""
CHUNK = 16
"""Batch size for the computation of features."""


class Pyramid(nn.Module):
    """Levels P3 to P7 of cached maps."""

    def __init__(self, width: int):
        super().__init__()
        self.fpn = FeaturePyramidNetwork([*CHANNELS], width, LastLevelP6P7(width, width))
        self.out_channels = width

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(self.fpn(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())


class Detector(FCOS):
    """torchvision's FCOS, from cached maps instead of images."""

    def outputs(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> tuple[dict, list, list[int]]:
        """Return the outputs of the head, the anchors of each image, and their number on each level."""
        levels = self.backbone(maps)
        anchors = self.anchor_generator(ImageList(torch.empty(len(maps[0]), 3, *size), [size] * len(maps[0])), levels)
        return self.head(levels), anchors, [x.shape[2] * x.shape[3] for x in levels]

    def loss(self, maps: Sequence[torch.Tensor], targets: list[dict], size: tuple[int, int]) -> torch.Tensor:
        outputs, anchors, counts = self.outputs(maps, size)
        return sum(self.compute_loss(targets, outputs, anchors, counts).values())

    def found(self, maps: Sequence[torch.Tensor], size: tuple[int, int], seen: Sequence[tuple[int, int]]) -> list[dict]:
        """Return the detections in each image; `seen` is the size of the image without padding."""
        outputs, anchors, counts = self.outputs(maps, size)
        levels = {name: list(value.split(counts, 1)) for name, value in outputs.items()}
        return self.postprocess_detections(levels, [list(a.split(counts)) for a in anchors], seen)


def prepared(file: str, size: tuple[int, int], fill: int) -> tuple[torch.Tensor, float, tuple[int, int]]:
    """Return an image (3, height, width) in [-1, 1] in the upper left of the letterbox, with its scale and its size."""
    image = Image.open(file).convert("RGB")
    scale = min(size[0] / image.height, size[1] / image.width)
    seen = round(image.height * scale), round(image.width * scale)
    frame = np.full((*size, 3), fill, np.uint8)
    frame[: seen[0], : seen[1]] = np.asarray(image.resize(seen[::-1], Image.Resampling.BILINEAR))
    return (torch.from_numpy(frame).permute(2, 0, 1) / 127.5 - 1), scale, seen


@torch.inference_mode()
def features(body: nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps that the pyramid reads."""
    found = []
    for i, module in enumerate(body):
        images = module(images)
        found += [images] if i in TAPS else []
    return found


class Photos:
    """Cached maps and targets of a split; with `mirrored`, also of the mirror images."""

    def __init__(self, body: nn.Sequential, rows: Sequence[Job], size: tuple[int, int], *, mirrored: bool):
        views: list[list[list[torch.Tensor]]] = [[] for _ in range(1 + mirrored)]
        self.targets, self.scales, self.seen = [], [], []
        for start in range(0, len(rows), CHUNK):
            images = []
            for row in rows[start : start + CHUNK]:
                image, scale, seen = prepared(row["file"], size, 128)
                boxes = torch.tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4) * scale
                self.targets.append({"boxes": boxes, "labels": torch.tensor(row["labels"], dtype=torch.int64)})
                self.scales.append(scale)
                self.seen.append(seen)
                images.append(image)
            batch = torch.stack(images).to(memory_format=torch.channels_last)
            for view, pixels in zip(views, (batch, batch.flip(3)), strict=False):
                view.append(features(body, pixels))
        # Rows of all views, one view after the other.
        self.maps = [torch.cat([part[i] for view in views for part in view]) for i in range(len(CHANNELS))]
        self.width, self.count = size[1], len(rows)

    def batch(self, index: torch.Tensor, mirror: torch.Tensor | None = None) -> tuple[list[torch.Tensor], list[dict]]:
        """Return maps and targets of the images at `index`, mirrored where `mirror` is true."""
        rows = index if mirror is None else index + self.count * mirror
        turned = torch.zeros(len(index)) if mirror is None else mirror
        maps = [x[rows].contiguous(memory_format=torch.channels_last) for x in self.maps]
        return maps, [self._target(i, bool(m)) for i, m in zip(index.tolist(), turned.tolist(), strict=True)]

    def _target(self, index: int, mirror: bool) -> dict:
        found = dict(self.targets[index])
        if mirror:
            x1, y1, x2, y2 = found["boxes"].unbind(1)
            found["boxes"] = torch.stack([self.width - x2, y1, self.width - x1, y2], 1)
        return found


def main() -> None:
    """Train as the job says, and report each epoch."""
    job = json.load(sys.stdin)
    began = time.perf_counter()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    # The classifier's pooling is left out; strided convolutions of it are padded as TensorFlow does.
    body = backbone(job["weights"])[0]
    size = tuple(job["size"])
    train = Photos(body, job["train"], size, mirrored=True)
    test = Photos(body, job["test"], size, mirrored=False)
    model = Detector(Pyramid(job["width"]), job["classes"], score_thresh=job["score"], nms_thresh=job["overlap"])
    model = model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": job["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, job["lr"])
    batch, steps = job["batch_size"], math.ceil(train.count / job["batch_size"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps, job["epochs"]))
    say(caching=time.perf_counter() - began)
    seconds = cpu = 0.0
    for epoch in range(job["epochs"]):
        model.train()
        began, used = time.perf_counter(), time.process_time()
        losses = []
        for index in torch.randperm(train.count).split(batch):
            maps, targets = train.batch(index, torch.randint(2, (len(index),)))
            optimizer.zero_grad()
            loss = model.loss(maps, targets, size)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), job["clip"])
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds, cpu = seconds + time.perf_counter() - began, cpu + time.process_time() - used
        began = time.perf_counter()
        model.eval()
        found = []
        with torch.inference_mode():
            for index in torch.arange(test.count).split(batch):
                maps, _ = test.batch(index)
                for i, one in zip(index, model.found(maps, size, [test.seen[i] for i in index]), strict=True):
                    boxes = (one["boxes"] / test.scales[i]).tolist()
                    found.append({"boxes": boxes, "scores": one["scores"].tolist(), "labels": one["labels"].tolist()})
        say(
            epoch=epoch + 1,
            seconds=seconds,
            cpu=cpu,
            loss=sum(losses) / len(losses),
            evaluation=time.perf_counter() - began,
            found=found,
        )


if __name__ == "__main__":
    main()
