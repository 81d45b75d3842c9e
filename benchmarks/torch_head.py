"""The same head training in PyTorch, as people write it by hand. Run by `transfer.py`, in an environment with torch.

`cached` computes the features of every image once and trains the classifier on them. `tutorial` runs the frozen
backbone on every image in every epoch, as the well-known transfer-learning tutorial does. Images are prepared, padded
and normalised as the weights expect, so that accuracies can be compared. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time

STARTED = time.perf_counter()

import torch  # noqa: E402

with contextlib.suppress(ImportError):
    import torchvision_cpu  # noqa: F401  declares torchvision's operators where its build does not match torch's
import torchvision  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from torchvision import transforms  # noqa: E402

IMPORTED = time.perf_counter()
BATCH = 32


def backbone(weights: str) -> nn.Module:
    """MobileNetV2 with TensorFlow's padding, which pads strided 3x3 convolutions of even inputs below and right."""
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(load_file(weights))
    for parent in list(model.features.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                child.padding = (0, 0)
                setattr(parent, name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), child))
    body = nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for parameter in body.parameters():
        parameter.requires_grad = False
    return body.eval().to(memory_format=torch.channels_last)


def photos(data: str, part: str, workers: int, *, shuffle: bool) -> DataLoader:
    """Yield batches of prepared images and their classes."""
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(f"{data}/{part}", prepare)
    return DataLoader(dataset, BATCH, shuffle=shuffle, num_workers=workers)


@torch.inference_mode()
def features(body: nn.Module, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pooled features (n, 1280) and classes (n,) of all images."""
    found = [(body(x.to(memory_format=torch.channels_last)), y) for x, y in loader]
    return torch.cat([f for f, _ in found]), torch.cat([y for _, y in found])


def train(body: nn.Module, head: nn.Module, parts: dict[str, DataLoader], epochs: int) -> list[float]:
    """Train the head with Adam; return validation accuracy by epoch. `body` is the identity on cached features."""
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)
    accuracies = []
    for _ in range(epochs):
        for x, y in parts["train"]:
            with torch.no_grad():
                x = body(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x), y).backward()
            optimizer.step()
        right = total = 0
        with torch.no_grad():
            for x, y in parts["val"]:
                x = body(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)
                right, total = right + int((head(x).argmax(1) == y).sum()), total + len(y)
        accuracies.append(right / total)
    return accuracies


def main() -> None:
    """Train as the arguments say, and print times and accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=["cached", "tutorial"])
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    body, head = backbone(args.weights), nn.Linear(1280, 2)
    parts = {part: photos(args.data, part, args.workers, shuffle=part == "train") for part in ("train", "val")}
    ready = time.perf_counter()
    if args.way == "cached":
        sets = {part: TensorDataset(*features(body, loader)) for part, loader in parts.items()}
        parts = {part: DataLoader(s, BATCH, shuffle=part == "train") for part, s in sets.items()}
        body = nn.Identity()
    cached = time.perf_counter()
    accuracies = train(body, head, parts, args.epochs)
    done = time.perf_counter()
    seconds = {
        "imports": IMPORTED - STARTED, "model": ready - IMPORTED, "features": cached - ready, "epochs": done - cached,
    }  # fmt: skip
    print(json.dumps({"accuracy": max(accuracies), "epochs": args.epochs, "seconds": seconds}))


if __name__ == "__main__":
    main()
