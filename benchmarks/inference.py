"""Images per second of every family: zoo against torch, the same architecture, size and machine, in turn.

    python benchmarks/inference.py --torch-python ~/torch/bin/python [NAME ...]

Without names, the variant of each family closest to 25 million parameters is measured. Each side runs in its own
process, model after model: zoo, torch, then zoo again. The best pass of each side counts, because other work on the
machine disturbed it least. Both classify normalised images with random weights. zoo's forward pass is compiled by XLA.
torch runs eagerly, with channels first and channels last, and the faster one counts; `--compile` compiles it. The table
gives the ratio of zoo's images per second to torch's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WANTED = 25e6


def main() -> None:
    """Measure both sides and print, or run one side."""
    args = _arguments()
    if args.side:
        side = {"zoo": zoo_side, "torch": torch_side}[args.side]
        for job in json.load(sys.stdin):
            print(json.dumps(side(job, args)), flush=True)
        return
    jobs = list(jobs_for(args.names, args.size))
    found: dict[str, dict[str, list[float]]] = {job["name"]: {"zoo": [], "torch": []} for job in jobs}
    for job in jobs:
        for _ in range(args.repeats):
            for side in ("zoo", "torch"):
                found[job["name"]][side] += [reply["images_per_second"] for reply in _run(side, [job], args)]
        print(_row(job, found[job["name"]]), flush=True)
    print()
    print(f"batch {args.batch}, {args.dtype}, {len(os.sched_getaffinity(0))} processors" + _versions(args))
    print("| family | model | image | zoo, images/s | torch, images/s | zoo / torch |\n|---|---|---|---|---|---|")
    for job in jobs:
        print(_row(job, found[job["name"]]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with torch, torchvision, timm")
    parser.add_argument("--torch-path", default="", help="its PYTHONPATH, if it needs one")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--size", type=int, default=224, help="image side; a family that does not accept it has its own"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of measuring in each pass")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile on the other side")
    parser.add_argument("--side", choices=["zoo", "torch"], help=argparse.SUPPRESS)
    return parser.parse_args()


def jobs_for(names: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
    """Return the jobs of both sides."""
    from zoo.registry import registry

    rows = {row.name: row for row in registry().rows("backbones") if row.distribution == "flax-zoo"}
    for name in names or _one_of_each_family(list(rows.values()), size):
        spec = registry().backbone(name)
        side = spec.preprocess.size[0] if spec.preprocess.size[0] <= 64 else size
        side = -(-max(side, spec.min_size) // spec.size_multiple) * spec.size_multiple
        yield {"name": name, "family": spec.family, "layout": spec.native_layout, "size": side}


def _one_of_each_family(rows: Sequence[Any], size: int) -> list[str]:
    def distance(row: Any) -> tuple[bool, float]:
        native = row.data.get("size", 224)
        return abs(native - size) > size // 2, abs(math.log(row.data["params"] / WANTED))

    best: dict[str, Any] = {}
    for row in rows:
        if row.data["family"] not in best or distance(row) < distance(best[row.data["family"]]):
            best[row.data["family"]] = row
    return [row.name for row in best.values()]


def _run(side: str, jobs: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    python = sys.executable if side == "zoo" else args.torch_python
    environment = dict(os.environ)
    if side == "torch" and args.torch_path:
        environment["PYTHONPATH"] = args.torch_path
    command = [python, __file__, "--side", side]
    for option in ("batch", "seconds", "dtype"):
        command += [f"--{option}", str(getattr(args, option))]
    command += ["--compile"] if args.compile else []
    done = subprocess.run(
        command, input=json.dumps(jobs), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    yield from map(json.loads, done.stdout.splitlines())


def _row(job: Mapping[str, Any], found: Mapping[str, Sequence[float]]) -> str:
    ours, theirs = max(found["zoo"]), max(found["torch"])
    ratio = f"{ours / theirs:.2f}"
    return f"| {job['family']} | {job['name']} | {job['size']} | {ours:.1f} | {theirs:.1f} | {ratio} |"


def _versions(args: argparse.Namespace) -> str:
    import jax

    said = subprocess.run(
        [args.torch_python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    )
    return f", jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {said.stdout.strip()}"


def images_per_second(step: Callable[[], Any], batch: int, seconds: float) -> float:
    """Return the median over passes of at least `seconds`, without the first two, which compile and warm up."""
    step()
    step()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return batch / sorted(times)[len(times) // 2]


def zoo_side(job: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return zoo's speed on one model, with one compiled program."""
    import jax
    import numpy as np
    from flax import nnx

    import zoo

    options = {"pretrained": False, "num_classes": 1000, "image_size": job["size"], "dtype": args.dtype}
    model = zoo.create(job["name"], "classifier", **options)
    graphdef, state = nnx.split(model)
    x = jax.device_put(
        np.random.default_rng(0).normal(size=(args.batch, job["size"], job["size"], 3)).astype("float32")
    )
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    return {"images_per_second": images_per_second(lambda: run(state, x).block_until_ready(), args.batch, args.seconds)}


def torch_side(job: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return torch's speed on one model, in the faster of its two memory formats."""
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
    import reference_backbones
    import torch

    extra = {**reference_backbones.ARGS.get(job["family"], {}), "num_classes": 1000}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, args.dtype)
    model = reference_backbones.reference(job["name"], job["layout"], extra).to(device, dtype)
    x = torch.randn(args.batch, 3, job["size"], job["size"]).to(device, dtype)
    speeds = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net, images = model.to(memory_format=layout), x.to(memory_format=layout)
        net = torch.compile(net) if args.compile else net

        def step(net: Any = net, images: Any = images) -> None:
            with torch.inference_mode():
                net(images)
            if device == "cuda":
                torch.cuda.synchronize()

        speeds.append(images_per_second(step, args.batch, args.seconds))
    return {"images_per_second": max(speeds)}


if __name__ == "__main__":
    main()
