"""What the README says is what happens: its programs run, its commands exist with the options it names."""

from __future__ import annotations

import re
import shlex
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from typer.main import get_command

from zoo.demo.draw import DEMO, draw_folder
from zoo.models.backbone import feature_shapes

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def blocks(language: str, holding: str) -> str:
    """The one block of that language with that text in it."""
    (found,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return found


def commands() -> list[list[str]]:
    """Every `zoo ...` line of the shell blocks, in words."""
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
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
    # The packaged weights and drawings stand in for what the README would download; two epochs for ten, of
    # the head alone: `test_demo.py` takes the default plan.
    for there, here in (
        ("resnet18.a1_in1k", "resnet20.demo"),
        ('["ants", "bees"]', repr(classes)),
        ('"data/ants_bees"', f"{str(data)!r}, epochs=2, batch_size=4, plan='head'"),
        ('"photo.jpg"', repr(str(photo))),
        ("run.model.predict", "seen = run.model.predict"),
    ):
        assert there in program
        program = program.replace(there, here)
    names: dict = {}
    exec(program, names)
    assert names["seen"].label in classes
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


def test_the_plugin_example_keeps_the_contract() -> None:
    module = types.ModuleType("my_nets")
    exec(blocks("python", "zoo_backbones"), module.__dict__)
    (spec,) = module.zoo_backbones()
    shapes = feature_shapes(spec, (32, 32), ["stem", "body"])
    assert {name: s.shape for name, s in shapes.items()} == {"stem": (1, 16, 16, 16), "body": (1, 8, 8, 32)}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_line_parses(words: list[str]) -> None:
    from zoo.cli.app import app

    command = get_command(app)
    name, *rest = words
    sub = command.get_command(None, name)  # type: ignore[attr-defined]
    if hasattr(sub, "commands") and rest and rest[0] in sub.commands:
        sub, rest = sub.commands[rest[0]], rest[1:]
    options = {flag for parameter in sub.params for flag in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options
