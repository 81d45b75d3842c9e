"""Training a classifier on a frozen backbone: zoo against PyTorch, whole processes, cold caches, in turn.

    python benchmarks/transfer.py --torch-python ~/torch/bin/python

MobileNetV2 with ImageNet weights learns ants and bees in three ways: `zoo train --plan head`, a PyTorch script that
computes features once and caches them, and one that runs the backbone in every epoch (both in `torch_head.py`). Each is
timed from the start of its process to its end, including imports; zoo always starts without cached features and
compiled programs. All are pinned to the same processors. On a busy machine, compare processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent.parent / "shared" / "assets"


@dataclass(frozen=True)
class Timing:
    """Results of one process, extrapolated to all epochs: wall and processor time in seconds, best accuracy."""

    seconds: float
    cpu: float
    accuracy: float
    detail: str = ""


def main() -> None:
    """Measure all three and print."""
    args = _arguments()
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    ways = {"zoo": lambda: run_zoo(args, cpus)}
    if args.torch_python:
        ways |= {way: (lambda way=way: run_torch(args, way, cpus)) for way in ("cached", "tutorial")}
    found: dict[str, list[Timing]] = {way: [] for way in ways}
    for repeat in range(args.repeats):
        for way, measure in ways.items():
            if way == "tutorial" and repeat >= args.tutorial_repeats:
                continue
            found[way].append(timing := measure())
            print(f"{repeat + 1}: {way:9} {_line(timing)}  {timing.detail}", flush=True)
    report(found, args, len(cpus))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="an interpreter with torch, torchvision and safetensors")
    parser.add_argument("--torch-path", default="", help="its PYTHONPATH, if it needs one")
    parser.add_argument("--data", type=Path, default=ASSETS / "datasets" / "hymenoptera")
    parser.add_argument("--weights", type=Path, default=ASSETS / "weights" / "mobilenet_v2_imagenet.safetensors")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tutorial-repeats", type=int, default=1, help="repeats of the slow way")
    parser.add_argument(
        "--tutorial-epochs", type=int, default=3,
        help="epochs that the slow way really runs; the rest is extrapolated from the time of these (0: all)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="processors for each")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images in the scripts")
    return parser.parse_args()


def run_zoo(args: argparse.Namespace, cpus: Sequence[int]) -> Timing:
    """Run `zoo train --plan head` with empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "zoo", "train", str(args.data), "--backbone", "mobilenetv2_100", "--plan", "head"),
            *("--weights", str(args.weights), "--epochs", str(args.epochs), "--out", f"{folder}/run"),
        ]
        seconds, cpu, _ = _timed(command, cpus, {"ZOO_CACHE": f"{folder}/cache", "JAX_COMPILATION_CACHE_DIR": ""})
        metrics = json.loads(Path(folder, "run", "metrics.json").read_text("utf-8"))
    return Timing(seconds, cpu, metrics["accuracy"], f"{metrics['seconds']} s of it in zoo.train")


def run_torch(args: argparse.Namespace, way: str, cpus: Sequence[int]) -> Timing:
    """Run `torch_head.py`. If the slow way runs fewer epochs, its time is extrapolated."""
    few = way == "tutorial" and 0 < args.tutorial_epochs < args.epochs
    epochs = args.tutorial_epochs if few else args.epochs
    command = [
        *(args.torch_python, str(HERE / "torch_head.py"), way, str(args.data), str(args.weights)),
        *("--epochs", str(epochs), "--threads", str(len(cpus)), "--workers", str(args.workers)),
    ]
    extra = {"OMP_NUM_THREADS": str(len(cpus))} | ({"PYTHONPATH": args.torch_path} if args.torch_path else {})
    seconds, cpu, output = _timed(command, cpus, extra)
    said: dict[str, Any] = json.loads(output.splitlines()[-1])
    parts = ", ".join(f"{name} {value:.1f}" for name, value in said["seconds"].items())
    if few:
        each = said["seconds"]["epochs"] / epochs
        startup = sum(said["seconds"].values()) - said["seconds"]["epochs"]
        cpu += cpu * (said["seconds"]["epochs"] / (startup + said["seconds"]["epochs"])) * (args.epochs / epochs - 1)
        seconds += each * (args.epochs - epochs)
        parts += f"; extrapolated from {epochs} epochs of {each:.1f} s each"
    return Timing(seconds, cpu, said["accuracy"], parts)


def _timed(command: Sequence[str], cpus: Sequence[int], extra: dict[str, str]) -> tuple[float, float, str]:
    """Return wall time, processor time and output of a process with all its children, on the given processors."""
    began, used = time.perf_counter(), _children()
    done = subprocess.run(
        command, env={**os.environ, **extra}, preexec_fn=lambda: os.sched_setaffinity(0, cpus), capture_output=True,
        text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, _children() - used, done.stdout


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _line(timing: Timing) -> str:
    return f"{timing.seconds:7.1f} s wall  {timing.cpu:7.1f} s cpu  accuracy {timing.accuracy:.4f}"


def report(found: dict[str, list[Timing]], args: argparse.Namespace, cpus: int) -> None:
    """Print medians, and the times of the others relative to zoo's."""
    medians = {
        way: Timing(*(statistics.median(getattr(t, name) for t in timings) for name in ("seconds", "cpu", "accuracy")))
        for way, timings in found.items()
        if timings
    }
    print(f"\n{args.epochs} epochs, {cpus} processors, load {os.getloadavg()[0]:.1f}; medians of whole processes")
    zoo = medians["zoo"]
    for way, median in medians.items():
        ratios = f"{median.seconds / zoo.seconds:6.2f} x zoo's wall time, {median.cpu / zoo.cpu:6.2f} x its cpu time"
        print(f"{way:9} {_line(median)}  {ratios}  ({len(found[way])} runs)")


if __name__ == "__main__":
    main()
