"""Specs: what a plugin declares about its backbones, weights, tasks, models and parts. Frozen values, without jax.

A backbone plugin returns `BackboneSpec`s and `WeightSpec`s. A task plugin returns `AdapterSpec`s, and `ModelSpec`s for
published models. Every difference between two families is a field here, so that no other code has to ask for the
family. Plugins import everything they need to describe themselves from this module, `Preprocess` included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal

from zoo.errors import ConfigError, unknown_name
from zoo.registry.preprocess import STATISTICS, Preprocess

API_VERSION = 1
"""Version of the plugin interface. A plugin module states the version it was written for as `ZOO_API`."""

StageKind = Literal["map", "tokens", "vector"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a backbone. Applied in order, the stages of a backbone are the backbone.

    Attributes:
        name: unique within the backbone, e.g. `stem`, `layer1`, `blocks.0`.
        channels: size of the last axis of the output.
        stride: input pixels per output position, along either axis (1 for kind `vector`).
        kind: shape of the output: `map` is (batch, height, width, channels), `tokens` is (batch, tokens, channels),
            `vector` is (batch, channels).
        modules: attribute paths in the backbone that own the parameters of this stage, e.g. `("conv1", "bn1")`.
        prefix: for `tokens`, the number of leading tokens without a position in the image (class token, registers).
            The other tokens are the rows of the map, one after the other.
        dilation: factor by which the stride is smaller than the family's own in a dilated backbone.
    """

    name: str
    channels: int
    stride: int
    kind: StageKind = "map"
    modules: tuple[str, ...] = ()
    prefix: int = 0
    dilation: int = 1


OUTPUT_STRIDE = "output_stride"
"""Build option of a `dilatable` backbone: the largest stride that a stage may have. Later stages are dilated
instead of strided, which keeps their receptive field (arXiv:1706.05587, section 3.1)."""


@dataclass(frozen=True)
class Range:
    """Accepted values of a numeric build option: `low` <= value < `high`. `default` holds if none is given."""

    default: float
    low: float = 0.0
    high: float = 1.0

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value < self.high

    def __iter__(self) -> Iterator[float]:
        yield self.default

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"{self.default} (from {self.low} to below {self.high})"


@dataclass(frozen=True)
class Stored:
    """How another key layout stores one of zoo's tensors, with the axes of the checkpoint.

    Attributes:
        names: names of the tensors in the other layout. Several tensors are equal slices of ours, in order along the
            first axis (query, key, value).
        shape: shape of each tensor, if it is not simply a slice of ours; one side may be -1.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ClassifierLayout:
    """The classifier at the end of a family's checkpoints.

    Attributes:
        path: path of its module in the native checkpoint, e.g. `fc`.
        form: `linear` is pooling, then a linear layer; `conv` is a 1x1 convolution on the last map, ReLU, then average
            pooling (SqueezeNet, Network in Network).
        dropout: dropout rate before it in the reference implementation.
        labels: name of the label set of the reference checkpoints, or empty. A bare file with the same number of
            classes is assumed to have it.
    """

    path: str
    form: Literal["linear", "conv"] = "linear"
    dropout: float = 0.0
    labels: str = "imagenet-1k"


@dataclass(frozen=True)
class Convention:
    """Settings for checkpoints of another origin, which can be recognised only by their tensors.

    Attributes:
        name: name of the origin in messages, e.g. `tensorflow`.
        recognise: takes the tensors of a checkpoint (name -> array) and returns whether it is of this origin.
        preprocess: as in `WeightSpec`.
        options: as in `WeightSpec`.
    """

    name: str
    recognise: Callable[[Mapping[str, Any]], bool] = field(repr=False)
    preprocess: Preprocess = Preprocess()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone, described without building it.

    Attributes:
        name: the architecture, spelt as in timm or torchvision, e.g. `resnet18`.
        family: name of the family in its paper.
        build: `build(*, rngs, in_channels=3, **options)` returns the backbone module, see
            `zoo.models.backbone.StagedModule`.
        stages: the stages in order. Each parameter of the module belongs to the `modules` of exactly one stage.
        classifier: the classifier of the family's checkpoints.
        preprocess: used if the weights state none (random initialisation, a bare file).
        options: keyword arguments of `build` that a user or a set of weights may set, each with its accepted values,
            the default first, e.g. `{"padding": ("torch", "same")}`. A `Range` of numbers is for options that only
            affect training, e.g. `{"drop_path_rate": Range(0.0)}`.
        pretrained: tag of the default weights, or None.
        native_layout: the key layout that the attribute names follow: `timm`, `torchvision` or `original`.
        layouts: other key layouts of this family's checkpoints. Each value is a function without arguments that
            returns a one-to-one map: from module paths here (classifier included) to module paths there, and from
            names of single tensors, which take precedence, to a name or a `Stored`.
        ignored: glob of tensor names, in any layout, that a file may hold and the net does not use -> the reason.
        resampled: glob of tensor names whose shape depends on the image size -> `f(array, shape)`, which resamples a
            checkpoint's array, in the checkpoint's axes, to another shape.
        conventions: other origins of checkpoints, each with its own preprocessing and build options.
        computes: field of transformers' config.json -> (the value that this net implements, the default of
            transformers). Weights with another value are refused.
        export_args: option -> value -> keyword arguments of timm's constructor with the same meaning.
        min_size: smallest accepted image side in pixels.
        size_multiple: image sides must be a multiple of this.
        fold: side of the square of pixels that the stem stacks into channels before its first convolution (1: none).
        capabilities: abilities that task adapters may require, e.g. `dilatable` (see `OUTPUT_STRIDE`).
        paper: URL of the paper.
        citation: BibTeX entry.
        code_license: SPDX identifier of the licence of the family's module.
    """

    name: str
    family: str
    build: Callable[..., Any] = field(compare=False, repr=False)
    stages: tuple[Stage, ...]
    classifier: ClassifierLayout
    preprocess: Preprocess = Preprocess()
    options: Mapping[str, tuple[Any, ...] | Range] = field(default_factory=dict, compare=False)
    pretrained: str | None = None
    native_layout: str = "timm"
    layouts: Mapping[str, Callable[[], Mapping[str, str | Stored]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    ignored: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    resampled: Mapping[str, Callable[[Any, tuple[int, ...]], Any]] = field(
        default_factory=dict, compare=False, repr=False
    )
    conventions: tuple[Convention, ...] = field(default=(), compare=False, repr=False)
    computes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, compare=False, repr=False)
    export_args: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict, compare=False, repr=False)
    min_size: int = 32
    size_multiple: int = 1
    fold: int = 1
    capabilities: tuple[str, ...] = ()
    paper: str = ""
    citation: str = field(default="", repr=False)
    code_license: str = "Apache-2.0"

    def build_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return every build option with its value: the given one or the default."""
        self.check_options(options)
        return {key: options.get(key, next(iter(accepted))) for key, accepted in self.options.items()}

    def built_with(self, options: Mapping[str, Any]) -> BackboneSpec:
        """Return this spec for given build options: a dilated backbone has stages with other strides."""
        limit = options.get(OUTPUT_STRIDE) if OUTPUT_STRIDE in self.options else None
        if limit is None:
            return self
        stages = []
        for stage in self.stages:
            undilated = stage.stride * stage.dilation
            stages.append(replace(stage, stride=min(undilated, limit), dilation=max(undilated // limit, 1)))
        return replace(self, stages=tuple(stages))

    @property
    def features(self) -> int:
        """Number of channels of the last stage."""
        return self.stages[-1].channels

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`. Raises `UnknownNameError`, which names the stages."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise unknown_name("stage", name, [stage.name for stage in self.stages], owner=f"of {self.name}")

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `ConfigError` for an unknown build option or a value that is not accepted."""
        for key, value in options.items():
            if key not in self.options:
                accepted = ", ".join(self.options) or "none"
                raise ConfigError(f"{self.name} has no option {key!r}; accepted: {accepted}.")
            values = self.options[key]
            if value not in values:
                accepted = repr(values) if isinstance(values, Range) else ", ".join(map(repr, values))
                raise ConfigError(f"{self.name}: {key} is {value!r}; accepted: {accepted}.")

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `ConfigError` for an image size (height, width) that the backbone cannot process."""
        if min(size) < self.min_size or any(side % self.size_multiple for side in size):
            multiple = f" and a multiple of {self.size_multiple}" if self.size_multiple > 1 else ""
            raise ConfigError(
                f"{self.name} cannot process images of {size[0]}x{size[1]} pixels: each side must be at least "
                f"{self.min_size}{multiple}. Give another image_size."
            )


@dataclass(frozen=True)
class WeightSpec:
    """A published set of weights for a backbone.

    Attributes:
        name: `arch.tag`, e.g. `resnet18.a1_in1k`.
        source: where to get it, e.g. `hf://timm/resnet18.a1_in1k`. Empty if there is no public download: the user then
            gives a file, which `sha256` recognises.
        file: name of the file at the source.
        revision: commit of the source, if known.
        sha256: hash of the file, if known.
        preprocess: how images are prepared for it; None for the backbone's own preprocessing.
        num_classes: classes of its classifier; 0 if it has none.
        labels: name of a label set that comes with zoo (`zoo/labels/<name>.txt`), or empty.
        options: build options that it was trained with, e.g. `{"padding": "same"}`.
        license: SPDX identifier, or the publisher's words.
        commercial_use: `yes`, `no` or `unknown`.
        note: one sentence, e.g. the dataset that it was trained on.
    """

    name: str
    source: str = ""
    file: str = "model.safetensors"
    revision: str = ""
    sha256: str = ""
    preprocess: Preprocess | None = None
    num_classes: int = 1000
    labels: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    license: str = "unknown"
    commercial_use: Literal["yes", "no", "unknown"] = "unknown"
    note: str = ""

    @property
    def backbone(self) -> str:
        """Architecture that these weights are for."""
        return self.name.split(".", 1)[0]

    @property
    def tag(self) -> str:
        """The part of the name that distinguishes weights of the same architecture."""
        return self.name.split(".", 1)[1] if "." in self.name else ""


@dataclass(frozen=True)
class AdapterSpec:
    """A task adapter: the plugin's implementation of a task.

    If the user names no task, the kind of the dataset selects the one that has it in its adapter's `targets_from`.

    Attributes:
        name: name of the task, e.g. `classifier`.
        adapter: a frozen dataclass derived from `zoo.models.adapter.Adapter`; its fields are the options of the task.
        summary: one sentence for listings.
        paper: URL of the paper.
        citation: BibTeX entry.
    """

    name: str
    adapter: type[Any] = field(compare=False, repr=False)
    summary: str = ""
    paper: str = ""
    citation: str = field(default="", repr=False)


@dataclass(frozen=True)
class ModelSpec:
    """A published model: backbone, task adapter and configuration under one name, e.g. `deeplabv3_resnet50`.

    Attributes:
        name: name of the model.
        backbone: name of the backbone, or of its weights (`arch.tag`).
        adapter: name of the task adapter.
        config: options of the task adapter and of the backbone.
        summary: one sentence for listings.
        preprocess: how images are prepared for the published weights of the whole model.
        labels: name of the label set of these weights, see `zoo.labels`.
        layouts: key layouts of the whole model: name -> a function that returns a map from module paths here, which
            begin with `backbone` or `head`, to module paths there. See `BackboneSpec.layouts`.
        license: licence of the published weights.
    """

    name: str
    backbone: str
    adapter: str
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    summary: str = ""
    preprocess: Preprocess | None = None
    labels: str = ""
    layouts: Mapping[str, Callable[[], Mapping[str, str | Stored]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    license: str = "unknown"


_FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")


def weight_table(text: str, *, organisation: str = "timm") -> tuple[WeightSpec, ...]:
    """Return weights on the Hugging Face hub, described one a line.

    A line is `arch.tag size crop_pct interpolation licence [key=value ...]`; its repository is
    `organisation/arch.tag`. The keys are `stats` (a name of `STATISTICS`, default imagenet), `classes` (default 1000),
    `labels` (default imagenet-1k for 1000 classes) and `crop` (the crop_mode). Commercial use follows from the
    licence: `yes` for permissive licences, `no` for non-commercial ones, otherwise `unknown`.
    """
    rows = []
    for line in filter(str.strip, text.splitlines()):
        name, size, crop_pct, interpolation, license, *rest = line.split()
        extra = dict(item.split("=") for item in rest)
        mean, std = STATISTICS[extra.get("stats", "imagenet")]
        classes = int(extra.get("classes", 1000))
        use: Literal["yes", "no", "unknown"] = (
            "yes" if license in _FREE else "no" if "-nc" in license or "noncommercial" in license else "unknown"
        )
        rows.append(
            WeightSpec(
                name=name,
                source=f"hf://{organisation}/{name}",
                preprocess=Preprocess(
                    size=(int(size), int(size)),
                    mean=mean,
                    std=std,
                    interpolation=interpolation,  # type: ignore[arg-type]
                    crop_pct=float(crop_pct),
                    crop_mode=extra.get("crop", "center"),  # type: ignore[arg-type]
                ),
                num_classes=classes,
                labels=extra.get("labels", "imagenet-1k" if classes == 1000 else ""),
                license=license,
                commercial_use=use,
            )
        )
    return tuple(rows)


def defaults(spec: type[Any]) -> dict[str, Any]:
    """Return the default of each field of a spec class that has one."""
    values = {f.name: f.default for f in fields(spec) if f.default is not MISSING}
    made = {f.name: f.default_factory() for f in fields(spec) if f.default_factory is not MISSING}
    return {**values, **made}


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is chosen by name: the head of a detector, a data format, an optimizer, a command.

    Attributes:
        point: the extension point it belongs to, such as `detector.head`; `zoo list` shows all extension points.
        id: the name it is chosen by, such as `fcos`.
        value: the part itself, of the type that the point requires; or its location as `module:attribute` (or
            `module`), which is imported when it is first used.
        summary: one line for listings.
    """

    point: str
    id: str
    value: Any
    summary: str = ""

    @property
    def name(self) -> str:
        """Unique name among the parts of all points: `point:id`."""
        return f"{self.point}:{self.id}"
