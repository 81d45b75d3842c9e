"""The examples run: each on a small drawn dataset, with the smallest backbone that serves."""

from __future__ import annotations

import importlib.util
import re
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import plugin_kit as kit
import pytest
from boxes_kit import FAST, drawn, installed, pyramidnet, write_coco  # noqa: F401
from masks_kit import LABELS, drawn_masks, scene
from PIL import Image
from training_kit import own_cache, same  # noqa: F401

import zoo
from zoo.demo.draw import DEMO, draw_folder

SMALL = "resnet20.demo"
QUIET = {key: value for key, value in FAST.items() if key != "augment"}


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", kit.ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("examples") / "drawings", DEMO, 8, seed=0)


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def images(folder, count=2):
    return [str(file) for file in sorted(folder.rglob("*.png"))[:count]]


def test_classify(drawings, tmp_path, capsys):
    run = example("classify").main(
        str(drawings), images(drawings), SMALL, plan="head", epochs=2, out=tmp_path / "run", **QUIET
    )
    assert run.metrics["accuracy"] > 1.5 / len(DEMO)
    assert sum(line.split(": ")[1].split()[0] in DEMO for line in capsys.readouterr().out.splitlines()[1:]) == 2


@pytest.mark.exhaustive  # other tests run the same calls on the same small nets
def test_detect(tmp_path, monkeypatch):
    small = {"pretrained": False, "image_size": 64, "frames": (), "width": 32, "convs": 1}
    monkeypatch.setattr(zoo, "create", partial(zoo.create, **small))
    data = write_coco(drawn(tmp_path / "drawn", 6), tmp_path / "drawn")
    paths = images(data)
    drawings = example("detect").main(str(data), paths, "pyramidnet", epochs=1, out=tmp_path / "run", **QUIET)
    assert [pixels(file).shape for file in drawings] == [pixels(file).shape for file in paths]


@pytest.mark.exhaustive  # other tests run the same calls on the same small nets
def test_segment(tmp_path):
    drawn_masks(tmp_path / "drawn", 6)
    (tmp_path / "drawn" / "classes.txt").write_text("\n".join(LABELS))
    paths = images(tmp_path / "drawn" / "images")
    masks = example("segment").main(
        str(tmp_path / "drawn"), paths, SMALL, image_size=64, width=16, epochs=1, out=tmp_path / "run", **QUIET
    )
    for path, mask in zip(paths, masks, strict=True):
        assert pixels(mask).shape == pixels(path).shape[:2]
        assert pixels(mask).max() < len(LABELS)


@pytest.mark.exhaustive  # other tests run the same calls on the same small nets
def test_stylize(tmp_path):
    for number, name in enumerate(("content", "style")):
        scene(number, (48, 64))[0].save(tmp_path / f"{name}.png")
    out = tmp_path / "painted.png"
    example("stylize").main(str(tmp_path / "content.png"), str(tmp_path / "style.png"), str(out), SMALL, steps=2)
    painted, content = pixels(out), pixels(tmp_path / "content.png")
    assert painted.shape == content.shape and np.abs(painted - content).mean() > 1


def test_features_find_the_same_class(drawings):
    kinds = sorted(folder.name for folder in drawings.iterdir())
    query = sorted((drawings / kinds[0]).iterdir())[0]
    nearest = example("features").main(str(drawings), str(query), SMALL, count=3)
    assert len(nearest) == 3 and query not in nearest
    assert nearest[0].parent.name == kinds[0]


def test_freezing_rules(drawings, tmp_path):
    before = zoo.create(SMALL, "classifier", num_classes=0)
    rules = [("head.*", 1.0), ("backbone.layer3.*", 0.1), ("*", None)]
    run = example("freezing_rules").main(str(drawings), SMALL, rules, epochs=1, out=tmp_path / "run", **QUIET)
    now = run.model.backbone
    assert same(before.backbone.layer1, now.layer1) and not same(before.backbone.layer3, now.layer3)


def test_own_data(drawings, tmp_path):
    for file in drawings.rglob("*.png"):
        shutil.copy(file, tmp_path / f"{file.parent.name}_{file.name}")
    run = example("own_data").main(str(tmp_path), SMALL, epochs=2, out=tmp_path / "run", **QUIET)
    assert run.model.labels == tuple(sorted(DEMO))
    assert run.metrics["accuracy"] > 1.5 / len(DEMO)


def test_own_loop(drawings):
    assert example("own_loop").main(str(drawings), SMALL, epochs=8, batch_size=8) > 1.5 / len(DEMO)


def test_every_example_is_run():
    files = {file.stem for file in (kit.ROOT / "examples").glob("*.py")}
    tested = set(re.findall(r'example\("(\w+)"\)', Path(__file__).read_text()))
    assert files == tested


@pytest.mark.exhaustive  # other tests run the same calls on the same small nets
def test_offline():
    assert example("offline").main(images=6, epochs=4) > 1.5 / len(DEMO)
