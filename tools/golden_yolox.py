"""Write tests/golden/yolox.json: outputs of YOLOX with name-seeded weights.

    python tools/golden_yolox.py [--published FOLDER] [--assets FOLDER]

Run with a Python that has torch, torchvision and timm. `--published` is a checkout of Megvii-BaseDetection/YOLOX at
0.3.0 with its requirements installed: its keys and outputs must equal those of tools/reference_yolox.py, and the losses
come from it. The first image of `datasets/pennfudan` in `--assets` is the real one. Without either, the golden file
lacks these values, and the tests that need them fail. Imports nothing of zoo.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import torch
import torchvision
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import seeded  # noqa: E402
from reference_backbones import depends_on_input, fill, shapes  # noqa: E402
from reference_yolox import YOLOX, detections, predictions  # noqa: E402

CLASSES = 6
SIZE = (96, 128)
RUN = ("nano", "tiny", "s")
SCALES = {
    "nano": (0.33, 0.25),
    "tiny": (0.33, 0.375),
    "s": (0.33, 0.5),
    "m": (0.67, 0.75),
    "l": (1.0, 1.0),
    "x": (1.33, 1.25),
}
SCORE, OVERLAP = 0.3, 0.65
PHOTO, FRAME = "FudanPed00001.png", (288, 288)
# Of three images; the second has none. Nested, touching, identical and tiny boxes.
TARGETS: tuple[dict[str, list], ...] = (
    {
        "boxes": [
            [12.0, 10.0, 62.0, 50.0],
            [12.0, 10.0, 62.0, 50.0],
            [62.0, 10.0, 90.0, 50.0],
            [20.0, 20.0, 40.0, 41.5],
            [101.0, 3.0, 103.0, 5.0],
            [0.0, 0.0, 128.0, 96.0],
        ],
        "labels": [1, 4, 0, 2, 3, 5],
    },
    {"boxes": [], "labels": []},
    {"boxes": [[30.0, 40.0, 50.0, 64.0], [96.0, 64.0, 128.0, 96.0]], "labels": [0, 2]},
)


def first(images: np.ndarray) -> torch.Tensor:
    """Move channels first."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def last(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(0, 2, 3, 1)


def cut(found: list[dict[str, torch.Tensor]], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the best hundred of each image, clipped to its border."""
    kept = []
    for one in found:
        limits = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
        boxes = torch.minimum(one["boxes"][:100].clamp(min=0), limits)
        kept.append(
            {
                "boxes": [[round(v, 3) for v in row] for row in boxes.tolist()],
                "scores": [round(v, 6) for v in one["scores"][:100].tolist()],
                "labels": one["labels"][:100].tolist(),
            }
        )
    return kept


def published(size: str, classes: int) -> Any:
    """Return the reference itself, as its experiment files build it."""
    from yolox.models import YOLOPAFPN, YOLOXHead
    from yolox.models import YOLOX as Whole

    depth, width = SCALES[size]
    both: dict[str, Any] = {"width": width, "in_channels": [256, 512, 1024], "depthwise": size == "nano"}
    model = Whole(YOLOPAFPN(depth, **both), YOLOXHead(classes, **both)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    return model


def compared(size: str, mine: YOLOX, x: torch.Tensor) -> dict[str, Any]:
    """Compare the reference with the net of this folder; return its losses, by the names of the outputs."""
    model = published(size, CLASSES)
    model.load_state_dict(mine.state_dict())
    levels, outputs = mine(x)
    difference = (model(x) - predictions(outputs, SIZE)).abs() / predictions(outputs, SIZE).abs().clamp(min=1)
    if difference.max() > 1e-5:
        raise SystemExit(f"the published yolox_{size} gives other predictions, by up to {difference.max():.3g}")
    rows = np.zeros((len(TARGETS), 8, 5), np.float32)
    for row, target in zip(rows, TARGETS, strict=True):
        for i, ((x1, y1, x2, y2), label) in enumerate(zip(target["boxes"], target["labels"], strict=True)):
            row[i] = label, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    model.head.training = model.head.use_l1 = True  # its norms stay as they are
    whole, box, thing, kind, l1, share = model.head(levels, torch.from_numpy(rows), x)
    found = {"reg_preds": box, "obj_preds": thing, "cls_preds": kind, "l1": l1}
    positives = share * sum(len(target["boxes"]) for target in TARGETS)
    assert torch.isclose(whole, sum(found.values()))
    return {"positives": round(positives), **{name: float(value) for name, value in found.items()}}


def on_photo(model: YOLOX, path: Path) -> dict[str, Any]:
    """Return detections on every second pixel of an image, in the upper left corner of a grey letterbox."""
    pixels = np.asarray(Image.open(path).convert("RGB"))[::2, ::2, ::-1]
    frame = np.full((1, *FRAME, 3), 114, np.float32)
    frame[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    found = detections(predictions(model(first(frame))[1], FRAME), SCORE, OVERLAP)
    return {"file": path.name, "frame": FRAME, "detections": cut(found, pixels.shape[:2])[0]}


@torch.no_grad()
def golden(size: str, given: argparse.Namespace) -> dict[str, Any]:
    with torch.device("meta"):
        keys = shapes(YOLOX(size))
        if given.published and shapes(published(size, 80)) != keys:
            raise SystemExit(f"the published yolox_{size} has other keys")
    found: dict[str, Any] = {"keys": seeded.digest(keys)}
    if size not in RUN:
        return found
    model = YOLOX(size, CLASSES).eval()
    x = first(64 * seeded.images(len(TARGETS), *SIZE))
    found["scales"] = fill(model, x)
    levels, outputs = model(x)
    arrays = {**{f"level {i}": last(level) for i, level in enumerate(levels)}}
    arrays |= {name: value.numpy() for name, value in outputs.items()}
    for name, array in arrays.items():
        depends_on_input(f"yolox_{size} {name}", array)
    found["outputs"] = {name: seeded.summary(array) for name, array in arrays.items()}
    found["detections"] = cut(detections(predictions(outputs, SIZE), SCORE, OVERLAP), SIZE)
    if given.published:
        found["losses"] = compared(size, model, x)
    if given.assets and size == RUN[0]:
        found["photo"] = on_photo(model, given.assets / "datasets" / "pennfudan" / "PNGImages" / PHOTO)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--assets", type=Path)
    given = parser.parse_args()
    if given.published:
        sys.path.insert(0, str(given.published))
    torch.manual_seed(0)
    written = {
        "source": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "run": {"classes": CLASSES, "size": SIZE, "targets": TARGETS, "score": SCORE, "overlap": OVERLAP},
        "variants": {f"yolox_{size}": golden(size, given) for size in SCALES},
    }
    (ROOT / "tests" / "golden" / "yolox.json").write_text(json.dumps(written) + "\n")


if __name__ == "__main__":
    main()
