"""Every option reaches its owner; one that two have, or whose number cannot be, is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plugin_kit
import pytest
import training_kit
from typer.testing import CliRunner

import zoo
import zoo.registry
import zoo.training.plan
from zoo.cli.app import app
from zoo.data.augment import Augment
from zoo.errors import ConfigError, PluginError, UnknownNameError
from zoo.models.adapter import Adapter, option_fields
from zoo.models.model import Model
from zoo.models.options import by_owner
from zoo.models.saved import saved
from zoo.numbers import Accepted, check_class_weights
from zoo.registry import registry
from zoo.registry.options import task_options
from zoo.training import Phase
from zoo.training.config import OPTIONS
from zoo.weights.file import DESCRIPTION, read, write

PLUGIN = (
    training_kit.TINYNET.replace("tinynet", "padnet")
    .replace("TinyNet", "PadNet")
    .replace("in_channels=3, width=8):", 'in_channels=3, padding="torch", momentum=0.0):\n        width = 8')
    .replace("            min_size=8,", '            min_size=8,\n            options={"padding": ("torch", "same")},')
    + '''

from dataclasses import dataclass

from zoo.models.adapter import Adapter
from zoo.registry.spec import AdapterSpec


@dataclass(frozen=True)
class Padder(Adapter):
    """A task with an option that the backbone has, and one that the preprocessing has."""

    padding: str = "none"
    fill: int = 0
    depth: float = 1.0

    targets_from = ("class",)
    adjustable = ("depth",)
    renamed = {"deep": "depth"}

    def taps(self, spec):
        return ("body",)

    def build(self, inputs, *, rngs):
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
    with pytest.raises(ConfigError, match="padding` cannot be changed"):
        model.adjusted(**{"backbone.padding": "same"})


def test_a_saved_model_with_a_former_name_of_an_option_loads(tmp_path: Path):
    model = create(depth=2.0)
    file = zoo.save(model, tmp_path / "now.safetensors")
    tensors = read(file)
    said = json.loads(tensors.metadata[DESCRIPTION])
    said["adapter"]["deep"] = said["adapter"].pop("depth")
    before = tmp_path / "before.safetensors"
    write(before, tensors.load(), {DESCRIPTION: json.dumps(said)})
    assert zoo.load(before).adapter == model.adapter
    more = zoo.create("padnet", "padder", weights=str(before))
    assert more.adapter == model.adapter and "options of the saved model: depth=2.0" in more.card.notes
    for key in ("deep", "task.deep"):
        with pytest.raises(UnknownNameError, match="the option `deep` is now `depth`"):
            model.adjusted(**{key: 3.0})


def test_former_names_of_options_stand_for_options_there_are():
    for spec in registry().adapters().values():
        names = option_fields(spec.adapter)
        assert names.keys() >= set(spec.adapter.renamed.values())
        assert not names.keys() & spec.adapter.renamed.keys()


def test_every_option_of_zoos_tasks_is_described_and_its_default_is_accepted():
    for spec in registry().adapters().values():
        for option in task_options(spec.adapter).values():
            option.check(option.default)
            if option.name != "labels" and spec.adapter is not type(create().adapter):
                assert option.description.endswith(".") and (option.accepted or option.point), (spec.name, option.name)


def test_the_error_of_a_wrong_type_says_what_the_option_accepts():
    said = "width is 'x'; accepted: a whole number at least 1. Channels of the feature pyramid"
    with pytest.raises(ConfigError, match=said):
        zoo.create("resnet18", "detector", pretrained=False, num_classes=2, width="x")
    with pytest.raises(ConfigError, match=r"norm is 'layer'; accepted: batch \| group \| null\. Normalisation"):
        zoo.create("resnet18", "segmenter", pretrained=False, num_classes=2, norm="layer")
    with pytest.raises(ConfigError, match=r"tta_scales is -1.0; accepted: a finite number above 0\."):
        zoo.create("resnet18", "segmenter", pretrained=False, num_classes=2, tta_scales=(1.0, -1.0))


@pytest.mark.parametrize(
    ("task", "given", "internal"),
    [
        ("detector", "boxes", "max_boxes"),
        ("detector", "task.max_box", "max_boxes"),
        ("detector", "category_id", "category_ids"),
        ("segmenter", "rooms", "room"),
    ],
)
def test_errors_do_not_suggest_options_that_the_data_set(task, given, internal):
    with pytest.raises(UnknownNameError, match="unknown option") as caught:
        zoo.create("resnet18", task, pretrained=False, num_classes=2, **{given: 1})
    assert internal not in str(caught.value).partition(repr(given.removeprefix("task.")))[2]


def test_keys_that_first_party_tasks_and_backbones_share():
    """Style transfer's network and MobileNet's backbone both pad: no bare key may choose between them in silence."""
    with pytest.raises(ConfigError, match=r"task\.padding or backbone\.padding"):
        zoo.create("mobilenetv2_100", "style", pretrained=False, padding="same")
    with pytest.raises(ConfigError, match=r"task\.eps or backbone\.eps"):
        zoo.create("mobilenetv2_100", "style", pretrained=False, eps=1e-3)


def test_published_models_name_options_of_one_owner():
    from zoo.models.adapter import option_fields
    from zoo.models.request import PREPROCESS_OPTIONS
    from zoo.registry import registry

    found = registry()
    for row in found.rows("models"):
        model = found.model(row.name)
        task, backbone = found.adapter(model.adapter).adapter, found.backbone(model.backbone)
        owners = {"task": [*option_fields(task)], "backbone": [*backbone.options], "preprocess": PREPROCESS_OPTIONS}
        assert sum(map(len, by_owner(row.name, owners, model.config).values())) == len(model.config)


# Numbers --------------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
WRONG = {
    "epochs": [0, -1, 1.5, NAN, True],
    "lr": [0, -1e-3, NAN, INF],
    "batch_size": [0, -4, 2.5, NAN],
    "accumulate": [0, NAN],
    "seed": [-1, 0.5, 2**40],
    "weight_decay": [-0.1, NAN, INF],
    "clip": [-1, 0, NAN, INF],
    "ema": [-0.1, 1, NAN, INF],
    "patience": [0, -1, NAN],
    "val_fraction": [0, 1, -0.2, NAN],
    "checkpoint_seconds": [-1, NAN],
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_number_out_of_its_range_is_refused_before_data_are_read(name: str):
    assert WRONG.keys() == {one.name for one in OPTIONS if isinstance(one.option.accepted, Accepted)}
    model = create("padnet", "classifier")
    for value in WRONG[name]:
        with pytest.raises(ConfigError, match=f"^{name} is "):
            zoo.train(model, "no/such/folder", **{name: value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "nan"], "lr is nan; accepted: a finite number above 0"),
        (["--lr", "0"], "lr is 0.0"),
        (["--ema", "1.5"], "ema is 1.5"),
        (["--epochs", "0"], "epochs is 0"),
        (["--weight-decay", "inf"], "weight_decay is inf"),
        (["--patience", "0"], "patience is 0"),
        (["--clip", "nan"], "clip is nan"),
        (["--val-fraction", "1"], "val_fraction is 1.0"),
        (["--image-size", "0"], "image_size is 0"),
        (["--task", "classifier", "--set", "label_smoothing=NaN"], "label_smoothing is nan"),
        (["--task", "classifier", "--set", "label_smoothing=1"], "label_smoothing is 1.0"),
        (["--task", "classifier", "--set", "class_weights=[1,-1]"], "class_weights are"),
        (["--task", "classifier", "--set", "class_weights=[0,0]"], "not all of them 0"),
        (["--task", "classifier", "--set", "dorpout=0.1"], "dropout"),
        (["--task", "classifier", "--set", "padding=valid"], "padding is 'valid'; accepted: 'torch', 'same'"),
        (["--task", "padder", "--set", "padding=same"], "task.padding or backbone.padding"),
        (["--task", "padder", "--set", "task.depth=Infinity"], "depth is inf"),
        (["--task", "padder", "--set", "deep=2"], "the option `deep` is now `depth`."),
        (["--task", "detector", "--set", "overlap=0.5"], "the option `overlap` is now `nms_iou`."),
        (["--task", "segmenter", "--set", "task.objective=ce"], "the option `objective` is now `loss`."),
        (["--task", "classifier", "--set", "std=[1,NaN,1]"], "std"),
    ],
)
def test_the_command_line_refuses_before_data_are_read(options: list[str], words: str, tmp_path: Path):
    command = ["train", str(tmp_path / "missing"), "--backbone", "padnet", "--scratch", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, *options])
    assert isinstance(result.exception, ConfigError | UnknownNameError), result.output
    assert words in str(result.exception)


def test_the_background_of_transparent_images(tmp_path: Path):
    for given, colour in {
        "white": (255, 255, 255), "Black": (0, 0, 0), "drop": (), "1,2,3": (1, 2, 3), (9, 8, 7): (9, 8, 7), (): (),
    }.items():  # fmt: skip
        assert create(background=given).card.preprocess.background == colour
    assert create().card.preprocess.background == (255, 255, 255)
    for wrong in ("red", "1,2", "1,2,300", (1, 2, -1), "1.5,2,3", 3):
        with pytest.raises(ConfigError, match=r"background \(--background\) is .*; accepted: white, black, drop"):
            create(background=wrong)
    model = zoo.load(zoo.save(create("padnet", "classifier", background="1,2,3"), tmp_path / "m.safetensors"))
    assert model.card.preprocess.background == (1, 2, 3)
    # A model of an earlier version was trained on what transparency hides.
    file = read(tmp_path / "m.safetensors")
    said = json.loads(file.metadata[DESCRIPTION])
    del said["card"]["preprocess"]["background"]
    earlier = saved(replace(file, metadata={DESCRIPTION: json.dumps(said)}))
    assert earlier is not None and earlier.card.preprocess.background == ()


def test_numbers_of_a_model():
    for options in (
        {"in_channels": 0},
        {"in_channels": "3"},
        {"image_size": 0},
        {"image_size": (16, -1)},
        {"image_size": (16,)},
        {"image_size": NAN},
        {"seed": -1},
        {"preprocess.fill": 300},
        {"mean": [NAN] * 3},
        {"std": [0, 1, 1]},
        {"crop_pct": NAN},
        {"depth": NAN},
        {"depth": -INF},
    ):
        with pytest.raises(ConfigError, match=next(iter(options)).partition(".")[2] or next(iter(options))):
            create(**options)
    with pytest.raises(ConfigError, match="num_classes is -1"):
        zoo.create("padnet", "classifier", pretrained=False, num_classes=-1)
    with pytest.raises(ConfigError, match="drop_path_rate is nan"):
        zoo.create("convnext_tiny", "classifier", pretrained=False, num_classes=2, drop_path_rate=NAN)


def test_phases_rules_and_augmentation_have_ranges_too():
    model = create("padnet", "classifier")
    for phase in (Phase("x", (("*", 1.0),), 1, NAN), Phase("x", (("*", 1.0),), 0, 0.1)):
        with pytest.raises(ConfigError, match="of phase x is"):
            zoo.training.plan.make_plan(model, [phase], 1, None, None)
    for multiplier in (NAN, INF, 0, -1):
        with pytest.raises(ConfigError, match="multiplier"):
            zoo.train(model, "no/such/folder", rules=[("*", multiplier)])
    for options in ({"mixup": NAN}, {"cutmix": INF}, {"scale": (0.1, INF)}, {"hue": NAN}, {"color": -1}):
        with pytest.raises(ConfigError):
            Augment(**options)


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.0, 0.0), (NAN, 1.0), (1.0, INF), (1.0,), (1.0, 1.0, 1.0)])
def test_class_weights_that_cannot_be(weights: tuple[float, ...]):
    with pytest.raises(ConfigError, match="class_weights"):
        check_class_weights(weights, ("a", "b"))
    for task in ("classifier", "segmenter"):
        with pytest.raises(ConfigError, match="class_weights"):
            zoo.create("padnet", task, pretrained=False, labels=["background", "b"], class_weights=list(weights))


def test_numbers_of_numpy_are_numbers():
    assert np.float32(0.5) in Accepted(above=0) and np.int64(3) in Accepted(least=1, whole=True)
    assert np.float32("nan") not in Accepted() and "1" not in Accepted() and None not in Accepted()
    assert 2.0 not in Accepted(whole=True) and INF in Accepted(infinite=True)
    check_class_weights((0.0, 2.0), ("a", "b"))


@pytest.mark.parametrize("size", [0, -1, NAN, 2.5])
def test_batches_of_predictions_and_evaluations(size: Any):
    model = create("padnet", "classifier")
    with pytest.raises(ConfigError, match="batch_size is"):
        model.predict(np.zeros((2, 16, 16, 3), np.uint8), batch_size=size)
    with pytest.raises(ConfigError, match="batch_size is"):
        zoo.evaluate(model, "no/such/folder", batch_size=size)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_command_line_refuses_a_batch_of_none(command: str):
    result = CliRunner().invoke(app, [command, "no/such/run", "no/such/place", "--batch-size", "0"])
    assert isinstance(result.exception, ConfigError) and "batch_size is 0" in str(result.exception)


@pytest.mark.parametrize(
    ("member", "now"),
    [
        ({"losses": lambda self, model, reduced, batch: 0}, "loss_terms"),
        ({"loss": lambda self, outputs, batch: 0}, "loss_terms"),
        ({"predict": lambda self, model, images: []}, "inference"),
        ({"figures": lambda self, evaluation, folder: []}, "plots"),
        ({"recipe": property(lambda self: {})}, "recipe"),
        ({"fixed_backbone": True}, "fixed"),
        ({"looks_twice": True, "__annotations__": {"looks_twice": "ClassVar[bool]"}}, "tta"),
    ],
)
def test_a_task_of_the_former_contract_is_refused(member: dict[str, Any], now: str):
    name = next(iter(member))
    with pytest.raises(PluginError, match=rf"task Old: `{name}` is no longer part .* Define .*{now}.* instead"):
        type("Old", (Adapter,), member)
    with pytest.raises(PluginError, match=f"task Newer: `{name}`"):
        type("Newer", (type("Mixin", (), member), Adapter), {})


def test_options_may_have_names_of_the_former_contract():
    @dataclass(frozen=True)
    class Mixed(Adapter):
        loss: str = "ce"
        views: int = 3

    class Other(Mixed):
        loss = "dice"

    assert Mixed().views == 3 and Other.loss == "dice"
