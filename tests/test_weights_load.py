"""Loading accounts for every tensor, and says what it did with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import parity_kit as kit
import pytest
import seeded
from weights_kit import FAMILIES, HEAD, NAME, SPEC, create, saved, tensors, values

import zoo
from zoo.errors import WeightsError
from zoo.registry.spec import Preprocess
from zoo.weights.load import adapt_first_kernel, assign, layouts_of
from zoo.weights.mapping import common_wrapper, slots

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def body_name(arrays: dict[str, np.ndarray]) -> str:
    """A kernel that is neither the first nor the classifier's."""
    return [n for n, a in arrays.items() if a.ndim == 4 and not n.startswith(HEAD)][3]


# Accounting --------------------------------------------------------------------------------------------------------


def test_a_whole_checkpoint_is_loaded_tensor_by_tensor(tmp_path: Path) -> None:
    arrays = tensors()
    model = create(saved(tmp_path, arrays))
    found = kit.checkpoint_slots(model)
    state = {**{s.path: a for s, a in values(model.backbone)}, **{s.path: a for s, a in values(model.head)}}
    for name, slot in found:
        assert np.array_equal(slot.write(state[slot.path]), arrays[name]), name
    assert f"{len(arrays)} tensors loaded" in " ".join(model.card.notes)


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_each_named(tmp_path: Path) -> None:
    arrays = tensors()
    missing, misshapen = body_name(arrays), sorted(n for n, a in arrays.items() if a.ndim == 1)[5]
    del arrays[missing]
    arrays["neck.decay"] = np.zeros(1, np.float32)
    arrays[misshapen] = np.concatenate([arrays[misshapen]] * 2)
    with pytest.raises(WeightsError) as error:
        create(saved(tmp_path, arrays))
    message = str(error.value)
    assert f"{missing} is missing" in message
    assert "neck.decay has no place" in message
    assert misshapen in message and str(arrays[misshapen].shape) in message


@pytest.mark.parametrize("name", kit.each_family())
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
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(values(plain), values(wrapped), strict=True))


EXTRA = {
    "criterion.pos_weight": "state of the training's loss",
    "model.loss_fn.weight": "state of the training's loss",
    "perceptual_loss.vgg.0.weight": "state of the training's loss",
    "train_acc.confmat": "state of a metric",
    "val_metrics.f1.tp": "state of a metric",
    "optimizer_states.0.exp_avg": "state of the optimizer",
    "state_dict.opt_state.exp_avg_sq.conv.weight": "state of the optimizer",
    "model.bn1.total_ops": "a count by a profiler",
    "global_step": "a counter of the training",
    "ema_model.n_averaged": "a counter of the training",
}


def test_tensors_of_a_training_are_recognised_and_others_are_not(tmp_path: Path) -> None:
    arrays = {f"model.{name}": array for name, array in tensors().items()}
    extra = {name: np.ones((1,), np.float32) for name in EXTRA}
    plain, model = create(saved(tmp_path / "plain", tensors())), create(saved(tmp_path / "extra", arrays | extra))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(values(plain), values(model), strict=True))
    for reason in set(EXTRA.values()):
        assert f"{list(EXTRA.values()).count(reason)} ignored ({reason})" in model.card.notes[-1]
    for name in ("neck.weight", "model.acc.weight", "model.layer9.0.conv.weight", "model.lossless"):
        with pytest.raises(WeightsError, match=rf"{name} has no place.*--ignore-tensors '{name.partition('.')[0]}"):
            create(saved(tmp_path / "odd", arrays | {name: np.ones((2, 2), np.float32)}))


def test_a_second_copy_is_left_out_and_can_be_chosen(tmp_path: Path) -> None:
    halved = {name: array * np.float32(0.5) for name, array in tensors().items()}
    both = {f"model.{name}": array for name, array in tensors().items()}
    both |= {f"model_ema.module.{name}": array for name, array in halved.items()}
    source = saved(tmp_path / "both", both)
    raw, ema = create(source), create(source, ignore_tensors="model.*")
    assert "a second copy below model_ema.module; to load it instead, ignore model.*" in raw.card.notes[-1]
    assert "left out by 'model.*'" in ema.card.notes[-1]
    for model, arrays in ((raw, tensors()), (ema, halved)):
        expected = create(saved(tmp_path / "one", arrays))
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(values(expected), values(model), strict=True))
    # The moments of an optimizer have all names and shapes as well, and here the shorter prefix.
    moments = {f"exp_avg.{name}": array * 0 for name, array in tensors().items()}
    wrapped = {f"state_dict.model.{name}": array for name, array in tensors().items()}
    model = create(saved(tmp_path / "moments", wrapped | moments))
    assert f"{len(moments)} ignored (state of the optimizer)" in model.card.notes[-1]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(values(raw), values(model), strict=True))
    # An incomplete copy is no copy: it may be a part of another net.
    del both[next(name for name in both if name.startswith("model_ema.module.") and name.endswith("running_mean"))]
    renamed = {name.replace("model_ema.module", "other"): array for name, array in both.items()}
    with pytest.raises(WeightsError, match="other.* has no place"):
        create(saved(tmp_path / "part", renamed))


def test_tensors_are_waived_by_patterns(tmp_path: Path) -> None:
    odd = {"aux.weight": np.full((3, 3), np.nan, np.float32), "aux.bias": np.ones(3, np.float32), "grid": np.ones(2)}
    source = saved(tmp_path, tensors() | odd)
    model = create(source, ignore_tensors=["aux.*", "grid"])
    assert "2 ignored (left out by 'aux.*')" in model.card.notes[-1]
    assert all(np.array_equal(slot.read(tensors()[slot.name]), array) for slot, array in values(model.backbone))
    with pytest.raises(WeightsError, match=r"'aux' matches no tensor of the file, which holds "):
        create(source, ignore_tensors=["aux"])
    with pytest.raises(WeightsError, match="is missing"):
        create(source, ignore_tensors=["aux.*", "grid", body_name(tensors())])
    with pytest.raises(zoo.errors.ConfigError, match="needs weights, but pretrained=False"):
        zoo.create(NAME, "classifier", pretrained=False, num_classes=2, ignore_tensors="aux.*")


def test_the_wrapper_is_what_most_names_share() -> None:
    expected = {"conv.weight", "bn.weight", "fc.weight"}
    assert common_wrapper(["net.conv.weight", "net.bn.weight", "net.fc.weight", "epoch"], expected) == "net."
    assert common_wrapper(expected, expected) == ""
    # Parts that the model lacks may stand around it, as a detector's pyramid and head around its backbone.
    around = [f"{part}.{i}.weight" for part in ("body.above", "head") for i in range(20)]
    assert common_wrapper([*around[:20], *(f"body.net.{n}" for n in expected), *around[20:]], expected) == "body.net."


@pytest.mark.parametrize("name", kit.each_family())
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
        state = {s.name: a for s, a in values(model.backbone)}
        for slot in slots(model.backbone):
            assert np.array_equal(slot.write(state[slot.name]), arrays[slot.name])


@cache
def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    return kit.checkpoint_shapes(kit.composed(kit.backbones()[name]))


@pytest.mark.parametrize("name", kit.each_family())
def test_weights_of_another_architecture_are_refused_saying_so(name: str, tmp_path: Path) -> None:
    model = kit.composed(kit.backbones()[name])
    for other in (other for other in FAMILIES if kit.backbones()[other].family in kit.DAILY):
        shapes = shapes_of(other)
        if shapes == shapes_of(name):  # itself, or the same net trained in another way, such as ViT and DeiT
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
    return np.concatenate([a.ravel() for _, a in values(model.head)])


def test_the_checkpoints_own_classes_keep_its_classifier(tmp_path: Path) -> None:
    arrays = tensors()
    model = create(saved(tmp_path, arrays))
    own = [a for n, a in arrays.items() if n.startswith(HEAD + ".")]
    assert sorted(np.abs(a).sum() for a in own) == pytest.approx(
        sorted(np.abs(a).sum() for _, a in values(model.head)), rel=1e-6
    )
    assert len(model.labels) == len(own[0])
    again = create(saved(tmp_path, arrays), num_classes=len(own[0]))
    assert np.array_equal(_head_weights(again), _head_weights(model))


def test_a_classifier_beside_what_the_body_is_wrapped_in_is_found(tmp_path: Path) -> None:
    """As in transformers: `vit.encoder...` and `classifier`."""
    arrays = {n if n.startswith(HEAD + ".") else f"vit.{n}": a for n, a in tensors().items()}
    notes = " ".join(create(saved(tmp_path / "a", arrays)).card.notes)
    assert f"{len(arrays)} tensors loaded" in notes and "re-initialised" not in notes
    outer = {f"module.{n}": a for n, a in arrays.items()}
    assert f"{len(arrays)} tensors loaded" in " ".join(create(saved(tmp_path / "b", outer)).card.notes)


@pytest.mark.parametrize("name", kit.each_family())
def test_a_file_without_a_head_in_any_layout_starts_a_new_one_and_says_so(name: str) -> None:
    spec, arrays = kit.backbones()[name], tensors(name)
    headless = {n: a for n, a in arrays.items() if not n.startswith(spec.classifier.path + ".")}
    places = [replace(slot, name=there) for there, slot in kit.checkpoint_slots(kit.composed(spec))]
    for layout in layouts_of(spec):
        _, report = assign(spec, places, kit.in_layout(spec, layout, headless), first_conv=None)
        assert set(report.reinitialised.values()) == {"the file has no classifier"}
        assert len(report.loaded) == len(headless)


# Other image channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", kit.each_family())
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
