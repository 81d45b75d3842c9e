"""Every decoder, detector head and style method with its defaults on real data: metric and time.

    python benchmarks/defaults.py                                     # all of it, which takes hours
    python benchmarks/defaults.py --only decoder=unet --data pennfudan
    python benchmarks/defaults.py --table                             # only write the table of what was measured

A row is one `zoo.train(plan="head")` on a frozen backbone with the defaults (images for segmentation have `--size`
pixels, 256 by default), in its own process with empty caches. Its time is the processor time of that process, user and
system, because wall time means nothing on a busy machine. Metrics are those of the best epoch on the validation images,
at their original resolution.

Data: Penn-Fudan's people as masks and as boxes; blood cells (BCCD) as boxes, and as masks with the ellipses in the
boxes taken for the cells; for style methods two folders of images, each with a painting. Results are collected in
`docs/defaults.json`, where a new measurement of a row replaces the old one, and `docs/defaults.md` is written from it.
The page names the rows that were not measured, and those whose recipe has other epochs today.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT.parent / "shared" / "assets"
RESULTS = ROOT / "docs" / "defaults.json"
TABLE = ROOT / "docs" / "defaults.md"
WEIGHTS = {
    "mobilenetv2_100": "mobilenet_v2_imagenet.safetensors",
    "squeezenet1_0": "squeezenet1_0_imagenet.safetensors",
}
DATA = {"decoder": ("pennfudan", "cells"), "head": ("pennfudan", "bccd"), "method": ("hymenoptera", "imagenet_samples")}
TASKS = {"decoder": "segmenter", "head": "detector", "method": "style"}
PAINTINGS = {"hymenoptera": "wave.jpg", "imagenet_samples": "scream.jpg"}
FIGURES = {
    ("decoder", "pennfudan"): "IoU of people",
    ("decoder", "cells"): "mean IoU of four classes",
    ("head", "pennfudan"): "AP50",
    ("head", "bccd"): "AP50",
}
TITLES = {
    "decoder": "Decoders of the segmenter",
    "head": "Heads of the detector",
    "method": "Methods of style transfer",
}
PHOTOS = 100
"""Images that a style is learned on, including the fifth that is held out."""
SCRATCH = "random"
"""Instead of weights: the backbone is initialised at random, and all of it trains."""


@dataclass(frozen=True)
class Row:
    """One measurement: `name` is a value of the task's option `kind`."""

    kind: str
    name: str
    data: str
    backbone: str
    weights: str
    size: int


def main() -> None:
    """Measure all rows and write the page, or measure one row in its own process."""
    args = _arguments()
    if args.row:
        print(json.dumps(measure(Row(**json.loads(args.row)), args.assets, args.seed)))
        return
    found = _known()
    rows = list(wanted(args))
    for row in [] if args.table else rows:
        print(f"{row.kind} {row.name} on {row.data}, {row.backbone} ...", end=" ", flush=True)
        found[_key(row)] = {**asdict(row), **_in_a_process(row, args)}
        print(_told(found[_key(row)]), flush=True)
        RESULTS.write_text(json.dumps(list(found.values()), indent=1) + "\n")
        TABLE.write_text(table(found))
    TABLE.write_text(table(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND[=NAME]", help="of decoder, head and method")
    parser.add_argument("--data", nargs="+", default=[], help=f"of {', '.join(sorted(set(sum(DATA.values(), ()))))}")
    parser.add_argument(
        "--backbone", default="mobilenetv2_100", choices=[*WEIGHTS], help="style always uses SqueezeNet"
    )
    parser.add_argument("--scratch", action="store_true", help="train a randomly initialised backbone, too")
    parser.add_argument("--size", type=int, default=256, help="side of the images for decoders, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder with `weights` and `datasets`")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def options() -> dict[str, dict[str, Any]]:
    """Return kind -> name -> row of the task's extension point."""
    from zoo.adapters.detector.heads import METHODS as HEADS
    from zoo.adapters.segmenter.decoders import DECODERS
    from zoo.adapters.style import METHODS

    return {"decoder": dict(DECODERS), "head": dict(HEADS), "method": dict(METHODS)}


def defaults() -> dict[str, str]:
    """Return kind -> the name that the task uses by default."""
    from zoo.adapters.detector import Detector
    from zoo.adapters.segmenter import Segmenter
    from zoo.adapters.style import Style

    return {"decoder": Segmenter.decoder, "head": Detector.head, "method": Style.method}


def serving(kind: str, backbone: str) -> list[str]:
    """Return the names of a kind that fit a backbone."""
    from zoo.adapters.segmenter.decoders import stages_for
    from zoo.errors import ConfigError
    from zoo.registry import registry

    def serves(name: str) -> bool:
        try:
            stages_for(registry().backbone(backbone), name)
        except ConfigError:
            return False
        return True

    return [name for name in options()[kind] if kind != "decoder" or serves(name)]


def every(backbone: str, weights: str, size: int) -> list[Row]:
    """Return all rows for a backbone, the default of each kind first."""
    found = []
    for kind in options():
        net = "squeezenet1_0" if kind == "method" else backbone
        names = serving(kind, net)
        for data in DATA[kind]:
            for name in sorted(names, key=lambda name, kind=kind: (name != defaults()[kind], name)):
                found.append(Row(kind, name, data, net, "" if kind == "method" else weights, size))
    return found


def wanted(args: argparse.Namespace) -> list[Row]:
    """Return the rows that the command line selects; exit if it selects unknown ones."""
    rows = every(args.backbone, SCRATCH if args.scratch else "", args.size)
    for item in args.only:
        kind, _, name = item.partition("=")
        if kind not in DATA or name and name not in options()[kind]:
            sys.exit(f"--only {item}: accepted: " + "; ".join(f"{k}={'|'.join(v)}" for k, v in options().items()))
    pairs = [item.partition("=")[::2] for item in args.only]
    chosen = [row for row in rows if not pairs or any(row.kind == k and n in ("", row.name) for k, n in pairs)]
    found = [row for row in chosen if not args.data or row.data in args.data]
    if not found:
        sys.exit(f"--only and --data leave nothing: data are {', '.join(sorted({row.data for row in chosen}))}.")
    return found


# Measuring -----------------------------------------------------------------------------------------------------


def _in_a_process(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", json.dumps(asdict(row)), "--seed", str(args.seed)]
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "ZOO_CACHE": folder, "JAX_COMPILATION_CACHE_DIR": ""}
        done = subprocess.run([*command, "--assets", str(args.assets)], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{row} failed")
    return json.loads(done.stdout.splitlines()[-1])


def measure(row: Row, assets: Path, seed: int) -> dict[str, Any]:
    """Train a row once; return `figure`, `epochs`, `steps`, `seconds`, `cpu` and further metrics."""
    import zoo

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        given = data_of(row, assets, Path(folder))
        how: dict[str, Any] = {row.kind: row.name, "seed": seed}
        if row.weights == SCRATCH:
            how |= {"pretrained": False}
        else:
            how |= {"weights": str(assets / "weights" / WEIGHTS[row.backbone])}
        if row.kind == "method":
            how["style"] = str(assets / "datasets" / "style_images" / "style" / PAINTINGS[row.data])
        else:
            how["labels"] = next(iter(given.values())).classes
        if row.kind == "decoder":
            how["image_size"] = row.size
        if row.name == "gatys":
            found = paint(row, given, how)
        else:
            model = zoo.create(row.backbone, TASKS[row.kind], **how)
            plan = "all" if row.weights == SCRATCH else "head"
            run = zoo.train(model, given, plan=plan, seed=seed, out=f"{folder}/run", plots=False, show=_silent)
            found = {**figures(row, run), "epochs": len(run.history), "steps": run.metrics["steps"]}
    return {**found, "seconds": round(time.perf_counter() - began, 1), "cpu": round(sum(os.times()[:4]), 1)}


def _silent(session: Any) -> Callable[[Any], None]:
    return lambda event: None


def data_of(row: Row, assets: Path, folder: Path) -> Mapping[str, Any]:
    """Return the data of a row by split."""
    from zoo.data import read

    sets = assets / "datasets"
    if row.data == "cells":
        sys.path.insert(0, str(ROOT / "tools"))
        from segmentation_sheet import masks

        masks(assets, folder / "cells")
        return {name: part for name, part in read(folder / "cells", kinds=("masks",)).items() if name != "test"}
    kinds = {"decoder": ("masks",), "head": ("boxes",), "method": ("images",)}[row.kind]
    if row.kind == "method":
        photos = read(sets / row.data, kinds=kinds)
        whole = next(iter(photos.values()))
        return {"all": whole.subset(range(min(PHOTOS, len(whole))), whole.name)}
    return {name: part for name, part in read(sets / row.data, kinds=kinds).items() if name != "test"}


def figures(row: Row, run: Any) -> dict[str, Any]:
    """Return the metrics of a run: `figure`, by which rows are compared, and `more`."""
    metrics = run.metrics
    if row.kind == "method":
        first, last = run.history[0], run.history[-1]
        told = {name: (round(first[name], 3), round(last[name], 3)) for name in last if name.endswith("_loss")}
        kept = {name: pair for name, pair in told.items() if name not in ("train_loss", "val_loss")}
        return {"figure": kept["style_loss"][1], "more": {f"{k} after the first epoch": v[0] for k, v in kept.items()}}
    if row.kind == "head":
        each = {name: one["AP50"] for name, one in metrics["per_class"].items()} if row.data == "bccd" else {}
        return {"figure": metrics["AP50"], "more": {"AP": metrics["AP"], **each}}
    each = {name: one["iou"] for name, one in metrics["per_class"].items()}
    if row.data == "pennfudan":
        return {"figure": metrics["foreground_iou"], "more": {}}
    return {"figure": metrics["miou"], "more": each}


def paint(row: Row, given: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """Measure `gatys`, which trains nothing: the loss of one image at the first step and at the last."""
    import zoo

    style = how["style"]
    model = zoo.create(row.backbone, "style", **{k: v for k, v in how.items() if k != "style"})
    adapter: Any = model.adapter
    losses: list[float] = []

    def seen(step: int, steps: int, loss: float, pixels: Any) -> None:
        losses.append(float(loss))

    photo = next(iter(given.values()))[0].image
    adapter.stylize(model, photo, style, size=256, preview=seen, every=10)
    return {
        "figure": round(losses[-1], 3),
        "more": {"loss at the first look": round(losses[0], 3)},
        "epochs": 0,
        "steps": adapter.steps,
    }


# The table -----------------------------------------------------------------------------------------------------


def _known() -> dict[str, dict[str, Any]]:
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    return {_key(Row(**{name: row[name] for name in Row.__dataclass_fields__})): row for row in rows}


def _key(row: Row) -> str:
    return " ".join(map(str, asdict(row).values()))


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['figure']:.3f}, {row['epochs']} epochs, {row['steps']} steps, {row['cpu']:.0f} s of processor time"


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page of all measurements."""
    lines = [
        "# Every decoder, head and method with its defaults",
        "",
        "Written by `python benchmarks/defaults.py`, which documents the method. The backbone is frozen and has",
        "ImageNet weights, unless a table says `random`. Time is processor time of the whole process, user and system,",
        "with empty caches; the last column compares it with the default (first row) of the same table.",
    ]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in found.values():
        at = (row["kind"], row["data"], row["backbone"], row["weights"], str(row["size"]))
        groups.setdefault(at, []).append(row)
    for kind, title in TITLES.items():
        lines += ["", f"## {title}"]
        for at in sorted(at for at in groups if at[0] == kind):
            lines += ["", *_section(at, groups[at])]
        lines += ["", _missing(kind, groups), *_outdated(kind, groups)]
    return "\n".join(lines) + "\n"


def _section(at: tuple[str, ...], rows: list[Mapping[str, Any]]) -> list[str]:
    kind, data, backbone, weights, size = at
    figure = FIGURES.get((kind, data), "style loss of held-out images (gatys: loss of one image)")
    where = f"{data}, {backbone}" + f" ({weights})" * bool(weights) + f", {size} pixels" * (kind == "decoder")
    base = next((row["cpu"] for row in rows if row["name"] == defaults()[kind]), 0)
    lines = [
        f"{where}:",
        "",
        f"| {kind} | {figure} | details | epochs | steps | CPU s | times the default's |",
        "|---" * 7 + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["name"] != defaults()[kind], row["name"])):
        more = ", ".join(f"{name} {value:.3f}" for name, value in row["more"].items())
        times = f"{row['cpu'] / base:.2f}" if base else ""
        cells = (row["name"], f"{row['figure']:.3f}", more, row["epochs"], row["steps"], f"{row['cpu']:.0f}", times)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _outdated(kind: str, groups: Mapping[tuple[str, ...], list[Mapping[str, Any]]]) -> list[str]:
    """Return lines about rows that were measured with other epochs than their recipe gives today."""
    lines = []
    for at in sorted(at for at in groups if at[0] == kind):
        for row in groups[at]:
            recipe = options()[kind][row["name"]].recipe
            if not row["epochs"] or "epochs" not in recipe:
                continue
            updates = row["steps"] / row["epochs"]
            today = max(recipe["epochs"], math.ceil(recipe.get("steps", 0) / updates))
            if row["epochs"] != today:
                lines.append(f"- {row['name']} on {row['data']}, {row['backbone']}: {today} epochs today")
    return ["", "Measured with other epochs than today's:", "", *lines] if lines else []


def _missing(kind: str, groups: Mapping[tuple[str, ...], list[Mapping[str, Any]]]) -> str:
    there = {
        (row["name"], row["data"], row["backbone"]) for at, rows in groups.items() if at[0] == kind for row in rows
    }
    nets = ("squeezenet1_0",) if kind == "method" else tuple(WEIGHTS)
    lacking = []
    for net in nets:
        for data in DATA[kind]:
            able = serving(kind, net)
            names = [name for name in able if (name, data, net) not in there]
            if names:
                lacking.append(f"- {data}, {net}: {'all' if names == able else ', '.join(names)}")
    return "\n".join(["Not measured:", "", *lacking]) if lacking else "Everything was measured."


if __name__ == "__main__":
    main()
