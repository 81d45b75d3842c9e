"""Write tests/golden/fcos.json: outputs of torchvision's FCOS with name-seeded weights.

    python tools/golden_detection.py [--assets FOLDER]

Run with a Python that has torch and torchvision. The first image of FOLDER's `datasets/pennfudan` is the real one.
Without it the golden file has none, and the tests that need it fail. Imports nothing of zoo.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torchvision_cpu  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    torchvision_cpu = None
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import seeded  # noqa: E402
from reference_backbones import depends_on_input, fill, shapes  # noqa: E402


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """torchvision's operator where it is not compiled. Boxes without area overlap nothing: their IoU is 0 / 0, which is
    not above any threshold."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = torch.minimum(boxes[best, 2:], boxes[left, 2:]) - torch.maximum(boxes[best, :2], boxes[left, :2])
        shared = sides.clamp(min=0).prod(1)
        area, areas = ((one[..., 2:] - one[..., :2]).prod(-1) for one in (boxes[best], boxes[left]))
        left = left[~(shared / (area + areas - shared) > threshold)]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


if torchvision_cpu is not None:
    torchvision.ops.boxes.nms = nms
CLASSES = 6
SIZE = (128, 256)
PHOTO = "FudanPed00001.png"
# Of two images; the second has none. Nested, touching, identical and tiny boxes, one beyond every range but the last.
TARGETS: tuple[dict[str, list], ...] = (
    {
        "boxes": [
            [12.0, 10.0, 62.0, 50.0],
            [12.0, 10.0, 62.0, 50.0],
            [62.0, 10.0, 90.0, 50.0],
            [20.0, 20.0, 40.0, 41.5],
            [100.0, 20.0, 250.5, 120.0],
            [101.0, 3.0, 103.0, 5.0],
            [0.0, 0.0, 256.0, 128.0],
        ],
        "labels": [1, 4, 0, 2, 3, 5, 5],
    },
    {"boxes": [], "labels": []},
)


def first(images: np.ndarray) -> torch.Tensor:
    """Move channels first."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def layers() -> dict[str, Any]:
    """Layers of dense tasks only."""
    x = first(seeded.images(2, 5, 7, 8))
    norm, grown = nn.GroupNorm(4, 8), nn.ConvTranspose2d(8, 6, 2, 2)
    for name, module in (("norm", norm), ("grown", grown)):
        tensors = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        module.load_state_dict({k: torch.from_numpy(seeded.tensor(f"{name}.{k}", s)) for k, s in tensors.items()})
    nearest = []
    for inputs in range(1, 60):
        rows: list[int] = []
        for outputs in range(inputs, 3 * inputs + 2):
            indices = torch.arange(inputs, dtype=torch.float32).reshape(1, 1, inputs, 1)
            resized = nn.functional.interpolate(indices, size=(outputs, 1), mode="nearest")
            rows += resized.flatten().int().tolist()
        nearest.append(zlib.crc32(np.array(rows, np.int32).tobytes()))
    return {
        "group_norm": seeded.summary(last(norm(x))),
        "conv_transpose": seeded.summary(last(grown(x))),
        # For each number of rows a checksum of those taken for one to three times as many.
        "nearest": nearest,
    }


def detections(found: dict[str, torch.Tensor]) -> dict[str, Any]:
    boxes, scores = found["boxes"].tolist(), found["scores"].tolist()
    return {
        "boxes": [[round(v, 3) for v in row] for row in boxes],
        "scores": [round(v, 6) for v in scores],
        "labels": found["labels"].tolist(),
    }


def on_formula(model: Any, x: torch.Tensor) -> dict[str, Any]:
    """Levels, outputs, losses and detections for normalised images."""
    levels = list(model.backbone(x).values())
    outputs = model.head(levels)
    for name, value in [*((f"level {i}", level) for i, level in enumerate(levels)), *outputs.items()]:
        depends_on_input(name, value.numpy())
    counts = [level.shape[2] * level.shape[3] for level in levels]
    images = ImageList(x, [SIZE, SIZE])
    anchors = model.anchor_generator(images, levels)
    targets = [
        {
            "boxes": torch.tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(target["labels"], dtype=torch.int64),
        }
        for target in TARGETS
    ]
    losses = model.compute_loss(targets, outputs, anchors, counts)
    split = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
    found = model.postprocess_detections(split, [list(a.split(counts)) for a in anchors], [SIZE, SIZE])
    return {
        "size": SIZE,
        "targets": TARGETS,
        "levels": [seeded.summary(last(level)) for level in levels],
        "outputs": {name: seeded.summary(value.numpy()) for name, value in outputs.items()},
        "losses": {name: float(value) for name, value in losses.items()},
        "detections": [detections(one) for one in found],
    }


def on_photo(model: Any, path: Path) -> dict[str, Any]:
    """Detections by the whole model on every second pixel of an image, which it pads to a multiple of 32."""
    pixels = np.asarray(Image.open(path).convert("RGB"))[::2, ::2]
    model.transform.min_size, model.transform.max_size = (min(pixels.shape[:2]),), max(pixels.shape[:2])
    (found,) = model([first(pixels[None].astype(np.float32) / 255)[0]])
    return {"file": path.name, "size": list(pixels.shape[:2]), "detections": detections(found)}


@torch.no_grad()
def fcos(assets: Path | None) -> dict[str, Any]:
    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    x = first(seeded.images(2, *SIZE))
    scales = fill(model.backbone, x)
    by_norm = dict(zip(seeded.norm_names(shapes(model.backbone)), scales, strict=True))
    # The names count, and those of the whole model are longer.
    whole = shapes(model)
    ordered = [by_norm[name.removeprefix("backbone.")] for name in seeded.norm_names(whole)]
    model.load_state_dict({n: torch.from_numpy(t) for n, t in seeded.tensors(whole, ordered).items()}, strict=False)
    with torch.device("meta"):
        published = fcos_resnet50_fpn(weights=None, weights_backbone=None)
    found = {
        "classes": CLASSES,
        "keys": seeded.digest(whole),
        "published_keys": seeded.digest(shapes(published)),
        "scales": ordered,
        "formula": on_formula(model, x),
    }
    return found | (
        {"photo": on_photo(model, assets / "datasets" / "pennfudan" / "PNGImages" / PHOTO)} if assets else {}
    )


@torch.no_grad()
def points() -> dict[str, Any]:
    """Centres of the anchors for an image side that is not a multiple of the coarsest stride."""
    generator = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=1).anchor_generator
    size = (800, 352)
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in (8, 16, 32, 64, 128)]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    return {"size": size, "centres": seeded.summary(centres.numpy())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    golden = {
        "source": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "layers": layers(),
        "points": points(),
        "fcos_resnet50_fpn": fcos(given.assets),
    }
    (ROOT / "tests" / "golden" / "fcos.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
