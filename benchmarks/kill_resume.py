"""Kill trainings without warning at random moments, continue them, and compare the ends bit by bit.

    python benchmarks/kill_resume.py --kills 50

A classifier is trained on drawn images: a phase on cached features, then one that trains the last stage. A checkpoint
is written after every step. One training runs undisturbed. Then each of the others is ended by SIGKILL at a random
moment, from shortly before its first file to the end. Its command is repeated with `--resume`, or as it is if the run
directory was not begun. The model's file and the metrics of each epoch, without times, must equal those of the
undisturbed training in every bit. The feature cache of each training begins empty.

The exit status is 1 if an end differs. `--kills-each 3` kills every training several times before it may end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flips import drawn

TIMES = ("images_per_second", "seconds")


@dataclass
class Training:
    """One training: its command, run directory and feature cache."""

    command: list[str]
    run: Path
    environment: dict[str, str]

    def start(self) -> subprocess.Popen[bytes]:
        resume = ["--resume"] if (self.run / "config.json").is_file() else []
        if not resume and self.run.exists():
            shutil.rmtree(self.run)  # a folder that holds no run yet is refused, as it may be somebody's
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([*self.command, "--out", str(self.run), *resume], env=self.environment, **quiet)

    def end(self) -> str:
        """Return a digest of everything that the training has led to, except times."""
        rows = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        kept = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
        model = hashlib.sha256((self.run / "model.safetensors").read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps([model, kept], sort_keys=True).encode()).hexdigest()


def stage_of(run: Path) -> str:
    """Return what a killed training had reached."""
    if not (run / "config.json").is_file():
        return "before the run directory"
    if not any((run / "checkpoints").glob("*/manifest.json")):
        return "before the first checkpoint"
    return "after the end" if (run / "trained.json").is_file() or (run / "metrics.json").is_file() else "in training"


def main() -> int:
    """Train, kill, continue, compare. Returns 1 if an end differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="number of trainings that are killed")
    parser.add_argument("--kills-each", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return experiment(Path(folder), options)


def experiment(folder: Path, options: argparse.Namespace) -> int:
    """Run the experiment in a folder."""
    data = drawn(folder / "data")
    command = [sys.executable, "-m", "zoo", "train", str(data), "--backbone", "resnet20.demo"]
    command += [
        "--plan",
        "head+last:1",
        "--epochs",
        "3",
        "--batch-size",
        "8",
        "--checkpoint-seconds",
        "0",
        "--seed",
        "1",
    ]
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def training(number: int) -> Training:
        cache = {"ZOO_CACHE": str(folder / f"cache{number}")}
        return Training(command, folder / f"run{number}", {**os.environ, **compiled, **cache})

    def undisturbed(number: int) -> tuple[str, float, float]:
        whole, began, first = training(number), time.monotonic(), 0.0
        process = whole.start()
        while process.poll() is None:
            first = first or (time.monotonic() - began) * (folder / f"cache{number}").exists()
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(process.communicate()[1].decode())
        return whole.end(), first, time.monotonic() - began

    undisturbed(0)  # fills the cache of compiled programs
    expected, first, last = undisturbed(1)
    again, _, _ = undisturbed(2)
    print(f"undisturbed: {last:.1f} s, its first file after {first:.1f} s")
    print(f"repeated: {'equal' if again == expected else 'DIFFERENT'}")
    rng, different, stages = np.random.default_rng(options.seed), 0, Counter[str]()
    for number in range(3, 3 + options.kills):
        one = training(number)
        for _ in range(options.kills_each):
            process = one.start()
            time.sleep(float(rng.uniform(first * 0.9, last)))
            process.kill()
            process.communicate()
            stages[stage_of(one.run)] += 1
        process = one.start()
        said = process.communicate()[1].decode()
        if process.returncode or one.end() != expected:
            different += 1
            print(f"training {number} differs (exit status {process.returncode}): {said[-500:]}")
        for place in (one.run, folder / f"cache{number}"):
            shutil.rmtree(place, ignore_errors=True)
    print(", ".join(f"{count} killed {stage}" for stage, count in sorted(stages.items())))
    print(f"{options.kills - different} of {options.kills} ends equal in every bit")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
