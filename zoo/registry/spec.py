"""What plugins say about themselves: frozen values, without jax.

A backbone plugin returns `BackboneSpec`s and `WeightSpec`s, a task plugin `AdapterSpec`s and, for published
compositions, `ModelSpec`s. Whatever differs between two families is a field here, so that no other code asks
which family it has before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal

from zoo.errors import ConfigError, unknown_name
from zoo.numbers import check_finite

API_VERSION = 1
"""Version of the plugin interface. A plugin module says which one it was written for in `ZOO_API`."""

StageKind = Literal["map", "tokens", "vector"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a backbone; the stages of a backbone, applied in order, are the backbone.

    Attributes:
        name: unique in the backbone, e.g. `stem`, `layer1`, `blocks.0`.
        channels: size of the last axis of its output.
        stride: input pixels for each output position, along either axis (1 for kind `vector`).
        kind: `map` gives (batch, height, width, channels), `tokens` (batch, tokens, channels),
            `vector` (batch, channels).
        prefix: of tokens, how many lead that stand for no place in the image (class token, registers); the others
            are the map's rows one after the other.
        modules: attribute paths below the backbone that own this stage's parameters, e.g. `("conv1", "bn1")`.
        dilation: by how much its stride is smaller than the family's own, where the backbone is built dilated.
    """

    name: str
    channels: int
    stride: int
    kind: StageKind = "map"
    modules: tuple[str, ...] = ()
    prefix: int = 0
    dilation: int = 1


OUTPUT_STRIDE = "output_stride"
"""The build option of a backbone that is `dilatable`: no stage has a larger stride than this. Later convolutions have a
stride of 1 and take their inputs as far apart as they would have been (arXiv:1706.05587, section 3.1)."""


@dataclass(frozen=True)
class Range:
    """The accepted values of a build option that is a number: from `low` to below `high`; `default` if not given."""

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
    """How another key layout stores one tensor of ours, with the checkpoint's axes.

    Attributes:
        names: of the tensors there; several are equal parts of ours, in order along the first axis (query, key, value).
        shape: of each, where it differs from ours in more than the number of parts; one side may be -1.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How pixels must be prepared for a set of weights. It travels with the weights.

    Attributes:
        size: (height, width) in pixels that the net was evaluated at.
        mean, std: per channel, for pixel values scaled to [0, 1].
        interpolation: kernel of the antialiased resize: `bilinear`, `bicubic`, `lanczos` or `nearest`.
        crop_pct: the shorter side is resized to floor(size / crop_pct), then the centre is cropped.
        crop_mode: `center` as above; `squash` resizes both sides to floor(size / crop_pct) without
            keeping the aspect, then crops; `letterbox` shows the whole image: it is resized to fit into a frame, and
            the frame's right or lower part is filled.
        fill: the grey value (0 to 255) that a letterbox is filled with; None for the mean.
        frames: further sizes that a letterbox may have; an image gets the one it fills best.
        channels: order and number of colour channels: `RGB`, `BGR` or `L`. A model built for another number
            of input channels keeps this and says its number elsewhere.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash", "letterbox"] = "center"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    fill: int | None = None
    frames: tuple[tuple[int, int], ...] = ()

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (height, width) that an image of `size` is prepared in: of a letterbox the frame that it fills
        best, the first of equals; else the only one."""
        if self.crop_mode != "letterbox":
            return self.size
        height, width = size

        def filled(frame: tuple[int, int]) -> float:
            scale = min(frame[0] / height, frame[1] / width)
            return scale * scale * height * width / (frame[0] * frame[1])

        return max((self.size, *self.frames), key=filled)

    def for_channels(self, channels: int) -> Preprocess:
        """The same preparation for images with another number of channels: grey takes the mean of the statistics,
        more channels repeat them in turn."""
        old = len(self.mean)
        if channels == old:
            return self
        if channels == 1:
            mean, std = (sum(self.mean) / old,), (sum(self.std) / old,)
            return replace(self, mean=mean, std=std, channels="L")
        turn = [i % old for i in range(channels)]
        order = "RGB" if old == 1 else self.channels
        return replace(
            self, mean=tuple(self.mean[i] for i in turn), std=tuple(self.std[i] for i in turn), channels=order
        )

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ConfigError(f"mean has {len(self.mean)} values and std {len(self.std)}; they need one per channel.")
        for name in ("mean", "std"):
            check_finite(name, getattr(self, name))
        if not 0 < self.crop_pct <= 1:
            raise ConfigError(f"crop_pct is {self.crop_pct}; it must lie in (0, 1].")
        if min(self.size) < 1 or min(self.std) <= 0:
            raise ConfigError(f"size {self.size} and std {self.std} must be positive.")


@dataclass(frozen=True, slots=True)
class ClassifierLayout:
    """The classifier that a family's checkpoints end in: where it lies and how it computes logits.

    Attributes:
        path: its module's path in the native checkpoint, e.g. `fc`.
        form: `linear` is pool, then an affine map; `conv` is a 1x1 convolution on the last map, ReLU, then average
            pooling (SqueezeNet, Network in Network).
        dropout: rate before it in the reference.
        labels: name of the label set of the reference checkpoints, or empty. A bare file with as many classes is taken
            to have it.
    """

    path: str
    form: Literal["linear", "conv"] = "linear"
    dropout: float = 0.0
    labels: str = "imagenet-1k"


@dataclass(frozen=True)
class Convention:
    """What goes with checkpoints of another origin, which bear no other mark of it than their tensors.

    Attributes:
        name: for people, e.g. `tensorflow`.
        recognise: tells by a checkpoint's tensors, name -> array, whether it is of this origin.
        preprocess, options: as in `WeightSpec`.
    """

    name: str
    recognise: Callable[[Mapping[str, Any]], bool] = field(repr=False)
    preprocess: Preprocess = Preprocess()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone, described before any weight exists.

    Attributes:
        name: the architecture, as timm or torchvision spells it, e.g. `resnet18`.
        family: the paper's name for the family, for people.
        build: `build(*, rngs, in_channels=3, **options)` returns the backbone module, see
            `zoo.models.backbone.StagedModule`.
        stages: in order; every parameter of the module lies below exactly one stage's `modules`.
        classifier: the checkpoint's own classifier.
        preprocess: used where the weights do not say (random initialisation, a bare file).
        options: keyword arguments of `build` that a user or a set of weights may set, with their accepted values,
            the default first, e.g. `{"padding": ("torch", "same")}`; a `Range` of numbers for what matters in training
            alone, e.g. `{"drop_path_rate": Range(0.0)}`.
        pretrained: tag of the default weights, or None.
        native_layout: name of the key layout that the attribute names follow: `timm`, `torchvision`, `original`.
        layouts: other key layouts this family's checkpoints come in. Each value is a function of no arguments that
            returns a one-to-one map from module paths here (classifier included) to module paths there, and from names
            of single tensors, which count more, to a name or a `Stored`.
        ignored: glob of tensor names, in any layout, that a file may hold and the net has no use for -> why.
        resampled: glob of tensor names whose shape follows the image size -> `f(array, shape)`, which gives a
            checkpoint's array, with its axes, in another shape.
        conventions: other origins of checkpoints, each with its preprocessing and build options.
        computes: field of transformers' config.json -> (what this net computes, what transformers takes where the
            file does not say): weights of a net that computes otherwise are refused.
        export_args: option -> value -> the keyword arguments of timm's constructor that mean the same.
        min_size: smallest accepted image side in pixels.
        size_multiple: image sides must be a multiple of this.
        fold: side of the square of pixels whose channels the stem puts side by side, pixel by pixel, before its first
            convolution (1: none).
        capabilities: what adapters may ask for beyond stages, e.g. `dilatable` (see `OUTPUT_STRIDE`).
        paper: URL of the paper. citation: BibTeX. code_license: SPDX identifier of the family file.
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
        """Every build option with its value: the given one, else the default."""
        self.check_options(options)
        return {key: options.get(key, next(iter(accepted))) for key, accepted in self.options.items()}

    def built_with(self, options: Mapping[str, Any]) -> BackboneSpec:
        """This backbone as build options make it: the strides of its stages where it is dilated."""
        limit = options.get(OUTPUT_STRIDE) if OUTPUT_STRIDE in self.options else None
        if limit is None:
            return self
        stages = []
        for stage in self.stages:
            own = stage.stride * stage.dilation
            stages.append(replace(stage, stride=min(own, limit), dilation=max(own // limit, 1)))
        return replace(self, stages=tuple(stages))

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.stages[-1].channels

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises `UnknownNameError`, naming the stages there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise unknown_name(f"stage of {self.name}", name, [stage.name for stage in self.stages])

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `ConfigError` unless every build option is known and has an accepted value."""
        for key, value in options.items():
            if key not in self.options:
                accepted = ", ".join(self.options) or "none"
                raise ConfigError(f"{self.name} has no option {key!r}; it accepts: {accepted}.")
            values = self.options[key]
            if value not in values:
                accepted = repr(values) if isinstance(values, Range) else ", ".join(map(repr, values))
                raise ConfigError(f"{self.name}: {key}={value!r} is not accepted; choose from {accepted}.")

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `ConfigError` for an image size (height, width) that the family cannot take."""
        if min(size) < self.min_size or any(side % self.size_multiple for side in size):
            multiple = f" and a multiple of {self.size_multiple}" if self.size_multiple > 1 else ""
            raise ConfigError(
                f"{self.name} cannot take images of {size[0]}x{size[1]}: each side must be at least "
                f"{self.min_size}{multiple}. Pass another image_size."
            )


@dataclass(frozen=True)
class WeightSpec:
    """A published set of weights for a backbone, with all that belongs to it.

    Attributes:
        name: `arch.tag`, e.g. `resnet18.a1_in1k`.
        source: where it is, e.g. `hf://timm/resnet18.a1_in1k`; empty when it is only known as a file
            (the user names the file, which `sha256` then recognises).
        file: its name at the source. revision: commit, where known. sha256: of the file, where known.
        preprocess: how pixels are prepared for it; None for the backbone's own preprocessing.
        num_classes: of its own classifier; 0 when it has none.
        labels: name of a label set shipped with zoo (`zoo/labels/<name>.txt`), or empty.
        options: build options it was trained with, e.g. `{"padding": "same"}`.
        license: SPDX identifier or the publisher's words. commercial_use: `yes`, `no` or `unknown`.
        note: one sentence for people, e.g. what it was trained on.
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
        """The architecture these weights are for."""
        return self.name.split(".", 1)[0]

    @property
    def tag(self) -> str:
        """What tells these weights from others of the same architecture."""
        return self.name.split(".", 1)[1] if "." in self.name else ""


@dataclass(frozen=True)
class AdapterSpec:
    """A task: `adapter` is a frozen dataclass deriving from `zoo.models.adapter.Adapter`; its fields are its options.

    A data set whose kind is in the adapter's `targets_from` selects the task where the user names none.
    """

    name: str
    adapter: type[Any] = field(compare=False, repr=False)
    summary: str = ""
    paper: str = ""
    citation: str = field(default="", repr=False)


@dataclass(frozen=True)
class ModelSpec:
    """A published composition: backbone, adapter and configuration under one name, e.g. `deeplabv3_resnet50`.

    Attributes:
        config: options of the adapter and of the backbone.
        summary: one sentence for people.
        preprocess: how images are prepared for the published weights of the whole.
        labels: name of the label set that these have, see `zoo.labels`.
        layouts: key layouts of the whole: name -> a function that returns a map from module paths here, which begin
            with `backbone` or `head`, to those there. See `BackboneSpec.layouts`.
        license: of the published weights.
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


STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # pixels in [0, 1] as they are
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Means and standard deviations that most published weights use, by the names `weight_table` accepts."""

_FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")


def weight_table(text: str, *, organisation: str = "timm") -> tuple[WeightSpec, ...]:
    """Weights on the hub as one line each: `arch.tag size crop_pct interpolation licence [key=value ...]`.

    The repository is `organisation/arch.tag`. Keys: `stats` (a name of `STATISTICS`, default imagenet), `classes`
    (default 1000), `labels` (default imagenet-1k for 1000 classes), `crop` (crop_mode). Whether commercial use is
    allowed follows from the licence: yes for the permissive ones, no where it says non-commercial, else unknown.
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
    """The default of each field of a spec class that has one."""
    given = {f.name: f.default for f in fields(spec) if f.default is not MISSING}
    made = {f.name: f.default_factory() for f in fields(spec) if f.default_factory is not MISSING}
    return {**given, **made}


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is chosen by name: the head of a detector, a data format, an optimizer, a command.

    Attributes:
        point: the extension point that it belongs to, such as `detector.head`; `zoo list` shows those there are.
        id: what it is chosen by, such as `fcos`.
        value: the part itself, of the type that the point asks for; or where it lies, as `module:attribute` (or
            `module`), which is then imported when it is first used.
        summary: a line for people.
    """

    point: str
    id: str
    value: Any
    summary: str = ""

    @property
    def name(self) -> str:
        """What it is called among the parts of all points."""
        return f"{self.point}:{self.id}"
