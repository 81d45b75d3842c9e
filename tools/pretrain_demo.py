"""Train the weights of `resnet20.demo` with zoo itself, on drawn shapes.

    python tools/pretrain_demo.py                    about an hour on two cores
    python tools/pretrain_demo.py --out FILE --images 50 --epochs 2   a trial run

The file is in float16, to halve its size, and in the layout of the net's published weights, with its classifier.
Afterwards copy the printed sha256 to `plugins/embedded.py`, and run `python tools/catalogue.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import zoo
from zoo.demo.draw import PRETRAIN, SIDE, draw_folder
from zoo.disk import sha256
from zoo.models.model import Model
from zoo.models.store import arrays_of
from zoo.training import Augment
from zoo.weights.file import write
from zoo.weights.mapping import slots

PACKAGE = Path(__file__).resolve().parent.parent / "zoo"
SEED = 2026


def main() -> None:
    """Draw, train and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PACKAGE / "demo" / "weights" / "resnet20.demo.safetensors")
    parser.add_argument("--images", type=int, default=500, help="drawings of each class")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "drawings"
        draw_folder(data / "train", PRETRAIN, args.images, SEED)
        draw_folder(data / "val", PRETRAIN, 10, SEED + 1)
        model = zoo.create(
            "resnet20", "classifier", pretrained=False, labels=list(PRETRAIN), image_size=SIDE, seed=SEED
        )
        run = zoo.train(
            model, data, plan="all", epochs=args.epochs, batch_size=32, lr=1.5e-3, weight_decay=0.02, ema=0.99,
            seed=SEED, augment=Augment(scale=(0.7, 1.0)), out=Path(name) / "run", plots=False,
        )  # fmt: skip
        print(f"accuracy {run.metrics['accuracy']:.3f} on drawings that were not trained on")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write(args.out, native(run.model), {"origin": "tools/pretrain_demo.py"})
    (PACKAGE / "labels" / "drawings.txt").write_text("".join(f"{name}\n" for name in PRETRAIN), "utf-8")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, sha256 {sha256(args.out)}")


def native(model: Model) -> dict[str, np.ndarray]:
    """Return the model's arrays in float16, under the names of the net's published checkpoints."""
    tensors = {}
    for module, paths in ((model.backbone, {}), (model.head, model.adapter.checkpoint_paths(model.spec))):
        arrays = arrays_of(module)
        for slot in slots(module):
            owner, leaf = slot.name.rsplit(".", 1)
            tensors[f"{paths.get(owner, owner)}.{leaf}"] = slot.write(arrays[slot.path]).astype(np.float16)
    return tensors


if __name__ == "__main__":
    main()
