"""A U-Net on a frozen backbone in PyTorch, as people write it by hand. Run by `segmenter.py`, in an environment with
torch.

The features of every image, resized to 256x256, and of its mirror image are computed once. The U-Net's decoder trains
on them: blocks of two convolutions with batch norm, 256 to 16 channels, cross-entropy plus Dice, AdamW with warm-up and
cosine decay. The job is read as JSON from standard input. The script prints a line of JSON after each epoch, with the
file of the predicted masks, and one after each fold.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

with contextlib.suppress(ImportError):
    import torchvision_cpu  # noqa: F401  declares torchvision's operators where its build does not match torch's
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch_head import backbone
from torch_side import rate_at, say

SIDE, BATCH, RATE, DECAY = 256, 4, 1e-3, 1e-2
WIDTHS = (256, 128, 64, 32, 16)
TAPS = {
    # Modules that give the maps of strides 2, 4, 8, 16 and, where there is one, 32, and their channels.
    "mobilenetv2_100": ((1, 16), (3, 24), (6, 32), (13, 96), (18, 1280)),
    "squeezenet1_0": ((1, 96), (5, 256), (10, 512), (12, 512)),
}


def body_of(job: Mapping[str, Any]) -> nn.Sequential:
    """Return the modules of the backbone."""
    if job["backbone"] == "mobilenetv2_100":
        return backbone(job["weights"])[0]
    model = torchvision.models.squeezenet1_0()
    model.load_state_dict(load_file(job["weights"]))
    return model.features.requires_grad_(False).eval().to(memory_format=torch.channels_last)


class Block(nn.Module):
    """Upsample, concatenate the finer map if there is one, and convolve twice."""

    def __init__(self, inputs: int, skip: int, outputs: int):
        super().__init__()

        def conv(channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)
            )

        self.first, self.second = conv(inputs + skip), conv(outputs)
        nn.init.kaiming_normal_(self.first[0].weight)
        nn.init.kaiming_normal_(self.second[0].weight)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        size = [2 * side for side in x.shape[2:]] if skip is None else skip.shape[2:]
        x = functional.interpolate(x, size=size)
        return self.second(self.first(x if skip is None else torch.cat([x, skip], 1)))


class UNet(nn.Module):
    """Cached maps, finest first -> logits of every pixel."""

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        *finer, inputs = channels
        skips = [*reversed(finer), 0]
        widths = WIDTHS[-len(skips) :]
        self.blocks = nn.ModuleList()
        for skip, width in zip(skips, widths, strict=True):
            self.blocks.append(Block(inputs, skip, width))
            inputs = width
        self.classifier = nn.Conv2d(inputs, classes, 3, padding=1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        *finer, x = maps
        for block, skip in zip(self.blocks, [*reversed(finer), None], strict=True):
            x = block(x, skip)
        return functional.interpolate(self.classifier(x), size=(SIDE, SIDE), mode="bilinear")


class Photos:
    """Cached maps and masks of images and their mirror images."""

    def __init__(self, job: Mapping[str, Any]):
        body = body_of(job)
        taps = [tap for tap, _ in TAPS[job["backbone"]]]
        mean, std = (torch.tensor(job[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        with np.load(f"{job['folder']}/masks.npz") as found:
            masks = [found[str(i)] for i in range(len(job["files"]))]
        self.sizes = [mask.shape for mask in masks]
        targets, maps = [], []
        with torch.inference_mode():
            for file, mask in zip(job["files"], masks, strict=True):
                image = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                pixels = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
                x = torch.stack([pixels, pixels.flip(2)]).contiguous(memory_format=torch.channels_last)
                kept = []
                for number, module in enumerate(body):
                    x = module(x)
                    kept += [x] if number in taps else []
                maps.append(kept)
                small = Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST)
                target = torch.from_numpy(np.array(small)).long()
                targets.append(torch.stack([target, target.flip(1)]))
        self.maps = [torch.stack([kept[level] for kept in maps]) for level in range(len(taps))]
        self.targets = torch.stack(targets)

    def batch(self, index: torch.Tensor, mirror: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        maps = [level[index, mirror].contiguous(memory_format=torch.channels_last) for level in self.maps]
        return maps, self.targets[index, mirror]


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus Dice loss."""
    p, true = logits.softmax(1), functional.one_hot(targets, logits.shape[1]).permute(0, 3, 1, 2).float()
    overlap, sums = (p * true).sum((2, 3)), (p + true).sum((2, 3))
    dice = 1 - ((2 * overlap + 1) / (sums + 1)).mean()
    return functional.cross_entropy(logits, targets) + dice


@torch.inference_mode()
def masks_of(model: nn.Module, photos: Photos, index: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the class of every pixel of the images at their original sizes."""
    model.eval()
    found = {}
    for i in index:
        maps, _ = photos.batch(i[None], torch.zeros(1, dtype=torch.long))
        logits = functional.interpolate(model(maps), size=photos.sizes[int(i)], mode="bilinear")
        found[str(int(i))] = logits[0].argmax(0).to(torch.uint8).numpy()
    return found


def main() -> None:
    """Train fold by fold, and report each epoch."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    began, used = time.perf_counter(), time.process_time()
    photos = Photos(job)
    caching = time.perf_counter() - began, time.process_time() - used
    numbers = torch.arange(len(photos.sizes))
    for fold in job["folds"]:
        began, used = time.perf_counter(), time.process_time()
        torch.manual_seed(job["seed"])
        train, test = numbers[numbers % job["count"] != fold], numbers[numbers % job["count"] == fold]
        model = UNet([channels for _, channels in TAPS[job["backbone"]]], 2).to(memory_format=torch.channels_last)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, RATE)
        epochs, steps = job["epochs"], math.ceil(len(train) / BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps, epochs))  # noqa: B023
        training = 0.0
        for epoch in range(epochs):
            start = time.perf_counter()
            model.train()
            for rows in torch.randperm(len(train)).split(BATCH):
                maps, targets = photos.batch(train[rows], torch.randint(2, (len(rows),)))
                optimizer.zero_grad()
                loss_of(model(maps), targets).backward()
                optimizer.step()
                schedule.step()
            training += time.perf_counter() - start
            file = f"{job['folder']}/found{epoch}.npz"
            np.savez(file, **masks_of(model, photos, test))
            say(epoch=epoch + 1, found=file)
        spent = {"caching": caching[0] / len(job["folds"]), "training": training}
        seconds = time.perf_counter() - began + spent["caching"]
        cpu = time.process_time() - used + caching[1] / len(job["folds"])
        say(fold=fold, seconds=seconds, cpu=cpu, parts=spent)


if __name__ == "__main__":
    main()
