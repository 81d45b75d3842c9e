"""Detector on a frozen backbone: AP50 on test images over seconds of training, zoo against torchvision.

    python benchmarks/detector.py --torch-python ~/torch/bin/python --plot curves.png

Both train FCOS on cached features of a frozen MobileNetV2 with ImageNet weights, of images and their mirror images. zoo
has its defaults. torchvision has a feature pyramid as wide as zoo's, its own towers of four convolutions, and, in the
script `torch_detector.py`, zoo's batch size, learning rate, schedule, weight decay and clipping. They run one after the
other, each in its own process, pinned to the same processors. After every epoch the test images are evaluated by the
same code for both; nothing is chosen by that. Training time is the time of the steps, including the reading of
features; caching, compilation and evaluation are reported separately. On a busy machine, compare processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
MARKS = (0.85, 0.87, 0.88)


@dataclass
class Curve:
    """Results of one side.

    Attributes:
        seconds, cpu, ap50: after each epoch, wall and processor time of its training so far.
        other: seconds of all that is not training.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    ap50: list[float] = field(default_factory=list)
    other: dict[str, float] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], ap50: float) -> None:
        self.seconds.append(row["seconds"])
        self.cpu.append(row["cpu"])
        self.ap50.append(ap50)
        self.other["evaluation"] = self.other.get("evaluation", 0.0) + row["evaluation"]

    def reaches(self, mark: float) -> tuple[float, float] | None:
        """Return wall and processor time at which AP50 first reaches the mark."""
        rows = zip(self.seconds, self.cpu, self.ap50, strict=True)
        return next(((seconds, cpu) for seconds, cpu, ap50 in rows if ap50 >= mark), None)


def main() -> None:
    """Measure both sides and print, or run zoo's side."""
    args = _arguments()
    if args.side:
        zoo_side(args)
        return
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    ours, job = run_zoo(args, cpus)
    curves = {"zoo": ours}
    if args.torch_python:
        curves["torchvision"] = run_torch(args, {**job, "epochs": len(ours.ap50), "threads": len(cpus)}, cpus)
    report(curves, job, len(cpus))
    if args.plot:
        draw(curves, args.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="an interpreter with torch, torchvision and safetensors")
    parser.add_argument("--torch-path", default="", help="its PYTHONPATH, if it needs one")
    parser.add_argument(
        "--data", type=Path, default=ASSETS / "datasets" / "bccd", help="boxes, with train and test splits"
    )
    parser.add_argument("--weights", type=Path, default=ASSETS / "weights" / "mobilenet_v2_imagenet.safetensors")
    parser.add_argument("--epochs", type=int, help="of both, instead of zoo's default")
    parser.add_argument("--image-size", type=int, help="side of the images, instead of zoo's default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="processors for each")
    parser.add_argument("--plot", type=Path, help="where to draw both curves")
    parser.add_argument("--side", choices=["zoo"], help=argparse.SUPPRESS)
    return parser.parse_args()


# zoo -----------------------------------------------------------------------------------------------------------


def run_zoo(args: argparse.Namespace, cpus: Sequence[int]) -> tuple[Curve, dict[str, Any]]:
    """Return zoo's curve, with empty caches, and what the other side needs for the same job."""
    command = [sys.executable, __file__, "--side", "zoo"]
    for option in ("data", "weights", "epochs", "image_size", "seed"):
        value = getattr(args, option)
        command += [] if value is None else [f"--{option.replace('_', '-')}", str(value)]
    curve, job = Curve(), {}
    with tempfile.TemporaryDirectory() as folder:
        for row in lines(command, cpus, {"ZOO_CACHE": folder, "JAX_COMPILATION_CACHE_DIR": ""}):
            if "job" in row:
                job = row["job"]
            elif "epoch" in row:
                curve.add(row, row["AP50"])
                _say("zoo", row, row["AP50"])
            else:
                curve.other |= row
    return curve, job


def zoo_side(args: argparse.Namespace) -> None:
    """Train with the defaults and report each epoch. The validation data are the test images."""
    import jax

    import zoo
    from zoo.data import read
    from zoo.training.session import Event, Session

    parts = read(args.data)
    options = {} if args.image_size is None else {"image_size": args.image_size}
    labels = parts["train"].classes
    model = zoo.create("mobilenetv2_100", "detector", labels=labels, weights=str(args.weights), **options)
    steps: list[tuple[float, float]] = []  # wall and processor time of each
    compiled = (0.0, 0.0)

    def show(session: Session) -> Any:
        print(json.dumps({"job": job_of(session, args)}), flush=True)
        last = time.perf_counter(), time.process_time()

        def event(now: Event) -> None:
            nonlocal last, compiled
            what = now[1]
            if what["kind"] == "step":
                jax.block_until_ready(what["loss"])
            spent = time.perf_counter() - last[0], time.process_time() - last[1]
            if what["kind"] == "phase":
                print(json.dumps({"caching": spent[0]}), flush=True)
            elif what["kind"] == "step":
                steps.append(spent)
            elif what["kind"] == "epoch":
                if what["epoch"] == 1:
                    # The first step compiles; it counts as one of the others.
                    usual = tuple(statistics.median(column) for column in zip(*steps[1:], strict=True))
                    compiled, steps[0] = (steps[0][0] - usual[0], steps[0][1] - usual[1]), usual
                    print(json.dumps({"compilation": compiled[0]}), flush=True)
                seconds, cpu = (sum(column) for column in zip(*steps, strict=True))
                row = {name: what[name] for name in ("epoch", "AP50", "AP")}
                row |= {"seconds": seconds, "cpu": cpu, "loss": what["train_loss"], "evaluation": spent[0]}
                print(json.dumps(row), flush=True)
            last = time.perf_counter(), time.process_time()

        return event

    epochs = {} if args.epochs is None else {"epochs": args.epochs}
    data = {"train": parts["train"], "val": parts["test"]}
    with tempfile.TemporaryDirectory() as folder:
        zoo.train(model, data, plan="head", out=f"{folder}/run", seed=args.seed, plots=False, show=show, **epochs)


def job_of(session: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what the other side needs for the same job, as JSON. Letterbox sizes are those of the first image."""
    from zoo.adapters.detector.heads import METHODS

    adapter, preprocess, recipe = session.model.adapter, session.model.card.preprocess, session.recipe
    method = METHODS[adapter.head]
    frames = {preprocess.frame(sample.target.size) for part in (session.train, session.val) for sample in part}
    if len(frames) > 1:
        sys.exit(
            f"the images fit {len(frames)} letterbox sizes, but torch_detector.py has one: use images of one shape."
        )

    def rows(part: Any) -> list[dict[str, Any]]:
        return [
            {"file": str(sample.image), "boxes": sample.target.boxes, "labels": sample.target.labels} for sample in part
        ]

    return {
        "weights": str(args.weights),
        "train": rows(session.train),
        "test": rows(session.val),
        "labels": adapter.labels,
        "classes": len(adapter.labels),
        "size": frames.pop(),
        "width": adapter.width,
        "score": method.pre_nms_threshold if adapter.pre_nms_threshold is None else adapter.pre_nms_threshold,
        "overlap": method.nms_iou if adapter.nms_iou is None else adapter.nms_iou,
        "lr": session.plan[0].rate,
        "batch_size": recipe.batch_size,
        "weight_decay": recipe.weight_decay,
        "clip": recipe.clip,
        "seed": recipe.seed,
    }


# torchvision ---------------------------------------------------------------------------------------------------


def run_torch(args: argparse.Namespace, job: Mapping[str, Any], cpus: Sequence[int]) -> Curve:
    """Run `torch_detector.py`, and evaluate its detections as zoo's."""
    curve = Curve()
    for row in torch_lines(str(HERE / "torch_detector.py"), args.torch_python, args.torch_path, cpus, job):
        if "epoch" in row:
            ap50 = average_precision(row["found"], job)
            curve.add(row, ap50)
            _say("torchvision", row, ap50)
        else:
            curve.other |= row
    return curve


def average_precision(found: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> float:
    """Return the AP50 of detections in the test images."""
    from zoo.dense.coco import CocoEvaluation

    coco = CocoEvaluation(job["labels"])
    for one, true in zip(found, job["test"], strict=True):
        boxes = np.array(one["boxes"], np.float32).reshape(-1, 4)
        truth = np.array(true["boxes"], np.float32).reshape(-1, 4)
        labels = (np.array(side["labels"], np.int64) for side in (one, true))
        coco.add(boxes, np.array(one["scores"]), next(labels), truth, next(labels))
    return float(coco.compute()["AP50"])


# Both ----------------------------------------------------------------------------------------------------------


def _say(side: str, row: Mapping[str, Any], ap50: float) -> None:
    times = f"{row['seconds']:7.1f} s wall  {row['cpu']:7.1f} s cpu"
    print(f"{side:11} epoch {row['epoch']:>3}  {times}  loss {row['loss']:.3f}  AP50 {ap50:.4f}", flush=True)


def report(curves: Mapping[str, Curve], job: Mapping[str, Any], cpus: int) -> None:
    """Print the curves side by side, and when each reaches the marks."""
    names = ("size", "width", "batch_size", "lr", "weight_decay", "clip")
    print(f"\n{cpus} processors, load {os.getloadavg()[0]:.1f}; " + ", ".join(f"{n} {job[n]}" for n in names))
    for side, curve in curves.items():
        print(f"{side}, beside training: " + ", ".join(f"{name} {s:.1f} s" for name, s in curve.other.items()))
    print("\n| epoch |" + "".join(f" {side}, s | {side}, cpu s | AP50 |" for side in curves))
    print("|---|" + "---|---|---|" * len(curves))
    for i, columns in enumerate(
        zip(*(zip(c.seconds, c.cpu, c.ap50, strict=True) for c in curves.values()), strict=True)
    ):
        print(f"| {i + 1} |" + "".join(f" {s:.1f} | {cpu:.1f} | {ap50:.4f} |" for s, cpu, ap50 in columns))
    print("\n| AP50 |" + "".join(f" {side}, s | {side}, cpu s |" for side in curves) + " time, others / zoo | cpu |")
    print("|---|" + "---|---|" * len(curves) + "---|---|")
    for mark in MARKS:
        reached = {side: curve.reaches(mark) for side, curve in curves.items()}
        cells = [f" {t[0]:.1f} | {t[1]:.1f} |" if t else " not reached | |" for t in reached.values()]
        ours, theirs = reached["zoo"], reached.get("torchvision")
        ratio = f" {theirs[0] / ours[0]:.2f} | {theirs[1] / ours[1]:.2f} |" if ours and theirs else " | |"
        print(f"| {mark} |" + "".join(cells) + ratio)


def draw(curves: Mapping[str, Curve], file: Path) -> None:
    """Plot AP50 over seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for side, curve in curves.items():
        axes.plot(curve.seconds, curve.ap50, marker=".", label=side)
    for mark in MARKS:
        axes.axhline(mark, color="grey", linewidth=0.5, linestyle=":")
    axes.set(xlabel="seconds of training", ylabel="AP50 on the test images", xlim=(0, None), ylim=(0, 1))
    axes.legend(loc="lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
