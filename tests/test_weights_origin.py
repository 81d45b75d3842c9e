"""What travels with a weight file besides its tensors, and what is made of other libraries' configurations."""

from __future__ import annotations

import io
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import parity_kit as kit
import pytest
from weights_kit import FAMILIES, NAME, SPEC, create, saved, tensors, values

import zoo
from zoo.errors import WeightsError
from zoo.labels import names as label_names
from zoo.models.origin import origin_of
from zoo.registry.spec import Convention, Preprocess

pytestmark = pytest.mark.usefixtures("strict_dtypes")


# What travels with the file ----------------------------------------------------------------------------------------


def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pickle.dump({"conv1.weight": [1.0]}, stream)
    for name in ("model.safetensors", "model.pth"):
        (tmp_path / name).write_bytes(stream.getvalue())
        with pytest.raises(WeightsError, match="pickle"):
            create(str(tmp_path / name))


def test_a_model_saved_by_zoo_serves_as_weights_for_other_classes(tmp_path: Path) -> None:
    first = create(saved(tmp_path / "source", tensors()), labels=["ant", "bee"], mean=[0.4, 0.4, 0.4], crop_pct=0.5)
    zoo.save(first, tmp_path / "saved")
    model = create(str(tmp_path / "saved"), labels=["x", "y", "z"])
    assert model.labels == ("x", "y", "z")
    assert model.card.preprocess == first.card.preprocess
    body = zip(values(first.backbone), values(model.backbone), strict=True)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in body)


def test_the_configuration_beside_the_file_is_honoured(tmp_path: Path) -> None:
    config = {
        "architecture": NAME,
        "num_classes": 1000,
        "pretrained_cfg": {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "input_size": [3, 96, 64],
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "squash",
            "license": "mit",
        },
    }
    card = create(saved(tmp_path, tensors(), config)).card
    assert card.preprocess == Preprocess((96, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.9, "squash")
    assert card.license == "mit"


def test_what_the_user_says_comes_before_the_configuration(tmp_path: Path) -> None:
    config = {"architecture": NAME, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "input_size": [3, 96, 64]}}
    card = create(saved(tmp_path, tensors(), config), mean=[0.5, 0.5, 0.5], image_size=64).card
    assert card.preprocess.mean == (0.5, 0.5, 0.5) and card.preprocess.size == (64, 64)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=given.marks)
        for given in kit.each_family()
        for name, case in kit.cases()
        if name == given.values[0] and case != "default"
    ],
)
def test_build_options_are_read_from_timms_arguments(name: str, case: str, tmp_path: Path) -> None:
    spec = kit.backbones()[name]
    options = kit.options_of(spec, case)
    arguments = {k: v for option, value in options.items() for k, v in spec.export_args[option][value].items()}
    config = {"architecture": name, "model_args": arguments, "pretrained_cfg": {}}
    source = saved(tmp_path, tensors(name), config)
    assert zoo.create(name, "classifier", weights=source).card.options == spec.build_options(options)


def test_a_configuration_for_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="vit_tiny"):
        create(saved(tmp_path, tensors(), {"architecture": "vit_tiny", "pretrained_cfg": {}}))


@pytest.mark.parametrize(("field", "value"), [("mean", "grey"), ("crop_pct", 7), ("input_size", 224)])
def test_a_damaged_configuration_is_one_sentence(field: str, value: object, tmp_path: Path) -> None:
    config = {"architecture": NAME, "pretrained_cfg": {field: value}}
    with pytest.raises(WeightsError, match="config.json"):
        create(saved(tmp_path, tensors(), config))


@pytest.mark.parametrize("name", kit.due(n for n in FAMILIES if kit.backbones()[n].ignored))
def test_what_the_net_has_no_use_for_is_ignored_with_the_reason(name: str, tmp_path: Path) -> None:
    spec = kit.backbones()[name]
    # One name for each pattern: `*` stands for a letter here, `[12]` for its first.
    extra = {re.sub(r"\[(.).*?\]", r"\1", glob).replace("*", "a"): why for glob, why in spec.ignored.items()}
    arrays = tensors(name) | {other: np.zeros(2, np.float32) for other in extra}
    report = kit.load(kit.composed(spec), arrays)
    assert report.ignored == extra
    card = zoo.create(name, "classifier", weights=saved(tmp_path, arrays), num_classes=2).card
    origins = [c.preprocess for c in spec.conventions if c.recognise(arrays)]
    assert card.preprocess == (origins or [spec.preprocess])[0]


@pytest.mark.parametrize("name", [n for n in FAMILIES if any(c.options for c in kit.backbones()[n].conventions)])
def test_another_origin_is_recognised_by_the_values(name: str, tmp_path: Path) -> None:
    """Batch norms that do nothing were folded; a user's own word still counts more."""
    arrays = tensors(name)
    for tensor, array in arrays.items():
        if tensor.endswith(("running_mean", "running_var")):
            arrays[tensor] = np.full_like(array, tensor.endswith("var"))
    convention = kit.backbones()[name].conventions[0]
    card = zoo.create(name, "classifier", weights=saved(tmp_path, arrays)).card
    assert dict(card.options) | dict(convention.options) == dict(card.options)
    assert card.preprocess == convention.preprocess
    assert any(convention.name in note for note in card.notes)
    option, choices = next(iter(kit.backbones()[name].options.items()))
    said = zoo.create(name, "classifier", weights=str(tmp_path), **{option: choices[0]}).card
    assert said.options[option] == choices[0] != card.options[option]
    assert said.preprocess == convention.preprocess


def test_without_any_word_the_familys_defaults_are_used_and_said(tmp_path: Path) -> None:
    card = create(saved(tmp_path, tensors())).card
    assert card.preprocess == SPEC.preprocess
    assert any("nothing is known" in note for note in card.notes)


# Other libraries' files --------------------------------------------------------------------------------------------

STATISTICS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
# What image processors of transformers write, old and new, and what it means.
PROCESSORS = {
    "both sides": ({"size": {"height": 96, "width": 64}, "resample": 3}, ((96, 64), 1.0, "squash", "bicubic")),
    "one number": ({"size": 64, "resample": 2}, ((64, 64), 1.0, "squash", "bilinear")),
    "shortest side and crop": (
        {"size": {"shortest_edge": 80}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
        ((64, 64), 0.8, "center", "bilinear"),
    ),
    "numbers and crop": (
        {"size": 80, "do_center_crop": True, "crop_size": 64, "resample": 1},
        ((64, 64), 0.8, "center", "lanczos"),
    ),
    "crop share": ({"size": {"shortest_edge": 64}, "crop_pct": 0.875}, ((64, 64), 0.875, "center", "bilinear")),
    "large and crop share": (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
        ((384, 384), 1.0, "squash", "bilinear"),
    ),
}


def transformers_folder(folder: Path, processor: object = None, **config: object) -> str:
    source = saved(folder, tensors(), {"model_type": "vit", "transformers_version": "5.0", **config})
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return source


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_image_processor_of_transformers_is_honoured(kind: str, tmp_path: Path) -> None:
    processor, (size, crop_pct, crop_mode, interpolation) = PROCESSORS[kind]
    card = create(transformers_folder(tmp_path, {**STATISTICS, **processor})).card
    assert card.preprocess == Preprocess(size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), interpolation, crop_pct, crop_mode)
    assert any("preprocessor_config.json" in note for note in card.notes)


OTHERS = [(name, field) for name, spec in kit.backbones().items() for field in spec.computes]


@pytest.mark.parametrize(("name", "field"), OTHERS)
def test_weights_of_a_net_that_computes_otherwise_are_refused(name: str, field: str) -> None:
    spec = kit.backbones()[name]
    own, default = spec.computes[field]
    config = {"model_type": "x", "transformers_version": "5.0"}
    origin_of(spec, None, {**config, field: own}, None, {})
    origin_of(spec, None, {**config, "vision_config": {field: own}}, None, {})
    wrong = [{**config, field: "other"}, {**config, "vision_config": {field: "other"}}]
    for other in wrong + [config] * (default != own):
        with pytest.raises(WeightsError, match=f"{field}.*zoo list backbones"):
            origin_of(spec, None, other, None, {})


def test_an_image_processor_that_divides_twice_is_honoured(tmp_path: Path) -> None:
    processor = {**STATISTICS, "size": {"height": 64, "width": 64}, "include_top": True}
    assert create(transformers_folder(tmp_path, processor)).card.preprocess.std == pytest.approx((0.16, 0.25, 0.36))


def test_what_a_family_recognises_counts_beside_transformers_configuration() -> None:
    convention = Convention("another", lambda arrays: "mark" in arrays, options={"padding": "same"})
    spec, config = replace(SPEC, conventions=(convention,)), {"model_type": "vit"}
    assert origin_of(spec, None, config, None, {"mark": np.zeros(1)}).options == {"padding": "same"}
    assert origin_of(spec, None, config, None, {}).options == {}


def test_the_classes_of_transformers_are_honoured_where_they_have_names(tmp_path: Path) -> None:
    count = len(label_names(SPEC.classifier.labels))
    named = transformers_folder(tmp_path / "a", id2label={str(i): f"kind {i}" for i in range(count)})
    assert create(named).labels == tuple(f"kind {i}" for i in range(count))
    bare = transformers_folder(tmp_path / "b", id2label={str(i): f"LABEL_{i}" for i in range(count)})
    model = create(bare)
    assert model.labels == label_names(SPEC.classifier.labels)
    assert any("nothing is known" in note for note in model.card.notes)


@pytest.mark.parametrize("processor", [{"size": "large"}, {"size": {}}, {"size": 64, "resample": 9}, {"image_mean": 3}])
def test_a_damaged_image_processor_is_one_sentence(processor: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="preprocessor_config.json"):
        create(transformers_folder(tmp_path, processor))
