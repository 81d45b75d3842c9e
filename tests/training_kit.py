"""A net that compiles fast, as an installed plugin, and drawn datasets to train it on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import plugin_kit
import pytest
from flax import nnx
from PIL import Image, ImageDraw

import zoo
import zoo.registry
from zoo.models.model import Model

TINYNET = '''
"""TinyNet: two convolutions with normalisation, for tests of training."""

import functools

from flax import nnx

import zoo
from zoo.models.backbone import Backbone
from zoo.layers import BatchNorm, Conv
from zoo.registry.spec import ClassifierLayout, Preprocess, Stage, WeightSpec

ZOO_API = 1


class TinyNet(Backbone):
    def __init__(self, *, rngs, in_channels=3, width=8):
        self.conv1 = Conv(in_channels, width, 3, 2, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, 16, 3, 2, 1, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(16, rngs=rngs)

    def stages(self):
        return {"stem": self.stem, "body": self.body}

    def stem(self, x):
        return nnx.relu(self.bn1(self.conv1(x)))

    def body(self, x):
        return nnx.relu(self.bn2(self.conv2(x)))


@zoo.hookimpl
def zoo_backbones():
    return [
        zoo.BackboneSpec(
            name="tinynet",
            family="TinyNet",
            build=TinyNet,
            stages=(
                Stage("stem", 8, 2, modules=("conv1", "bn1")),
                Stage("body", 16, 4, modules=("conv2", "bn2")),
            ),
            classifier=ClassifierLayout("fc", labels=""),
            preprocess=Preprocess(size=(16, 16), crop_pct=1.0),
            min_size=8,
            citation="@misc{tinynet}",
        )
    ]
'''

DRAW: dict[str, Callable[[ImageDraw.ImageDraw, list[int]], None]] = {
    "disc": lambda draw, box: draw.ellipse(box, fill="white"),
    "frame": lambda draw, box: draw.rectangle(box, outline="red", width=2),
    "stripe": lambda draw, box: draw.rectangle([0, box[1], 40, box[1] + 3], fill="yellow"),
    "wedge": lambda draw, box: draw.polygon([box[0], box[3], box[2], box[3], box[2], box[1]], fill="blue"),
}
"""What tells the classes apart."""


@contextmanager
def optimised() -> Iterator[None]:
    """Compile as users do: for trainings of many steps, which optimised programs make quicker, and whose outcome must
    not rest on the rounding of others than those."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


CLASSES = ("disc", "frame", "stripe")
FAST: dict[str, Any] = {
    "plots": False,
    "augment": "none",
    "batch_size": 8,
    "show": lambda session: lambda event: None,
}
"""Options of a training that shows and draws nothing."""


def picture(kind: str, seed: int, side: int = 20) -> Image.Image:
    """Draw an image; equal arguments give equal images."""
    rng = np.random.default_rng([seed, *kind.encode()])
    image = Image.fromarray(rng.integers(60, 120, (side, side, 3), dtype=np.uint8))
    x, y = (int(v) for v in rng.integers(1, side // 3, 2))
    DRAW[kind](ImageDraw.Draw(image), [x, y, x + side // 2, y + side // 2])
    return image


def draw_folder(root: Path, classes: Sequence[str] = ("disc", "frame"), count: int = 8, start: int = 0) -> Path:
    """Write a folder of `count` images of each class, numbered from `start`."""
    for kind in classes:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            picture(kind, i).save(root / kind / f"{i}.png")
    return root


def draw_splits(root: Path, classes: Sequence[str] = ("disc", "frame"), **counts: int) -> Path:
    """Write a folder with splits, e.g. `train=16, val=8`; no image is in two of them."""
    start = 0
    for split, count in counts.items():
        draw_folder(root / split, classes, count, start)
        start += count
    return root


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of `CLASSES` in splits."""
    return draw_splits(tmp_path_factory.mktemp("drawn"), CLASSES, train=8, val=4, test=3)


@pytest.fixture(scope="session")
def tinynet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin, as an installer leaves it, for the path of another process."""
    folder = tmp_path_factory.mktemp("site")
    plugin_kit.distribution(folder, "tinynet", TINYNET)
    return folder


@pytest.fixture(scope="module", autouse=True)
def installed(tinynet: Path) -> Iterator[None]:
    """The plugin, installed in this process for the tests of one module."""
    sys.path.insert(0, str(tinynet))
    zoo.registry.reset()
    yield
    sys.path.remove(str(tinynet))
    zoo.registry.reset()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own empty folders for features and downloads."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo-cache"))


def create(labels: tuple[str, ...] = CLASSES, **options: Any) -> Model:
    return zoo.create("tinynet", "classifier", labels=labels, pretrained=False, **options)


def values(model: nnx.Module, kind: Any = (nnx.Param, nnx.BatchStat)) -> dict[tuple, np.ndarray]:
    return {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(nnx.state(model, kind))}


def same(one: nnx.Module, other: nnx.Module) -> bool:
    a, b = values(one), values(other)
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)
