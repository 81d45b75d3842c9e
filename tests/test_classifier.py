"""The classifier against slow and obvious references: losses, figures, heads, options."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity_kit as kit
import pytest
from flax import nnx

import zoo
from zoo.adapters.classifier import Classifier, ConvHead, PooledHead, pool_features
from zoo.adapters.classifier.metrics import calibration_error
from zoo.data import Dataset, Sample
from zoo.errors import ConfigError, DataError, UnknownNameError, ZooError
from zoo.models.adapter import ForwardPass, HeadInputs, configure
from zoo.registry import registry
from zoo.registry.spec import Preprocess

LABELS = tuple("abcdefg")


def drawn(seed: int, images: int = 40, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits and true classes; the last class never occurs."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (images, classes)).astype(np.float32), rng.integers(0, classes - 1, images).astype(np.int32)


def dataset(targets: list, classes: tuple[str, ...], kind: str = "class") -> Dataset:
    samples = tuple(Sample(Path(f"{i}.png"), target, f"{i}.png") for i, target in enumerate(targets))
    return Dataset(samples, classes, kind, "drawn", Path())  # type: ignore[arg-type]


def given(outputs: Any) -> ForwardPass:
    """A pass through a model whose head gives these outputs."""
    model: Any = SimpleNamespace(outputs=lambda reduced: reduced)
    return ForwardPass(model, jnp.asarray(outputs))  # type: ignore[arg-type]


def figures(adapter: Classifier, logits: np.ndarray, truth: np.ndarray, size: int = 16) -> dict:
    """The figures of an accumulator that sees padded batches."""
    metrics = adapter.metrics()
    for start in range(0, len(truth), size):
        part = [x[start : start + size] for x in (logits, truth)]
        fill = size - len(part[0])
        rows, labels = (np.concatenate([x, x[:1].repeat(fill, 0)]) for x in part)
        decoded = {k: np.asarray(v) for k, v in adapter.decode(given(rows), {}).items()}
        metrics.update(decoded, {"label": labels, "valid": np.arange(size) < size - fill})
    return metrics.compute()


# Figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_one_label(seed: int):
    logits, truth = drawn(seed)
    found = figures(Classifier(LABELS), logits, truth)
    predicted = [max(range(7), key=lambda c: row[c]) for row in logits]
    assert found["accuracy"] == pytest.approx(sum(p == t for p, t in zip(predicted, truth, strict=True)) / 40)
    five = sum(t in sorted(range(7), key=lambda c: -row[c])[:5] for row, t in zip(logits, truth, strict=True))
    assert found["top5_accuracy"] == pytest.approx(five / 40)
    assert found["images"] == 40
    occurring: list[tuple[float, float, float]] = []
    for index, label in enumerate(LABELS):
        pairs = list(zip(predicted, truth, strict=True))
        hits = sum(p == index == t for p, t in pairs)
        said, real = sum(p == index for p, _ in pairs), sum(t == index for _, t in pairs)
        precision, recall = hits / said if said else 0.0, hits / real if real else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        if said or real:
            row = found["per_class"][label]
            assert [row[k] for k in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
            assert row["support"] == real
        if real:
            occurring.append((precision, recall, f1))
        assert found["confusion"][index] == [sum(p == c and t == index for p, t in pairs) for c in range(7)]
    means = [sum(column) / len(occurring) for column in zip(*occurring, strict=True)]
    assert [found[f"macro_{k}"] for k in ("precision", "recall", "f1")] == pytest.approx(means)


def test_calibration_error():
    logits, truth = drawn(1, 300)
    scores = np.asarray(jax.nn.softmax(logits), np.float64)
    gap = 0.0
    for lower in range(15):
        inside = [
            (row.max(), row.argmax() == t)
            for row, t in zip(scores, truth, strict=True)
            if lower / 15 <= row.max() < (lower + 1) / 15
        ]
        if inside:
            confidence, correct = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            gap += len(inside) / 300 * abs(confidence - correct)
    assert calibration_error(scores.max(1), scores.argmax(1) == truth) == pytest.approx(gap)
    assert figures(Classifier(LABELS), logits, truth)["calibration_error"] == pytest.approx(gap, rel=1e-5)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0  # full confidence falls into the last bin


def test_top5_needs_more_than_five_classes():
    logits, truth = drawn(0, classes=5)
    assert "top5_accuracy" not in figures(Classifier(LABELS[:5]), logits, truth)


def test_figures_of_several_labels():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(0, 2, (30, 4)).astype(np.float32), (rng.random((30, 4)) < 0.4).astype(np.float32)
    found = figures(Classifier(LABELS[:4], multi_label=True, threshold=0.7), logits, truth)
    said = 1 / (1 + np.exp(-logits.astype(np.float64))) >= 0.7
    assert found["accuracy"] == pytest.approx(np.mean([(s == t).all() for s, t in zip(said, truth > 0.5, strict=True)]))
    assert found["label_accuracy"] == pytest.approx(np.mean(said == (truth > 0.5)))
    for index, label in enumerate(LABELS[:4]):
        hits = int((said[:, index] & (truth[:, index] > 0.5)).sum())
        row = found["per_class"][label]
        assert row["recall"] == pytest.approx(hits / truth[:, index].sum())
        assert row["precision"] == pytest.approx(hits / max(said[:, index].sum(), 1))
    assert "confusion" not in found


# Losses ----------------------------------------------------------------------------------------------------------


def by_hand(logits: np.ndarray, target: np.ndarray, weights: list[float]) -> np.ndarray:
    """-sum over classes of target * weight * log softmax, in double precision."""
    rows = []
    for row, share in zip(logits.astype(np.float64), target, strict=True):
        norm = math.log(sum(math.exp(v) for v in row))
        rows.append(-sum(s * w * (v - norm) for s, w, v in zip(share, weights, row, strict=True)))
    return np.array(rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_loss_of_one_label(smoothing: float, weighted: bool, mixed: bool):
    logits, truth = drawn(3, 8)
    weights = [0.5, 1.0, 2.0, 1.0, 3.0, 1.0, 0.25] if weighted else [1.0] * 7
    adapter = Classifier(LABELS, label_smoothing=smoothing, class_weights=tuple(weights) if weighted else None)
    target = np.eye(7)[truth] * (1 - smoothing) + smoothing / 7
    batch = {"label": jnp.asarray(truth)}
    if mixed:
        partner, share = np.array([1, 0, 3, 2, 5, 4, 7, 6]), np.linspace(0, 1, 8, dtype=np.float32)
        batch["mix"] = (jnp.asarray(partner), jnp.asarray(share))
        target = share[:, None] * target + (1 - share[:, None]) * target[partner]
    np.testing.assert_allclose(
        adapter.losses_by_name(jnp.asarray(logits), batch)["ce"], by_hand(logits, target, weights), rtol=2e-5
    )


def test_the_plain_loss_is_optax_own():
    logits, truth = drawn(4)
    found = Classifier(LABELS).losses_by_name(jnp.asarray(logits), {"label": jnp.asarray(truth)})["ce"]
    expected = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(truth))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_loss_of_several_labels():
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(0, 2, (6, 3)).astype(np.float32), (rng.random((6, 3)) < 0.5).astype(np.float32)
    weights, smoothing = (1.0, 2.0, 0.5), 0.1
    adapter = Classifier(LABELS[:3], multi_label=True, class_weights=weights, label_smoothing=smoothing)
    expected = np.zeros(6)
    for i in range(6):
        for c in range(3):
            p, t = 1 / (1 + math.exp(-float(logits[i, c]))), truth[i, c] * 0.9 + 0.05
            expected[i] += -weights[c] * (t * math.log(p) + (1 - t) * math.log(1 - p)) / 3
    found = adapter.losses_by_name(jnp.asarray(logits), {"label": jnp.asarray(truth)})["ce"]
    np.testing.assert_allclose(found, expected, rtol=2e-5)


# Heads -----------------------------------------------------------------------------------------------------------


def test_pooling():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    mean, top = x.mean((1, 2)), x.max((1, 2))
    np.testing.assert_allclose(pool_features(jnp.asarray(x), "avg"), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pool_features(jnp.asarray(x), "max"), top)
    both = pool_features(jnp.asarray(x), "avgmax")
    np.testing.assert_allclose(both, np.concatenate([mean, top], 1), rtol=1e-5, atol=1e-6)
    tokens = jnp.asarray(x.reshape(2, 12, 5))
    np.testing.assert_allclose(pool_features(tokens, "avg"), mean, rtol=1e-5, atol=1e-6)
    vector = jnp.asarray(mean)
    assert pool_features(vector, "avgmax") is vector  # a vector is already pooled


def test_forms_of_the_head():
    features = {"last": jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 8)).astype(np.float32))}
    linear = PooledHead("last", 8, 5, "avg", 0.0, 0, rngs=nnx.Rngs(0))
    pooled = np.asarray(features["last"]).mean((1, 2))
    expected = pooled @ np.asarray(linear.fc.kernel[...]) + np.asarray(linear.fc.bias[...])
    np.testing.assert_allclose(linear(linear.reduce(features)), expected, rtol=1e-4, atol=1e-6)
    mlp = PooledHead("last", 8, 5, "avgmax", 0.0, 6, rngs=nnx.Rngs(0))
    assert (mlp.hidden.kernel.shape, mlp.fc.kernel.shape) == ((16, 6), (6, 5))
    conv = ConvHead("last", 8, 5, 0.0, rngs=nnx.Rngs(0))
    kernel, bias = np.asarray(conv.conv.kernel[...])[0, 0], np.asarray(conv.conv.bias[...])
    maps = np.maximum(np.asarray(features["last"]) @ kernel + bias, 0)
    np.testing.assert_allclose(conv(conv.reduce(features)), maps.mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_alone():
    head = PooledHead("last", 64, 5, "avg", 0.5, 0, rngs=nnx.Rngs(0))
    features = {"last": jnp.ones((4, 64))}
    head.eval()
    np.testing.assert_array_equal(head(features), head(features))
    head.train()
    assert not np.array_equal(head(features), head(features))


@pytest.mark.parametrize("name", kit.each_family(large=True))
def test_auto_takes_the_form_of_the_checkpoints_own_classifier(name: str):
    spec = kit.backbones()[name]
    last = spec.stages[-1]
    shape = {"map": (1, 2, 2), "tokens": (1, 4), "vector": (1,)}[last.kind]
    shapes = {last.name: jax.ShapeDtypeStruct((*shape, last.channels), jnp.float32)}
    head = nnx.eval_shape(lambda: Classifier(LABELS).build(HeadInputs(spec, shapes, (64, 64)), rngs=nnx.Rngs(0)))
    assert isinstance(head, ConvHead) == (spec.classifier.form == "conv")
    assert list(Classifier(LABELS).checkpoint_paths(spec).values()) == [spec.classifier.path]
    assert Classifier(LABELS, head="mlp").checkpoint_paths(spec) == {}  # another form has nothing to take over


def test_predictions():
    adapter = Classifier(("ant", "bee", "fly"))
    scores = np.array([[0.1, 0.7, 0.2]], np.float32)
    (found,) = adapter.predictions({"probabilities": scores}, ["x.jpg"])
    assert (found.file, found.label, found.score, found.labels) == ("x.jpg", "bee", pytest.approx(0.7), None)
    assert [name for name, _ in found.top] == ["bee", "fly", "ant"]
    several = Classifier(("ant", "bee", "fly"), multi_label=True, threshold=0.15)
    assert several.predictions({"probabilities": scores}, ["x.jpg"])[0].labels == ["bee", "fly"]


# Options ---------------------------------------------------------------------------------------------------------


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown option .*'droput'.*Nearest: dropout"):
        configure(Classifier, LABELS, {"droput": 0.1})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"threshold": 0}, "threshold is 0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"head": "lnear"}, "lnear"),
        ({"dropout": "much"}, "dropout"),
        ({"class_weights": (1.0, 2.0)}, "2 class_weights for 7 classes"),
        ({"class_weights": "equal"}, "class_weights"),
    ],
)
def test_options_out_of_range(options: dict, word: str):
    with pytest.raises(ZooError, match=word):
        configure(Classifier, LABELS, options)


def test_options_of_a_command_line_are_text():
    adapter = configure(Classifier, LABELS, {"dropout": "0.25", "multi_label": "true", "hidden": "12"})
    assert (adapter.dropout, adapter.multi_label, adapter.hidden) == (0.25, True, 12)


def test_balanced_weights():
    data = dataset([0, 0, 0, 1, 2, 2], ("a", "b", "c"))
    weights = Classifier(("a", "b", "c"), class_weights="balanced").fitted(data).class_weights
    assert weights == pytest.approx((6 / 9, 6 / 3, 6 / 6))
    with pytest.raises(DataError, match="no image of 'c'"):
        Classifier(("a", "b", "c"), class_weights="balanced").fitted(dataset([0, 1], ("a", "b", "c")))


def test_data_with_several_labels_decides():
    adapter = Classifier(("a", "b", "c")).fitted(dataset([(0, 2), ()], ("a", "b", "c"), "classes"))
    assert adapter.multi_label
    np.testing.assert_array_equal(adapter.targets(Sample(Path("x"), (0, 2), "x"), Preprocess())["label"], [1, 0, 1])
    np.testing.assert_array_equal(adapter.targets(Sample(Path("x"), (), "x"), Preprocess())["label"], [0, 0, 0])


def test_a_class_whose_logit_is_0_everywhere_is_learned():
    """A ReLU ends the head of SqueezeNet's form: without a gradient below zero such a class is lost for ever."""
    head, adapter = ConvHead("last", 8, 2, 0.0, rngs=nnx.Rngs(0)), Classifier(("a", "b"))
    maps = jnp.asarray(np.random.default_rng(0).random((6, 3, 3, 8)), jnp.float32)
    batch = {"label": jnp.array([0, 1, 0, 1, 0, 1])}
    maps = maps.at[1::2, ..., 0].add(2.0)
    head.conv.bias[...] = jnp.array([0.5, -1.0])
    assert not np.asarray(head({"last": maps}))[:, 1].any()
    graphdef, state = nnx.split(head)

    @jax.jit
    def step(state):
        gradient = jax.grad(
            lambda s: adapter.losses_by_name(nnx.merge(graphdef, s)({"last": maps}), batch)["ce"].mean()
        )(state)
        return jax.tree.map(lambda value, g: value - 0.5 * g, state, gradient)

    for _ in range(60):
        state = step(state)
    logits = np.asarray(nnx.merge(graphdef, state)({"last": maps}))
    assert logits.argmax(1).tolist() == [0, 1, 0, 1, 0, 1]


def test_a_conv_head_needs_a_map():
    import dataclasses

    spec = registry().backbone("resnet20")
    vector = dataclasses.replace(spec, stages=(*spec.stages[:-1], dataclasses.replace(spec.stages[-1], kind="vector")))
    with pytest.raises(ConfigError, match="head=conv needs a feature map.*Use head=linear"):
        Classifier(LABELS, head="conv").taps(vector)


# Features without classes --------------------------------------------------------------------------------------------


def test_no_classes_give_the_features_of_photos(tmp_path: Path):
    model = zoo.create("resnet20", "classifier", pretrained=False, num_classes=0)
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    wanted = zoo.features(model, model.normalize(jnp.asarray(photos)))["layer3"].mean((1, 2))
    found = model.predict(photos)
    assert [one.file for one in found] == ["image 0", "image 1", "image 2"]
    np.testing.assert_allclose([one.features for one in found], wanted, rtol=1e-4, atol=1e-5)
    again = zoo.load(zoo.save(model, tmp_path / "model.safetensors"))
    assert again.predict(photos[0]).features == model.predict(photos[0]).features


@pytest.mark.parametrize("head", ["linear", "mlp", "conv"])
def test_no_classes_have_no_head_to_train(head: str):
    model = zoo.create("resnet20", "classifier", pretrained=False, num_classes=0, head=head)
    assert not jax.tree.leaves(nnx.state(model.head))
    with pytest.raises(ConfigError, match="no classes"):
        model.adapter.fitted(dataset([0, 1], ("a", "b")))
    with pytest.raises(ConfigError, match="num_classes is -1"):
        zoo.create("resnet20", "classifier", pretrained=False, num_classes=-1)
