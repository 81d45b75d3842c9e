"""What pretrained weights are good for: the same net on the same few images, once with them and once without."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.demo.draw import DEMO, SIDE, draw_folder
from zoo.errors import RunError

if TYPE_CHECKING:
    from zoo.training import Run

WEIGHTS = "resnet20.demo"
MARK = "demo.json"
"""Written into a demonstration's folder, which may be replaced by another demonstration and by nothing else."""


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        runs: `pretrained` and `from scratch`; `accuracy` and more on drawings that neither has seen are in their
            `metrics["test"]`. picture: drawings and figures side by side. seconds: all of it took.
    """

    runs: dict[str, Run]
    picture: Path
    seconds: float

    def accuracies(self) -> dict[str, float]:
        """Name of the start -> accuracy on the test drawings."""
        return {name: run.metrics["test"]["accuracy"] for name, run in self.runs.items()}


def compare(
    out: str | Path,
    *,
    seed: int = 0,
    images: int = 8,
    tests: int = 50,
    epochs: int = 16,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Draw images of classes that the packaged weights have never seen, and train on them twice.

    Both trainings see the same images for as many epochs; only the start and the plan that fits it differ: the head
    and then everything on pretrained weights, everything at once on random ones.

    Args:
        out: the folder for drawings, runs and picture; replaced if it holds an earlier demonstration.
        images: of each class, to learn from; a quarter of them to validate on. tests: of each class, for the figures.
        say: is told what happens next.
    Raises:
        RunError: when the folder holds anything else.
    """
    began, out = time.monotonic(), Path(out)
    _prepare(out, {"seed": seed, "images": images, "tests": tests, "epochs": epochs})
    say(f"drawing {images} images of each of {len(DEMO)} classes ({', '.join(DEMO)}), and {tests} to test on")
    data = out / "drawings"
    held_out = max(1, images // 4)
    for part, count, number in (("train", images - held_out, 0), ("val", held_out, 1), ("test", tests, 2)):
        draw_folder(data / part, DEMO, count, 3 * seed + number)
    say(f"training on top of {WEIGHTS}, which knows other drawings")
    runs = {"pretrained": _train(data, out / "pretrained", seed, epochs, WEIGHTS)}
    say("training the same net from random values, as long")
    runs["from scratch"] = _train(data, out / "scratch", seed, epochs, None)
    from zoo.demo.picture import draw_picture

    picture = draw_picture(data / "test", runs, out / "demo.png")
    return Comparison(runs, picture, time.monotonic() - began)


def _prepare(out: Path, options: dict[str, int]) -> None:
    """An empty folder with a mark in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / MARK).is_file():
            raise RunError(f"{out} exists and holds no demonstration: choose another --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(json.dumps(options) + "\n", "utf-8")


def _train(data: Path, folder: Path, seed: int, epochs: int, weights: str | None) -> Run:
    import zoo
    from zoo.training import Augment

    start: dict[str, Any] = {} if weights else {"pretrained": False, "image_size": SIDE}
    model = zoo.create(weights or WEIGHTS.split(".")[0], "classifier", labels=list(DEMO), seed=seed, **start)
    return zoo.train(
        model, data, plan="head+all" if weights else "all", epochs=epochs, batch_size=12, seed=seed, out=folder,
        augment=Augment(scale=(0.7, 1.0)), show=lambda session: lambda event: None,
    )  # fmt: skip
