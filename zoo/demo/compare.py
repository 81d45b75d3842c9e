"""Train one network twice on the same few images, with and without pretrained weights, and compare the accuracies."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import settings
from zoo.demo.draw import DEMO, SIDE, draw_folder
from zoo.errors import RunError

if TYPE_CHECKING:
    from zoo.training import Run

WEIGHTS = "resnet20.demo"
MARK = "demo.json"
"""File that marks the folder of a demonstration. Only a folder with this file is replaced by a new demonstration."""


@dataclass(frozen=True)
class Comparison:
    """Result of the demonstration.

    Attributes:
        runs: the runs `pretrained` and `from scratch`. `metrics["test"]` of a run has the accuracy on new drawings.
        picture: PNG file with example drawings and plots of the accuracies.
        seconds: duration of the whole demonstration.
    """

    runs: dict[str, Run]
    picture: Path
    seconds: float

    def accuracies(self) -> dict[str, float]:
        """Return the accuracy on the test drawings: name of the run -> accuracy."""
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
    """Draw images of classes that are new to the packaged weights, and train on them twice.

    Both runs use the same images and the same number of epochs. They differ in the initial parameters and in the plan
    that suits these: first the head, then everything, on pretrained weights; everything at once from scratch.

    Args:
        out: folder for the drawings, the runs and the picture. An earlier demonstration in it is replaced.
        seed: seed of the drawings and of both runs.
        images: images of each class for training and validation; a quarter of them is for validation.
        tests: images of each class in the test split.
        epochs: epochs of each run.
        say: function that is called with a remark before each step.

    Raises:
        RunError: the folder holds anything but a demonstration.
    """
    began, out = time.monotonic(), settings.expanded(out)
    _prepare(out, {"seed": seed, "images": images, "tests": tests, "epochs": epochs})
    say(f"drawing {images} images of each of {len(DEMO)} classes ({', '.join(DEMO)}), and {tests} to test on")
    data = out / "drawings"
    held_out = max(1, images // 4)
    for split, count, number in (("train", images - held_out, 0), ("val", held_out, 1), ("test", tests, 2)):
        draw_folder(data / split, DEMO, count, 3 * seed + number)
    say(f"fine-tuning {WEIGHTS}, which was trained on drawings of other classes")
    runs = {"pretrained": _train(data, out / "pretrained", seed, epochs, WEIGHTS)}
    say("training the same network from scratch, for as many epochs")
    runs["from scratch"] = _train(data, out / "scratch", seed, epochs, None)
    from zoo.demo.picture import draw_picture

    picture = draw_picture(data / "test", runs, out / "demo.png")
    return Comparison(runs, picture, time.monotonic() - began)


def _prepare(out: Path, options: dict[str, int]) -> None:
    """Make `out` an empty folder with the mark in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / MARK).is_file():
            raise RunError(f"{out} exists and is not an earlier demonstration: choose another folder with --out.")
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
