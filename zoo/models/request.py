"""The arguments of `zoo.create`, and what their names stand for. Nothing is fetched or built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zoo.errors import ConfigError, unknown_name
from zoo.labels import names as label_names
from zoo.labels.spelling import nfc
from zoo.models.adapter import option_fields
from zoo.models.card import DTYPES, Provider
from zoo.models.options import OWNERS, by_owner, refuse_renamed
from zoo.numbers import SEED, Accepted, check_number
from zoo.registry import registry
from zoo.registry.options import internal_options
from zoo.registry.spec import AdapterSpec, BackboneSpec, ModelSpec, Preprocess, WeightSpec

PREPROCESS_OPTIONS = tuple(f.name for f in fields(Preprocess) if f.name != "size")


@dataclass(frozen=True)
class Request:
    """The arguments of `zoo.create`, described there. Raises `ConfigError` for contradictions."""

    name: str
    task: str | None = None
    weights: str | None = None
    pretrained: bool = True
    labels: tuple[str, ...] | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    image_size: int | tuple[int, int] | None = None
    dtype: str = "float32"
    seed: int = 0
    accept_license: bool = False
    ignore_tensors: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels, count = self.labels, self.num_classes
        patterns = (self.ignore_tensors,) if isinstance(self.ignore_tensors, str) else tuple(self.ignore_tensors)
        object.__setattr__(self, "ignore_tensors", patterns)
        if self.weights and not self.pretrained:
            raise ConfigError(
                f"weights={self.weights!r} and pretrained=False (--scratch) contradict each other: give one of them."
            )
        if patterns and not self.pretrained:
            raise ConfigError(
                "ignore_tensors (--ignore-tensors) needs weights, but pretrained=False (--scratch) loads none."
            )
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        if labels is not None and count is not None and len(labels) != count:
            raise ConfigError(f"{len(labels)} labels were given and num_classes={count}; give one of them.")
        if labels is not None and len(set(map(nfc, labels))) != len(labels):
            raise ConfigError("labels must be different from one another.")
        if broken := [label for label in labels or () if any("\ud800" <= sign <= "\udfff" for sign in label)]:
            raise ConfigError(
                f"the label {broken[0]!r} cannot be written in UTF-8; use the class names of zoo.data.read."
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        check_number("seed", self.seed, SEED)
        if self.in_channels is not None:
            check_number("in_channels", self.in_channels, Accepted(least=1, whole=True))
        if self.num_classes is not None:
            check_number("num_classes", self.num_classes, Accepted(least=0, whole=True))
        size = self.image_size
        sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
        if size is not None and (len(sides) != 2 or any(s not in Accepted(least=1, whole=True) for s in sides)):
            raise ConfigError(f"image_size is {size!r}; accepted: a side in pixels, or (height, width).")

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width), if a size was given."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


@dataclass(frozen=True)
class Options:
    """Options by owner."""

    task: Mapping[str, Any]
    backbone: Mapping[str, Any]
    preprocess: Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """What the names of a request stand for.

    Attributes:
        named: The named model, if the name is one.
        spec: The backbone.
        task: The task.
        row: The published weights.
        plugins: Distributions that backbone and task come from.
        options: Options of the named model, overridden by those of the request.
        labels: Requested class names.
        num_classes: Requested number of classes.
    """

    named: ModelSpec | None
    spec: BackboneSpec
    task: AdapterSpec
    row: WeightSpec | None
    plugins: Mapping[str, Provider]
    options: Options
    labels: tuple[str, ...] | None
    num_classes: int | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes as far as they are known without a checkpoint; two if nothing was given."""
        return self.labels if self.labels is not None else numbered(2 if self.num_classes is None else self.num_classes)


def resolve(request: Request) -> Parts:
    """Look up the names of a request.

    Raises:
        UnknownNameError: A name or option does not exist; the error names the nearest ones.
        ConfigError: Options, classes and task do not go together.
    """
    reg, name, task = registry(), request.name, request.task
    named = reg.model(name) if reg.means_model(name) else None
    if named is not None:
        name, own = reg.parts_of(request.name)
        task = task or own
    if task is None:
        accepted = ", ".join(sorted(row.name for row in reg.rows("adapters")))
        raise ConfigError(f"which task should {name} be composed for? Accepted: {accepted}.")
    row = reg.weights(name) if "." in name.rpartition("/")[2] else None
    arch = reg.backbone_of(name) if row else name
    spec, task_spec = reg.backbone(arch), reg.adapter(task)
    if row is None and request.pretrained and not request.weights:
        if spec.pretrained is None:
            raise ConfigError(
                f"{arch} has no published weights in the catalogue: give weights=FILE, or pretrained=False to start "
                "from random values."
            )
        row = reg.weights(f"{arch}.{spec.pretrained}")
    whose = {"backbone": reg.provider("backbones", arch), "adapter": reg.provider("adapters", task)}
    labels, count = _classes(request, named, task_spec)
    return Parts(
        named,
        spec,
        task_spec,
        row,
        {part: Provider(*one) for part, one in whose.items()},
        _sorted(spec, task_spec, named.config if named else {}, request.config),
        labels,
        count,
    )


def _classes(request: Request, named: ModelSpec | None, task: AdapterSpec) -> tuple[tuple[str, ...] | None, int | None]:
    """Return the requested labels and number of classes."""
    labels, count = request.labels, request.num_classes
    if named and named.labels and labels is None and count is None:
        labels = label_names(named.labels)
    if task.adapter.classes:
        return labels, count
    if labels or count:
        raise ConfigError(f"{task.name} knows no classes: leave labels and num_classes out.")
    return (), None


def numbered(count: int) -> tuple[str, ...]:
    """Return labels for classes without names: their numbers."""
    if count < 0:
        raise ConfigError(f"num_classes is {count}; it must be 0, for features alone, or more.")
    return tuple(map(str, range(count)))


# Options -------------------------------------------------------------------------------------------------------


def _sorted(spec: BackboneSpec, task: AdapterSpec, *configs: Mapping[str, Any]) -> Options:
    """Return the options by owner, see `zoo.models.options`. Later configurations override earlier ones."""
    tables = (tuple(option_fields(task.adapter)), tuple(spec.options), PREPROCESS_OPTIONS)
    bare = [key.removeprefix("task.") for config in configs for key in config]
    refuse_renamed(bare, {name for table in tables for name in table}, task.adapter.renamed)
    accepted = dict(zip(OWNERS, tables, strict=True))
    found = by_owner(f"{task.name} on {spec.name}", accepted, *configs, internal=internal_options(task.adapter))
    spec.check_options(found["backbone"])
    preprocess = found["preprocess"]
    for key in ("mean", "std"):
        if key in preprocess:
            preprocess[key] = _statistics(key, preprocess[key])
    if "background" in preprocess:
        preprocess["background"] = background(preprocess["background"])
    if "frames" in preprocess:
        preprocess["frames"] = _frames(spec, preprocess["frames"])
    _check_preprocessing(preprocess)
    return Options(found["task"], found["backbone"], preprocess)


def _statistics(key: str, value: Any) -> tuple[float, ...]:
    """Return one number for each channel from a value of the command line."""
    try:
        found = tuple(float(v) for v in ([value] if isinstance(value, int | float) else value))
    except (TypeError, ValueError):
        raise ConfigError(f"{key}={value!r} must be one number per channel, e.g. [0.5, 0.5, 0.5].") from None
    for number in found:
        check_number(key, number, Accepted(above=0) if key == "std" else Accepted())
    return found


def background(value: Any) -> tuple[int, ...]:
    """Return red, green and blue of the background of transparent images; empty for `drop`.

    Args:
        value: `white`, `black`, `drop`, `r,g,b`, or three numbers from 0 to 255.

    Raises:
        ConfigError: `value` is nothing of these.
    """
    named = {"white": (255, 255, 255), "black": (0, 0, 0), "drop": ()}
    if isinstance(value, str) and value.strip().lower() in named:
        return named[value.strip().lower()]
    numbers = value.split(",") if isinstance(value, str) else value
    if isinstance(numbers, list | tuple) and (not numbers or len(numbers) == 3):
        with suppress(ValueError, TypeError):
            found = tuple(int(number) for number in numbers)
            if all(0 <= number <= 255 for number in found) and [float(number) for number in numbers] == [*found]:
                return found
    raise ConfigError(
        f"background (--background) is {value!r}; accepted: white, black, drop (ignore the transparency), or red, "
        "green and blue from 0 to 255, as in 128,128,128."
    )


def _frames(spec: BackboneSpec, value: Any) -> tuple[tuple[int, int], ...]:
    """Return letterbox sizes from a value of the command line. Raises `ConfigError` for one that does not fit."""
    try:
        frames = tuple((int(height), int(width)) for height, width in value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"frames={value!r} must be a list of [height, width], e.g. [[320, 416], [416, 320]]."
        ) from None
    for frame in frames:
        spec.check_size(frame)
    return frames


def _check_preprocessing(options: Mapping[str, Any]) -> None:
    """Raise `ZooError` for an invalid preprocessing. mean and std are checked where the channels are known."""
    for name, kind in get_type_hints(Preprocess).items():
        if name in options and get_origin(kind) is Literal and options[name] not in get_args(kind):
            raise unknown_name(name, str(options[name]), get_args(kind))
    if options.get("fill") is not None:
        check_number("fill", options["fill"], Accepted(least=0, below=256, whole=True))
    if not isinstance(options.get("crop_pct", 1.0), int | float):
        raise ConfigError(f"crop_pct is {options['crop_pct']!r}; it must be a number in (0, 1].")


def check_license(request: Request, parts: Parts) -> None:
    """Raise `ConfigError` for weights that forbid commercial use, unless the user accepted the licence."""
    row = parts.row
    if row and row.commercial_use == "no" and not request.accept_license and not request.weights:
        raise ConfigError(
            f"the weights {row.name} are under {row.license}, which forbids commercial use: pass accept_license=True "
            "(--accept-license) if that suits you, or choose other weights (zoo list weights)."
        )


def each_class_has_one(value: Any, labels: Sequence[str]) -> bool:
    """Return whether an option has one value for each class."""
    return isinstance(value, list | tuple) and len(value) == len(labels)
