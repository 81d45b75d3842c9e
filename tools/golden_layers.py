"""Write tests/golden/layers.json: outputs and gradients of torch's layers. Run with a Python that has torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import seeded  # noqa: E402

SIZES = ((9, 12), (10, 7), (5, 6))
# window, stride, padding, ceil_mode
POOLS = ((3, 2, 0, False), (3, 2, 0, True), (3, 2, 1, False), (3, 2, 1, True), (2, 2, 0, True), (2, 3, 1, True))
# kernel, stride, padding, dilation, groups
CONVS = ((3, 2, 1, 1, 1), (3, 1, 2, 2, 2), (1, 2, 0, 1, 1), (5, 2, 2, 1, 8))


def image(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(seeded.images(2, height, width, 8).transpose(0, 3, 1, 2)))


def last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def pools() -> dict[str, object]:
    found = {}
    for size in SIZES[:2]:
        for window, stride, padding, ceil in POOLS:
            key, x = f"{size} {window} {stride} {padding} {ceil}", image(*size)
            found[f"max {key}"] = seeded.summary(last(nn.functional.max_pool2d(x, window, stride, padding, 1, ceil)))
            for count in (True, False):
                y = nn.functional.avg_pool2d(x, window, stride, padding, ceil, count)
                found[f"avg {key} {count}"] = seeded.summary(last(y))
    return found


def convs() -> dict[str, object]:
    """Return outputs, and the gradients of their sum of squares with respect to the input and the kernel."""
    found = {}
    for size in SIZES[:2]:
        for kernel, stride, padding, dilation, groups in CONVS:
            x = image(*size).requires_grad_()
            weight = torch.from_numpy(seeded.tensor("conv.weight", (8, 8 // groups, kernel, kernel))).requires_grad_()
            y = nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)
            y.square().sum().backward()
            assert x.grad is not None and weight.grad is not None
            found[f"{size} {kernel} {stride} {padding} {dilation} {groups}"] = {
                "output": seeded.summary(last(y)),
                "input_gradient": seeded.summary(last(x.grad)),
                "kernel_gradient": seeded.summary(weight.grad.numpy().transpose(2, 3, 1, 0)),
            }
    return found


def batch_norm() -> dict[str, object]:
    """Run two training steps, then an evaluation."""
    norm = nn.BatchNorm2d(8)
    norm.load_state_dict(
        {
            name: torch.from_numpy(seeded.tensor(f"bn.{name}", (8,)))
            for name in ("weight", "bias", "running_mean", "running_var")
        },
        strict=False,
    )
    outputs = [last(norm(image(*size))) for size in SIZES[:2]]
    norm.eval()
    outputs.append(last(norm(image(*SIZES[2]))))
    return {
        "outputs": [seeded.summary(y) for y in outputs],
        "mean": seeded.summary(norm.running_mean.numpy()),
        "var": seeded.summary(norm.running_var.numpy()),
    }


def main() -> None:
    torch.manual_seed(0)
    found = {"source": {"torch": torch.__version__}, "pools": pools(), "convs": convs(), "batch_norm": batch_norm()}
    (ROOT / "tests" / "golden" / "layers.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
