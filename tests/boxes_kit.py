"""Helpers for end-to-end tests of detectors: a net with a pyramid that compiles fast, and drawn boxes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plugin_kit
import pytest
from PIL import Image, ImageDraw

import zoo
import zoo.registry
from zoo.data import Dataset, Sample
from zoo.data.boxes import Boxes
from zoo.models.model import Model

PYRAMIDNET = '''
"""PyramidNet: five convolutions with normalisation, each halving the map."""

from flax import nnx

import zoo
from zoo.models.backbone import Backbone
from zoo.layers import BatchNorm, Conv
from zoo.registry.spec import ClassifierLayout, Preprocess, Stage

ZOO_API = 1
WIDTHS = (8, 16, 24, 32, 32)


class PyramidNet(Backbone):
    def __init__(self, *, rngs, in_channels=3):
        inputs = (in_channels, *WIDTHS)
        for i, width in enumerate(WIDTHS):
            setattr(self, f"conv{i}", Conv(inputs[i], width, 3, 2, 1, bias=False, rngs=rngs))
            setattr(self, f"bn{i}", BatchNorm(width, rngs=rngs))

    def stages(self):
        return {f"s{2 ** (i + 1)}": self.stage(i) for i in range(len(WIDTHS))}

    def stage(self, i):
        return lambda x: nnx.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))


@zoo.hookimpl
def zoo_backbones():
    return [
        zoo.BackboneSpec(
            name="pyramidnet",
            family="PyramidNet",
            build=PyramidNet,
            stages=tuple(
                Stage(f"s{2 ** (i + 1)}", width, 2 ** (i + 1), modules=(f"conv{i}", f"bn{i}"))
                for i, width in enumerate(WIDTHS)
            ),
            classifier=ClassifierLayout("fc", labels=""),
            preprocess=Preprocess(size=(32, 32), crop_pct=1.0),
            min_size=32,
            citation="@misc{pyramidnet}",
        )
    ]
'''
COLOURS = {"red": (225, 30, 40), "green": (30, 200, 60), "blue": (40, 70, 230)}
LABELS = tuple(COLOURS)
SIDE = 64
FAST: dict[str, Any] = {
    "plots": False,
    "augment": "none",
    "batch_size": 8,
    "show": lambda session: lambda event: None,
}
"""Options of a training that shows and draws nothing."""


def drawn(
    folder: Path, count: int, *, sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE),), start: int = 0, name: str = "drawn"
) -> Dataset:
    """Images of these sizes (height, width) in turn, with one or two coloured rectangles each, numbered from `start`;
    equal numbers give equal images."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(start, start + count):
        rng, (height, width) = np.random.default_rng([7, i]), sizes[i % len(sizes)]
        image = Image.fromarray(rng.integers(90, 130, (height, width, 3), dtype=np.uint8))
        boxes, labels = [], []
        for half in range(1 + i % 2):
            # Two rectangles lie in the two halves of the longer side, so that they never touch.
            w, h = (int(n) for n in rng.integers(min(height, width) // 5, min(height, width) // 2 - 2, 2))
            across, down = (width // 2, 0) if width >= height else (0, height // 2)
            room = (width - across - w, height - down - h)
            x, y = (int(rng.integers(0, side)) for side in room)
            x, y, label = x + across * half, y + down * half, int(rng.integers(len(LABELS)))
            ImageDraw.Draw(image).rectangle([x, y, x + w - 1, y + h - 1], fill=COLOURS[LABELS[label]])
            boxes.append((float(x), float(y), float(x + w), float(y + h)))
            labels.append(label)
        image.save(folder / f"{i}.png")
        target = Boxes(tuple(boxes), tuple(labels), (False,) * len(boxes), (height, width))
        samples.append(Sample(folder / f"{i}.png", target, f"{i}.png"))
    return Dataset(tuple(samples), LABELS, "boxes", name, folder)


def write_coco(dataset: Dataset, folder: Path, first: int = 1, numbers: Sequence[int] = ()) -> Path:
    """The data set's annotations beside its images, as a folder in COCO's format; `first`: the first image's id,
    `numbers`: those of the categories."""
    images, annotations = [], []
    numbers = numbers or range(1, len(dataset.classes) + 1)
    for i, sample in enumerate(dataset, first):
        height, width = sample.target.size
        images.append({"id": i, "file_name": sample.image.name, "height": height, "width": width})
        for (x1, y1, x2, y2), label in zip(sample.target.boxes, sample.target.labels, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": numbers[label], "bbox": box, "iscrowd": 0}
                | {"area": box[2] * box[3]}
            )
    categories = [{"id": k, "name": label} for k, label in zip(numbers, dataset.classes, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def pyramidnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    plugin_kit.distribution(folder, "pyramidnet", PYRAMIDNET)
    return folder


@pytest.fixture(scope="module", autouse=True)
def installed(pyramidnet: Path) -> Iterator[None]:
    """The plugin, installed in this process for the tests of one module."""
    sys.path.insert(0, str(pyramidnet))
    zoo.registry.reset()
    yield
    sys.path.remove(str(pyramidnet))
    zoo.registry.reset()


def create(head: str = "fcos", **options: Any) -> Model:
    """Return a small detector with random weights."""
    given = {"labels": LABELS, "image_size": SIDE, "frames": (), "width": 32, "convs": 1, **options}
    return zoo.create("pyramidnet", "detector", pretrained=False, head=head, **given)
