"""Write tests/golden/real_weights.json: predictions of torch with the real weights of the assets folder.

    python tools/golden_real_weights.py ASSETS

Run with a Python that has torch and torchvision. Only class indices and a few logits are stored, nothing of the images.
Preprocessing is torchvision's (resize 256, crop 224, Pillow's bilinear) unless a case says otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from reference_cifar_resnet import CifarResNet
from safetensors.torch import load_file
from torch import nn
from torchvision import transforms as T

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


class PadAfter(nn.Module):
    """Apply TensorFlow's SAME padding of a 3x3 convolution at stride 2 for an even side: bottom and right only."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        conv.padding = (0, 0)
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


def mobilenet(weights: dict[str, torch.Tensor], same: bool) -> nn.Module:
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(weights, strict=False)
    if same:
        strided = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for name, conv in strided:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, PadAfter(conv))
    return model


def photos(folder: Path) -> tuple[list[Path], list[int]]:
    labels = json.loads((folder / "labels.json").read_text())
    files = [next(p for p in (folder / f, folder / "images" / f) if p.exists()) for f in sorted(labels)]
    return files, [labels[file.name] for file in files]


def cifar(folder: Path) -> tuple[list[Path], list[int]]:
    classes = sorted(p for p in (folder / "test").iterdir() if p.is_dir())
    pairs = [(file, index) for index, one in enumerate(classes) for file in sorted(one.iterdir())]
    return [file for file, _ in pairs], [index for _, index in pairs]


def prepare(size: int, statistics: tuple[tuple[float, ...], ...]) -> Callable[[Image.Image], torch.Tensor]:
    crop = [T.Resize(256), T.CenterCrop(224)] if size == 224 else []
    return T.Compose([*crop, T.ToTensor(), T.Normalize(*statistics)])


@torch.no_grad()
def predict(model: nn.Module, files: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> np.ndarray:
    model.eval()
    found = []
    for start in range(0, len(files), 25):
        images = [transform(Image.open(file).convert("RGB")) for file in files[start : start + 25]]
        found.append(model(torch.stack(images)).numpy())
    return np.concatenate(found)


def summary(logits: np.ndarray, truth: list[int]) -> dict[str, Any]:
    """Return predicted classes, their margins over the second class, and the top five logits of the first images."""
    order = np.argsort(-logits, axis=1, kind="stable")
    best = np.take_along_axis(logits, order[:, :5], 1)
    return {
        "correct": int((order[:, 0] == np.array(truth)).sum()),
        "predicted": order[:, 0].tolist(),
        "close": np.flatnonzero(best[:, 0] - best[:, 1] <= 1e-3).tolist(),
        "top": [
            {"classes": o.tolist(), "logits": [round(float(v), 5) for v in b]}
            for o, b in zip(order[:8, :5], best[:8], strict=True)
        ],
    }


def main() -> None:
    assets = Path(sys.argv[1])
    weights = {p.stem: load_file(p) for p in sorted((assets / "weights").glob("*.safetensors"))}
    found: dict[str, Any] = {}

    files, truth = photos(assets / "datasets" / "imagenet_samples")
    squeeze = torchvision.models.squeezenet1_0()
    squeeze.load_state_dict(weights["squeezenet1_0_imagenet"])
    found["squeezenet1_0"] = summary(predict(squeeze, files, prepare(224, IMAGENET)), truth)
    for name, same, statistics in (
        ("mobilenetv2_100", True, HALF),
        ("mobilenetv2_100 padding=torch", False, HALF),
        ("mobilenetv2_100 padding=torch imagenet statistics", False, IMAGENET),
    ):
        model = mobilenet(weights["mobilenet_v2_imagenet"], same)
        found[name] = summary(predict(model, files, prepare(224, statistics)), truth)

    files, truth = cifar(assets / "datasets" / "cifar10_subset")
    for layers in (20, 56):
        net = CifarResNet(layers)
        net.load_state_dict({k.removeprefix("module."): v for k, v in weights[f"resnet{layers}_cifar10"].items()})
        found[f"resnet{layers}"] = summary(predict(net, files, prepare(32, IMAGENET)), truth)

    source = {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__}
    target = Path(__file__).resolve().parent.parent / "tests" / "golden" / "real_weights.json"
    lines = [f'  "{name}": {json.dumps(data)}' for name, data in found.items()]
    target.write_text(f'{{"source": {json.dumps(source)}, "models": {{\n' + ",\n".join(lines) + "\n}}\n")
    print({name: data["correct"] for name, data in found.items()})


if __name__ == "__main__":
    main()
