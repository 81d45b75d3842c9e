"""`zoo.create`: from two names to a model. Everything that can be checked is checked before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import signature
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.adapter import Adapter, configure, option_fields
from zoo.backbone import abstract, feature_shapes
from zoo.errors import ConfigError, WeightsError, unknown_name
from zoo.labels import names as label_names
from zoo.model import DTYPES, Card, Model
from zoo.numbers import TRAINING, Accepted, check_number
from zoo.options import OWNERS, by_owner
from zoo.registry import registry
from zoo.spec import AdapterSpec, BackboneSpec, ModelSpec, Preprocess, WeightSpec
from zoo.weights.fetch import Fetched, fetch, fetch_config
from zoo.weights.file import TensorFile
from zoo.weights.file import read as read_tensors
from zoo.weights.load import LoadReport, assign, recognise
from zoo.weights.mapping import Path, Slot, dotted, slots
from zoo.weights.origin import PROCESSOR, Origin, is_transformers, origin_of
from zoo.weights.whole import assign_whole, fitting, is_whole

PREPROCESS_OPTIONS = tuple(f.name for f in fields(Preprocess) if f.name != "size")


def create(
    name: str,
    task: str | None = None,
    *,
    weights: str | None = None,
    pretrained: bool = True,
    labels: Sequence[str] | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
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
            one, or `hf://org/repo[@revision]`.
        pretrained: False initialises everything at random from `seed`.
        labels: class names, in the order of the outputs. num_classes: how many, where they have no names; 0 for a
            classifier without classes, whose output is the pooled features. With neither, the weights' own classes.
        in_channels: channels of the images; the first convolution is adapted.
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
    named = _named_model(name)
    spec, adapter_spec, row = _resolve(name, named, task, weights, pretrained)
    if named and named.labels and labels is None and num_classes is None:
        labels = label_names(named.labels)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise ConfigError(f"{len(labels)} labels were given and num_classes={num_classes}; give one of them.")
    if labels is not None and len(set(labels)) != len(labels):
        raise ConfigError("labels must be different from one another.")
    if not adapter_spec.adapter.classes:
        if labels or num_classes:
            raise ConfigError(f"{adapter_spec.name} knows no classes: leave labels and num_classes out.")
        labels, num_classes = (), None
    _check_numbers(seed, num_classes, in_channels, image_size)
    options = _sort_options(spec, adapter_spec, named.config if named else {}, config)
    classes = tuple(labels) if labels is not None else _numbered(num_classes if num_classes is not None else 2)
    adapter = configure(adapter_spec.adapter, classes, options.adapter)
    asked = {**adapter.backbone_options(spec), **options.build}
    spec = spec.built_with(asked)
    if row and row.commercial_use == "no" and not accept_license and not weights:
        raise ConfigError(
            f"the weights {row.name} are under {row.license}, which forbids commercial use: pass accept_license=True "
            "(--accept-license) if that suits you, or choose other weights (zoo list weights)."
        )
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    known = named.preprocess if named else None
    frame = adapter.framing(spec, known or (row.preprocess if row else spec.preprocess))
    _check(spec, adapter, size or frame.size)

    source = weights or (row.source if row and pretrained else "")
    if pretrained and not source:
        raise ConfigError(
            f"no download is known for {name}: give weights=FILE (--weights FILE), or pretrained=False to start from "
            "random values."
        )
    file, origin = (None, Origin(known or spec.preprocess)) if not pretrained else _open(spec, row, weights, source)
    whole = named if named and file and _is_whole(named, spec, file, asked) else None
    if whole:
        origin = Origin(known or spec.preprocess, labels=whole.labels, license=whole.license)
    preprocess = origin.preprocess if size is None else replace(origin.preprocess, size=size)
    preprocess = replace(adapter.framing(spec, preprocess), **options.preprocess).for_channels(in_channels)
    preprocess = replace(preprocess, size=size or preprocess.size)
    build = spec.build_options({**origin.options, **asked})
    spec = spec.built_with(build)
    if whole:
        wanted = tuple(labels) if labels is not None else _numbered(num_classes or 0)
        own = label_names(whole.labels) if whole.labels else wanted
    else:
        wanted, own = _choose_labels(spec, file, origin, labels, num_classes, build)
    adapter, tensors = configure(adapter_spec.adapter, wanted, options.adapter).own_weights(spec)
    taps = adapter.taps(spec)
    shapes = feature_shapes(spec, preprocess.size, taps, in_channels=in_channels, **build)
    head = adapter.build(spec, shapes, size=preprocess.size, rngs=nnx.Rngs(seed))
    if file is None:
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 1))
        backbone = spec.build(rngs=rngs, in_channels=in_channels, **build)
        notes: tuple[str, ...] = ()
        new_head = True
    else:
        backbone = abstract(spec, in_channels=in_channels, **build)
        if whole:

            def like(classes: tuple[str, ...]) -> nnx.Module:
                other = replace(adapter, labels=classes)
                return nnx.eval_shape(lambda: other.build(spec, shapes, size=preprocess.size, rngs=nnx.Rngs(0)))

            heads = [(classes, partial(like, classes)) for classes in dict.fromkeys((own, wanted))]
            own, report = _fill_whole(whole, spec, backbone, head, heads, file.tensors, in_channels, seed)
        else:
            report = _fill(spec, backbone, head, adapter, file.tensors, in_channels, keep_head=own == wanted, seed=seed)
        notes = (*origin.notes, str(report))
        new_head = bool(report.reinitialised) or own != wanted or not (whole or adapter.checkpoint_paths(spec))
    if tensors:
        put(head, arrays_for(head, tensors, adapter_spec.name), seed)
        new_head = False
    card = Card(
        backbone=spec.name,
        adapter=adapter_spec.name,
        weights=(weights or (row.name if row else "")) if pretrained else "",
        preprocess=preprocess,
        in_channels=in_channels,
        dtype=dtype,
        options=build,
        label_set=_label_set(spec, origin, wanted) if wanted == own else "",
        license=origin.license,
        sha256=file.fetched.sha256 if file else "",
        revision=file.fetched.revision if file else "",
        seed=seed,
        notes=notes,
        new_head=new_head,
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
    spec, adapter_spec, _ = _resolve(name, named, task, *how)
    options = _sort_options(spec, adapter_spec, named.config if named else {}, config)
    configure(adapter_spec.adapter, (), options.adapter)
    _check_numbers(arguments.get("seed", 0), None, arguments.get("in_channels", 3), arguments.get("image_size"))


# Names ---------------------------------------------------------------------------------------------------------


def _resolve(
    name: str,
    named: ModelSpec | None,
    task: str | None,
    weights: str | None,
    pretrained: bool,
) -> tuple[BackboneSpec, AdapterSpec, WeightSpec | None]:
    """The specs that the names stand for."""
    reg = registry()
    if named is not None:
        name, task = named.backbone, task or named.adapter
    if task is None:
        accepted = ", ".join(sorted(row.name for row in reg.rows("adapters")))
        raise ConfigError(f"which task should {name} be composed for? Accepted: {accepted}.")
    arch = name.split(".", 1)[0]
    spec, adapter_spec = reg.backbone(arch), reg.adapter(task)
    row = reg.weights(name) if "." in name else None
    if row is None and pretrained and not weights:
        if spec.pretrained is None:
            raise ConfigError(
                f"{arch} has no published weights in the catalogue: give weights=FILE, or pretrained=False to start "
                "from random values."
            )
        row = reg.weights(f"{arch}.{spec.pretrained}")
    return spec, adapter_spec, row


def _named_model(name: str) -> ModelSpec | None:
    return registry().model(name) if any(row.name == name for row in registry().rows("models")) else None


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
    seed: int, num_classes: int | None, in_channels: int, image_size: int | tuple[int, int] | None
) -> None:
    """Raise `ConfigError` for a number that no model can be made with."""
    check_number("seed", seed, TRAINING["seed"])
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
    fetched: Fetched
    header: TensorFile
    tensors: Mapping[str, np.ndarray]


def _open(spec: BackboneSpec, row: WeightSpec | None, weights: str | None, source: str) -> tuple[_File, Origin]:
    """The weights' file and what is known of where they come from."""
    if weights or row is None:
        fetched = fetch(source)
    else:
        fetched = fetch(source, row.file, revision=row.revision, sha256=row.sha256)
    header = read_tensors(fetched.path)
    tensors = header.load()
    if "zoo" in header.metadata:  # a saved model: its head belongs to its own task
        tensors = {name: array for name, array in tensors.items() if not name.startswith("head.")}
    known = row or next((w for w in registry().weights_for(spec.name) if w.sha256 and w.sha256 == fetched.sha256), None)
    config = fetch_config(source) if weights else None
    if config and is_transformers(config):
        config = {**config, PROCESSOR: fetch_config(source, name=f"{PROCESSOR}.json") or {}}
    origin = origin_of(spec, known, config, header.metadata, tensors)
    return _File(fetched, header, tensors), origin


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
    origin: Origin,
    labels: Sequence[str] | None,
    num_classes: int | None,
    build: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the model's labels, the checkpoint's own labels or () when it has no classifier)."""
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
    # Classes without names agree when they are equally many.
    return wanted, (wanted if own == _numbered(len(wanted)) else own) if own else ()


def _label_set(spec: BackboneSpec, origin: Origin, labels: tuple[str, ...]) -> str:
    """Name of the published label set that these are, if any."""
    name = "" if origin.label_names else origin.labels or spec.classifier.labels
    return name if name and label_names(name) == labels else ""


def _fill(
    spec: BackboneSpec,
    backbone: nnx.Module,
    head: nnx.Module,
    adapter: Adapter,
    tensors: Mapping[str, np.ndarray],
    in_channels: int,
    *,
    keep_head: bool,
    seed: int,
) -> LoadReport:
    """Put a checkpoint's arrays into an abstract backbone and, where `keep_head`, into the head."""
    body = slots(backbone)
    paths = adapter.checkpoint_paths(spec) if keep_head else {}
    tops = [replace(slot, name=_in_checkpoint(slot, paths)) for slot in slots(head) if _in_checkpoint(slot, paths)]
    reason = "the model has a new classifier" if not keep_head else "the head has another form"
    if tops:
        reason = ""
    elif not slots(head):
        reason = "the model has no classifier"
    arrays, report = assign(
        spec, [*body, *tops], tensors, first_conv=_first_conv(spec, body, in_channels), head_reason=reason
    )
    put(backbone, {slot.path: arrays[slot.name] for slot in body}, seed)
    put(head, {slot.path: arrays[slot.name] for slot in tops if slot.name in arrays}, seed)
    return report


def _is_whole(named: ModelSpec, spec: BackboneSpec, file: _File, build: Mapping[str, Any]) -> bool:
    return is_whole(named, spec, abstract(spec, **build), list(file.tensors))


def _fill_whole(
    named: ModelSpec,
    spec: BackboneSpec,
    backbone: nnx.Module,
    head: nnx.Module,
    heads: Sequence[tuple[tuple[str, ...], Callable[[], nnx.Module]]],
    tensors: Mapping[str, np.ndarray],
    in_channels: int,
    seed: int,
) -> tuple[tuple[str, ...], LoadReport]:
    """Put a whole model's checkpoint into an abstract backbone and a head.

    Args:
        heads: (classes, the head for them) that the checkpoint may be of, the published ones first.
    Returns:
        (the checkpoint's classes, what became of its tensors).
    """
    first, errors = _first_conv(spec, slots(backbone), in_channels), []
    for classes, build in heads:
        try:
            body, top, report = assign_whole(named, spec, backbone, build(), tensors, first_conv=first)
        except WeightsError as error:
            errors.append(error)
            continue
        put(backbone, body, seed)
        put(head, fitting(head, top, report), seed)
        return classes, report
    raise errors[0]


def _in_checkpoint(slot: Slot, paths: Mapping[str, str]) -> str:
    """The checkpoint's name of a slot of the head, or an empty string where the checkpoint has nothing for it."""
    for here, there in paths.items():
        if slot.name.startswith(here + "."):
            return there + slot.name[len(here) :]
    return ""


def _first_conv(spec: BackboneSpec, body: Sequence[Slot], in_channels: int) -> str | None:
    """Name of the kernel that reads the image: the first convolution of the first stage."""
    stage, inputs = spec.stages[0].modules, in_channels * spec.fold**2
    found = [
        slot
        for slot in body
        if len(slot.shape) == 4 and slot.shape[2] == inputs and any(slot.name.startswith(m + ".") for m in stage)
    ]
    return min(found, key=lambda slot: (len(slot.path), dotted(slot.path))).name if found else None


def arrays_for(module: nnx.Module, tensors: Mapping[str, np.ndarray], name: str) -> dict[Path, np.ndarray]:
    """Arrays by path from tensors by name, with the checkpoint's axes. Raises `WeightsError` unless they fit."""
    wanted = {slot.name: slot for slot in slots(module)}
    if wrong := sorted(wanted.keys() ^ tensors.keys()):
        raise WeightsError(f"the weights do not fit the head of {name}: {wrong[0]} is missing or not known there.")
    for key, slot in wanted.items():
        if tuple(tensors[key].shape) != slot.native_shape:
            raise WeightsError(
                f"the weights do not fit the head of {name}: {key} has shape {tuple(tensors[key].shape)}, and "
                f"{slot.native_shape} is needed."
            )
    return {slot.path: slot.read(tensors[key]) for key, slot in wanted.items()}


def put(module: nnx.Module, arrays: Mapping[Path, np.ndarray], seed: int) -> None:
    """Set variables of a module, abstract or not, from arrays by path; random streams are started from `seed`.

    Raises `WeightsError` when an abstract variable would be left without a value.
    """
    state = nnx.to_flat_state(nnx.state(module))
    filled = []
    for index, (path, variable) in enumerate(state):
        value = variable.get_value()
        if path in arrays:
            value = jnp.asarray(np.asarray(arrays[path]), dtype=jnp.float32)
        elif isinstance(variable, nnx.RngKey):
            value = jax.random.fold_in(jax.random.key(seed), index)
        elif isinstance(variable, nnx.RngCount):
            value = jnp.zeros((), jnp.uint32)
        elif isinstance(value, jax.ShapeDtypeStruct):
            raise WeightsError(f"{dotted(path)} got no value from the weights.")
        filled.append((path, variable.replace(value)))
    nnx.update(module, nnx.from_flat_state(filled))
