"""Style transfer: zoo against the same computation in PyTorch, in turn, on the same processors.

    python benchmarks/style.py --torch-python ~/torch/bin/python

Three measurements. The first two run Gatys' method on SqueezeNet's real weights, 256 pixels, 200 steps, with the same
losses at the same stages: with Adam, so that both sides take exactly one gradient a step, and with L-BFGS, whose line
searches take a varying number. zoo paints a border of 8 pixels and crops it afterwards; torch does not. The third runs
an image of 512 pixels through the transform net of PyTorch's examples, with five blocks and 32 channels. `--only`
selects one. Times exclude compiling and loading; each measurement has its own process. On a busy machine, compare
processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT.parent / "shared" / "assets"
TASKS = ("gatys-adam", "gatys-lbfgs", "feedforward")
STYLE_WEIGHT, TV_WEIGHT = 10.0, 1.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure and print, or run one of the measured processes."""
    args = _arguments()
    if args.role:
        print(json.dumps(ROLES[args.role](args)))
        return
    ways = {"zoo": sys.executable, "torch": args.torch_python}
    for name in args.only:
        task, _, args.optimizer = name.partition("-")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for repeat in range(args.repeats):
            for way, python in ways.items():
                found[way].append(_measured(args, f"{way}_{task}", python))
                print(f"{name} {repeat + 1} {way:6} {_line(found[way][-1])}", flush=True)
        best = {way: {k: min(run[k] for run in runs) for k in ("wall", "cpu")} for way, runs in found.items()}
        ratios = {k: best["zoo"][k] / best["torch"][k] for k in ("wall", "cpu")}
        print(f"{name}: zoo takes {ratios['wall']:.2f} x torch's wall time, {ratios['cpu']:.2f} x its processor time\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with torch and safetensors")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--optimizer", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--weights", type=Path, default=ASSETS / "weights" / "squeezenet1_0_imagenet.safetensors")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(args: argparse.Namespace, role: str, python: str) -> dict[str, float]:
    given = [f"--{n}={getattr(args, n)}" for n in ("steps", "size", "optimizer", "weights", "threads")]
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    done = subprocess.run(
        [python, __file__, f"--role={role}", *given], capture_output=True, text=True, env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{role} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _line(run: dict[str, float]) -> str:
    first, last = run.get("first"), run.get("last")
    loss = f"  loss {first:.4f} to {last:.4f}" if last is not None else ""
    return f"{run['wall']:7.2f} s wall  {run['cpu']:7.2f} s cpu{loss}"


def pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return content and style, float32 (size, size, 3) in [0, 1]: a gradient with a disc, and waves of two colours."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    disc = ((y - 0.5) ** 2 + (x - 0.4) ** 2 < 0.06)[..., None]
    content = np.where(disc, np.float32([0.9, 0.6, 0.2]), np.stack([0.3 + 0.3 * y, 0.5 - 0.1 * x, 0.8 - 0.3 * y], -1))
    wave = np.sin(40 * (x + 0.1 * np.sin(12 * y)))[..., None] > 0
    style = np.where(wave, np.float32([0.1, 0.2, 0.5]), np.float32([0.9, 0.9, 0.8]))
    return content.astype(np.float32), style.astype(np.float32)


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, found


def zoo_gatys(args: argparse.Namespace) -> dict[str, float]:
    """Time the method as `zoo stylize` runs it, after a run that compiles it."""
    import zoo
    from zoo.adapters.style import gatys

    model = zoo.create(
        "squeezenet1_0", "style", weights=str(args.weights), method="gatys", optimizer=args.optimizer,
        steps=args.steps, content_layer="fire2", style_weight=STYLE_WEIGHT, tv_weight=TV_WEIGHT, pyramid_levels=1,
    )  # fmt: skip
    content, style = pictures(args.size)
    options: Any = model.adapter

    def run(options: Any) -> list[list[float]]:
        return gatys.optimise(options, model, content, [style], np.ones(1, np.float32), None, 1.0)[1]

    run(replace(options, steps=1))  # compiles the same program: how many steps it takes is an argument of it
    times, (seen,) = _timed(lambda: run(options))
    return {**times, "first": seen[0], "last": seen[-1]}


def torch_gatys(args: argparse.Namespace) -> dict[str, float]:
    """Time the same losses in `tools/reference_style.py`."""
    import torch
    from safetensors.torch import load_file

    sys.path.insert(0, str(ROOT / "tools"))
    import reference_style as reference

    torch.set_num_threads(args.threads)
    weights = load_file(args.weights)
    content, style = (torch.from_numpy(p.transpose(2, 0, 1)[None].copy()) for p in pictures(args.size))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))

    def features(x: Any) -> list[Any]:
        return reference.squeezenet_maps(weights, (x - mean) / std, deepest=10)

    def gram(x: Any) -> Any:
        flat = x.flatten(2)
        return flat @ flat.transpose(1, 2) / flat[0].numel()

    with torch.no_grad():
        grams, there = [gram(f) for f in features(style)], features(content)[-1]

    def run() -> list[float]:
        x = content.clone().requires_grad_()
        seen: list[float] = []
        lbfgs = args.optimizer == "lbfgs"
        optimizer = (
            torch.optim.LBFGS([x], max_iter=args.steps, history_size=10, line_search_fn="strong_wolfe")
            if lbfgs
            else torch.optim.Adam([x], 0.02)
        )

        def closure() -> Any:
            optimizer.zero_grad()
            found = features(x)
            shares = [(gram(f) - g).square().mean() / g.square().mean() for f, g in zip(found, grams, strict=True)]
            tv = (x[:, :, 1:] - x[:, :, :-1]).square().mean() + (x[..., 1:] - x[..., :-1]).square().mean()
            kept = (found[-1] - there).square().mean() / there.square().mean()
            loss = kept + STYLE_WEIGHT * sum(shares) / len(shares) + TV_WEIGHT * tv
            loss.backward()
            seen.append(float(loss))
            return loss

        for _ in range(1 if lbfgs else args.steps):
            optimizer.step(closure)
        return seen

    times, seen = _timed(run)
    return {**times, "first": seen[0], "last": seen[-1]}


def zoo_feedforward(args: argparse.Namespace) -> dict[str, float]:
    """Time the compiled transform net alone, pixels to pixels."""
    import jax
    from flax import nnx

    from zoo.adapters.style.nets import TransformNet

    net = TransformNet(32, 5, "reflect", "nearest", "linear", 1e-5, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(net)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    pixels = pictures(2 * args.size)[0][None]
    jax.block_until_ready(run(state, pixels))
    return _best(lambda: jax.block_until_ready(run(state, pixels)))


def torch_feedforward(args: argparse.Namespace) -> dict[str, float]:
    """Time the reference net on the same image, in channels_last, which is faster."""
    import torch

    sys.path.insert(0, str(ROOT / "tools"))
    import reference_style as reference

    torch.set_num_threads(args.threads)
    net = reference.TransformNet().eval()
    pixels = torch.from_numpy(pictures(2 * args.size)[0].transpose(2, 0, 1)[None].copy())
    found = []
    with torch.inference_mode():
        for form in (torch.contiguous_format, torch.channels_last):
            x, here = pixels.to(memory_format=form), net.to(memory_format=form)
            here(x * 255)
            found.append(_best(lambda here=here, x=x: here(x * 255)))
    return min(found, key=lambda run: run["cpu"])


def _best(work: Callable[[], Any]) -> dict[str, float]:
    runs = [_timed(work)[0] for _ in range(7)]
    return {name: min(run[name] for run in runs) for name in ("wall", "cpu")}


ROLES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "zoo_gatys": zoo_gatys,
    "torch_gatys": torch_gatys,
    "zoo_feedforward": zoo_feedforward,
    "torch_feedforward": torch_feedforward,
}

if __name__ == "__main__":
    main()
