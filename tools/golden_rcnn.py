"""Write tests/golden/rcnn.json: outputs of torchvision's Faster R-CNN with name-seeded weights.

    python tools/golden_rcnn.py [--assets FOLDER]

Run with a Python that has torch and torchvision. The first image of FOLDER's `datasets/pennfudan` is the real one.
Without it the golden file has none, and the tests that need it fail. Imports nothing of zoo.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import golden_detection as shared  # noqa: E402  # first, because it makes torchvision importable
import seeded  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from reference_backbones import depends_on_input, fill, shapes  # noqa: E402
from torchvision.models.detection import fasterrcnn_resnet50_fpn  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.ops import MultiScaleRoIAlign  # noqa: E402

CLASSES = 6
SIZE = (128, 256)
OPTIONS = {"candidates": 150, "proposals": 80}
"""Few, so that no decision between two boxes hangs on the last bit."""
GAINS = {"rpn.head.bbox_pred.weight": 0.1, "roi_heads.box_predictor.bbox_pred.weight": 0.3}
"""Factors for seeded tensors: boxes that change beyond recognition would tell rounding errors from errors no longer."""
EVERYTHING = 10**6
# Of two images; the second has none. Nested, touching, identical and tiny boxes, and the whole image.
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
# Of every level, larger than the image, at its corners, smaller than a position.
REGIONS = [
    [3.0, 5.0, 41.0, 37.5],
    [0.0, 0.0, 256.0, 128.0],
    [-20.0, -20.0, 500.0, 480.0],
    [100.0, 20.0, 250.5, 120.0],
    [10.25, 60.0, 130.0, 127.0],
    [254.5, 126.5, 256.0, 128.0],
    [0.0, 0.0, 1.0, 0.5],
    [30.0, 30.0, 142.0, 142.0],
    [5.5, -60.0, 250.0, 181.0],
]


def boxes_of(rows: list) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def anchors() -> dict[str, Any]:
    """Anchors for an image side that is not a multiple of the coarsest stride."""
    generator = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).rpn.anchor_generator
    size = (416, 352)
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in (4, 8, 16, 32, 64)]
    (found,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    return {"size": size, "boxes": seeded.summary(found.numpy())}


def regions() -> dict[str, Any]:
    """RoIs of two images on four levels, and the gradients of their sum of squares with respect to the maps."""
    sizes = [(SIZE[0] // stride, SIZE[1] // stride) for stride in (4, 8, 16, 32)]
    maps = {str(i): shared.first(seeded.images(2, *size, 8)).requires_grad_() for i, size in enumerate(sizes)}
    pool = MultiScaleRoIAlign(list(maps), output_size=7, sampling_ratio=2)
    boxes = [boxes_of(REGIONS), boxes_of(REGIONS[::-1])]
    found = pool(maps, boxes, [SIZE, SIZE])
    found.square().sum().backward()
    return {
        "size": SIZE,
        "boxes": REGIONS,
        "output": seeded.summary(shared.last(found)),
        "gradients": [seeded.summary(shared.last(x.grad)) for x in maps.values() if x.grad is not None],
    }


def on_formula(model: Any, x: torch.Tensor) -> dict[str, Any]:
    """Levels, outputs of both stages, losses of all samples, and detections for normalised images."""
    levels = model.backbone(x)
    images = ImageList(x, [SIZE, SIZE])
    logits, codes = model.rpn.head(list(levels.values()))
    outputs = {f"objectness {i}": shared.last(y) for i, y in enumerate(logits)}
    outputs |= {f"rpn_regression {i}": shared.last(y) for i, y in enumerate(codes)}
    proposals, _ = model.rpn(images, levels)
    assert all(len(one) == OPTIONS["proposals"] for one in proposals)
    outputs["proposals"] = torch.stack(proposals).numpy()
    heads = model.roi_heads
    of_regions = heads.box_head(heads.box_roi_pool(levels, [boxes_of(REGIONS)] * 2, [SIZE, SIZE]))
    scores, changes = heads.box_predictor(of_regions)
    outputs["class_logits"] = scores.reshape(2, len(REGIONS), -1).numpy()
    outputs["box_regression"] = changes.reshape(2, len(REGIONS), -1, 4).numpy()
    for name, value in outputs.items():
        depends_on_input(name, value)
    found, _ = heads(levels, proposals, [SIZE, SIZE])
    model.rpn.training = heads.training = True
    targets = [
        {"boxes": boxes_of(one["boxes"]), "labels": torch.tensor(one["labels"], dtype=torch.int64) + 1}
        for one in TARGETS
    ]
    proposals, losses = model.rpn(images, levels, targets)
    _, others = heads(levels, proposals, [SIZE, SIZE], targets)
    model.rpn.training = heads.training = False
    return {
        "size": SIZE,
        "targets": TARGETS,
        "levels": [seeded.summary(shared.last(level)) for level in levels.values()],
        "outputs": {name: seeded.summary(value) for name, value in outputs.items()},
        "losses": {name: float(value) for name, value in {**losses, **others}.items()},
        "detections": [ours(one) for one in found],
    }


def ours(found: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Detections with zoo's class numbers, which have no background."""
    return shared.detections({**found, "labels": found["labels"] - 1})


def on_photo(model: Any, path: Path) -> dict[str, Any]:
    """Detections by the whole model on every second pixel of an image, which it pads to a multiple of 32."""
    pixels = np.asarray(shared.Image.open(path).convert("RGB"))[::2, ::2]
    model.transform.min_size, model.transform.max_size = (min(pixels.shape[:2]),), max(pixels.shape[:2])
    (found,) = model([shared.first(pixels[None].astype(np.float32) / 255)[0]])
    return {"file": path.name, "size": list(pixels.shape[:2]), "detections": ours(found)}


@torch.no_grad()
def detector(assets: Path | None) -> dict[str, Any]:
    counts = {
        f"rpn_{when}_nms_top_n_{mode}": OPTIONS[name]
        for when, name in (("pre", "candidates"), ("post", "proposals"))
        for mode in ("train", "test")
    }
    model = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        rpn_batch_size_per_image=EVERYTHING,
        box_batch_size_per_image=EVERYTHING,
        **counts,
    ).eval()
    x = shared.first(seeded.images(2, *SIZE))
    scales = fill(model.backbone, x)
    by_norm = dict(zip(seeded.norm_names(shapes(model.backbone)), scales, strict=True))
    # The names count, and those of the whole model are longer.
    whole = shapes(model)
    ordered = [by_norm[name.removeprefix("backbone.")] for name in seeded.norm_names(whole)]
    tensors = {n: torch.from_numpy(t) * GAINS.get(n, 1) for n, t in seeded.tensors(whole, ordered).items()}
    model.load_state_dict(tensors, strict=False)
    with torch.device("meta"):
        published = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    found = {
        "classes": CLASSES,
        "options": OPTIONS,
        "keys": seeded.digest(whole),
        "published_keys": seeded.digest(shapes(published)),
        "scales": ordered,
        "gains": GAINS,
        "formula": on_formula(model, x),
    }
    return found | (
        {"photo": on_photo(model, assets / "datasets" / "pennfudan" / "PNGImages" / shared.PHOTO)} if assets else {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    golden = {
        "source": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "anchors": anchors(),
        "regions": regions(),
        "fasterrcnn_resnet50_fpn": detector(given.assets),
    }
    (ROOT / "tests" / "golden" / "rcnn.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
