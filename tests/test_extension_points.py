"""Extension points: what plugins of others add is used like zoo's own, changes no default, and is recorded."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import plugin_kit as kit
import pytest
from boxes_kit import PYRAMIDNET
from boxes_kit import drawn as drawn_boxes
from masks_kit import drawn_masks
from PIL import Image, ImageDraw
from training_kit import FAST, TINYNET, draw_folder
from typer.testing import CliRunner

import zoo
import zoo.registry
from zoo.adapters.detector import Detector
from zoo.adapters.detector.heads import METHODS
from zoo.cli.app import app
from zoo.data import read
from zoo.data.augment import named
from zoo.data.convert import convert_dataset
from zoo.data.readers import FORMATS
from zoo.errors import ConfigError, DataError, PluginError, UnknownNameError
from zoo.models.export import native_tensors
from zoo.models.points import EXPORTS
from zoo.registry import registry
from zoo.registry.parts import points_of
from zoo.training.config import TrainConfig
from zoo.training.plans import phases_of
from zoo.training.points import OPTIMIZERS, PLANS, SCHEDULES
from zoo.training.rules import assign

EXAMPLES = kit.ROOT / "examples" / "plugins"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the examples."""
    folder = tmp_path_factory.mktemp("site")
    packages = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))
    assert packages
    copies = tmp_path_factory.mktemp("sources")
    for package in packages:
        subprocess.run(["cp", "-r", str(package), str(copies)], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run(
        [*command, str(folder), *(str(copies / package.name) for package in packages)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def installed(site: Path) -> Iterator[None]:
    sys.path.insert(0, str(site))
    zoo.registry.reset()
    yield
    sys.path[:] = [path for path in sys.path if path != str(site)]
    zoo.registry.reset()


def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, version: str = "1.0") -> None:
    kit.distribution(tmp_path / name, name, source, version=version)
    monkeypatch.syspath_prepend(str(tmp_path / name))
    zoo.registry.reset()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    zoo.registry.reset()


# Reading a point -----------------------------------------------------------------------------------------------------


def test_a_point_is_a_mapping_of_what_plugins_give() -> None:
    assert list(METHODS) == ["fcos", "rcnn", "yolox"] and len(METHODS) == 3 and "fcos" in METHODS
    assert METHODS["flax-zoo/fcos"] is METHODS["fcos"]
    assert set(METHODS.summaries()) == set(METHODS) and all(METHODS.summaries().values())
    with pytest.raises(UnknownNameError, match=r"unknown detector head 'fcoz'.*fcos"):
        METHODS["fcoz"]
    assert points_of(Detector) == {"head": METHODS}


def test_a_part_of_another_type_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import zoo\nfrom zoo.registry.spec import Part\n@zoo.hookimpl\ndef zoo_parts():\n"
    plugin(tmp_path, monkeypatch, "odd", source + "    return [Part('detector.head', 'odd', 'json:loads')]\n")
    with pytest.raises(
        PluginError, match=r"detector head 'odd' is .*; the extension point detector.head accepts a Method"
    ):
        METHODS["odd"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Part('heads', 'x', 1)", "two words with a dot"),
        ("Part('detector.head', 'a/b', 1)", "the name must consist of"),
        ("('detector.head', 'x')", "it must give Part values"),
    ],
)
def test_parts_that_are_none_are_said(given: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"import zoo\nfrom zoo.registry.spec import Part\n@zoo.hookimpl\ndef zoo_parts():\n    return [{given}]\n"
    name = f"wrong{given.count('/')}{len(given)}"
    plugin(tmp_path, monkeypatch, name, source)
    (record,) = [record for record in registry().records() if record.distribution == name]
    assert record.state == "failed" and words in record.reason


def test_a_bare_name_goes_on_meaning_zoos_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = METHODS["fcos"]
    source = (
        "import zoo\nfrom zoo.registry.spec import Part\n@zoo.hookimpl\ndef zoo_parts():\n"
        "    from zoo.adapters.detector.heads import OWN\n"
        "    return [Part('detector.head', name, OWN['rcnn']) for name in ('fcos', 'mine')]\n"
    )
    plugin(tmp_path, monkeypatch, "foreign", source)
    assert METHODS["fcos"] is own and METHODS["foreign/fcos"] is METHODS["rcnn"] is METHODS["mine"]
    assert list(METHODS) == ["fcos", "foreign/fcos", "mine", "rcnn", "yolox"]


def test_a_broken_format_of_others_stands_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "import zoo\nfrom zoo.registry.spec import Part\n"
        "class Broken:\n    NAME, KINDS, LAYOUT = 'broken', ('class',), 'x'\n"
        "    def detect(self, path):\n        raise OSError('no disk')\n@zoo.hookimpl\ndef zoo_parts():\n"
        "    return [Part('data.format', 'broken', Broken()), Part('data.format', 'gone', 'nowhere:x')]\n"
    )
    plugin(tmp_path, monkeypatch, "brokenformat", source)
    assert read(draw_folder(tmp_path / "data", count=2))["all"].classes == ("disc", "frame")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "a.bin").write_bytes(b"x")
    with pytest.warns(UserWarning) as said, pytest.raises(DataError, match="no known data layout"):
        read(tmp_path / "nothing")
    words = " ".join(str(one.message) for one in said)
    assert "the data format broken failed" in words and "'gone' cannot be loaded from nowhere:x" in words


def test_points_are_found_without_a_future_import() -> None:
    @dataclasses.dataclass(frozen=True)
    class Task:
        head: Any = "fcos"

    Task.__dataclass_fields__["head"].type = Annotated[str, METHODS]  # type: ignore[attr-defined]
    assert points_of(Task) == {"head": METHODS}


def test_points_of_a_task_that_extends_another_are_found() -> None:
    """The names in the annotations are those of the module of the task that is extended."""
    from zoo.adapters.segmenter import Segmenter

    @dataclasses.dataclass(frozen=True)
    class Wider(Segmenter):
        more: int = 1

    assert "decoder" in points_of(Segmenter)
    assert points_of(Wider) == points_of(Segmenter)


# The examples --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
def test_the_examples_are_listed_and_change_no_default() -> None:
    found = [record for record in registry().records() if record.distribution.startswith("zoo-")]
    assert found and {record.state for record in found} == {"ok"}
    assert {"wide-fcos", "fcos"} <= set(METHODS) and Detector(labels=("a",)).head == "fcos"
    assert "listing" in FORMATS


@pytest.mark.usefixtures("installed")
def test_a_decoder_and_a_head_of_others_train_and_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without their distribution the saved model is refused, saying what to install."""
    plugin(tmp_path, monkeypatch, "pyramidnet", PYRAMIDNET)
    common = {"pretrained": False, "image_size": 64, "width": 16}
    data = drawn_masks(tmp_path / "masks", 4)
    model = zoo.create("pyramidnet", "segmenter", decoder="sum", labels=data.classes, **common)
    assert model.card.plugins["segmenter.decoder:sum"].distribution == "zoo-extras"
    parts: dict[str, Any] = {"train": data, "val": data}
    run = zoo.train(model, parts, plan="head", epochs=1, out=tmp_path / "run", **FAST)
    assert np.isfinite(run.metrics["loss"])
    again = zoo.load(tmp_path / "run")
    assert again.adapter.decoder == "zoo-extras/sum"  # type: ignore[attr-defined]
    more = zoo.create("pyramidnet", "segmenter", weights=str(tmp_path / "run"), labels=data.classes)
    assert more.adapter.decoder == "zoo-extras/sum"  # type: ignore[attr-defined]
    file = data[0].image
    assert np.array_equal(again.predict(file).mask, run.model.predict(file).mask)
    boxes = drawn_boxes(tmp_path / "boxes", 2)
    head = zoo.create("pyramidnet", "detector", head="wide-fcos", labels=boxes.classes, convs=0, **common)
    assert type(head.head.head).__module__ == "zoo_extras.head"  # type: ignore[attr-defined]
    sys.path[:] = [path for path in sys.path if not (Path(path) / "zoo_extras").is_dir()]
    zoo.registry.reset()
    with pytest.raises(PluginError, match="zoo-extras 0.1.0 is needed, but it is not installed: `pip install zoo-ex"):
        zoo.load(tmp_path / "run")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_a_loss_of_others_trains_alone_and_in_a_sum(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its distribution is recorded, and its values are part of the sum."""
    plugin(tmp_path, monkeypatch, "pyramidnet", PYRAMIDNET)
    data = drawn_masks(tmp_path / "d", 4) if task == "segmenter" else read(draw_folder(tmp_path / "d", count=2))["all"]
    common: dict[str, Any] = {"pretrained": False, "image_size": 64, "labels": data.classes}
    if task == "segmenter":
        common["decoder"] = "linear"  # the quickest to compile: losses see logits alone
    for loss, term in (("poly1", None), ("ce + 0.5*zoo-extras/poly1", "loss_zoo-extras/poly1")):
        model = zoo.create("pyramidnet", task, loss=loss, **common)
        assert model.card.plugins[f"{task}.loss:poly1"].distribution == "zoo-extras"
        folder = tmp_path / ("sum" if term else "alone")
        parts: dict[str, Any] = {"train": data, "val": data}
        run = zoo.train(model, parts, plan="head", epochs=1, out=folder, **FAST)
        assert run.metrics["loss"] > 0 and (term is None or 0 < run.metrics[term] < run.metrics["loss"])
        assert zoo.load(folder).adapter.loss.endswith("zoo-extras/poly1")  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match=r"unknown .* loss 'poly2'. Nearest: poly1"):
        zoo.create("pyramidnet", task, loss="ce+poly2", **common)


@pytest.mark.usefixtures("installed")
def test_a_data_format_of_others_is_recognised_where_zoo_reads_nothing(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "data", count=2)
    files = sorted(folder.rglob("*.png"))
    assert read(folder)["all"].classes == ("disc", "frame")
    lines = [f"{file.relative_to(folder).as_posix()}\t{file.parent.name}-like" for file in files]
    (folder / "listing.txt").write_text("\n".join(lines))
    assert read(folder)["all"].classes == ("disc", "frame")  # zoo's own format fits as before
    assert read(folder, "listing")["all"].classes == ("disc-like", "frame-like")
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(files):
        file.rename(flat / f"{i}.png")
    (flat / "listing.txt").write_text("\n".join(f"{i}.png\t{'ab'[i % 2]}" for i in range(len(files))))
    part = read(flat)["all"]
    assert (part.classes, len(part)) == (("a", "b"), len(files))
    for name in ("listing", "zoo-extras/listing"):
        convert_dataset(flat, name, out := tmp_path / name.replace("/", "-"))
        assert (out / "listing.txt").read_text() == f"{(flat / 'listing.txt').read_text()}\n"
    with pytest.raises(DataError, match="cannot hold flat: its splits are read as all, not train"):
        convert_dataset({"train": part}, "listing", tmp_path / "split")


class Steps:
    """The losses of a training's steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, session: Any) -> Any:
        return lambda event: self.losses.append(float(event[1]["loss"])) if event[1]["kind"] == "step" else None


@pytest.mark.usefixtures("installed")
def test_an_optimizer_and_an_augmentation_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, on the command line as well: each makes another training, and none is an unknown name."""
    plugin(tmp_path, monkeypatch, "tinynet", TINYNET)
    data = read(draw_folder(tmp_path / "data", count=4))["all"]
    losses = []
    for number, how in enumerate(({}, {"optimizer": "zoo-extras/adabelief"}, {"augment": "none+shift"})):
        model = zoo.create("tinynet", "classifier", labels=data.classes, pretrained=False)
        steps, parts = Steps(), {"train": data, "val": data}
        options = {**FAST, "show": steps, "epochs": 2, "plan": "all", **how}
        zoo.train(model, parts, out=tmp_path / str(number), **options)
        losses.append(steps.losses)
    assert losses[0][0] == losses[1][0] and losses[0][1:] != losses[1][1:]
    assert losses[2] != losses[0] and all(map(np.isfinite, (one for some in losses for one in some)))
    both, auto = named("auto+shift", {"color": 0.3}), named("auto", {"color": 0.3})
    assert both.called == ("zoo_extras.shift.Shift",) and all(
        getattr(both, f.name) == getattr(auto, f.name) for f in dataclasses.fields(auto)
    )
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adabelieve'.*adabelief"):
        zoo.train(model, parts, optimizer="adabelieve")
    with pytest.raises(UnknownNameError, match="unknown augmentation 'shft'.*shift"):
        zoo.train(model, parts, augment="auto+shft")


@pytest.mark.usefixtures("installed")
def test_a_plan_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row: it may have several phases and an argument, stands beside other plans, and is in help and errors."""
    plugin(tmp_path, monkeypatch, "tinynet", TINYNET)
    data = read(draw_folder(tmp_path / "data", count=4))["all"]
    model = zoo.create("tinynet", "classifier", labels=data.classes, pretrained=False)
    parts = {"train": data, "val": data}
    run = zoo.train(model, parts, out=tmp_path / "run", **{**FAST, "plan": "gradual:1+all", "epochs": 3})
    assert [row["phase"] for row in run.history] == ["gradual:1 1", "gradual:1 2", "all"]
    frozen = [[path for path in ("backbone.conv1.kernel", "backbone.conv2.kernel") if not trains(model, rules, path)]
              for rules in phases_of(model, "gradual")]  # fmt: skip
    assert frozen == [["backbone.conv1.kernel", "backbone.conv2.kernel"], ["backbone.conv1.kernel"], []]
    assert phases_of(model, "zoo-extras/gradual") == phases_of(model, "gradual")
    with pytest.raises(ConfigError, match="plan gradual:9: the number of stages must be from 1 to 2"):
        zoo.train(model, parts, plan="gradual:9")
    with pytest.raises(UnknownNameError, match="unknown plan 'gradul'.*gradual"):
        zoo.train(model, parts, plan="gradul")
    help_text = " ".join(CliRunner().invoke(app, ["train", "--help"]).output.split())
    assert re.search(r"Names: [^.]*\bhead\b[^.]*\.", help_text) and "gradual" in help_text


@pytest.mark.usefixtures("installed")
def test_an_export_format_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row: it is in `zoo.export`, on the command line, in help, errors and lists."""
    plugin(tmp_path, monkeypatch, "tinynet", TINYNET)
    model = zoo.create("tinynet", "classifier", labels=("a", "b"), pretrained=False)
    zoo.save(model, tmp_path / "saved")
    runner = CliRunner()
    done = runner.invoke(app, ["export", str(tmp_path / "saved"), "--format", "zoo-extras/npz"])
    folder = tmp_path / "saved" / "export-zoo-extras-npz"
    assert done.output.strip() == str(folder)
    arrays = dict(np.load(folder / "model.npz"))
    assert arrays.keys() == dict(native_tensors(model)).keys() and len(arrays) > 2
    assert json.loads((folder / "labels.json").read_text()) == ["a", "b"]
    with pytest.raises(UnknownNameError, match="unknown export format 'npy'. Nearest: npz"):
        zoo.export(model, tmp_path / "other", "npy")
    assert not (tmp_path / "other").exists()
    assert "Names: npz, original, timm, torchvision" in " ".join(
        runner.invoke(app, ["export", "--help"]).output.split()
    )
    listed = json.loads(runner.invoke(app, ["list", "exports", "--json"]).stdout)
    assert [row["name"] for row in listed] == ["npz", "original", "timm", "torchvision", "transformers"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "import zoo\nfrom zoo.registry.spec import Part\n"
        "def broken(model, folder):\n    (folder / 'half').write_text('x')\n    raise OSError('disk full')\n"
        "@zoo.hookimpl\ndef zoo_parts():\n    return [Part('model.export', 'broken', broken)]\n"
    )
    plugin(tmp_path, monkeypatch, "brokenexport", source)
    plugin(tmp_path, monkeypatch, "tinynet", TINYNET)
    model = zoo.create("tinynet", "classifier", labels=("a", "b"), pretrained=False)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(OSError, match="disk full"):
            zoo.export(model, tmp_path / name, "broken")
    assert not (tmp_path / "new").exists() and not any((tmp_path / "empty").iterdir())


def test_every_point_accepts_the_qualified_form_of_a_name() -> None:
    """As a key, as a member, and as an option of a training; a distribution that lacks the part does not."""
    for point in (OPTIMIZERS, SCHEDULES, PLANS, EXPORTS, METHODS, FORMATS):
        for name in point:
            assert f"flax-zoo/{name}" in point and f"Flax_Zoo/{name}" in point
            assert point[f"flax-zoo/{name}"] is point[name]
            assert f"flax-zoo/{name}-" not in point and f"other/{name}" not in point
        assert None not in point and "flax-zoo/" not in point
    config = TrainConfig(optimizer="flax-zoo/lion", schedule="flax-zoo/linear")
    assert (config.optimizer, config.schedule) == ("flax-zoo/lion", "flax-zoo/linear")
    with pytest.raises(UnknownNameError, match="unknown optimizer 'other/lion'. .*lion"):
        TrainConfig(optimizer="other/lion")


def trains(model: Any, rules: Any, path: str) -> bool:
    return assign(model, rules).trains(tuple(path.split(".")))


# A task --------------------------------------------------------------------------------------------------------------


def spots(folder: Path, count: int, side: int = 48) -> Path:
    """Grey images with a white disc each, and where its centre is."""
    folder.mkdir()
    lines = ["image,x1,y1"]
    for i in range(count):
        rng = np.random.default_rng([5, i])
        image = Image.fromarray(rng.integers(40, 90, (side, side, 3), dtype=np.uint8))
        x, y = rng.uniform(8, side - 8, 2)
        ImageDraw.Draw(image).ellipse([x - 5, y - 5, x + 5, y + 5], fill="white")
        image.save(folder / f"{i}.png")
        lines.append(f"{i}.png,{x:.2f},{y:.2f}")
    (folder / "points.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.usefixtures("installed")
def test_a_task_is_one_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point regression with a kind of target, reader, figures, pictures and a command of its own, on the command line;
    its points move with augmentation, or they would not be learned."""
    data, run = spots(tmp_path / "data", 60), tmp_path / "run"
    plugin(tmp_path, monkeypatch, "tinynet", TINYNET)
    options = ("--backbone", "tinynet", "--scratch", "--image-size", "48", "--plan", "all", "--epochs", "40")
    trained = kit.called("train", data, *options, "--lr", "0.003", "--out", run)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["r2"] >= 0.9, metrics
    assert metrics["plots"] and all((run / name).is_file() for name in metrics["plots"])
    photo = data / "3.png"
    line = kit.called("points", run, photo).stdout.strip().split(",")
    true = [float(v) for v in (data / "points.csv").read_text().splitlines()[4].split(",")[1:]]
    assert line[0] == str(photo) and np.abs(np.array(line[1:], float) - true).max() < 6
    seen = kit.called("predict", run, photo, "--out", tmp_path / "seen")
    assert seen.returncode == 0 and "point" in seen.stdout, seen.stderr
    picture = np.asarray(Image.open(tmp_path / "seen" / "3.png"))
    assert (picture[..., 0].astype(int) - picture[..., 1] > 150).any()  # a red cross


@pytest.mark.usefixtures("installed")
def test_a_command_of_others_is_listed_without_its_import_and_runs(site: Path, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "data", count=3)
    listed = kit.called("--help")
    assert "census" in listed.stdout and "Count the images of each class" in listed.stdout
    found = kit.zoo("census", str(folder), paths=(site,))
    assert found.stdout == "all\tdisc\t3\nall\tframe\t3\n", found.stderr


@pytest.mark.usefixtures("installed")
def test_points_and_parts_of_others_are_listed() -> None:
    from zoo.cli.app import app

    def listed(*words: str) -> Any:
        return json.loads(CliRunner().invoke(app, ["list", *words, "--json"]).stdout)

    points = listed()
    assert points["zoo.command"] == 3 and points["segmenter.decoder"] == 9
    assert [row["distribution"] for row in listed("decoders", "sum")] == ["zoo-extras"]
