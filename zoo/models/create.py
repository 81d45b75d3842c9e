"""`zoo.create`: from two names to a model.

A request becomes parts, then a design, then modules, then a model with the arrays of its checkpoint. Everything that
can be checked is checked before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec
import numpy as np
from flax import nnx

from zoo.labels import names as label_names
from zoo.models.adapter import Adapter, configure, option_fields
from zoo.models.assemble import Blueprint, assemble
from zoo.models.backbone import abstract
from zoo.models.card import Card
from zoo.models.checkpoint import Checkpoint, choose_labels, is_near, label_set, open_checkpoint, options_of_run, origin
from zoo.models.continued import inherited, transfer
from zoo.models.fill import arrays_for, fill, fill_whole, put
from zoo.models.model import Model
from zoo.models.origin import Origin
from zoo.models.request import Parts, Request, check_license, each_class_has_one, numbered, resolve
from zoo.models.saved import HEAD, Saved, part_of, parts_of_others, with_recorded_parts
from zoo.models.whole import is_whole
from zoo.registry.spec import ModelSpec, Preprocess
from zoo.weights.load import LoadReport
from zoo.weights.mapping import slots


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
    ignore_tensors: str | Sequence[str] = (),
    **config: Any,
) -> Model:
    """Return a model for a task on a pretrained backbone, in evaluation mode.

    Args:
        name: An architecture (`resnet18`), published weights (`resnet18.a1_in1k`), or a named model.
        task: The task, e.g. `classifier` (`zoo list tasks`). A named model brings its own.
        weights: Weights to use instead of the published ones: a safetensors file, a folder with one, or
            `hf://org/repo[@revision]`. From a saved model or a run of the same task, the options of the task are
            taken too, and the head is kept for the classes that agree by name.
        pretrained: False initialises everything at random from `seed`.
        labels: Class names, in the order of the outputs. By default the classes of the weights.
        num_classes: Number of classes without names. With 0, a classifier outputs pooled features.
        in_channels: Channels of the images; the first convolution is adapted. By default those of the saved model
            that `weights` names, or 3.
        image_size: Side, or (height, width), in pixels. By default that of the weights.
        dtype: Dtype of the arithmetic, `float32` or `bfloat16`. Parameters stay in float32.
        seed: Seed of everything that is initialised at random.
        accept_license: Accept weights whose licence forbids commercial use.
        ignore_tensors: Patterns of tensors that are left out of the weights, e.g. `criterion.*` or `model.*` (in
            favour of a copy below `model_ema.`). Tensors of losses, metrics and optimizers need no pattern.
        **config: Options of the task, build options of the backbone, and fields of the preprocessing (mean, std,
            interpolation, crop_pct, crop_mode, channels). If several owners have a key, name the owner:
            `**{"task.padding": "same"}`, `backbone.padding`, `preprocess.fill`.

    Raises:
        UnknownNameError: A name or option does not exist; the error names the nearest ones.
        ConfigError: The arguments cannot work together.
        WeightsError: The weights do not fit.
    """
    request = Request(
        name,
        task,
        weights,
        pretrained,
        None if labels is None else tuple(labels),
        num_classes,
        in_channels,
        image_size,
        dtype,
        seed,
        accept_license,
        ignore_tensors,
        config,
    )
    parts = resolve(request)
    configure(parts.task.adapter, parts.classes, parts.options.task)
    check_license(request, parts)
    if not is_near(request.weights):  # a file that is here may bring options that decide whether things fit
        draft(request, parts, None)
    checkpoint = open_checkpoint(request, parts)
    return filled(request, parts, checkpoint, design(request, parts, checkpoint))


def check_options(name: str, task: str, arguments: Mapping[str, Any]) -> None:
    """Raise what `create` raises for names and options, before the classes are known. Nothing is built or fetched.

    Args:
        arguments: of `create`, beside name and task.
    """
    own = {one.name for one in fields(Request)} - {"config"}
    config = {key: value for key, value in arguments.items() if key not in own}
    request = Request(name, task, **{key: value for key, value in arguments.items() if key in own}, config=config)
    parts = resolve(request)
    configure(parts.task.adapter, (), parts.options.task)


# The design ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """What is known of a model before its checkpoint is opened: the task, its options, and build options."""

    options: Mapping[str, Any]
    adapter: Adapter
    build: Mapping[str, Any]


def draft(request: Request, parts: Parts, run: Saved | None) -> Draft:
    """Return the draft of a model. Options that the user did not give come from the saved model `run`, if any.

    Raises:
        ConfigError: Backbone, task and image size do not fit each other.
    """
    names = parts.classes
    if run and parts.labels is None and parts.num_classes in (None, len(run.labels)):
        names = run.labels
    adapter_type = parts.task.adapter
    before = with_recorded_parts(run.card, adapter_type, inherited(run, names)) if run else {}
    taken = {**before, **parts.options.task}
    adapter = configure(adapter_type, names, taken)
    build = {**adapter.backbone_options(parts.spec), **parts.options.backbone}
    spec = parts.spec.built_with(build)
    frame = run.card.preprocess if run else adapter.framing(spec, _usual(parts))
    spec.check_size(request.size or frame.size)
    adapter.taps(spec)
    return Draft(taken, adapter, build)


def _usual(parts: Parts) -> Preprocess:
    """Return how images are prepared for the requested names, before a file says more."""
    known = parts.named.preprocess if parts.named else None
    return known or (parts.row and parts.row.preprocess) or parts.spec.preprocess


@dataclass(frozen=True)
class Design:
    """A blueprint, and how its modules get their values.

    Attributes:
        blueprint: What determines the modules.
        origin: Where the weights come from.
        run: The saved model that is continued, if any.
        whole: The named model, if the file holds its backbone, neck and head.
        own: The checkpoint's classes.
        options: Options of the task.
        given: Those of them that the user gave.
        tensors: Weights of the head that do not come with the backbone's.
    """

    blueprint: Blueprint
    origin: Origin
    run: Saved | None
    whole: ModelSpec | None
    own: tuple[str, ...]
    options: Mapping[str, Any]
    given: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's classes."""
        return self.blueprint.adapter.labels


def design(request: Request, parts: Parts, checkpoint: Checkpoint | None) -> Design:
    """Decide everything that determines the modules and their values."""
    run = checkpoint.run(parts) if checkpoint else None
    drafted = draft(request, parts, run)
    whole = _whole(parts, drafted, checkpoint)
    come = _origin(request, parts, checkpoint, whole)
    channels = request.in_channels or (run.card.in_channels if run else 3)
    spec = parts.spec.built_with(drafted.build)
    preprocess = come.preprocess if request.size is None else replace(come.preprocess, size=request.size)
    if run is None or request.size is not None:  # a run's own is framed already
        preprocess = drafted.adapter.framing(spec, preprocess)
    preprocess = replace(preprocess, **parts.options.preprocess).for_channels(channels)
    preprocess = replace(preprocess, size=request.size or preprocess.size)
    build = parts.spec.build_options({**come.options, **drafted.build})
    spec = spec.built_with(build)
    if whole:
        labels = parts.labels if parts.labels is not None else numbered(parts.num_classes or 0)
        own = label_names(whole.labels) if whole.labels else labels
    else:
        labels, own = choose_labels(parts, build, checkpoint, run, come)
    adapter, tensors = configure(parts.task.adapter, labels, parts.options.task).own_weights(spec)
    if run and not tensors:
        adapter = configure(parts.task.adapter, labels, drafted.options)
    blueprint = Blueprint(spec, adapter, preprocess, channels, build, request.seed)
    return Design(blueprint, come, run, whole, own, drafted.options, parts.options.task, tensors)


def _whole(parts: Parts, drafted: Draft, checkpoint: Checkpoint | None) -> ModelSpec | None:
    """Return the named model if the checkpoint holds all of it."""
    if parts.named is None or checkpoint is None or checkpoint.saved:
        return None
    spec = parts.spec.built_with(drafted.build)
    return (
        parts.named if is_whole(parts.named, spec, abstract(spec, **drafted.build), list(checkpoint.tensors)) else None
    )


def _origin(request: Request, parts: Parts, checkpoint: Checkpoint | None, whole: ModelSpec | None) -> Origin:
    usual = (parts.named.preprocess if parts.named else None) or parts.spec.preprocess
    if checkpoint is None:
        return Origin(usual)
    if whole:
        return Origin(usual, labels=whole.labels, license=whole.license)
    return origin(request, parts, checkpoint)


# Values --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """How a checkpoint was used: its classes, whether the head is untrained, and notes for people."""

    own: tuple[str, ...]
    new_head: bool
    notes: tuple[str, ...]


def filled(request: Request, parts: Parts, checkpoint: Checkpoint | None, plan: Design) -> Model:
    """Return the model of a design, with random values or those of its checkpoint."""
    blueprint = plan.blueprint
    # The head is initialised first: a checkpoint may lack it or have other classes, and what it lacks keeps its
    # initial values. A backbone is either all random or all from the checkpoint. In the second case it is built of
    # shapes alone, so that no values are drawn in vain. Weights of the head that an option names come last and win.
    head = blueprint.head()
    if checkpoint is None:
        backbone, done = blueprint.backbone(), Filled(plan.own, True, ())
    else:
        backbone = blueprint.abstract_backbone()
        put_in = _from_whole if plan.whole else _from_saved if checkpoint.saved else _from_backbone
        done = put_in(plan, checkpoint, backbone, head)
    if plan.tensors:
        put(head, arrays_for(head, plan.tensors, parts.task.name), request.seed)
        done = replace(done, new_head=False)
    return assemble(blueprint, _card(request, parts, checkpoint, plan, done), backbone, head)


def _from_backbone(plan: Design, checkpoint: Checkpoint, backbone: nnx.Module, head: nnx.Module) -> Filled:
    """Fill from a checkpoint of a backbone, perhaps with its classifier."""
    blueprint, same = plan.blueprint, plan.own == plan.labels
    report = _filled_backbone(plan, checkpoint, backbone, head, keep_head=same)
    fresh = bool(report.reinitialised) or not same or not blueprint.adapter.checkpoint_paths(blueprint.spec)
    return Filled(plan.own, fresh, (*plan.origin.notes, str(report)))


def _filled_backbone(
    plan: Design, checkpoint: Checkpoint, backbone: nnx.Module, head: nnx.Module, *, keep_head: bool
) -> LoadReport:
    of = plan.blueprint
    report = fill(
        of.spec, backbone, head, of.adapter, checkpoint.body, of.in_channels, keep_head=keep_head, seed=of.seed
    )
    report.ignored |= checkpoint.waived
    return report


def _from_whole(plan: Design, checkpoint: Checkpoint, backbone: nnx.Module, head: nnx.Module) -> Filled:
    """Fill from a checkpoint of backbone, neck and head."""
    of, whole = plan.blueprint, plan.whole
    assert whole is not None

    def like(labels: tuple[str, ...]) -> nnx.Module:
        return of.abstract_head(replace(of.adapter, labels=labels))

    heads = [(labels, lambda labels=labels: like(labels)) for labels in dict.fromkeys((plan.own, plan.labels))]
    own, report = fill_whole(whole, of.spec, backbone, head, heads, checkpoint.tensors, of.in_channels, of.seed)
    report.ignored |= checkpoint.waived
    fresh = bool(report.reinitialised) or own != plan.labels
    return Filled(own, fresh, (*plan.origin.notes, str(report)))


def _from_saved(plan: Design, checkpoint: Checkpoint, backbone: nnx.Module, head: nnx.Module) -> Filled:
    """Fill from a saved model: its backbone and, for the same task, its head for the classes that agree."""
    of, run = plan.blueprint, plan.run
    report = _filled_backbone(plan, checkpoint, backbone, head, keep_head=False)
    tensors = part_of(checkpoint.tensors, HEAD)
    if run is None:
        assert checkpoint.saved is not None
        was = checkpoint.saved.card.adapter
        report.ignored |= dict.fromkeys((HEAD + name for name in tensors), f"the head is for {was}")
        report.reinitialised |= dict.fromkeys((HEAD + slot.name for slot in slots(head)), "the task is a different one")
        return Filled(plan.own, True, (*plan.origin.notes, str(report)))
    adapter = type(of.adapter)
    more = {name: value for name, value in plan.options.items() if not each_class_has_one(value, plan.labels)}

    def wider() -> nnx.Module:
        return of.abstract_head(configure(adapter, (*plan.labels, "\0"), more))

    arrays = transfer(head, tensors, run.labels, plan.labels, wider, report)
    put(head, arrays, of.seed)
    usual = {name: msgspec.to_builtins(option.default) for name, option in option_fields(adapter).items()}
    said = options_of_run(run, plan.options, plan.given, usual)
    return Filled(plan.own, run.card.new_head or not arrays, (*plan.origin.notes, str(report), *said))


def _card(request: Request, parts: Parts, checkpoint: Checkpoint | None, plan: Design, done: Filled) -> Card:
    of, run, labels = plan.blueprint, plan.run, plan.labels
    if run and labels == run.labels:
        known = run.card.label_set
    else:
        known = label_set(of.spec, plan.origin, labels) if labels == done.own else ""
    return Card(
        backbone=of.spec.name,
        adapter=parts.task.name,
        weights=(request.weights or (parts.row.name if parts.row else "")) if request.pretrained else "",
        preprocess=of.preprocess,
        in_channels=of.in_channels,
        dtype=request.dtype,
        options=of.build,
        label_set=known,
        license=plan.origin.license,
        sha256=checkpoint.fetched.sha256 if checkpoint else "",
        revision=checkpoint.fetched.revision if checkpoint else "",
        seed=of.seed,
        notes=done.notes,
        new_head=done.new_head,
        plugins={**parts.plugins, **parts_of_others(of.adapter)},
    )
