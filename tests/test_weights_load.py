"""Loading accounts for every tensor, and says what it did with it."""

from __future__ import annotations

import io
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import parity_kit as kit
import pytest
import seeded

import zoo
from zoo.errors import WeightsError
from zoo.labels import names as label_names
from zoo.spec import Convention, Preprocess
from zoo.weights.file import write
from zoo.weights.load import adapt_first_kernel, assign, layouts_of
from zoo.weights.mapping import common_wrapper, slots
from zoo.weights.origin import origin_of

pytestmark = pytest.mark.usefixtures("strict_dtypes")

FAMILIES = kit.one_per_family()
NAME = FAMILIES[0]
SPEC = kit.backbones()[NAME]
HEAD = SPEC.classifier.path


def tensors(name: str = NAME) -> dict[str, np.ndarray]:
    return kit.checkpoint(kit.backbones()[name], kit.golden(name)["scales"])


def saved(folder: Path, arrays: dict[str, np.ndarray], config: dict[str, object] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", arrays, {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def create(source: str, **kwargs: object) -> zoo.Model:
    return zoo.create(NAME, "classifier", weights=source, **kwargs)  # type: ignore[arg-type]


def body_name(arrays: dict[str, np.ndarray]) -> str:
    """A kernel that is neither the first nor the classifier's."""
    return [n for n, a in arrays.items() if a.ndim == 4 and not n.startswith(HEAD)][3]


# Accounting --------------------------------------------------------------------------------------------------------


def test_a_whole_checkpoint_is_loaded_tensor_by_tensor(tmp_path: Path) -> None:
    arrays = tensors()
    model = create(saved(tmp_path, arrays))
    found = kit.checkpoint_slots(model)
    state = {**{s.path: a for s, a in _values(model.backbone)}, **{s.path: a for s, a in _values(model.head)}}
    for name, slot in found:
        assert np.array_equal(slot.write(state[slot.path]), arrays[name]), name
    assert f"{len(arrays)} tensors loaded" in " ".join(model.card.notes)


def _values(module: object) -> list[tuple[object, np.ndarray]]:
    from zoo.store import arrays_of

    arrays = arrays_of(module)  # type: ignore[arg-type]
    return [(slot, arrays[slot.path]) for slot in slots(module)]  # type: ignore[arg-type]


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_each_named(tmp_path: Path) -> None:
    arrays = tensors()
    missing, misshapen = body_name(arrays), sorted(n for n, a in arrays.items() if a.ndim == 1)[5]
    del arrays[missing]
    arrays["ema.decay"] = np.zeros(1, np.float32)
    arrays[misshapen] = np.concatenate([arrays[misshapen]] * 2)
    with pytest.raises(WeightsError) as error:
        create(saved(tmp_path, arrays))
    message = str(error.value)
    assert f"{missing} is missing" in message
    assert "ema.decay has no place" in message
    assert misshapen in message and str(arrays[misshapen].shape) in message


@pytest.mark.parametrize("name", FAMILIES)
def test_every_single_missing_tensor_is_noticed(name: str) -> None:
    arrays = tensors(name)
    head = kit.backbones()[name].classifier.path + "."
    for gone in [n for n in arrays if not n.startswith(head)][:: max(1, len(arrays) // 8)]:
        model = kit.composed(kit.backbones()[name])
        with pytest.raises(WeightsError, match=gone.replace(".", r"\.")):
            kit.load(model, {n: a for n, a in arrays.items() if n != gone})


def test_batch_counters_are_ignored_with_a_reason(tmp_path: Path) -> None:
    norms = [n.removesuffix("running_var") for n in tensors() if n.endswith("running_var")]
    extra = {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    notes = " ".join(create(saved(tmp_path, tensors() | extra)).card.notes)
    if norms:
        assert f"{len(norms)} ignored (a batch counter" in notes


@pytest.mark.parametrize("wrapper", ["module.", "state_dict.model.", "student.backbone."])
def test_wrappers_of_training_frameworks_are_stripped(wrapper: str, tmp_path: Path) -> None:
    plain = create(saved(tmp_path / "plain", tensors()))
    wrapped = create(saved(tmp_path / "wrapped", {wrapper + n: a for n, a in tensors().items()}))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(_values(plain), _values(wrapped), strict=True))


def test_the_wrapper_is_what_most_names_share() -> None:
    expected = {"conv.weight", "bn.weight", "fc.weight"}
    assert common_wrapper(["net.conv.weight", "net.bn.weight", "net.fc.weight", "epoch"], expected) == "net."
    assert common_wrapper(expected, expected) == ""
    # Parts that the model lacks may stand around it, as a detector's pyramid and head around its backbone.
    around = [f"{part}.{i}.weight" for part in ("body.above", "head") for i in range(20)]
    assert common_wrapper([*around[:20], *(f"body.net.{n}" for n in expected), *around[20:]], expected) == "body.net."


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layout_gives_the_same_model(name: str) -> None:
    """Layouts are told apart by their keys; renaming is one to one."""
    spec, arrays = kit.backbones()[name], tensors(name)
    for layout in layouts_of(spec):
        renamed = kit.in_layout(spec, layout, arrays)
        assert len(renamed) >= len(arrays)
        model = kit.composed(spec)
        report = kit.load(model, renamed)
        # Where two layouts have the same names there is nothing to tell.
        assert report.layout == layout or renamed.keys() == arrays.keys()
        assert len(report.loaded) == len(arrays)
        state = {s.name: a for s, a in _values(model.backbone)}  # type: ignore[attr-defined]
        for slot in slots(model.backbone):
            assert np.array_equal(slot.write(state[slot.name]), arrays[slot.name])


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_another_architecture_are_refused_saying_so(name: str, tmp_path: Path) -> None:
    model = kit.composed(kit.backbones()[name])
    own = kit.checkpoint_shapes(model)
    for other in FAMILIES:
        shapes = kit.checkpoint_shapes(kit.composed(kit.backbones()[other]))
        if shapes == own:  # itself, or the same net trained in another way, such as ViT and DeiT
            continue
        with pytest.raises(WeightsError, match=name):
            kit.load(model, {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()})


def test_a_deeper_sibling_is_refused() -> None:
    """Half of the tensors fit by name and shape; that is not enough."""
    family = SPEC.family
    siblings = [n for n, s in kit.backbones().items() if s.family == family and n != NAME]
    if not siblings:
        pytest.skip(f"{family} has one variant")
    with pytest.raises(WeightsError):
        kit.load(kit.composed(SPEC), tensors(siblings[0]))


# The classifier ----------------------------------------------------------------------------------------------------


def test_a_file_without_a_classifier_needs_classes_and_starts_a_new_head(tmp_path: Path) -> None:
    source = saved(tmp_path, {n: a for n, a in tensors().items() if not n.startswith(HEAD + ".")})
    model = create(source, labels=["ant", "bee"])
    assert model.labels == ("ant", "bee")
    with pytest.raises(zoo.ZooError, match="labels="):
        create(source)


def test_new_classes_re_initialise_the_head_and_the_report_says_it(tmp_path: Path) -> None:
    source = saved(tmp_path, tensors())
    model = create(source, labels=["ant", "bee"])
    notes = " ".join(model.card.notes)
    assert "2 ignored (the model has a new classifier)" in notes
    same, other = create(source, labels=["ant", "bee"]), create(source, labels=["ant", "bee"], seed=1)
    fresh = [_head_weights(m) for m in (model, same, other)]
    assert np.array_equal(fresh[0], fresh[1]) and not np.array_equal(fresh[0], fresh[2])
    assert np.abs(fresh[0]).max() > 0


def _head_weights(model: zoo.Model) -> np.ndarray:
    return np.concatenate([a.ravel() for _, a in _values(model.head)])


def test_the_checkpoints_own_classes_keep_its_classifier(tmp_path: Path) -> None:
    arrays = tensors()
    model = create(saved(tmp_path, arrays))
    own = [a for n, a in arrays.items() if n.startswith(HEAD + ".")]
    assert sorted(np.abs(a).sum() for a in own) == pytest.approx(
        sorted(np.abs(a).sum() for _, a in _values(model.head)), rel=1e-6
    )
    assert len(model.labels) == len(own[0])
    again = create(saved(tmp_path, arrays), num_classes=len(own[0]))
    assert np.array_equal(_head_weights(again), _head_weights(model))


# Other image channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_grey_images_give_what_equal_colours_gave(name: str) -> None:
    spec, size = kit.backbones()[name], kit.golden(name)["size"]
    colour, grey = kit.composed(spec), kit.composed(spec, in_channels=1)
    kit.load(colour, tensors(name))
    report = kit.load(grey, tensors(name))
    assert list(report.adapted.values()) == ["first convolution from 3 to 1 channels"]
    x = jnp.asarray(seeded.images(1, *size, 1))
    first = spec.stages[0].name
    a = zoo.features(colour, jnp.repeat(x, 3, axis=-1), at=[first])[first]
    b = zoo.features(grey, x, at=[first])[first]
    assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_more_channels_repeat_the_kernels_and_keep_the_scale(channels: int, tmp_path: Path) -> None:
    model = create(saved(tmp_path, tensors()), in_channels=channels, labels=["a", "b"])
    assert f"first convolution from 3 to {channels} channels" in " ".join(model.card.notes)
    assert len(model.card.preprocess.mean) == channels
    kernel = seeded.tensor("conv.weight", (4, 3, 3, 3)).transpose(2, 3, 1, 0)
    adapted = adapt_first_kernel(kernel, channels)
    assert adapted.shape == (3, 3, channels, 4) and adapted.dtype == kernel.dtype
    for i in range(channels):
        np.testing.assert_allclose(adapted[:, :, i], kernel[:, :, i % 3] * (3 / channels), rtol=1e-6)


def test_pixels_side_by_side_are_adapted_each_by_itself() -> None:
    kernel = seeded.tensor("conv.weight", (4, 12, 3, 3)).transpose(2, 3, 1, 0)
    adapted = adapt_first_kernel(kernel, 1, pixels=4)
    np.testing.assert_allclose(adapted, kernel.reshape(3, 3, 4, 3, 4).sum(3), rtol=1e-6)
    assert adapt_first_kernel(kernel, 5, pixels=4).shape == (3, 3, 20, 4)


def test_statistics_follow_the_channels() -> None:
    colour = Preprocess(mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4))
    grey = colour.for_channels(1)
    assert (grey.mean, grey.channels) == ((pytest.approx(0.3),), "L")
    assert colour.for_channels(4).mean == (0.1, 0.2, 0.6, 0.1)
    back = grey.for_channels(3)
    assert (len(back.mean), back.channels) == (3, "RGB")


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
    body = zip(_values(first.backbone), _values(model.backbone), strict=True)
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


@pytest.mark.parametrize(("name", "case"), [c for c in kit.cases() if c[0] in FAMILIES and c[1] != "default"])
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


@pytest.mark.parametrize("name", [n for n in FAMILIES if kit.backbones()[n].ignored])
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
            array[...] = 1 if tensor.endswith("var") else 0
    convention = kit.backbones()[name].conventions[0]
    card = zoo.create(name, "classifier", weights=saved(tmp_path, arrays)).card
    assert dict(card.options) | dict(convention.options) == dict(card.options)
    assert card.preprocess == convention.preprocess
    assert any(convention.name in note for note in card.notes)
    option, values = next(iter(kit.backbones()[name].options.items()))
    said = zoo.create(name, "classifier", weights=str(tmp_path), **{option: values[0]}).card
    assert said.options[option] == values[0] != card.options[option]
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
    origin_of(spec, None, {**config, field: own}, {}, {})
    origin_of(spec, None, {**config, "vision_config": {field: own}}, {}, {})
    wrong = [{**config, field: "other"}, {**config, "vision_config": {field: "other"}}]
    for other in wrong + [config] * (default != own):
        with pytest.raises(WeightsError, match=f"{field}.*zoo list backbones"):
            origin_of(spec, None, other, {}, {})


def test_an_image_processor_that_divides_twice_is_honoured(tmp_path: Path) -> None:
    processor = {**STATISTICS, "size": {"height": 64, "width": 64}, "include_top": True}
    assert create(transformers_folder(tmp_path, processor)).card.preprocess.std == pytest.approx((0.16, 0.25, 0.36))


def test_what_a_family_recognises_counts_beside_transformers_configuration() -> None:
    convention = Convention("another", lambda arrays: "mark" in arrays, options={"padding": "same"})
    spec, config = replace(SPEC, conventions=(convention,)), {"model_type": "vit"}
    assert origin_of(spec, None, config, {}, {"mark": np.zeros(1)}).options == {"padding": "same"}
    assert origin_of(spec, None, config, {}, {}).options == {}


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


def test_a_classifier_beside_what_the_body_is_wrapped_in_is_found(tmp_path: Path) -> None:
    """As in transformers: `vit.encoder...` and `classifier`."""
    arrays = {n if n.startswith(HEAD + ".") else f"vit.{n}": a for n, a in tensors().items()}
    notes = " ".join(create(saved(tmp_path / "a", arrays)).card.notes)
    assert f"{len(arrays)} tensors loaded" in notes and "re-initialised" not in notes
    outer = {f"module.{n}": a for n, a in arrays.items()}
    assert f"{len(arrays)} tensors loaded" in " ".join(create(saved(tmp_path / "b", outer)).card.notes)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_without_a_head_in_any_layout_starts_a_new_one_and_says_so(name: str) -> None:
    spec, arrays = kit.backbones()[name], tensors(name)
    headless = {n: a for n, a in arrays.items() if not n.startswith(spec.classifier.path + ".")}
    places = [replace(slot, name=there) for there, slot in kit.checkpoint_slots(kit.composed(spec))]
    for layout in layouts_of(spec):
        _, report = assign(spec, places, kit.in_layout(spec, layout, headless), first_conv=None)
        assert set(report.reinitialised.values()) == {"the file has no classifier"}
        assert len(report.loaded) == len(headless)
