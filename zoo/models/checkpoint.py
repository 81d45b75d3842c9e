"""The file of weights that a model starts from: its tensors, origin and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ConfigError
from zoo.labels import names as label_names
from zoo.labels.spelling import number
from zoo.models.backbone import abstract
from zoo.models.origin import PROCESSOR, Origin, is_transformers, origin_of
from zoo.models.request import Parts, Request, numbered
from zoo.models.saved import HEAD, Saved, saved
from zoo.registry import registry
from zoo.registry.loader import same_distribution
from zoo.registry.spec import BackboneSpec, WeightSpec
from zoo.weights.extra import without
from zoo.weights.fetch import Fetched, fetch, fetch_config
from zoo.weights.file import TensorFile, read
from zoo.weights.load import recognise
from zoo.weights.mapping import slots


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights.

    Attributes:
        source: as the user gave it.
        fetched: the file.
        header: of the file, without the tensors that are left out.
        tensors: of the file, without these.
        saved: description of a saved model, None for other files.
        waived: tensors that the user left out -> why.
    """

    source: str
    fetched: Fetched
    header: TensorFile
    tensors: Mapping[str, np.ndarray]
    saved: Saved | None
    waived: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Mapping[str, np.ndarray]:
        """The tensors without the head of a saved model."""
        if self.saved is None:
            return self.tensors
        return {name: array for name, array in self.tensors.items() if not name.startswith(HEAD)}

    def run(self, parts: Parts) -> Saved | None:
        """Return the saved model's description if its head is for the requested task.

        Raises:
            ConfigError: Its backbone comes from another distribution under the same name.
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
                f"{now.distribution}/{parts.spec.name} is a different backbone of the same name: use the former name."
            )
        if not self.saved.is_for(parts.task, parts.plugins["adapter"].distribution):
            return None
        return self.saved.renamed(parts.task.adapter)


def is_near(source: str | None) -> bool:
    """Return whether weights are local, so that reading them needs no download."""
    return bool(source) and "://" not in str(source) and Path(str(source)).expanduser().exists()


def open_checkpoint(request: Request, parts: Parts) -> Checkpoint | None:
    """Return the file that a model starts from, downloaded if needed; None for random values.

    Raises:
        ConfigError: No download is known.
    """
    row = parts.row
    if not request.pretrained:
        return None
    if request.weights:
        return _opened(request.weights, ignore=request.ignore_tensors)
    if not (row and row.source):
        raise ConfigError(
            f"no download is known for {request.name}: give weights=FILE (--weights FILE), or pretrained=False to "
            "start from random values."
        )
    return _opened(row.source, row, ignore=request.ignore_tensors)


def _opened(source: str, row: WeightSpec | None = None, *, ignore: Sequence[str] = ()) -> Checkpoint:
    fetched = fetch(source, row.file, revision=row.revision, sha256=row.sha256) if row else fetch(source)
    header = read(fetched.path)
    waived = without(header.names(), ignore)
    tensors = header.load(ignore=waived)
    kept = replace(header, entries={name: entry for name, entry in header.entries.items() if name not in waived})
    return Checkpoint(source, fetched, kept, tensors, saved(header), waived)


def origin(request: Request, parts: Parts, checkpoint: Checkpoint) -> Origin:
    """Return what is known about the origin of weights."""
    spec, body = parts.spec, checkpoint.body
    if request.weights and checkpoint.saved:  # it says all of itself, whatever the name of the backbone stands for
        return origin_of(spec, None, None, checkpoint.saved, body)
    known = parts.row or registry().recognised(spec.name, checkpoint.fetched.sha256)
    source = checkpoint.source
    config = fetch_config(source) if request.weights else None
    alone = request.weights and config is None and "://" not in source  # on the hub it would be one more request
    if alone or (config and is_transformers(config)):
        processor = fetch_config(source, name=f"{PROCESSOR}.json")
        config = {**(config or {}), PROCESSOR: processor} if processor else config
    return origin_of(spec, known, config, checkpoint.saved, body)


def choose_labels(
    parts: Parts, build: Mapping[str, Any], checkpoint: Checkpoint | None, run: Saved | None, origin: Origin
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the model's labels, and the checkpoint's own labels, () if it has no classifier."""
    own = _own_labels(parts.spec, build, checkpoint, run, origin)
    if parts.labels is None and parts.num_classes is None:
        if not own:
            raise ConfigError("these weights have no classes of their own: give labels= or num_classes=.")
        return own, own
    if parts.labels is None:
        assert parts.num_classes is not None
        return (own, own) if parts.num_classes == len(own) else (numbered(parts.num_classes), own)
    wanted = parts.labels
    # Classes without names agree when they are equally many; numbers in another order are not the same classes.
    nameless = own == numbered(len(wanted)) and not any(number(name) is not None for name in wanted)
    return wanted, wanted if nameless else own


def _own_labels(
    spec: BackboneSpec, build: Mapping[str, Any], checkpoint: Checkpoint | None, run: Saved | None, origin: Origin
) -> tuple[str, ...]:
    if checkpoint and checkpoint.saved:
        return run.labels if run else ()
    count = _own_classes(spec, build, checkpoint) if checkpoint else 0
    published = origin.labels or spec.classifier.labels
    own = origin.label_names or (label_names(published) if published else ())
    if len(own) == count:
        return own
    return numbered(count) if count else ()


def _own_classes(spec: BackboneSpec, build: Mapping[str, Any], checkpoint: Checkpoint) -> int:
    """Return the number of classes of the checkpoint's classifier; 0 if it has none."""
    names = [slot.name for slot in slots(abstract(spec, **build))]
    path = spec.classifier.path
    there = recognise(spec, names, checkpoint.header.names(), also=(f"{path}.weight",))
    place, shapes = there.places[f"{path}.weight"], checkpoint.header.shapes()
    return sum(shapes[name][0] for name in place.names) if shapes.keys() >= set(place.names) else 0


def label_set(spec: BackboneSpec, origin: Origin, labels: tuple[str, ...]) -> str:
    """Return the name of the published label set that these labels are, if any."""
    name = "" if origin.label_names else origin.labels or spec.classifier.labels
    return name if name and label_names(name) == labels else ""


def options_of_run(
    run: Saved, taken: Mapping[str, Any], given: Mapping[str, Any], usual: Mapping[str, Any]
) -> list[str]:
    """Return notes on the options that come from a saved model and are not the defaults.

    Args:
        run: The saved model.
        taken: Options of the task that the model has.
        given: Options that the user gave.
        usual: The defaults.
    """
    kept = {k: v for k, v in taken.items() if k not in given and v != usual.get(k)}
    gone = [k for k, v in run.options.items() if k not in taken and v != usual.get(k)]
    notes = [f"options of the saved model: {', '.join(f'{k}={v}' for k, v in kept.items())}"] if kept else []
    return notes + [f"{name} of the saved model has a value for each class and is left out" for name in gone]
