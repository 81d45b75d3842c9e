"""Variation of a detector on few images over ten seeds: AP50, and whether all four sides of its boxes learn.

    python benchmarks/detector_seeds.py                      # 24 drawn images
    python benchmarks/detector_seeds.py --data DATA --images 40 --test 40 --image-size 160 208 --epochs 10

The backbone is frozen and pretrained, and its features are cached once. The runs differ only in the seed, which decides
the initial values of the new layers and the order of the images. `open` is the share of test images where the
best-scored position of FCOS gives a distance above zero, for the worst of the four sides: near 0 if a side is dead.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

import zoo
from zoo import settings
from zoo.data import Dataset, Sample, read
from zoo.data.boxes import Boxes
from zoo.models.model import Model
from zoo.models.predictor import prepare_one
from zoo.training import train

ASSETS = Path(__file__).resolve().parent.parent.parent / "shared" / "assets" / "weights"
BACKBONES = {
    "squeezenet1_0": ASSETS / "squeezenet1_0_imagenet.safetensors",
    "mobilenetv2_100": ASSETS / "mobilenet_v2_imagenet.safetensors",
}
LABELS, COLOURS = ("blue", "red"), ((20, 40, 220), (220, 20, 20))


def main() -> None:
    """Train with each seed; print a line for each, and the spread."""
    args = _arguments()
    settings.start_jax()
    weights = args.weights or str(BACKBONES[args.backbone])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = _parts(args, folder / "data")
        labels = parts["train"].classes
        print(f"{len(parts['train'])} images to train on, {len(parts['val'])} to test on, {args.epochs} epochs")
        found = []
        for seed in range(args.first, args.first + args.seeds):
            model = zoo.create(
                args.backbone, "detector", labels=labels, image_size=tuple(args.image_size), seed=seed,
                weights=weights, head=args.head,
            )  # fmt: skip
            run = train(
                model, parts, plan="head", epochs=args.epochs, seed=seed, out=folder / f"run{seed}", plots=False,
                show=lambda session: lambda event: None,
            )  # fmt: skip
            ap50, last = run.metrics["AP50"], run.history[-1]["AP50"]
            side = f"  open {open_sides(run.model, parts['val']):.2f}" if args.head == "fcos" else ""
            figures = f"AP {run.metrics['AP']:.3f}  AP50 {ap50:.3f} (last epoch {last:.3f})"
            print(f"seed {seed}: {figures}{side}  {run.metrics['seconds']:.0f} s", flush=True)
            if args.history:
                print([{name: round(row[name], 3) for name in ("AP", "AP50", "val_loss")} for row in run.history])
            found.append(ap50)
    figures = ", ".join(f"{what} {value:.3f}" for what, value in _spread(found).items())
    print(f"AP50 over {len(found)} seeds: {figures}")


def _spread(found: list[float]) -> dict[str, float]:
    values = np.array(found)
    return {"lowest": values.min(), "median": np.median(values), "highest": values.max(), "deviation": values.std()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="data with boxes, with train and test splits; default: drawn images")
    parser.add_argument("--images", type=int, default=24, help="images to train on")
    parser.add_argument("--test", type=int, default=12, help="images to test on")
    parser.add_argument("--backbone", default="squeezenet1_0", choices=sorted(BACKBONES))
    parser.add_argument("--weights", default="", help="weights of the backbone, if they are not in the shared assets")
    parser.add_argument("--head", default="fcos", choices=("fcos", "yolox", "rcnn"))
    parser.add_argument("--image-size", type=int, nargs=2, default=(128, 128), help="height and width in pixels")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--history", action="store_true", help="print the metrics of each epoch")
    return parser.parse_args()


def _parts(args: argparse.Namespace, folder: Path) -> dict[str, Dataset]:
    if not args.data:
        return {"train": drawn(folder, args.images, 0), "val": drawn(folder, args.test, 1)}
    parts = read(args.data, kinds=("boxes",))
    return {
        "train": parts["train"].subset(range(min(args.images, len(parts["train"]))), "train"),
        "val": parts["test"].subset(range(min(args.test, len(parts["test"]))), "val"),
    }


def drawn(folder: Path, count: int, seed: int) -> Dataset:
    """Draw images of 128x96 pixels with a red or a blue rectangle on grey noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random, samples = np.random.default_rng(seed), []
    for i in range(count):
        pixels = random.integers(90, 130, (96, 128, 3)).astype(np.uint8)
        width, height = random.integers(20, 50, 2)
        x, y = random.integers(0, 128 - width), random.integers(0, 96 - height)
        pixels[y : y + height, x : x + width] = COLOURS[i % 2]
        file = folder / f"{seed}-{i}.png"
        Image.fromarray(pixels).save(file)
        box = tuple(map(float, (x, y, x + width, y + height)))
        samples.append(Sample(file, Boxes((box,), (i % 2,), (False,), (96, 128)), file.name))
    return Dataset(tuple(samples), LABELS, "boxes", "drawn", folder)


def open_sides(model: Model, dataset: Dataset) -> float:
    """Return the share of images where the best position has a distance above zero, for the worst of the four sides."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def of_best(state: nnx.State, pixels: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)
        found = model.outputs(model.reduced(model.normalize(pixels)))
        return found["bbox_regression"][0, found["cls_logits"][0].max(-1).argmax()]

    sides = [of_best(state, prepare_one(model.card, sample.image)[0][None]) for sample in dataset]
    return float((np.array(sides) > 0).mean(axis=0).min())


if __name__ == "__main__":
    main()
