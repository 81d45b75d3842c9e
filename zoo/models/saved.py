"""The description in the header of a saved model: card, labels, options, and the distributions that it needs."""

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
    """The description of a saved model.

    Attributes:
        card: See `zoo.models.card.Card`.
        labels: Class names, in the order of the outputs.
        options: Options of the task as plain values.
    """

    card: Card
    labels: tuple[str, ...]
    options: Mapping[str, Any]

    def renamed(self, adapter: type[Adapter]) -> Saved:
        """This description with the names that the options of its task have now, see `Adapter.renamed`."""
        names = {old: new for old, new in adapter.renamed.items() if old not in option_fields(adapter)}
        return replace(self, options={names.get(name, name): value for name, value in self.options.items()})

    def is_for(self, adapter: AdapterSpec, distribution: str) -> bool:
        """Return whether its head is for this task of this distribution."""
        known = self.card.plugins.get("adapter")
        return self.card.adapter == adapter.name and (
            known is None or same_distribution(known.distribution, distribution)
        )


def describe(model: Model) -> dict[str, Any]:
    """Return everything about a model except its arrays, as plain JSON values."""
    adapter = model.adapter
    return {
        "format": FORMAT,
        "card": msgspec.to_builtins(asdict(model.card)),
        "labels": list(adapter.labels),
        "adapter": options_of(adapter),
    }


def identity(model: Model) -> dict[str, Any]:
    """Return the description without what may change between interrupt and resume.

    That is versions, notes, and the place of weights whose hash is known.
    """
    said = describe(model)
    left_out = {"notes", "weights", "revision"} if model.card.sha256 else {"notes"}
    card = {name: value for name, value in said["card"].items() if name not in left_out}
    card["plugins"] = {part: one["distribution"] for part, one in card["plugins"].items()}
    return {**said, "card": card}


def options_of(adapter: Adapter) -> dict[str, Any]:
    """Return the options of a task as plain JSON values."""
    return {name: msgspec.to_builtins(getattr(adapter, name)) for name in option_fields(type(adapter))}


def saved(file: TensorFile) -> Saved | None:
    """Return the description in a file's header; None if the file is not a saved model.

    The checksum of the description is verified when tensors are loaded.

    Raises:
        WeightsError: The description cannot be read.
    """
    if DESCRIPTION not in file.metadata:
        return None
    try:
        said = json.loads(file.metadata[DESCRIPTION])
        if (version := msgspec.convert(said["format"], int)) > FORMAT:
            raise WeightsError(
                f"{file.path} was written by a newer zoo: its format is {version}, and this version reads {FORMAT}."
            )
        # Models that were saved before there was a background were trained on images without their transparency.
        said["card"]["preprocess"] = {"background": [], **said["card"]["preprocess"]}
        card, labels = msgspec.convert(said["card"], Card), msgspec.convert(said["labels"], tuple[str, ...])
        return Saved(card, labels, msgspec.convert(said["adapter"], dict[str, Any]))
    except WeightsError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise WeightsError(f"the description in {file.path} cannot be read: {error!r}.") from None


def part_of(tensors: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Return the tensors of `HEAD` or `BACKBONE`, without that prefix."""
    return {name.removeprefix(part): array for name, array in tensors.items() if name.startswith(part)}


def spec_of(card: Card, part: Part) -> Any:
    """Return the spec that a card names, from the recorded distribution only. Raises as the registry does."""
    name = getattr(card, part)
    if part in card.plugins:
        known = card.plugins[part]
        return registry().recorded(KINDS[part], name, known.distribution, known.version)
    return registry().backbone(name) if part == "backbone" else registry().adapter(name)


def parts_of_others(adapter: Adapter) -> dict[str, Provider]:
    """Return the third-party parts that a task's options name: part -> its distribution."""
    found = {}
    for option, point in points_of(type(adapter)).items():
        for key in map(point.key, point.names_in(getattr(adapter, option))):
            provider = Provider(*registry().provider("parts", key))
            if not same_distribution(provider.distribution, FIRST_PARTY):
                found[key.rpartition("/")[2]] = provider
    return found


def with_recorded_parts(card: Card, adapter: type[Adapter], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's options with parts of extension points from the distributions that a card names.

    Raises:
        PluginError: A distribution is missing; the error says what to install.
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
    """Return the card with the versions that are installed now, and a note on each that has changed."""
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
