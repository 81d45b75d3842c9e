"""Exported checkpoints have the reference's names and shapes, and mean the same when read back.

That timm and torchvision compute the same from them is shown by `tools/export_roundtrip.py`, which needs both.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import parity_kit as kit
import pytest
import seeded

import zoo
from zoo.errors import ConfigError, RunError, UnknownNameError
from zoo.models.export import config_of, export, native_tensors
from zoo.models.model import Model
from zoo.models.points import EXPORTS
from zoo.models.predictor import decode_pixels
from zoo.weights.file import read
from zoo.weights.load import layouts_of

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def _model(name: str, case: str = "default", **kwargs: object) -> Model:
    spec = kit.backbones()[name]
    model = kit.composed(spec, kit.options_of(spec, case), **kwargs)  # type: ignore[arg-type]
    kit.load(model, seeded.tensors(kit.checkpoint_shapes(model), kit.golden(name, case)["scales"]))
    return model


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(*given.values, layout, marks=given.marks)
        for given in kit.each_family()
        for layout in layouts_of(kit.backbones()[given.values[0]])
    ],
)
def test_names_and_shapes_are_the_references(name: str, layout: str, tmp_path: Path) -> None:
    export(_model(name), tmp_path / "out", layout)
    assert seeded.digest(read(tmp_path / "out").shapes()) == kit.golden(name)["keys"][layout]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=given.marks)
        for given in kit.each_family()
        for name, case in kit.cases()
        if name == given.values[0]
    ],
)
def test_an_export_read_back_is_the_same_model(name: str, case: str, tmp_path: Path) -> None:
    model = _model(name, case, labels=("ant", "bee", "wasp"))
    layout = list(layouts_of(model.spec))[-1]
    size = kit.golden(name)["size"]
    native, image_size = model.card.preprocess, (max(size[0], 32), max(size[1], 32))
    model.card = replace(
        model.card, preprocess=replace(native, crop_pct=0.5, mean=(0.1, 0.2, 0.3), size=image_size), license="mit"
    )
    folder = export(model, tmp_path / "out", layout)
    again = zoo.create(name, "classifier", weights=str(folder))
    assert again.labels == ("ant", "bee", "wasp")
    assert again.card.preprocess == model.card.preprocess
    assert again.card.options == model.card.options
    assert again.card.license == "mit"
    mine, theirs = dict(native_tensors(model)), dict(native_tensors(again))
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine)
    # Equal programs of equal arrays give equal logits.
    model.spec = again.spec
    assert kit.fingerprint(again, kit.golden(name, case)) == kit.fingerprint(model, kit.golden(name, case))
    if name == kit.one_per_family()[0]:
        pixels = np.random.default_rng(0).integers(0, 256, (2, *image_size, 3), np.uint8)
        assert np.array_equal(decode_pixels(again, pixels)["logits"], decode_pixels(model, pixels)["logits"])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_exported_for_what_they_are(channels: int, tmp_path: Path) -> None:
    name = kit.one_per_family()[0]
    model = _model(name, labels=("ant", "bee"), in_channels=channels)
    folder = export(model, tmp_path / "out", model.spec.native_layout)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"]["in_chans"] == config["pretrained_cfg"]["input_size"][0] == channels
    assert config["pretrained_cfg"].get("first_conv") is None, "or timm would adapt it once more"
    again = zoo.create(name, "classifier", weights=str(folder), in_channels=channels)
    assert again.card.preprocess == model.card.preprocess
    mine, theirs = dict(native_tensors(model)), dict(native_tensors(again))
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=given.marks)
        for given in kit.each_family(large=True)
        for name, case in kit.cases()
        if name == given.values[0]
    ],
)
def test_the_configuration_says_the_build_options(name: str, case: str) -> None:
    spec = kit.backbones()[name]
    options = kit.options_of(spec, case)
    model = kit.composed(spec, options)
    config = config_of(model)
    wanted = {k: v for option, value in options.items() for k, v in spec.export_args[option][value].items()}
    assert config["architecture"] == name
    assert config["model_args"] == wanted
    assert config["pretrained_cfg"]["classifier"] == spec.classifier.path
    assert config["pretrained_cfg"]["first_conv"] + ".weight" in dict(kit.checkpoint_slots(model))


@pytest.mark.parametrize("name", kit.each_family(large=True))
def test_the_configuration_fixes_the_size_where_tensors_follow_it(name: str) -> None:
    """Or timm would build the net for its own default size and resample the position embeddings at loading."""
    spec = kit.backbones()[name]
    assert config_of(kit.composed(spec))["pretrained_cfg"].get("fixed_input_size", False) == bool(spec.resampled)


def test_a_saved_file_is_exported_like_a_model(tmp_path: Path) -> None:
    name = kit.one_per_family()[0]
    model = _model(name, labels=("ant", "bee"))
    zoo.save(model, tmp_path / "saved")
    layout = model.spec.native_layout
    one, two = export(model, tmp_path / "one", layout), export(tmp_path / "saved", tmp_path / "two", layout)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (one / "config.json").read_text() == (two / "config.json").read_text()


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    name = kit.one_per_family()[0]
    model = _model(name, labels=("ant", "bee"))
    with pytest.raises(UnknownNameError, match=f"unknown export format 'keras'.*{model.spec.native_layout}"):
        export(model, tmp_path / "out", "keras")
    lacking = next(name for name in EXPORTS if name not in layouts_of(model.spec))
    with pytest.raises(ConfigError, match=f"cannot be exported as '{lacking}'; its key layouts are .*timm"):
        export(model, tmp_path / "out", lacking)
    head = zoo.create(name, "classifier", pretrained=False, num_classes=2, head="mlp")
    with pytest.raises(ConfigError, match="head=auto"):
        export(head, tmp_path / "out", model.spec.native_layout)
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="full"):
        export(model, tmp_path / "full", model.spec.native_layout)
