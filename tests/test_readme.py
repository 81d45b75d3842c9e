"""The README is true: its programs run, and its commands exist with the options that it names."""

from __future__ import annotations

import re
import shlex
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from typer.main import get_command

from zoo.demo.draw import DEMO, draw_folder
from zoo.models.backbone import feature_shapes

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def blocks(language: str, holding: str) -> str:
    """Return the one block of that language with that text in it."""
    (block,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return block


def commands() -> list[list[str]]:
    """Return every `zoo ...` line of the shell blocks, split into words."""
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", "").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme") / "drawings"
    for part, count in (("train", 3), ("val", 2)):
        draw_folder(folder / part, dict(list(DEMO.items())[:2]), count, count)
    return folder


def test_the_three_lines(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classes = sorted(p.name for p in (data / "train").iterdir())
    photo = next((data / "val").rglob("*.png"))
    program = blocks("python", "run.model.predict")
    # The packaged weights and drawings replace what the README would download, and two epochs of the head alone
    # replace ten: `test_demo.py` takes the default plan.
    for written, replacement in (
        ("resnet18.a1_in1k", "resnet20.demo"),
        ('["ants", "bees"]', repr(classes)),
        ('"data/ants_bees"', f"{str(data)!r}, epochs=2, batch_size=4, plan='head'"),
        ('"photo.jpg"', repr(str(photo))),
        ("run.model.predict", "prediction = run.model.predict"),
    ):
        assert written in program
        program = program.replace(written, replacement)
    names: dict = {}
    exec(program, names)
    assert names["prediction"].label in classes
    assert names["run"].metrics["epochs"] == 2
    assert (names["run"].folder / "model.safetensors").is_file()


def test_the_python_section(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = blocks("python", "zoo.save")
    program = program.replace("mobilenetv2_100", "mobilenetv2_035").replace("image_size=160", "image_size=32")
    program = "\n".join(line for line in program.splitlines() if "zoo.evaluate" not in line)
    images = [np.zeros((40, 40, 1), np.uint8)]
    names: dict = {"images": images, "x": jnp.zeros((1, 32, 32, 1)), "zoo": __import__("zoo")}
    exec(program, names)
    assert [m.shape[1] for m in names["maps"].values()] == [8, 4, 2, 1]
    assert names["logits"].shape == (1, 5)


def test_the_training_loop(data: Path) -> None:
    program = blocks("python", "nnx.value_and_grad")
    for written, replacement in (
        ("resnet18.a1_in1k", "resnet20.demo"),
        ('"data/ants_bees"', repr(str(data))),
        ("batch_size=16", "batch_size=2"),
        ("model.freeze(", "before = nnx.clone(model)\nmodel.freeze("),
    ):
        assert written in program
        program = program.replace(written, replacement)
    names: dict = {}
    exec(program, names)
    before, after = (dict(nnx.to_flat_state(nnx.state(names[name], nnx.Param))) for name in ("before", "model"))
    moved = {path for path in after if not np.array_equal(before[path][...], after[path][...])}
    assert moved == {path for path in after if names["rules"].trains(path)}


def test_the_plugin_example_keeps_the_contract() -> None:
    module = types.ModuleType("my_nets")
    exec(blocks("python", "zoo_backbones"), module.__dict__)
    (spec,) = module.zoo_backbones()
    shapes = feature_shapes(spec, (32, 32), ["stem", "body"])
    assert {name: s.shape for name, s in shapes.items()} == {"stem": (1, 16, 16, 16), "body": (1, 8, 8, 32)}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_line_parses(words: list[str]) -> None:
    from zoo.cli.adjusting import AdjustingCommand
    from zoo.cli.app import app

    command = get_command(app)
    name, *rest = words
    sub = command.get_command(None, name)  # type: ignore[attr-defined]
    if hasattr(sub, "commands") and rest and rest[0] in sub.commands:
        sub, rest = sub.commands[rest[0]], rest[1:]
    options = {flag for parameter in sub.params for flag in parameter.opts}
    options |= sub.task_flags().keys() if isinstance(sub, AdjustingCommand) else set()
    assert {word for word in rest if word.startswith("--")} <= options
