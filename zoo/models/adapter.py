"""The task contract: what a head on features needs, learns, predicts and reports.

An adapter is a frozen dataclass: its fields are the options a user may set, its methods are everything the task means.
The core composes, trains, evaluates, saves and serves it without knowing the task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import msgspec

from zoo.errors import ConfigError, unknown_name
from zoo.models.options import by_owner
from zoo.numbers import check_finite
from zoo.registry.parts import points_of
from zoo.registry.spec import BackboneSpec, Preprocess
from zoo.targets.moves import MOVES

if TYPE_CHECKING:
    import jax
    import numpy as np
    from flax import nnx
    from PIL import Image

    from zoo.data import Dataset, Sample
    from zoo.models.model import Model

Arrays = Mapping[str, Any]


class Metrics(Protocol):
    """Accumulates over batches, on the host.

    Where predictions are of classes, a method `class_counts()` may tell, class -> (how often it was predicted, how
    often it is true): a training then says which classes are never predicted.
    """

    def update(self, decoded: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Take in a batch: `decoded` is `Adapter.decode`'s result, `batch` holds the targets and `valid` (b,). Copies
        that fill up a batch were left out of both: every row is an image of the data."""

    def compute(self) -> dict[str, Any]:
        """The figures so far; plain floats, ints, lists and dicts, ready for JSON."""


class Table(NamedTuple):
    """Predictions for people.

    Attributes:
        columns: their names. rows: a cell for each column. right: names of the columns that are aligned to the right.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Base of every task. Subclasses are frozen dataclasses whose further fields are options with defaults.

    Attributes:
        labels: the class names, in the order of the outputs.
    """

    labels: tuple[str, ...] = ()

    targets_from: ClassVar[tuple[str, ...]] = ()
    """Kinds of data set (`zoo.data.Dataset.kind`) this task can learn from."""
    classes: ClassVar[bool] = True
    """Whether its outputs stand for classes. A task without them takes no labels."""
    fixed_backbone: ClassVar[bool] = False
    """Whether the backbone must stay as it is, because the task measures by it or what it paints is made from it. Then
    only the head trains, on images that may be augmented, and no features are cached."""
    mirrors: ClassVar[bool] = False
    """Whether the features of mirror images are cached beside those of the images, where augmentation is on and the
    backbone is frozen. The targets in `moves` are mirrored with them."""
    views: ClassVar[int] = 0
    """How many further, randomly augmented views of each image have their features cached there as well, with the
    targets in `moves` moved along. Fewer for data of many images, see `zoo.training.phase_sources.VIEWED`."""
    invariant: ClassVar[tuple[str, ...]] = ()
    """Names of `targets` that stay true when the image is cropped or mirrored, such as a class, or that training does
    not read. With a target that is neither here nor in `moves`, training on moved images is refused."""
    moves: ClassVar[Mapping[str, str]] = MOVES
    """Which `targets` say where things are, and what each is: name -> nature. Augmentation moves them with the pixels.
    The natures are `boxes` (b, m, 4) with `box_valid`, `labels` and `crowd`, `mask` (b, h, w), `points` (b, n, 2) with
    `point_valid`, and those added to `zoo.targets`; coordinates are pixels of the prepared image. Without a word,
    `boxes` and `mask` are what their names say."""
    mixes: ClassVar[bool] = False
    """Whether the loss takes images that were mixed of two (`mix` in the batch, see `zoo.data.augment.augment`)."""
    adjustable: ClassVar[tuple[str, ...]] = ()
    """Options that change predictions but nothing that is learned: they may be other ones for a trained model."""
    rasters: ClassVar[tuple[str, ...]] = ()
    """Names of what `raster` gives."""

    # What may depend on the options; a class attribute will do where it does not. ---------------------------------
    @property
    def primary(self) -> str:
        """The metric that tells the better of two models; greater is better, but for the loss."""
        return "loss"

    @property
    def looks_twice(self) -> bool:
        """Whether `decoded` looks at mirror images as well (`Model.mirrored`): the features of those that a frozen
        backbone is validated on are cached, too."""
        return False

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What `zoo.train` does for this task where it is told nothing: fields that `zoo.training.config.Recipe`
        declares, such as `plan`, `epochs`, `batch_size` and `steps` (of updates, at least: few images are seen in more
        epochs), `lr` (of a new head), and fields of `Augment` as `augment`."""
        return {}

    # What it needs of a backbone -------------------------------------------------------------------------------
    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        """Names of the stages whose outputs the head reads. Raises `ConfigError` when the backbone cannot serve."""
        raise NotImplementedError

    def backbone_options(self, spec: BackboneSpec) -> Mapping[str, Any]:
        """Build options that the task wants a backbone to have where a user names none, e.g. a smaller stride."""
        return {}

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """How this task wants images prepared, given how the weights were made. A user's own options go before."""
        return preprocess

    def build(
        self,
        spec: BackboneSpec,
        shapes: Mapping[str, jax.ShapeDtypeStruct],
        *,
        size: tuple[int, int],
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        """The head: `head(head.reduce(features))` gives the outputs, for features {stage: array} of images of `size`
        (height, width).

        `reduce` must be deterministic and without parameters: its result is what the activation cache keeps.
        `head.reads()` names the affine maps (path in the head -> stage) that read a reduced feature as it is; they
        are trained as if it were standardised (`zoo.training.precondition`). It may be empty.
        """
        raise NotImplementedError

    def checkpoint_paths(self, spec: BackboneSpec) -> Mapping[str, str]:
        """Module path in the head -> module path in the backbone's own checkpoint, for what a checkpoint may fill."""
        return {}

    def own_weights(self, spec: BackboneSpec) -> tuple[Self, Mapping[str, np.ndarray]]:
        """(this adapter, completed by what the weights are made for; tensor name in the head -> array with the
        checkpoint's axes), where an option names weights of the head that do not come with the backbone's."""
        return self, {}

    # Learning --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        """This adapter, completed by what only the training data can tell (e.g. balanced class weights)."""
        return self

    def sized(self, datasets: Sequence[Dataset]) -> tuple[Self, str]:
        """(this adapter with room for the targets of all these data sets, a note on what is left out or nothing)."""
        return self, ""

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        """Arrays of fixed shape that describe a sample's truth; they are batched beside the image, which is prepared
        as `preprocess` says."""
        raise NotImplementedError

    def truth(self, sample: Sample) -> dict[str, np.ndarray]:
        """Further arrays of fixed shape that figures are computed against, e.g. at the original resolution. They are in
        the batches of an evaluation only, read batch by batch; training never sees them."""
        return {}

    def loss(self, outputs: Any, batch: Arrays) -> jax.Array:
        """The loss of each image, (b,). `batch` holds the targets and, where images were mixed, `mix`."""
        raise NotImplementedError

    def losses(self, model: Model, reduced: Mapping[str, jax.Array], batch: Arrays) -> jax.Array:
        """The loss of each image, (b,), from what the head computes from. For a task whose loss needs more than the
        head's outputs: a second stage that is fed by the truth, or a loss network that looks at the outputs."""
        return self.loss(model.outputs(reduced), batch)

    def terms(self, model: Model, reduced: Mapping[str, jax.Array], batch: Arrays) -> dict[str, jax.Array]:
        """What the loss is made of, by name, each (b,): shown among the figures of an evaluation."""
        return {}

    # Predicting ------------------------------------------------------------------------------------------------
    def decode(self, outputs: Any, batch: Arrays) -> dict[str, jax.Array]:
        """Outputs as predictions in arrays, inside the compiled step. Where photos are predicted, `batch` holds
        `frame` (b, 6), see `zoo.data.transform.Frame`; where data are evaluated, the targets."""
        raise NotImplementedError

    def decoded(self, model: Model, reduced: Mapping[str, jax.Array], batch: Arrays) -> dict[str, jax.Array]:
        """Predictions in arrays from what the head computes from, where decoding needs more than the outputs."""
        return self.decode(model.outputs(reduced), batch)

    def predict(
        self, model: Model, images: Sequence[Path | np.ndarray], names: Sequence[str], batch_size: int
    ) -> list[Any]:
        """One prediction for each image, a file or uint8 (h, w, c). For a task that looks at images otherwise than at
        each once, as a whole. With a `batch_size`, all batches are of it, so that they share a program."""
        from zoo.models.predictor import predict_framed

        return predict_framed(model, images, names, batch_size)

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Any]:
        """Decoded arrays as one typed value (a msgspec.Struct) for each image."""
        raise NotImplementedError

    def table(self, predictions: Sequence[Any]) -> Table:
        """Predictions as a table: the fields of the typed values, of long lists only how many values they hold."""
        rows = [msgspec.to_builtins(one) for one in predictions]
        columns = tuple(rows[0]) if rows else ()
        return Table(columns, [tuple(map(_cell, row.values())) for row in rows])

    def unabridged(self) -> Self:
        """This adapter, whose predictions leave out nothing that figures are computed from."""
        return self

    def results(self, predictions: Sequence[Any], data: Dataset | None = None) -> dict[str, Any]:
        """Predictions as files for other programs: name without suffix -> plain values, ready for JSON. In the format
        that the field uses, where there is one, with what `data`, where they are known, call their images and classes
        (`Sample.number`, `Dataset.category_ids`)."""
        return {"predictions": msgspec.to_builtins(predictions)}

    def picture(self, pixels: np.ndarray, prediction: Any) -> np.ndarray | None:
        """The image, uint8 (h, w, 3), with what was seen in it; None where that is nothing to draw."""
        return None

    def raster(self, name: str, prediction: Any) -> Image.Image:
        """One of the predictions that are images themselves, for other programs; its name is one of `rasters`."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        """A fresh accumulator."""
        raise NotImplementedError

    def next_step(self, run: Path) -> str:
        """The command that uses a finished run, where that is not the usual ones."""
        return ""

    def preview(self, model: Model, dataset: Dataset, path: Path) -> Path | None:
        """Draw what the model makes of a few images of the data, after each epoch; None where that is no picture."""
        return None

    def plots(self, evaluation: Any, folder: Path) -> list[Path]:
        """Draw what one would rather look at than read. `evaluation` is a `zoo.training.Evaluation`."""
        return []


def _cell(value: Any) -> Any:
    """A value as it stands in a table."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(_cell(one)) for one in value) if len(value) <= 4 else f"{len(value)} values"
    return value


def option_fields(adapter: type[Adapter]) -> dict[str, dataclasses.Field[Any]]:
    """The options of an adapter: its fields but `labels`."""
    return {f.name: f for f in dataclasses.fields(adapter) if f.name != "labels"}


def configure(adapter: type[Adapter], labels: Sequence[str], options: Mapping[str, Any]) -> Adapter:
    """An adapter from options as Python values or as strings from a command line.

    Raises:
        UnknownNameError: for an option it does not have, with the nearest ones.
        ConfigError: for a value of the wrong type or out of range.
    """
    known = option_fields(adapter)
    for key in options:
        if key not in known:
            raise unknown_name(f"option of {adapter.__name__}", key, known)
    try:
        found = msgspec.convert({"labels": tuple(labels), **options}, adapter, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{adapter.__name__}: {error}. {_describe(known)}") from None
    for key in options:
        check_finite(key, getattr(found, key))
    for key, point in points_of(adapter).items():
        point[getattr(found, key)]  # raises for a name that nothing is called by
    return found


def adjusted(adapter: Adapter, options: Mapping[str, Any]) -> Adapter:
    """An adapter with other values of options that are `adjustable`. Raises `ConfigError` for others."""
    kind = type(adapter)
    for key in options:
        if key.removeprefix("task.") not in kind.adjustable:
            accepted = ", ".join(kind.adjustable) or "none"
            raise ConfigError(f"{key} cannot be another one for a model that there is; what can: {accepted}.")
    own = {name: msgspec.to_builtins(getattr(adapter, name)) for name in option_fields(kind)}
    chosen = by_owner(kind.__name__, {"task": kind.adjustable}, options)["task"]
    return configure(kind, adapter.labels, {**own, **chosen})


def _describe(known: Mapping[str, dataclasses.Field[Any]]) -> str:
    return "Options: " + ", ".join(f"{name} ({field.type})" for name, field in known.items()) + "."
