"""Segmenter on a frozen backbone: IoU of people by cross-validation, zoo against a U-Net in PyTorch.

    python benchmarks/segmenter.py --torch-python ~/torch/bin/python --plot curves.png

The images of Penn-Fudan, sorted by name, make four folds: image i is in fold i mod 4. A model that is trained on the
other folds predicts each fold. zoo trains with its defaults on cached features of a frozen MobileNetV2 (or SqueezeNet)
with ImageNet weights. `torch_segmenter.py` trains a U-Net on cached features of the same backbone, of images of 256
pixels and their mirror images. `--scratch` also trains zoo's net from scratch, with its backbone, for as long as zoo
took before. The sides run one after the other, each in its own process, pinned to the same processors.

The metric is the foreground's IoU over all pixels of a fold's images at their original resolution, computed by the same
code for all sides, for the model after the last epoch. Nothing is chosen by the images that it is measured on. Seconds
include everything but imports: reading, caching, compilation, training and an evaluation after each epoch. On a busy
machine, compare processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sides import lines, torch_lines

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent.parent / "shared" / "assets"
FOLDS = 4
WEIGHTS = {
    "mobilenetv2_100": ASSETS / "weights" / "mobilenet_v2_imagenet.safetensors",
    "squeezenet1_0": ASSETS / "weights" / "squeezenet1_0_imagenet.safetensors",
}


@dataclass
class Side:
    """Results of one side.

    Attributes:
        iou: of each fold after the last epoch. best: of its best epoch. curves: after each epoch, (epochs,) a fold.
        seconds, cpu: wall and processor time of each fold. parts: seconds of what it was spent on.
        epochs: of each fold.
    """

    iou: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], curve: list[float]) -> None:
        """Add the results of a fold."""
        self.curves.append(curve)
        self.iou.append(curve[-1])
        self.best.append(max(curve))
        self.epochs.append(len(curve))
        self.seconds.append(row["seconds"])
        self.cpu.append(row["cpu"])
        for name, value in row["parts"].items():
            self.parts[name] = self.parts.get(name, 0.0) + value


def main() -> None:
    """Measure all sides and print, or run zoo's side."""
    args = _arguments()
    if args.side:
        zoo_side(args)
        return
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    ours, job = run_zoo(args, cpus)
    sides = {"zoo": ours}
    if args.torch_python:
        sides["PyTorch"] = run_torch(args, {**job, "threads": len(cpus)}, cpus)
    if args.scratch:
        budget = sum(ours.seconds) / len(ours.seconds)
        sides["from scratch"], _ = run_zoo(args, cpus, scratch=budget)
    report(sides, job, len(cpus))
    if args.plot:
        draw(sides, args.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="an interpreter with torch, torchvision and safetensors")
    parser.add_argument("--torch-path", default="", help="its PYTHONPATH, if it needs one")
    parser.add_argument("--torch-epochs", type=int, default=40, help="of the U-Net in PyTorch")
    parser.add_argument("--data", type=Path, default=ASSETS / "datasets" / "pennfudan", help="masks of one class")
    parser.add_argument("--backbone", default="mobilenetv2_100", choices=[*WEIGHTS])
    parser.add_argument("--weights", type=Path, help="of the backbone")
    parser.add_argument("--folds", type=int, nargs="*", default=[*range(FOLDS)], help="only these")
    parser.add_argument("--epochs", type=int, help="instead of zoo's default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", action="store_true", help="also train zoo's net from scratch")
    parser.add_argument("--threads", type=int, default=2, help="processors for each")
    parser.add_argument("--plot", type=Path, help="where to draw IoU by epoch")
    parser.add_argument("--side", choices=["zoo"], help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.weights = args.weights or WEIGHTS[args.backbone]
    return args


# zoo -----------------------------------------------------------------------------------------------------------


def run_zoo(args: argparse.Namespace, cpus: Sequence[int], scratch: float | None = None) -> tuple[Side, dict[str, Any]]:
    """Return zoo's results, with empty caches, and what the other side needs for the same job.

    Args:
        scratch: seconds that a fold may take from random values; None for the frozen backbone.
    """
    command = [sys.executable, __file__, "--side", "zoo", "--folds", *map(str, args.folds)]
    for option in ("data", "backbone", "weights", "epochs", "seed"):
        value = getattr(args, option)
        command += [] if value is None else [f"--{option}", str(value)]
    command += [] if scratch is None else ["--budget", str(scratch)]
    side, job = Side(), {}
    with tempfile.TemporaryDirectory() as folder:
        curve: list[float] = []
        for row in lines(command, cpus, {"ZOO_CACHE": folder, "JAX_COMPILATION_CACHE_DIR": ""}):
            if "job" in row:
                job = row["job"]
            elif "epoch" in row:
                curve.append(row["iou"])
            else:
                side.add(row, curve)
                _say("zoo" if scratch is None else "from scratch", row, curve)
                curve = []
    return side, job


def zoo_side(args: argparse.Namespace) -> None:
    """Train fold by fold with the defaults and report each epoch."""
    from zoo.data import read

    data = read(args.data, kinds=("masks",))["all"]
    order = sorted(range(len(data)), key=lambda i: data[i].image.name)
    first = True
    for fold in args.folds:
        parts = {
            "train": data.subset([i for n, i in enumerate(order) if n % FOLDS != fold], "train"),
            "val": data.subset([i for n, i in enumerate(order) if n % FOLDS == fold], "val"),
        }
        epochs = args.epochs
        if args.budget:
            # The second epoch compiles nothing.
            probe = _fold(args, parts, 2)
            epochs = max(round(args.budget / probe["epoch_seconds"][1]), 1)
        row = _fold(args, parts, epochs, tell=first)
        first = False
        for epoch, iou in enumerate(row.pop("curve"), 1):
            print(json.dumps({"fold": fold, "epoch": epoch, "iou": iou}), flush=True)
        print(json.dumps({"fold": fold, **row}), flush=True)


def _fold(args: argparse.Namespace, parts: Mapping[str, Any], epochs: int | None, *, tell: bool = False) -> dict:
    """Train once; return `curve` (IoU by epoch), `seconds`, `cpu`, `parts` and `epoch_seconds`."""
    import jax

    import zoo
    from zoo.training.session import Event, Session

    began, used = time.perf_counter(), time.process_time()
    start = {"pretrained": False} if args.budget else {"weights": str(args.weights)}
    model = zoo.create(args.backbone, "segmenter", labels=parts["train"].classes, seed=args.seed, **start)
    curve: list[float] = []
    epoch_seconds: list[float] = []
    spent = {"caching": 0.0, "compilation": 0.0, "training": 0.0, "evaluation": 0.0}
    steps: list[float] = []

    def show(session: Session) -> Any:
        if tell:
            print(json.dumps({"job": job_of(session, args)}), flush=True)
        last = time.perf_counter()

        def event(now: Event) -> None:
            nonlocal last, steps
            what = now[1]
            if what["kind"] == "step":
                jax.block_until_ready(what["loss"])
            seconds = time.perf_counter() - last
            if what["kind"] == "phase":
                spent["caching"] += seconds
            elif what["kind"] == "step":
                steps.append(seconds)
            elif what["kind"] == "epoch":
                # Steps that compile take long; they count as one of the others.
                usual = float(np.median(steps))
                compiled = sum(step - usual for step in steps if step > 4 * usual) if not curve else 0.0
                spent["compilation"] += compiled
                spent["training"] += sum(steps) - compiled
                spent["evaluation"] += seconds
                epoch_seconds.append(sum(steps) + seconds)
                curve.append(what["foreground_iou"])
                steps = []
            last = time.perf_counter()

        return event

    options: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    plan = "all" if args.budget else "head"
    with tempfile.TemporaryDirectory() as folder:
        zoo.train(model, parts, plan=plan, out=f"{folder}/run", seed=args.seed, plots=False, show=show, **options)
    return {
        "curve": curve,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - used,
        "parts": spent,
        "epoch_seconds": epoch_seconds,
    }


def job_of(session: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what the other side needs, as JSON, and facts about zoo's side to print."""
    adapter, preprocess, recipe = session.model.adapter, session.model.card.preprocess, session.recipe
    return {
        "weights": str(args.weights),
        "backbone": args.backbone,
        "data": str(args.data),
        "mean": preprocess.mean,
        "std": preprocess.std,
        "seed": recipe.seed,
        "folds": args.folds,
        "zoo": {
            "decoder": adapter.decoder,
            "size": preprocess.size,
            "loss": adapter.loss,
            "batch_size": recipe.batch_size,
            "lr": session.plan[0].rate,
            "epochs": session.plan[0].epochs,
            "weight_decay": recipe.weight_decay,
        },
    }


# PyTorch -------------------------------------------------------------------------------------------------------


def run_torch(args: argparse.Namespace, job: Mapping[str, Any], cpus: Sequence[int]) -> Side:
    """Run `torch_segmenter.py`, and evaluate its masks as zoo's."""
    from zoo.data import read
    from zoo.data.masks import read_mask

    data = read(args.data, kinds=("masks",))["all"]
    samples = sorted(data, key=lambda sample: sample.image.name)
    masks = [read_mask(sample.target) for sample in samples]
    side = Side()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/masks.npz", **{str(i): mask for i, mask in enumerate(masks)})
        files = [str(sample.image) for sample in samples]
        asked = {**job, "files": files, "count": FOLDS, "folder": folder, "epochs": args.torch_epochs}
        curve: list[float] = []
        for row in torch_lines(str(HERE / "torch_segmenter.py"), args.torch_python, args.torch_path, cpus, asked):
            if "epoch" in row:
                with np.load(row["found"]) as found:
                    curve.append(_iou([(masks[int(i)], found[i]) for i in found.files]))
            else:
                side.add(row, curve)
                _say("PyTorch", row, curve)
                curve = []
    return side


def _iou(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    from zoo.dense.segmentation import SegmentationEvaluation

    evaluation = SegmentationEvaluation(("background", "foreground"))
    for true, found in pairs:
        evaluation.add(true, found)
    return float(evaluation.compute()["foreground_iou"])


# Both ----------------------------------------------------------------------------------------------------------


def _say(side: str, row: Mapping[str, Any], curve: Sequence[float]) -> None:
    times = f"{row['seconds']:6.1f} s wall  {row['cpu']:6.1f} s cpu"
    print(
        f"{side:12} fold {row['fold']}  {times}  {len(curve)} epochs  IoU {curve[-1]:.4f}  (best {max(curve):.4f})",
        flush=True,
    )


def report(sides: Mapping[str, Side], job: Mapping[str, Any], cpus: int) -> None:
    """Print the sides one below the other."""
    told = ", ".join(f"{name} {value}" for name, value in job["zoo"].items())
    print(f"\n{job['backbone']}, {cpus} processors, load {os.getloadavg()[0]:.1f}; zoo: {told}\n")
    numbers = " | ".join(f"fold {fold}" for fold in job["folds"])
    print(f"| | {numbers} | mean IoU | best epochs' | epochs | s | cpu s | caching | compilation | training | others |")
    print("|---" * (len(job["folds"]) + 10) + "|")
    for name, side in sides.items():
        folds = " | ".join(f"{iou:.4f}" for iou in side.iou)
        spent = [side.parts.get(part, 0.0) for part in ("caching", "compilation", "training")]
        others = sum(side.seconds) - sum(spent)
        cells = " | ".join(f"{value:.0f}" for value in (sum(side.seconds), sum(side.cpu), *spent, others))
        mean, best = np.mean(side.iou), np.mean(side.best)
        print(f"| {name} | {folds} | {mean:.4f} | {best:.4f} | {max(side.epochs)} | {cells} |")


def draw(sides: Mapping[str, Side], file: Path) -> None:
    """Plot mean IoU by epoch over the time of a fold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, side in sides.items():
        epochs = min(side.epochs)
        mean = np.mean([curve[:epochs] for curve in side.curves], axis=0)
        seconds = np.linspace(0, np.sum(side.seconds), epochs + 1)[1:]
        axes.plot(seconds, mean, marker=".", label=name)
    axes.set(xlabel="seconds for all folds", ylabel="IoU of the foreground", xlim=(0, None), ylim=(0, 1))
    axes.legend(loc="lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
