"""An option of training is declared once: checks, signature, documentation, flags and types follow from its field."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
import typer
from typer.testing import CliRunner

import zoo
from zoo.cli.app import app
from zoo.cli.config import values, with_flags
from zoo.errors import ConfigError, UnknownNameError
from zoo.models.adapter import Adapter, Training
from zoo.numbers import Accepted
from zoo.registry.parts import Point
from zoo.training import Augment, TrainConfig
from zoo.training.config import OPTIONS, Recipe
from zoo.training.options import configured, declared, option
from zoo.training.points import OPTIMIZERS, PLANS, SCHEDULES

ROOT = Path(__file__).resolve().parent.parent
NAMES = [one.name for one in fields(TrainConfig)]


# One declaration -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def help_text() -> str:
    return CliRunner().invoke(app, ["train", "--help"]).output


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_the_signature_the_documentation_and_the_help(name: str, help_text: str):
    (one,) = [one for one in OPTIONS if one.name == name]
    parameter = inspect.signature(zoo.train).parameters[name]
    assert (parameter.default, parameter.kind) == (one.default, inspect.Parameter.KEYWORD_ONLY)
    assert re.search(rf"^    {name}: \S", inspect.getdoc(zoo.train) or "", re.MULTILINE)
    flag = {"rules": "--rule"}.get(name, f"--{name.replace('_', '-')}")
    assert (re.search(rf"^  {flag}\b", help_text, re.MULTILINE) is None) == (name == "show")


def test_the_documentation_says_defaults_of_tasks_and_ranges(help_text: str):
    text = " ".join((inspect.getdoc(zoo.train) or "").split())
    assert "batch_size: Images per batch. Default: the task's own, else 32. Accepted: a whole number at" in text
    assert "{options}" not in text and "config: The options below" in text and "Returns:" in text
    assert "the task's own, else 32" in " ".join(help_text.split())


@dataclass(frozen=True, kw_only=True)
class Longer(TrainConfig):
    """A configuration with options more."""

    widen_by: int = option(2, "How much wider", accepted=Accepted(least=1, whole=True))
    loud: bool = option(True, "Say more")


def test_a_field_is_all_that_an_option_needs():
    options = tuple(declared(Longer))
    seen: list[Any] = []

    @configured(Longer, options)
    def train(model: Any, data: Any, config: Longer) -> Any:
        """Train.

        Args:
            {options}
        """
        seen.append(config)

    @with_flags(options)
    def command(data: str, **flags: Any) -> None:
        seen.append(Longer(**values(options, flags)))

    train(None, "data", widen_by=3)  # type: ignore[arg-type]
    assert seen.pop() == Longer(widen_by=3)
    assert "widen_by: How much wider. Accepted: a whole number at least 1." in (train.__doc__ or "")
    with pytest.raises(ConfigError, match="widen_by is 0; accepted: a whole number at least 1"):
        Longer(widen_by=0)
    program = typer.Typer()
    program.command()(command)
    result = CliRunner().invoke(program, ["data", "--widen-by", "4", "--no-loud", "--clip", "0", "--plan", ""])
    assert result.exit_code == 0, result.output
    assert seen.pop() == Longer(widen_by=4, loud=False, clip=None)


# Values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_norm": "fixed"}, "batch_norm is 'fixed'; accepted: auto, frozen, batch"),
        ({"augment": "strong"}, "augment is 'strong'; accepted: auto or none"),
        ({"augment": None}, "augment is None"),
        ({"annotations": "ignore"}, "'ignore'; accepted: error, fix, drop"),
        ({"optimizer": 3}, "optimizer is 3; accepted: adam, adamw, lion, sgd, or a function"),
        ({"cache": "no"}, "cache is 'no'; accepted: True or False"),
        ({"val_fraction": None}, "val_fraction is None"),
        ({"seed": float("nan")}, "seed is nan"),
        ({"rules": [("*", -1.0)]}, "multiplier"),
    ],
)
def test_values_that_are_not_accepted(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        TrainConfig(**options)


def test_names_that_nothing_has():
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adamq'. Nearest: adam, adamw"):
        TrainConfig(optimizer="adamq")
    with pytest.raises(UnknownNameError, match="unknown schedule 'cosin'. Nearest: cosine"):
        TrainConfig(schedule="cosin")
    with pytest.raises(UnknownNameError, match="the option `figures` is now `plots`"):
        zoo.train(None, "no/such/folder", figures=False)  # type: ignore[call-overload]
    with pytest.raises(UnknownNameError, match="unknown option 'batchsize' of train. Nearest: batch_size"):
        zoo.train(None, "no/such/folder", batchsize=3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="config is 'head'; accepted: a TrainConfig"):
        zoo.train(None, "no/such/folder", "head")  # type: ignore[call-overload]
    result = CliRunner().invoke(app, ["train", "no/such/folder", "--out", "no/run", "--optimizer", "adamq"])
    assert isinstance(result.exception, UnknownNameError)


def test_a_configuration_is_a_value():
    config = TrainConfig(plan="head", seed=np.int64(3))  # type: ignore[arg-type]
    assert replace(config, epochs=3) == TrainConfig(plan="head", seed=3, epochs=3) != config
    with pytest.raises(AttributeError):
        config.seed = 4  # type: ignore[misc]
    with pytest.raises(ConfigError, match="epochs is 0"):
        replace(config, epochs=0)


# What the task decides -------------------------------------------------------------------------------------------


class Own(Adapter):
    """A task with a recipe of its own."""

    training = Training(
        recipe={"plan": "head", "epochs": 4, "steps": 80, "lr": 2e-3, "batch_size": 8, "augment": {"hflip": False}}
    )


def test_a_recipe_is_what_was_given_else_the_tasks_own_else_the_default():
    recipe = Recipe.of(Own(), TrainConfig(batch_size=16, seed=5))
    assert (recipe.plan, recipe.epochs, recipe.batch_size, recipe.seed) == ("head", 4, 16, 5)
    assert (recipe.weight_decay, recipe.ema, recipe.lr, recipe.head_rate) == (0.01, 0.0, None, 2e-3)
    assert recipe.augmentation == Augment(hflip=False) and not recipe.statistics
    assert recipe.epochs_for(2) == 40
    assert Recipe.of(Own(), TrainConfig(epochs=3)).epochs_for(2) == 3, "epochs that are given are all there are"
    assert Recipe.of(Own(), TrainConfig(rules=[("*", 1.0)])).lr == 2e-3
    assert Recipe.of(Own(), TrainConfig(augment="none")).augmentation is None
    assert Recipe.of(Own(), pretrained=False).statistics


def test_a_tasks_own_values_have_ranges_too():
    own = Own()
    own.training = Training(recipe={"batch_size": 0})  # type: ignore[misc]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        Recipe.of(own)


def test_weight_decay_of_an_optimizer_that_brings_its_own():
    with pytest.raises(ConfigError, match="weight_decay is 0.1, but an optimizer that is a function"):
        Recipe.of(Adapter(), TrainConfig(optimizer=optax.adabelief, weight_decay=0.1))


def test_what_a_resumed_run_must_have_the_same():
    """Functions by their names: an address is another one in the next process."""
    own = partial(optax.sgd, momentum=0.5)
    fixed = Recipe.of(Adapter(), TrainConfig(optimizer=own, schedule=SCHEDULES["linear"], seed=np.int64(3))).fixed()  # type: ignore[arg-type]
    assert json.loads(json.dumps(fixed))["optimizer"] == {
        "function": f"{optax.sgd.__module__}.sgd",
        "args": [],
        "keywords": {"momentum": 0.5},
    }
    assert (fixed["schedule"], fixed["seed"]) == ("zoo.training.schedules.linear", 3)
    assert fixed["augment"]["hflip"] is True and fixed["batch_size"] == 32
    assert not fixed.keys() & {
        "out",
        "resume",
        "show",
        "plots",
        "checkpoint_seconds",
        "epochs",
        "plan",
        "rules",
        "lr",
    }


# Rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [OPTIMIZERS, SCHEDULES, PLANS])
def test_rows_are_documented_under_their_names(rows: Point[Any], help_text: str):
    assert all(row.__doc__ and (row.__name__ == name or rows is PLANS) for name, row in rows.items())
    assert f"Names: {', '.join(rows)}." in " ".join(help_text.split())
    assert f"`zoo list {rows.plural}` shows the names." in " ".join((inspect.getdoc(zoo.train) or "").split())


# Types -----------------------------------------------------------------------------------------------------------

SNIPPET = """
import zoo
from zoo.training import TrainConfig

model = zoo.create("resnet18", "classifier", num_classes=2)
reveal_type(model)
reveal_type(zoo.train(model, "data"))
reveal_type(zoo.train(model=model, data="data", config=TrainConfig(epochs=3), seed=2))
zoo.train(model, "data", epochs=3, lr=1e-3, optimizer="sgd", out="run", plan="head")
zoo.train(model, "data", TrainConfig(), epochs=None, rules=[("*", None)], show=lambda session: print)
zoo.train(model, "data", epochs="3")  # wrong
zoo.train(model, "data", epoch=3)  # wrong
zoo.train(model, "data", TrainConfig(), seeed=3)  # wrong
zoo.train(model)  # wrong
TrainConfig(sed=3)  # wrong
"""


MYPY = """
[mypy]
python_version = 3.11
[mypy-jax.*,flax.*,optax.*,orbax.*,grain.*,numpy.*,scipy.*,PIL.*,matplotlib.*,rich.*,huggingface_hub.*]
follow_imports = skip
"""
"""Libraries are left out, which would take a minute; what they give is Any, and what zoo gives is not."""


def test_type_checkers_know_the_options_and_every_public_name(tmp_path: Path):
    pytest.importorskip("mypy")
    if not (ROOT / "zoo" / "__init__.py").is_file():
        pytest.skip("mypy reads the sources of the repository")
    file, config = tmp_path / "snippet.py", tmp_path / "mypy.ini"
    file.write_text(SNIPPET + "".join(f"\nreveal_type(zoo.{name})" for name in zoo.__all__))
    config.write_text(MYPY)
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path), str(file)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    lines = SNIPPET.splitlines()
    errors = {int(number) for number in re.findall(r"snippet\.py:(\d+): error", said)}
    assert errors == {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}, said
    types = re.findall(r'snippet\.py:\d+: note: Revealed type is "(.*)"', said)
    assert types[:3] == ["zoo.models.model.Model", "zoo.training.run.Run", "zoo.training.run.Run"]
    assert len(types) == 3 + len(zoo.__all__) and "Any" not in types, said
