"""Write tests/golden/segmentation.json: outputs of torchvision and smp with seeded weights.

    python tools/golden_segmentation.py

Run with a Python that has torch, torchvision and segmentation_models_pytorch. Imports nothing of zoo.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import nn
from torchvision.models import segmentation

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import seeded  # noqa: E402
from reference_backbones import depends_on_input, fill, shapes  # noqa: E402

CLASSES, PUBLISHED = 6, 21
TALL = (299, 93)
"""Of photos for DeepLab: its maps reach farther than its farthest taps, and no side is a multiple of the stride."""
SMALL = (96, 64)


def first(images: np.ndarray) -> torch.Tensor:
    """Move channels first."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def resizing() -> dict[str, Any]:
    """Resize maps."""
    x = first(seeded.images(2, 5, 7, 4))
    sizes = [(10, 14), (5, 9), (13, 7), (20, 28), (3, 4), (1, 1)]

    def resized(size: tuple[int, int], aligned: bool) -> np.ndarray:
        return last(nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned))

    pooled = [last(nn.functional.adaptive_avg_pool2d(x, n)) for n in (1, 2, 3, 6)]
    return {
        "sizes": sizes,
        "bilinear": [seeded.summary(resized(size, False)) for size in sizes],
        "aligned": [seeded.summary(resized(size, True)) for size in sizes],
        "pooled": [seeded.summary(x) for x in pooled],
    }


@torch.no_grad()
def whole(build: Callable[[int], nn.Module], size: tuple[int, int], parts: dict[str, str]) -> dict[str, Any]:
    """Return keys, variances and outputs; `parts` maps a name to the module with that output."""
    model = build(CLASSES).eval()
    x = first(seeded.images(2, *size))
    scales = fill(model, x)
    kept: dict[str, np.ndarray] = {}
    for name, module in parts.items():
        model.get_submodule(module).register_forward_hook(lambda m, i, y, name=name: kept.update({name: last(y)}))
    found = model(x)
    outputs = found if isinstance(found, dict) else {"out": found}
    kept |= {f"image {name}": last(y) for name, y in outputs.items()}
    for name, array in kept.items():
        depends_on_input(name, array)
    with torch.device("meta"):
        published = build(PUBLISHED)
    return {
        "size": size,
        "keys": seeded.digest(shapes(model)),
        "published_keys": seeded.digest(shapes(published)),
        "scales": scales,
        "outputs": {name: seeded.summary(array) for name, array in kept.items()},
    }


def of_torchvision(name: str) -> dict[str, Any]:
    def build(classes: int) -> nn.Module:
        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)

    return whole(build, TALL, {"logits": "classifier", "aux": "aux_classifier"})


def of_smp(kind: Any, encoder: str) -> dict[str, Any]:
    return whole(
        lambda classes: kind(encoder, encoder_weights=None, classes=classes), SMALL, {"logits": "segmentation_head.0"}
    )


def main() -> None:
    torch.manual_seed(0)
    golden = {
        "source": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "segmentation_models_pytorch": smp.__version__,
        },
        "classes": CLASSES,
        "resizing": resizing(),
        "deeplabv3_resnet50": of_torchvision("deeplabv3_resnet50"),
        "fcn_resnet50": of_torchvision("fcn_resnet50"),
        "unet_resnet34": of_smp(smp.Unet, "resnet34"),
        "fpn_resnet34": of_smp(smp.FPN, "resnet34"),
    }
    (ROOT / "tests" / "golden" / "segmentation.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
