"""A saved model's description of itself, in the header of its file: card, labels, options, whose code it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np

from zoo.errors import WeightsError
from zoo.models.adapter import Adapter, option_fields
from zoo.models.card import Card, Provider
from zoo.models.model import Model
from zoo.registry import registry
from zoo.registry.loader import FIRST_PARTY, same_distribution
from zoo.registry.parts import Point, points_of
from zoo.registry.spec import AdapterSpec
from zoo.weights.file import DESCRIPTION, TensorFile

FORMAT = 2
HEAD = "head."
BACKBONE = "backbone."
Part = Literal["backbone", "adapter"]
KINDS: Mapping[Part, str] = {"backbone": "backbones", "adapter": "adapters"}


@dataclass(frozen=True)
class Saved:
    """What a saved model says of itself.

    Attributes:
        card: see `zoo.models.model.Card`. labels: class names, in the order of the outputs.
        options: of the task adapter, as plain values.
    """

    card: Card
    labels: tuple[str, ...]
    options: Mapping[str, Any]

    def renamed(self, adapter: type[Adapter]) -> Saved:
        """This description with the names that the options of its task have now, see `Adapter.renamed`."""
        names = {old: new for old, new in adapter.renamed.items() if old not in option_fields(adapter)}
        return replace(self, options={names.get(name, name): value for name, value in self.options.items()})

    def is_for(self, adapter: AdapterSpec, distribution: str) -> bool:
        """Whether its head is one of this task, of this distribution."""
        known = self.card.plugins.get("adapter")
        return self.card.adapter == adapter.name and (
            known is None or same_distribution(known.distribution, distribution)
        )


def describe(model: Model) -> dict[str, Any]:
    """Everything but the arrays, as plain JSON values."""
    adapter = model.adapter
    return {
        "format": FORMAT,
        "card": msgspec.to_builtins(asdict(model.card)),
        "labels": list(adapter.labels),
        "adapter": options_of(adapter),
    }


def identity(model: Model) -> dict[str, Any]:
    """The description without what may change while a training is stopped: versions, and notes for people."""
    said = describe(model)
    card = {name: value for name, value in said["card"].items() if name != "notes"}
    card["plugins"] = {part: one["distribution"] for part, one in card["plugins"].items()}
    return {**said, "card": card}


def options_of(adapter: Adapter) -> dict[str, Any]:
    """The options of an adapter as plain JSON values."""
    return {name: msgspec.to_builtins(getattr(adapter, name)) for name in option_fields(type(adapter))}


def saved(file: TensorFile) -> Saved | None:
    """The description in a file's header; None in a file that is no saved model's.

    Raises `WeightsError` where it cannot be read. That it is what was written is checked where tensors are loaded.
    """
    if DESCRIPTION not in file.metadata:
        return None
    try:
        said = json.loads(file.metadata[DESCRIPTION])
        return Saved(msgspec.convert(said["card"], Card), tuple(said["labels"]), said["adapter"])
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise WeightsError(f"the description in {file.path} cannot be read: {error!r}.") from None


def part_of(tensors: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The tensors of `HEAD` or `BACKBONE`, without that prefix."""
    return {name.removeprefix(part): array for name, array in tensors.items() if name.startswith(part)}


def spec_of(card: Card, part: Part) -> Any:
    """The spec that a card was made with, of the recorded distribution and of no other. Raises as the registry does."""
    name = getattr(card, part)
    if part in card.plugins:
        known = card.plugins[part]
        return registry().recorded(KINDS[part], name, known.distribution, known.version)
    return registry().backbone(name) if part == "backbone" else registry().adapter(name)


def parts_of_others(adapter: Adapter) -> dict[str, Provider]:
    """The parts of extension points that a task's options name and another distribution than zoo's gives, with it."""
    found = {}
    for option, point in points_of(type(adapter)).items():
        for key in map(point.key, point.names_in(getattr(adapter, option))):
            provider = Provider(*registry().provider("parts", key))
            if not same_distribution(provider.distribution, FIRST_PARTY):
                found[key.rpartition("/")[2]] = provider
    return found


def with_recorded_parts(card: Card, adapter: type[Adapter], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task, parts of extension points being those of the distributions that a card names.

    Raises `PluginError`, which says what to install, for one that is not there.
    """

    def recorded(point: Point[Any], name: str) -> str:
        bare = name.rpartition("/")[2]
        known = card.plugins.get(f"{point.name}:{bare}")
        if known is None:
            return name
        registry().recorded("parts", f"{point.name}:{bare}", known.distribution, known.version)
        return f"{known.distribution}/{bare}"

    chosen = {option: point for option, point in points_of(adapter).items() if option in options}
    return dict(options) | {
        option: point.with_names(options[option], partial(recorded, point)) for option, point in chosen.items()
    }


def brought_up_to_date(card: Card) -> Card:
    """The card with the versions that are installed now, and a note on each that was another one."""
    plugins, notes = dict(card.plugins), list(card.notes)
    for part in KINDS:
        if part not in card.plugins:
            continue
        before, now = card.plugins[part], Provider(*registry().provider(KINDS[part], card.qualified(part)))
        plugins[part] = now
        if now.version != before.version:
            notes.append(
                f"the {part} {getattr(card, part)} was made with {now.distribution} {before.version}, and "
                f"{now.version} is installed: predictions may differ"
            )
    return replace(card, plugins=plugins, notes=tuple(dict.fromkeys(notes)))
