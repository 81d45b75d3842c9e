"""Flip one bit at a time in the files of a run, in the feature cache and in the lock file: is each flip noticed?

    python benchmarks/flips.py --flips 500

A small classifier is trained on drawn images, with the feature cache. Then one random bit of a random file is flipped,
the file is read the way zoo reads it, and the bit is put back. Small files are chosen as often as large ones.

A flip is `detected` if reading ends with an error of zoo that names a file, or if damaged rows of the feature cache are
computed again. It is `harmless` if what was read is equal to the original, bit for bit (of a model: its predictions; of
plots and logs that zoo never reads: nothing to compare). Everything else is `silent`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Reader = Callable[[], object]


def drawn(folder: Path) -> Path:
    """Write 48 images of two classes: noise on red, and noise on blue."""
    rng = np.random.default_rng(0)
    for name, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            pixels = np.clip(rng.normal(color, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def main() -> int:
    """Train, flip and read. Returns 1 if a flip was silent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default="resnet20")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZOO_CACHE"] = str(Path(folder) / "cache")
        return experiment(Path(folder), options)


def experiment(folder: Path, options: argparse.Namespace) -> int:
    """Run the experiment in a folder."""
    import zoo
    from zoo.activations.cache import open_cache
    from zoo.data import read
    from zoo.training.checkpoint import Checkpoints
    from zoo.training.manifest import read as read_manifest
    from zoo.training.run import Run, prepare_folder, read_json
    from zoo.weights import lock

    data = drawn(folder / "data")
    model = zoo.create(options.backbone, "classifier", labels=["blue", "red"], pretrained=False)
    run = folder / "run"
    zoo.train(model, data, out=run, epochs=2, plan="head", batch_size=16, checkpoint_seconds=0.0)
    lock.record(lock.Pin("hf://org/net", "main", "model.safetensors", "a" * 40, "b" * 64))
    images = sorted(data.rglob("*.png"))
    config = read_json(run / "config.json")
    manifest = read_manifest(run, config["asked"]["data"])
    dataset = next(iter(read(data).values()))
    frozen = zoo.load(run)

    def predicted() -> object:
        return repr([row.top for row in zoo.load(run).predict(images)])

    def finished() -> object:
        opened = Run.open(run)
        return json.dumps([opened.metrics, opened.history], sort_keys=True)

    def resumed() -> object:
        prepare_folder(run, config, manifest, resume=True)
        return read_json(run / "config.json")

    def checkpoint() -> object:
        place, position, damaged = Checkpoints(run / "checkpoints").latest() or (None, None, None)
        if damaged:  # said in a note when training is resumed from an older one
            raise zoo.ZooError(*damaged)
        return str(place), json.dumps(position)

    def cached() -> object:
        cache = open_cache(frozen, dataset)
        recomputed.append(len(dataset) - cache.reused)
        return [(name, np.asarray(array).tobytes()) for name, array in cache.arrays.items()]

    recomputed: list[int] = []
    cached()
    readers: dict[Path, Reader] = {run / "model.safetensors": predicted, run / "config.json": resumed}
    readers |= {run / name: finished for name in ("metrics.json", "metrics.jsonl", "SHA256SUMS")}
    readers |= {file: checkpoint for file in (run / "checkpoints").rglob("*") if file.is_file()}
    readers |= {file: cached for file in open_cache(frozen, dataset).folder.iterdir() if file.suffix != ".lock"}
    readers[lock.path()] = lock.pins
    unread = [file for file in run.rglob("*") if file.is_file() and file not in readers]
    expected = {reader: reader() for reader in set(readers.values())}
    outcomes: Counter[tuple[str, str]] = Counter()
    rng, silent = np.random.default_rng(options.seed), []
    for _ in range(options.flips):
        file = sorted(readers)[rng.integers(len(readers))]
        content = file.read_bytes()
        position, bit = int(rng.integers(len(content))), int(rng.integers(8))
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        file.write_bytes(damaged)
        reader = readers[file]
        recomputed.clear()
        try:
            outcome = "harmless" if reader() == expected[reader] else "silent"
            outcome = "detected" if any(recomputed) and outcome == "harmless" else outcome
        except zoo.ZooError:
            outcome = "detected"
        finally:
            file.write_bytes(content)
        kind = reader.__name__
        outcomes[kind, outcome] += 1
        if outcome == "silent":
            silent.append(f"{file.relative_to(folder)}: byte {position}, bit {bit}")
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:12s} {outcome:10s} {count:4d}")
    print(f"{options.flips} flips, {len(silent)} silent; {len(unread)} plots and logs are never read by zoo")
    print(*silent, sep="\n")
    return bool(silent)


if __name__ == "__main__":
    sys.exit(main())
