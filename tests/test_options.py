"""Every option reaches its owner; one that two have, or whose number cannot be, is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plugin_kit
import pytest
import training_kit

import zoo
import zoo.registry
from zoo.errors import ConfigError, UnknownNameError
from zoo.model import Model
from zoo.options import by_owner

PLUGIN = (
    training_kit.TINYNET.replace("tinynet", "padnet")
    .replace("TinyNet", "PadNet")
    .replace("in_channels=3, width=8):", 'in_channels=3, padding="torch", momentum=0.0):\n        width = 8')
    .replace("            min_size=8,", '            min_size=8,\n            options={"padding": ("torch", "same")},')
    + '''

from dataclasses import dataclass

from zoo.adapter import Adapter
from zoo.spec import AdapterSpec


@dataclass(frozen=True)
class Padder(Adapter):
    """A task with an option that the backbone has, and one that the preprocessing has."""

    padding: str = "none"
    fill: int = 0
    depth: float = 1.0

    targets_from = ("class",)
    adjustable = ("depth",)

    def taps(self, spec):
        return ("body",)

    def build(self, spec, shapes, *, size, rngs):
        return Nothing()


class Nothing(nnx.Module):
    def reduce(self, features):
        return features

    def reads(self):
        return {}

    def __call__(self, features):
        return features["body"].mean((1, 2))


@zoo.hookimpl
def zoo_adapters():
    return [AdapterSpec("padder", Padder)]


@zoo.hookimpl
def zoo_models():
    return [zoo.ModelSpec("padded", "padnet", "padder", {"task.padding": "much", "backbone.padding": "same"})]
'''
)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    plugin_kit.distribution(folder, "padnet", PLUGIN)
    sys.path.insert(0, str(folder))
    zoo.registry.reset()
    yield
    sys.path.remove(str(folder))
    zoo.registry.reset()


def create(name: str = "padnet", task: str | None = "padder", **options: Any) -> Model:
    return zoo.create(name, task, pretrained=False, num_classes=2, **options)


def padding(model: Model) -> tuple[Any, Any]:
    return model.adapter.padding, model.card.options["padding"]  # type: ignore[attr-defined]


def test_an_option_of_two_owners_must_say_whose_it_is():
    with pytest.raises(ConfigError, match=r"task\.padding or backbone\.padding"):
        create(padding="same")
    with pytest.raises(ConfigError, match=r"task\.fill or preprocess\.fill"):
        create(fill=3)
    assert padding(create()) == ("none", "torch")
    assert padding(create(**{"backbone.padding": "same"})) == ("none", "same")
    assert padding(create(**{"task.padding": "same"})) == ("same", "torch")
    assert padding(create(**{"task.padding": "a", "backbone.padding": "same"})) == ("a", "same")
    model = create(**{"preprocess.fill": 7})
    assert (model.adapter.fill, model.card.preprocess.fill) == (0, 7)  # type: ignore[attr-defined]


def test_an_option_of_one_owner_goes_by_its_name_or_with_its_owner():
    for key in ("depth", "task.depth"):
        assert create(**{key: 3}).adapter.depth == 3  # type: ignore[attr-defined]
    assert create(**{"preprocess.crop_pct": 0.5}).card.preprocess.crop_pct == 0.5
    assert create("padnet", "classifier", padding="same").card.options["padding"] == "same"
    for key, nearest in {"task.depht": "depth", "backbone.pading": "padding", "depht": "depth"}.items():
        with pytest.raises(UnknownNameError, match=nearest):
            create(**{key: 1})
    with pytest.raises(ConfigError, match=r"depth and task\.depth are the same option"):
        create(**{"depth": 1, "task.depth": 2})


def test_a_named_models_options_give_way_to_the_users():
    assert padding(create("padded", None)) == ("much", "same")
    assert padding(create("padded", None, **{"backbone.padding": "torch"})) == ("much", "torch")


def test_a_trained_models_option_may_name_its_owner():
    model = create()
    assert model.adjusted(**{"task.depth": 0.5}).adapter.depth == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="padding cannot be"):
        model.adjusted(**{"backbone.padding": "same"})


def test_keys_that_first_party_tasks_and_backbones_share():
    """Style transfer's network and MobileNet's backbone both pad: no bare key may choose between them in silence."""
    with pytest.raises(ConfigError, match=r"task\.padding or backbone\.padding"):
        zoo.create("mobilenetv2_100", "style", pretrained=False, padding="same")
    with pytest.raises(ConfigError, match=r"task\.eps or backbone\.eps"):
        zoo.create("mobilenetv2_100", "style", pretrained=False, eps=1e-3)


def test_published_models_name_options_of_one_owner():
    from zoo.adapter import option_fields
    from zoo.compose import PREPROCESS_OPTIONS
    from zoo.registry import registry

    found = registry()
    for row in found.rows("models"):
        model = found.model(row.name)
        task, backbone = found.adapter(model.adapter).adapter, found.backbone(model.backbone)
        owners = {"task": [*option_fields(task)], "backbone": [*backbone.options], "preprocess": PREPROCESS_OPTIONS}
        assert sum(map(len, by_owner(row.name, owners, model.config).values())) == len(model.config)
