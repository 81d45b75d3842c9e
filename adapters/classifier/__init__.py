"""Image classification with one label per image, or several.

Head: pooling of the last feature map, dropout, then a linear layer, a small MLP or the form of the checkpoint's own
classifier. Losses: softmax cross-entropy with label smoothing (arXiv:1512.00567, section 7) and class weights; sigmoid
cross-entropy for several labels. Metrics: accuracy, top-5 accuracy, precision, recall and F1 for each class and as
macro averages, confusion matrix, expected calibration error (arXiv:1706.04599, eq. 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from flax import nnx
from jax import Array

from zoo.adapters.classifier.losses import LOSSES, Scores
from zoo.adapters.classifier.losses import parts as loss_parts
from zoo.adapters.classifier.metrics import ClassificationMetrics
from zoo.data import Dataset, Sample
from zoo.errors import ConfigError, DataError
from zoo.layers import Conv, Linear, Normal, recoverable_relu
from zoo.models.adapter import Adapter, ForwardPass, HeadInputs, Table, Training
from zoo.numbers import check_class_weights
from zoo.registry.hookspecs import hookimpl
from zoo.registry.options import Meta
from zoo.registry.spec import AdapterSpec, BackboneSpec, Part, Preprocess

if TYPE_CHECKING:
    from jaxtyping import Float

Pool = Literal["avg", "max", "avgmax"]


class Classification(msgspec.Struct, frozen=True):
    """The predicted classes of one image.

    Attributes:
        file: the image.
        label: the most likely class.
        score: its probability.
        top: up to five most likely classes with their probabilities, best first.
        labels: with several labels per image, those with a probability of at least the threshold; else None.
    """

    file: str
    label: str
    score: float
    top: list[tuple[str, float]]
    labels: list[str] | None = None


class Features(msgspec.Struct, frozen=True):
    """The pooled features of one image, from a model without classes.

    Attributes:
        file: the image.
        features: the feature vector that a classifier would read.
    """

    file: str
    features: list[float]


def pool_features(x: Float[Array, "b *positions c"], kind: Pool) -> Float[Array, "b features"]:
    """Pool a map (b, h, w, c), tokens (b, n, c) or a vector (b, c) to (b, c), or (b, 2c) for `avgmax`."""
    axes = tuple(range(1, x.ndim - 1))
    if not axes:
        return x
    if kind == "avg":
        return jnp.mean(x, axes)
    top = jnp.max(x, axes)
    return top if kind == "max" else jnp.concatenate([jnp.mean(x, axes), top], axis=-1)


class PooledHead(nnx.Module):
    """Pooling, an optional hidden layer, dropout and a linear layer (`fc`). Without classes, pooling only.

    Args:
        stage: backbone stage to read.
        features: width of that stage.
        classes: number of classes; 0 for none.
        pool: how to pool.
        dropout: dropout rate.
        hidden: width of the hidden layer; 0 for none.
    """

    def __init__(
        self, stage: str, features: int, classes: int, pool: Pool, dropout: float, hidden: int, *, rngs: nnx.Rngs
    ):
        self.stage, self.pool = stage, pool
        features = features * (2 if pool == "avgmax" else 1)
        self.hidden = (
            Linear(features, hidden, kernel_init=Normal(math.sqrt(2 / features)), rngs=rngs) if hidden else None
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        inputs = hidden or features
        init = Normal(0.5 / math.sqrt(inputs))
        self.fc = Linear(inputs, classes, kernel_init=init, rngs=rngs) if classes else None

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return {self.stage: pool_features(features[self.stage], self.pool)}

    def reads(self) -> dict[str, str]:
        return {} if self.fc is None else {"fc" if self.hidden is None else "hidden": self.stage}

    def __call__(self, features: Mapping[str, Array]) -> Float[Array, "b outputs"]:
        x = features[self.stage]
        if self.fc is None:
            return x
        if self.hidden is not None:
            x = jax.nn.relu(self.hidden(x))
        return self.fc(x if self.dropout is None else self.dropout(x))


class ConvHead(nnx.Module):
    """A 1x1 convolution (`conv`), ReLU and average pooling, as in SqueezeNet (arXiv:1602.07360)."""

    def __init__(self, stage: str, features: int, classes: int, dropout: float, *, rngs: nnx.Rngs):
        self.stage = stage
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.conv = Conv(features, classes, 1, kernel_init=Normal(0.01), rngs=rngs)

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return {self.stage: features[self.stage]}

    def reads(self) -> dict[str, str]:
        return {"conv": self.stage}

    def __call__(self, features: Mapping[str, Array]) -> Float[Array, "b classes"]:
        x = features[self.stage]
        x = self.conv(x if self.dropout is None else self.dropout(x))
        return jnp.mean(recoverable_relu(x), axis=(1, 2))


@dataclass(frozen=True)
class Classifier(Adapter):
    """Options of the classifier. Without labels it returns pooled features instead of classes."""

    head: Annotated[
        Literal["auto", "linear", "mlp", "conv"],
        Meta(
            "Classification head: mlp has one hidden layer; conv is a 1x1 convolution, ReLU and mean; auto takes the "
            "form of the checkpoint's own classifier, whose weights are then loaded and can be exported again."
        ),
    ] = "auto"
    pool: Annotated[Pool, Meta("Pooling of the last map. Checkpoints use avg.")] = "avg"
    dropout: Annotated[float, Meta("Dropout rate before the last layer.", ge=0, lt=1)] = 0.0
    hidden: Annotated[int, Meta("Width of the hidden layer of mlp; 0 for the number of features.", ge=0)] = 0
    multi_label: Annotated[bool, Meta("Several labels per image; set by the data.", hidden=True)] = False
    threshold: Annotated[
        float, Meta("Probability at which a label counts as predicted when images have several.", gt=0, lt=1)
    ] = 0.5
    loss: Annotated[str, LOSSES, Meta("Training loss, such as ce or ce+0.5*NAME.")] = "ce"
    label_smoothing: Annotated[
        float, Meta("Share of the target probability that is spread over all classes.", ge=0, lt=1)
    ] = 0.0
    class_weights: Annotated[
        Literal["balanced"] | tuple[float, ...] | None,
        Meta(
            "Weight of each class in the loss; balanced weights classes inversely to their frequency.",
            values="balanced | a list with one number of at least 0 per class | null",
        ),
    ] = None

    targets_from = ("class", "classes")
    primary = "accuracy"
    training = Training(invariant=("label",), mixup=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.class_weights, tuple):
            check_class_weights(self.class_weights, self.labels)

    def _form(self, spec: BackboneSpec) -> str:
        return spec.classifier.form if self.head == "auto" else self.head

    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        if self._form(spec) == "conv" and spec.stages[-1].kind != "map":
            raise ConfigError(
                f"head=conv needs a feature map; {spec.name} ends in {spec.stages[-1].kind}. Use head=linear."
            )
        return (spec.stages[-1].name,)

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        (stage, shape) = next(iter(inputs.shapes.items()))
        features, classes = shape.shape[-1], len(self.labels)
        form = self._form(inputs.spec)
        if not classes:
            return PooledHead(stage, features, 0, self.pool, 0.0, 0, rngs=rngs)
        if form == "conv":
            return ConvHead(stage, features, classes, self.dropout, rngs=rngs)
        hidden = (self.hidden or features) if form == "mlp" else 0
        return PooledHead(stage, features, classes, self.pool, self.dropout, hidden, rngs=rngs)

    def checkpoint_paths(self, spec: BackboneSpec) -> Mapping[str, str]:
        if not self.labels:
            return {}
        if self._form(spec) != spec.classifier.form or (spec.classifier.form == "linear" and self.pool != "avg"):
            return {}
        return {"conv" if spec.classifier.form == "conv" else "fc": spec.classifier.path}

    def fitted(self, dataset: Dataset) -> Self:
        if not self.labels:
            raise ConfigError(
                "this model has no classes (num_classes=0) and cannot be trained as a classifier: create it with "
                "labels= or num_classes=."
            )
        multi_label = self.multi_label or dataset.kind == "classes"
        weights = self.class_weights
        if weights == "balanced":
            counts = np.array(list(dataset.counts().values()), np.float64)
            if not counts.all():
                empty = self.labels[int(np.argmin(counts))]
                raise DataError(
                    f"class_weights=balanced needs images of every class; {dataset.name} has no image of {empty!r}."
                )
            weights = tuple((counts.sum() / (len(counts) * counts)).tolist())
        return replace(self, multi_label=multi_label, class_weights=weights)

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        if not self.multi_label:
            return {"label": np.asarray(sample.target, np.int32)}
        hot = np.zeros(len(self.labels), np.float32)
        hot[list(sample.target) if isinstance(sample.target, tuple) else [sample.target]] = 1
        return {"label": hot}

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        return {f"loss_{name}": term for name, term in self.losses_by_name(forward.outputs, batch).items()}

    def losses_by_name(
        self, outputs: Float[Array, "b classes"], batch: Mapping[str, Any]
    ) -> dict[str, Float[Array, " b"]]:
        """Return the terms of the loss by name, each multiplied by its factor.

        Args:
            outputs: the logits.
            batch: `label` and, if images were mixed, `mix`.
        """
        classes = len(self.labels)
        targets = batch["label"] if self.multi_label else jax.nn.one_hot(batch["label"], classes, dtype=outputs.dtype)
        weights = jnp.ones(classes, outputs.dtype)
        if isinstance(self.class_weights, tuple):
            weights = jnp.asarray(self.class_weights, outputs.dtype)
        if self.multi_label:
            # Each class is a binary problem, so smoothing moves its target towards 1/2, not towards 1/classes.
            targets = targets * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        elif self.label_smoothing:
            targets = optax.smooth_labels(targets, self.label_smoothing)
        scores = Scores(outputs, _mixed(targets, batch), weights, self.multi_label)
        return {name: factor * loss(scores) for factor, name, loss in LOSSES.terms(self.loss)}

    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        outputs = forward.outputs
        if not self.labels:
            return {"features": outputs}
        probabilities = jax.nn.sigmoid(outputs) if self.multi_label else jax.nn.softmax(outputs)
        return {"logits": outputs, "probabilities": probabilities}

    def predictions(
        self, decoded: Mapping[str, np.ndarray], files: Sequence[str]
    ) -> list[Classification] | list[Features]:
        if not self.labels:
            return [Features(file, row.tolist()) for file, row in zip(files, decoded["features"], strict=True)]
        results = []
        for file, scores in zip(files, decoded["probabilities"], strict=True):
            order = np.argsort(-scores, kind="stable")[:5]
            top = [(self.labels[i], float(scores[i])) for i in order]
            several = [self.labels[i] for i in np.flatnonzero(scores >= self.threshold)] if self.multi_label else None
            results.append(Classification(file, *top[0], top, several))
        return results

    def table(self, predictions: Sequence[Any]) -> Table:
        if not self.labels:
            return super().table(predictions)

        def others(item: Classification) -> str:
            return ", ".join(f"{name} {score:.1%}" for name, score in item.top[1:3])

        rows = [(item.file, item.label, f"{item.score:.1%}", others(item)) for item in predictions]
        return Table(("file", "label", "score", "then"), rows, right=("score",))

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(self.labels, self.multi_label, self.threshold)

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        from zoo.report import confusion_matrix, photo_grid

        drawn = []
        metrics = evaluation.metrics
        if "confusion" in metrics:
            drawn.append(confusion_matrix(np.asarray(metrics["confusion"]), self.labels, folder / "confusion.png"))
        worst = evaluation.worst(16)
        captions = []
        for file, decoded, batch in worst:
            shown = self.predictions({k: v[None] for k, v in decoded.items()}, [str(file)])[0]
            assert isinstance(shown, Classification)
            truth = [
                self.labels[i]
                for i in np.atleast_1d(np.flatnonzero(batch["label"]) if self.multi_label else batch["label"])
            ]
            captions.append(f"{', '.join(truth) or 'none'} as {shown.label} {shown.score:.0%}")
        if worst:
            drawn.append(photo_grid([file for file, *_ in worst], captions, folder / "worst.png"))
        return drawn


def _mixed(targets: Float[Array, "b classes"], batch: Mapping[str, Any]) -> Float[Array, "b classes"]:
    """Mix the targets in the same shares as the images (mixup, CutMix)."""
    if "mix" not in batch:
        return targets
    partner, share = batch["mix"]
    share = share.reshape(-1, 1)
    return share * targets + (1 - share) * targets[partner]


@hookimpl
def zoo_parts() -> list[Part]:
    return loss_parts()


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    return [AdapterSpec("classifier", Classifier, "One label per image, or several.")]
