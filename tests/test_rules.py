"""Path rules: coverage, order, presets, and the masked update as a user's own loop would use it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from training_kit import installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.errors import ConfigError, UnknownNameError
from zoo.models.model import Model
from zoo.training.plans import preset
from zoo.training.rules import assign, table
from zoo.training.step import lenient
from zoo.weights.mapping import dotted


@pytest.fixture(scope="module")
def model() -> Model:
    return zoo.create("tinynet", "classifier", num_classes=3, pretrained=False)


def decided(model: Model, rules: list) -> dict[str, float | None]:
    return {dotted(path): multiplier for path, multiplier in assign(model, rules).multipliers.items()}


def test_the_first_match_wins(model: Model):
    rules = [("backbone.conv1.*", 0.5), ("backbone.*", None), ("*", 1.0)]
    assert decided(model, rules) == {
        "backbone.conv1.kernel": 0.5,
        "backbone.bn1.scale": None,
        "backbone.bn1.bias": None,
        "backbone.conv2.kernel": None,
        "backbone.bn2.scale": None,
        "backbone.bn2.bias": None,
        "head.fc.kernel": 1.0,
        "head.fc.bias": 1.0,
    }


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([("head.*", 1.0)], ["no rule matches backbone", "and 5 more", '("*", None)']),
        ([("head.fcc.*", 1.0), ("*", None)], ["'head.fcc.*' matches no parameter", "head.fc"]),
        ([("*", 1.0), ("head.*", None)], ["'head.*' has no effect", "2 of its parameters"]),
        ([("head.*", 0.0), ("*", None)], ["'head.*' has multiplier 0.0", "positive"]),
        ([("head.*", -1.0), ("*", None)], ["multiplier -1.0"]),
        ([("*", None)], ["freeze every parameter"]),
    ],
)
def test_rules_that_cannot_be_meant(model: Model, rules: list, words: list[str]):
    with pytest.raises(ConfigError) as caught:
        assign(model, rules)
    assert all(word in str(caught.value) for word in words), caught.value


def test_presets(model: Model):
    def trained(name: str) -> set[str]:
        return {path for path, multiplier in decided(model, preset(model, name)).items() if multiplier is not None}

    head = {"head.fc.kernel", "head.fc.bias"}
    body = {"backbone.conv2.kernel", "backbone.bn2.scale", "backbone.bn2.bias"}
    stem = {"backbone.conv1.kernel", "backbone.bn1.scale", "backbone.bn1.bias"}
    assert trained("head") == head
    assert trained("last:1") == head | body
    assert trained("last:2") == trained("all") == trained("all:0.8") == head | body | stem
    assert trained("bitfit") == head | {"backbone.bn1.bias", "backbone.bn2.bias"}


def test_layer_wise_decay(model: Model):
    rates = decided(model, preset(model, "all:0.5"))
    assert [rates[path] for path in ("head.fc.kernel", "backbone.bn2.bias", "backbone.conv1.kernel")] == [1, 0.5, 0.25]


@pytest.mark.parametrize("name", ["last:3", "last:99"])
def test_more_stages_than_there_are(model: Model, name: str):
    with pytest.raises(ConfigError, match=r"has 2 stages with parameters \(stem, body\); use last:1 to last:2"):
        preset(model, name)


@pytest.mark.parametrize("name", ["", "heads", "lasst:2"])
def test_unknown_plans(model: Model, name: str):
    with pytest.raises(UnknownNameError, match=r"unknown plan .*(head|last)"):
        preset(model, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((f"last{n}", "use last:1 to last:2") for n in ("", ":0", ":-1", ":x", ":3")),
        *((f"all:{d}", "a number between 0 and 1, as in all:0.75") for d in ("0", "1", "x", "nan")),
        ("head:1", "takes no argument"),
        ("bitfit:1", "takes no argument"),
    ],
)
def test_arguments_that_a_plan_does_not_accept(model: Model, name: str, words: str):
    with pytest.raises(ConfigError, match=f"^plan {name}: .*{words}"):
        preset(model, name)


# The update, in a loop of a user's own over the whole state of parameters ----------------------------------------


def updates_of(model: Model, rules: list, inner: optax.GradientTransformation, gradients: nnx.State | None = None):
    """(params, updates) by path after three updates with the same gradients."""
    params = nnx.state(model, nnx.Param)
    transform = assign(model, rules).transform(inner)
    gradients = gradients or jax.tree.map(jnp.ones_like, params)
    with lenient():
        state = transform.init(params)
        for _ in range(3):
            updates, state = transform.update(gradients, state, params)
    return {dotted(path): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(updates)}


def test_frozen_updates_are_exactly_zero(model: Model):
    """Weight decay alone would move them; the sum with a negative zero keeps its sign."""
    rules = [("head.*", 1.0), ("*", None)]
    updates = updates_of(model, rules, optax.adamw(0.1, weight_decay=0.5))
    for path, update in updates.items():
        assert (update == 0).all() == path.startswith("backbone."), path


def test_the_clip_sees_only_what_trains(model: Model):
    params = nnx.state(model, nnx.Param)
    # The frozen gradients are huge: a clip over all would scale the trained ones down to nothing.
    flat = [
        (p, v.replace(jnp.full_like(v.get_value(), 1e6 if p[0] == "backbone" else 3.0)))
        for p, v in nnx.to_flat_state(params)
    ]
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    updates = updates_of(model, [("head.*", 1.0), ("*", None)], inner, nnx.from_flat_state(flat))
    trained = np.concatenate([updates[path].ravel() for path in ("head.fc.kernel", "head.fc.bias")])
    assert np.linalg.norm(trained) == pytest.approx(1.0, rel=1e-6)


def test_multipliers_scale_updates_exactly(model: Model):
    inner = optax.adam(0.1)
    plain = updates_of(model, [("*", 1.0)], inner)
    rules = [("head.*", 1.0), ("backbone.conv2.*", 0.3), ("backbone.bn1.*", 0.25), ("*", None)]
    scaled = updates_of(model, rules, inner)
    for path, factor in {
        "head.fc.kernel": 1.0,
        "backbone.conv2.kernel": 0.3,
        "backbone.bn1.bias": 0.25,
        "backbone.conv1.kernel": 0.0,
    }.items():
        assert (plain[path] != 0).all()
        np.testing.assert_array_equal(scaled[path], plain[path] * np.float32(factor), err_msg=path)


def test_frozen_modules_are_the_outermost(model: Model):
    def held(name: str) -> set[str]:
        return set(assign(model, preset(model, name)).frozen_modules)

    assert held("head") == {"backbone"}
    assert held("last:1") == {"backbone.conv1", "backbone.bn1"}
    assert held("all") == set()
    # A normalisation of which a part is frozen keeps its statistics.
    assert held("bitfit") == {f"backbone.{name}" for name in ("conv1", "bn1", "conv2", "bn2")}


def test_the_table_says_what_trains(model: Model):
    rows = table(model, assign(model, preset(model, "last:1")))
    kinds = {name: (count, kind) for name, count, kind in rows}
    assert kinds["backbone.conv1"] == (3 * 3 * 3 * 8, "frozen")
    assert kinds["head.fc"] == (16 * 3 + 3, "x1")
