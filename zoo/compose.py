"""`zoo.create`: from two names to a model. Everything that can be checked is checked before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import msgspec
import numpy as np
from flax import nnx

from zoo.adapter import Adapter, configure, option_fields
from zoo.backbone import abstract, feature_shapes
from zoo.errors import ConfigError, unknown_name
from zoo.labels import names as label_names
from zoo.labels.spelling import nfc, number
from zoo.loader import same_distribution
from zoo.model import DTYPES, Card, Model, Provider
from zoo.numbers import TRAINING, Accepted, check_number
from zoo.options import OWNERS, by_owner
from zoo.registry import registry
from zoo.spec import AdapterSpec, BackboneSpec, ModelSpec, Preprocess, WeightSpec
from zoo.weights.continued import inherited, transfer
from zoo.weights.fetch import Fetched, fetch, fetch_config
from zoo.weights.file import TensorFile
from zoo.weights.file import read as read_tensors
from zoo.weights.fill import arrays_for, put
from zoo.weights.fill import fill as _fill
from zoo.weights.fill import fill_whole as _fill_whole
from zoo.weights.fill import in_checkpoint as _in_checkpoint  # noqa: F401  (for those who compose by hand)
from zoo.weights.load import LoadReport, recognise
from zoo.weights.mapping import slots
from zoo.weights.origin import PROCESSOR, Origin, is_transformers, origin_of
from zoo.weights.saved import HEAD, Saved, part_of, saved
from zoo.weights.whole import is_whole

PREPROCESS_OPTIONS = tuple(f.name for f in fields(Preprocess) if f.name != "size")


def create(
    name: str,
    task: str | None = None,
    *,
    weights: str | None = None,
    pretrained: bool = True,
    labels: Sequence[str] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    dtype: str = "float32",
    seed: int = 0,
    accept_license: bool = False,
    **config: Any,
) -> Model:
    """A model for a task on a pretrained backbone, in evaluation mode.

    Args:
        name: an architecture (`resnet18`), published weights of one (`resnet18.a1_in1k`), or a named model.
        task: a task adapter; a named model brings its own.
        weights: where to take the weights from in place of the published ones: a safetensors file or a folder with
            one, or `hf://org/repo[@revision]`. Of a saved model or a run of the same task, the options of the task
            are taken as well, and the head is kept where the classes agree, by name.
        pretrained: False initialises everything at random from `seed`.
        labels: class names, in the order of the outputs. num_classes: how many, where they have no names; 0 for a
            classifier without classes, whose output is the pooled features. With neither, the weights' own classes.
        in_channels: channels of the images; the first convolution is adapted. Without it those of the saved model
            that `weights` names, else 3.
        image_size: side, or (height, width), in pixels, in place of the weights' own.
        dtype: of the arithmetic, `float32` or `bfloat16`; parameters stay in float32.
        accept_license: take weights whose licence forbids commercial use.
        **config: options of the adapter, build options of the backbone, and fields of the preprocessing (mean, std,
            interpolation, crop_pct, crop_mode, channels). A key that several of them have must name the one that is
            meant: `**{"task.padding": "same"}`, `backbone.padding`, `preprocess.fill`.
    Raises:
        UnknownNameError: for a name or option that does not exist, with the nearest ones.
        ConfigError: for what cannot work together. WeightsError: for weights that do not fit.
    """
    if weights and not pretrained:
        raise ConfigError(
            f"weights={weights!r} and pretrained=False (--scratch) contradict each other: give one of them."
        )
    named = _named_model(name)
    parts, row = _resolve(name, named, task, weights, pretrained)
    spec, adapter_spec = parts.spec, parts.adapter_spec
    if named and named.labels and labels is None and num_classes is None:
        labels = label_names(named.labels)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise ConfigError(f"{len(labels)} labels were given and num_classes={num_classes}; give one of them.")
    if labels is not None and len(set(map(nfc, labels))) != len(labels):
        raise ConfigError("labels must be different from one another.")
    if not adapter_spec.adapter.classes:
        if labels or num_classes:
            raise ConfigError(f"{adapter_spec.name} knows no classes: leave labels and num_classes out.")
        labels, num_classes = (), None
    _check_numbers(seed, num_classes, in_channels, image_size)
    options = _sort_options(spec, adapter_spec, named.config if named else {}, config)
    classes = tuple(labels) if labels is not None else _numbered(num_classes if num_classes is not None else 2)
    configure(adapter_spec.adapter, classes, options.adapter)
    if row and row.commercial_use == "no" and not accept_license and not weights:
        raise ConfigError(
            f"the weights {row.name} are under {row.license}, which forbids commercial use: pass accept_license=True "
            "(--accept-license) if that suits you, or choose other weights (zoo list weights)."
        )
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    known = named.preprocess if named else None
    usual = known or (row and row.preprocess) or spec.preprocess

    def planned(run: Saved | None) -> tuple[dict[str, Any], Adapter, dict[str, Any]]:
        """(options of the task, the task, build options asked for); those of a run are taken where none are given."""
        names = classes
        if run and labels is None and num_classes in (None, len(run.labels)):
            names = run.labels
        taken = {**(inherited(run, names) if run else {}), **options.adapter}
        adapter = configure(adapter_spec.adapter, names, taken)
        asked = {**adapter.backbone_options(spec), **options.build}
        frame = run.card.preprocess if run else adapter.framing(spec.built_with(asked), usual)
        _check(spec.built_with(asked), adapter, size or frame.size)
        return taken, adapter, asked

    # A local file is looked at first: a run brings options that decide whether backbone and task fit.
    near = weights and "://" not in weights and Path(weights).expanduser().exists()
    file = _opened(weights) if weights and near else None
    run = file.run(parts) if file else None
    taken, adapter, asked = planned(run)
    source = weights or (row.source if row and pretrained else "")
    if pretrained and not source:
        raise ConfigError(
            f"no download is known for {name}: give weights=FILE (--weights FILE), or pretrained=False to start from "
            "random values."
        )
    origin = Origin(known or spec.preprocess)
    if pretrained and file is None:
        file = _opened(source, None if weights else row)
        if run := file.run(parts):
            taken, adapter, asked = planned(run)
    if file:
        origin = _origin(spec, row, weights, source, file)
    spec = spec.built_with(asked)
    channels = in_channels if in_channels is not None else run.card.in_channels if run else 3
    whole = None
    if named and file and file.saved is None and is_whole(named, spec, abstract(spec, **asked), list(file.tensors)):
        whole = named
    if whole:
        origin = Origin(known or spec.preprocess, labels=whole.labels, license=whole.license)
    preprocess = origin.preprocess if size is None else replace(origin.preprocess, size=size)
    if run is None or size is not None:  # a run's own is framed already
        preprocess = adapter.framing(spec, preprocess)
    preprocess = replace(preprocess, **options.preprocess).for_channels(channels)
    preprocess = replace(preprocess, size=size or preprocess.size)
    build = spec.build_options({**origin.options, **asked})
    spec = spec.built_with(build)
    if whole:
        wanted = tuple(labels) if labels is not None else _numbered(num_classes or 0)
        own = label_names(whole.labels) if whole.labels else wanted
    else:
        wanted, own = _choose_labels(spec, file, run, origin, labels, num_classes, build)
    adapter, tensors = configure(adapter_spec.adapter, wanted, options.adapter).own_weights(spec)
    if run and not tensors:
        adapter = configure(adapter_spec.adapter, wanted, taken)
    taps = adapter.taps(spec)
    shapes = feature_shapes(spec, preprocess.size, taps, in_channels=channels, **build)

    def head_for(other: Adapter) -> nnx.Module:
        return other.build(spec, shapes, size=preprocess.size, rngs=nnx.Rngs(seed))

    head = head_for(adapter)
    if file is None:
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 1))
        backbone = spec.build(rngs=rngs, in_channels=channels, **build)
        notes: tuple[str, ...] = ()
        new_head = True
    else:
        backbone = abstract(spec, in_channels=channels, **build)
        if whole:

            def like(classes: tuple[str, ...]) -> nnx.Module:
                return nnx.eval_shape(partial(head_for, replace(adapter, labels=classes)))

            heads = [(classes, partial(like, classes)) for classes in dict.fromkeys((own, wanted))]
            own, report = _fill_whole(whole, spec, backbone, head, heads, file.tensors, channels, seed)
        else:
            keep = own == wanted and file.saved is None
            report = _fill(spec, backbone, head, adapter, file.body, channels, keep_head=keep, seed=seed)
        notes = (*origin.notes, str(report))
        new_head = bool(report.reinitialised) or own != wanted or not (whole or adapter.checkpoint_paths(spec))
        if file.saved:
            more = {name: value for name, value in taken.items() if not _for_each(value, wanted)}

            def wider() -> nnx.Module:
                other = configure(adapter_spec.adapter, (*wanted, "\0"), more)
                return nnx.eval_shape(partial(head_for, other))

            new_head = _go_on(file, run, head, wanted, wider, report, seed)
            notes = (*origin.notes, str(report), *_of_run(run, taken, options.adapter, adapter_spec.adapter))
    if tensors:
        put(head, arrays_for(head, tensors, adapter_spec.name), seed)
        new_head = False
    same = run is not None and wanted == run.labels
    card = Card(
        backbone=spec.name,
        adapter=adapter_spec.name,
        weights=(weights or (row.name if row else "")) if pretrained else "",
        preprocess=preprocess,
        in_channels=channels,
        dtype=dtype,
        options=build,
        label_set=run.card.label_set if run and same else _label_set(spec, origin, wanted) if wanted == own else "",
        license=origin.license,
        sha256=file.fetched.sha256 if file else "",
        revision=file.fetched.revision if file else "",
        seed=seed,
        notes=notes,
        new_head=new_head,
        plugins=parts.plugins,
    )
    model = Model(backbone, head, spec=spec, adapter=adapter, card=card)
    model.eval()
    return model


def check_options(name: str, task: str, arguments: Mapping[str, Any]) -> None:
    """Raise what `create` raises for names and options, before the classes are known. Nothing is built or fetched.

    Args:
        arguments: of `create`, beside name and task.
    """
    own = set(signature(create).parameters)
    config = {key: value for key, value in arguments.items() if key not in own}
    named = _named_model(name)
    how = (arguments.get("weights"), arguments.get("pretrained", True))
    parts, _ = _resolve(name, named, task, *how)
    spec, adapter_spec = parts.spec, parts.adapter_spec
    options = _sort_options(spec, adapter_spec, named.config if named else {}, config)
    configure(adapter_spec.adapter, (), options.adapter)
    _check_numbers(arguments.get("seed", 0), None, arguments.get("in_channels", 3), arguments.get("image_size"))


# Names ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """The specs that names stand for, and whose code they are."""

    spec: BackboneSpec
    adapter_spec: AdapterSpec
    plugins: Mapping[str, Provider]


def _resolve(
    name: str,
    named: ModelSpec | None,
    task: str | None,
    weights: str | None,
    pretrained: bool,
) -> tuple[_Parts, WeightSpec | None]:
    """The specs that the names stand for."""
    reg = registry()
    if named is not None:
        beside, adapter = reg.parts_of(name)
        name, task = beside, task or adapter
    if task is None:
        accepted = ", ".join(sorted(row.name for row in reg.rows("adapters")))
        raise ConfigError(f"which task should {name} be composed for? Accepted: {accepted}.")
    row = reg.weights(name) if "." in name.rpartition("/")[2] else None
    arch = reg.backbone_of(name) if row else name
    spec, adapter_spec = reg.backbone(arch), reg.adapter(task)
    if row is None and pretrained and not weights:
        if spec.pretrained is None:
            raise ConfigError(
                f"{arch} has no published weights in the catalogue: give weights=FILE, or pretrained=False to start "
                "from random values."
            )
        row = reg.weights(f"{arch}.{spec.pretrained}")
    whose = {"backbone": reg.provider("backbones", arch), "adapter": reg.provider("adapters", task)}
    return _Parts(spec, adapter_spec, {part: Provider(*one) for part, one in whose.items()}), row


def _named_model(name: str) -> ModelSpec | None:
    return registry().model(name) if registry().means_model(name) else None


@dataclass(frozen=True)
class _Options:
    adapter: dict[str, Any]
    build: dict[str, Any]
    preprocess: dict[str, Any]


def _sort_options(spec: BackboneSpec, adapter_spec: AdapterSpec, *configs: Mapping[str, Any]) -> _Options:
    """Each option to whom it belongs, see `zoo.options`; of several configurations the later one counts."""
    tables = (tuple(option_fields(adapter_spec.adapter)), tuple(spec.options), PREPROCESS_OPTIONS)
    accepted = dict(zip(OWNERS, tables, strict=True))
    sorted_options = [*by_owner(f"{adapter_spec.name} on {spec.name}", accepted, *configs).values()]
    spec.check_options(sorted_options[1])
    for key in ("mean", "std"):
        if key in sorted_options[2]:
            value = sorted_options[2][key]
            values = [value] if isinstance(value, int | float) else value
            try:
                sorted_options[2][key] = tuple(float(v) for v in values)
            except (TypeError, ValueError):
                raise ConfigError(f"{key}={value!r} must be one number per channel, e.g. [0.5, 0.5, 0.5].") from None
            for number in sorted_options[2][key]:
                check_number(key, number, Accepted(above=0) if key == "std" else Accepted())
    if "frames" in sorted_options[2]:
        sorted_options[2]["frames"] = _frames(spec, sorted_options[2]["frames"])
    _check_preprocessing(sorted_options[2])
    return _Options(*sorted_options)


def _check_numbers(
    seed: int, num_classes: int | None, in_channels: int | None, image_size: int | tuple[int, int] | None
) -> None:
    """Raise `ConfigError` for a number that no model can be made with."""
    check_number("seed", seed, TRAINING["seed"])
    if in_channels is not None:
        check_number("in_channels", in_channels, Accepted(least=1, whole=True))
    if num_classes is not None:
        check_number("num_classes", num_classes, Accepted(least=0, whole=True))
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if image_size is not None and (len(sides) != 2 or any(s not in Accepted(least=1, whole=True) for s in sides)):
        raise ConfigError(f"image_size is {image_size!r}; accepted: a side in pixels, or (height, width).")


def _frames(spec: BackboneSpec, value: Any) -> tuple[tuple[int, int], ...]:
    """Sizes from values of a command line. Raises `ConfigError` for what is none, or too small for the backbone."""
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
    """Raise `ZooError` for a value that no preprocessing has; mean and std are checked where their number is known."""
    for name, kind in get_type_hints(Preprocess).items():
        if name in options and get_origin(kind) is Literal and options[name] not in get_args(kind):
            raise unknown_name(name, str(options[name]), get_args(kind))
    if options.get("fill") is not None:
        check_number("fill", options["fill"], Accepted(least=0, below=256, whole=True))
    if not isinstance(options.get("crop_pct", 1.0), int | float):
        raise ConfigError(f"crop_pct is {options['crop_pct']!r}; it must be a number in (0, 1].")


def _check(spec: BackboneSpec, adapter: Adapter, size: tuple[int, int]) -> None:
    """Whether adapter and backbone fit, by their shapes alone."""
    spec.check_size(size)
    adapter.taps(spec)


# Weights -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A file of weights. `saved` is its description where it is a saved model."""

    fetched: Fetched
    header: TensorFile
    tensors: Mapping[str, np.ndarray]
    saved: Saved | None

    @property
    def body(self) -> Mapping[str, np.ndarray]:
        """The tensors without the head of a saved model."""
        if self.saved is None:
            return self.tensors
        return {name: array for name, array in self.tensors.items() if not name.startswith(HEAD)}

    def run(self, parts: _Parts) -> Saved | None:
        """The saved model's description where its head is one of the task asked for.

        Raises `ConfigError` where its backbone is another distribution's of the same name.
        """
        if self.saved is None:
            return None
        before, now = self.saved.card.plugins.get("backbone"), parts.plugins["backbone"]
        if (
            before
            and self.saved.card.backbone == parts.spec.name
            and not same_distribution(before.distribution, now.distribution)
        ):
            raise ConfigError(
                f"{self.fetched.path} was made with {self.saved.card.qualified('backbone')}, and "
                f"{now.distribution}/{parts.spec.name} is other code of the same name: name the former."
            )
        return self.saved if self.saved.is_for(parts.adapter_spec, parts.plugins["adapter"].distribution) else None


def _opened(source: str, row: WeightSpec | None = None) -> _File:
    fetched = fetch(source, row.file, revision=row.revision, sha256=row.sha256) if row else fetch(source)
    header = read_tensors(fetched.path)
    tensors = header.load()
    return _File(fetched, header, tensors, saved(header))


def _origin(spec: BackboneSpec, row: WeightSpec | None, weights: str | None, source: str, file: _File) -> Origin:
    """What is known of where weights come from."""
    if weights and file.saved:  # it says all of itself, whatever the name of the backbone stands for
        return origin_of(spec, None, None, file.saved, file.body)
    known = row or registry().recognised(spec.name, file.fetched.sha256)
    config = fetch_config(source) if weights else None
    alone = weights and config is None and "://" not in source  # on the hub it would be one more request
    if alone or (config and is_transformers(config)):
        processor = fetch_config(source, name=f"{PROCESSOR}.json")
        config = {**(config or {}), PROCESSOR: processor} if processor else config
    return origin_of(spec, known, config, file.saved, file.body)


def _go_on(
    file: _File,
    run: Saved | None,
    head: nnx.Module,
    labels: tuple[str, ...],
    wider: Callable[[], nnx.Module],
    report: LoadReport,
    seed: int,
) -> bool:
    """Put what a saved model's head has into the head, with a word for each array; whether that is all new then."""
    tensors = part_of(file.tensors, HEAD)
    if run is None:
        assert file.saved is not None
        report.ignored |= dict.fromkeys((HEAD + name for name in tensors), f"the head is for {file.saved.card.adapter}")
        report.reinitialised |= dict.fromkeys((HEAD + slot.name for slot in slots(head)), "the task is another one")
        return True
    arrays = transfer(head, tensors, run.labels, labels, wider, report)
    put(head, arrays, seed)
    return run.card.new_head or not arrays


def _of_run(run: Saved | None, taken: Mapping[str, Any], given: Mapping[str, Any], adapter: type[Adapter]) -> list[str]:
    """Notes on the options that come from a saved model and are not the defaults."""
    if run is None:
        return []
    usual = {name: msgspec.to_builtins(option.default) for name, option in option_fields(adapter).items()}
    kept = {k: v for k, v in taken.items() if k not in given and v != usual.get(k)}
    gone = [k for k, v in run.options.items() if k not in taken and v != usual.get(k)]
    notes = [f"options of the saved model: {', '.join(f'{k}={v}' for k, v in kept.items())}"] if kept else []
    return notes + [f"{name} of the saved model has a value for each class and is left out" for name in gone]


def _for_each(value: Any, labels: Sequence[str]) -> bool:
    """Whether an option has a value for each class."""
    return isinstance(value, list | tuple) and len(value) == len(labels)


def _own_classes(spec: BackboneSpec, file: _File, build: Mapping[str, Any]) -> int:
    """How many classes the checkpoint's own classifier has; 0 when it has none."""
    names = [slot.name for slot in slots(abstract(spec, **build))]
    path = spec.classifier.path
    place = recognise(spec, names, file.header.names(), also=(f"{path}.weight",)).places[f"{path}.weight"]
    shapes = file.header.shapes()
    return sum(shapes[name][0] for name in place.names) if shapes.keys() >= set(place.names) else 0


def _numbered(count: int) -> tuple[str, ...]:
    if count < 0:
        raise ConfigError(f"num_classes is {count}; it must be 0, for features alone, or more.")
    return tuple(map(str, range(count)))


def _choose_labels(
    spec: BackboneSpec,
    file: _File | None,
    run: Saved | None,
    origin: Origin,
    labels: Sequence[str] | None,
    num_classes: int | None,
    build: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the model's labels, the checkpoint's own labels or () when it has no classifier)."""
    if file and file.saved:
        own = run.labels if run else ()
    else:
        count = _own_classes(spec, file, build) if file else 0
        published = origin.labels or spec.classifier.labels
        own = origin.label_names or (label_names(published) if published else ())
        if len(own) != count:
            own = _numbered(count) if count else ()
    if labels is None and num_classes is None:
        if not own:
            raise ConfigError("these weights have no classes of their own: give labels= or num_classes=.")
        return own, own
    if labels is None:
        assert num_classes is not None
        return (own, own) if num_classes == len(own) else (_numbered(num_classes), own)
    wanted = tuple(labels)
    # Classes without names agree when they are equally many; numbers in another order are not the same classes.
    nameless = own == _numbered(len(wanted)) and not any(number(name) is not None for name in wanted)
    return wanted, wanted if nameless else own


def _label_set(spec: BackboneSpec, origin: Origin, labels: tuple[str, ...]) -> str:
    """Name of the published label set that these are, if any."""
    name = "" if origin.label_names else origin.labels or spec.classifier.labels
    return name if name and label_names(name) == labels else ""
