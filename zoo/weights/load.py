"""Putting a checkpoint into a model with nothing left unexplained.

Every tensor of the file and every array of the model ends in exactly one of: loaded, adapted (how), re-initialised
(why), ignored (why). Anything else is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from zoo.errors import WeightsError
from zoo.registry.spec import BackboneSpec, Stored
from zoo.weights.mapping import UNUSED_LEAVES, Slot, common_wrapper, join, locate


@dataclass
class LoadReport:
    """What became of every tensor. Keys are names of the native layout, or of the file for what was ignored.

    Attributes:
        layout: the key layout that was recognised. prefix: the wrapper that was stripped from every name.
        loaded: names taken as they are. adapted, reinitialised, ignored: name -> how or why.
    """

    layout: str = ""
    prefix: str = ""
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    reinitialised: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.layout} layout: {len(self.loaded)} tensors loaded"]
        for word, items in (
            ("adapted", self.adapted),
            ("re-initialised", self.reinitialised),
            ("ignored", self.ignored),
        ):
            for reason in dict.fromkeys(items.values()):
                count = sum(other == reason for other in items.values())
                parts.append(f"{count} {word} ({reason})")
        return ", ".join(parts)


def layouts_of(spec: BackboneSpec) -> dict[str, Mapping[str, str | Stored]]:
    """Every key layout the family reads, as what is here -> what is there; the native one first."""
    return {spec.native_layout: {}, **{name: build() for name, build in spec.layouts.items()}}


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > count else shown


@dataclass(frozen=True)
class Recognised:
    """How a file names things.

    Attributes:
        layout: of its keys. prefix: the wrapper before every name.
        places: native name -> where the file has it, names with their prefix.
    """

    layout: str
    prefix: str
    places: Mapping[str, Stored]

    def sources(self) -> set[str]:
        """Every name that a tensor of ours may be read from."""
        return {name for place in self.places.values() for name in place.names}


def recognise(
    spec: BackboneSpec, expected: Sequence[str], names: Sequence[str], also: Sequence[str] = ()
) -> Recognised:
    """Tell the layout of a file by its keys.

    Args:
        expected: tensor names of the native layout. names: the file's tensor names.
        also: further native names to find, which say nothing about the layout (the classifier's).
    Raises:
        WeightsError: when less than half of the expected tensors are found in any layout.
    """
    given = set(names)
    best: tuple[int, str, str] = (-1, "", "")
    layouts = layouts_of(spec)
    for layout, entries in layouts.items():
        places = [locate(name, entries) for name in expected]
        prefix = common_wrapper(names, {name for place in places for name in place.names})
        hits = sum(all(prefix + name in given for name in place.names) for place in places)
        if hits > best[0]:
            best = (hits, layout, prefix)
    hits, layout, prefix = best
    if hits * 2 < len(expected):
        raise WeightsError(
            f"these weights are not for {spec.name}: {hits} of its {len(expected)} tensors are in the file. The file "
            f"holds {_some(sorted(given))}; {spec.name} needs {_some(expected)} (layouts read: {', '.join(layouts)})."
        )
    found = {name: _below(prefix, locate(name, layouts[layout])) for name in expected}
    # A classifier may stand beside what the body is wrapped in: `vit.encoder...` and `classifier`.
    outer = _shorter(prefix)
    for name in also:
        place = locate(name, layouts[layout])
        choices = [_below(start, place) for start in outer]
        found[name] = next((c for c in choices if given.issuperset(c.names)), choices[0])
    return Recognised(layout, prefix, found)


def _below(prefix: str, place: Stored) -> Stored:
    return replace(place, names=tuple(prefix + name for name in place.names))


def _shorter(prefix: str) -> list[str]:
    """`a.b.` -> [`a.b.`, `a.`, ``]."""
    parts = prefix.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]


def adapt_first_kernel(kernel: np.ndarray, channels: int, pixels: int = 1) -> np.ndarray:
    """A first convolution (kh, kw, in, out) for another number of input channels.

    One channel takes the sum over the old ones, which is exact for a grey image given as equal channels; n channels
    repeat the old ones in turn, scaled by in / n so that activations keep their size.

    Args:
        channels: of an image. pixels: how many of them, with all their channels, make up the inputs.
    """
    if pixels > 1:
        parts = np.split(kernel, pixels, axis=2)
        return np.concatenate([adapt_first_kernel(part, channels) for part in parts], axis=2)
    old = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.concatenate([kernel] * -(-channels // old), axis=2)[:, :, :channels]
    return (repeated * (old / channels)).astype(kernel.dtype)


def assign(
    spec: BackboneSpec,
    slots: Sequence[Slot],
    tensors: Mapping[str, np.ndarray],
    *,
    first_conv: str | None,
    head_reason: str = "",
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Arrays for the slots from a checkpoint's tensors.

    Args:
        slots: of the backbone and, where the checkpoint's own classifier has a place in the model, of the classifier
            under its native name.
        first_conv: native name of the kernel that reads the image, which may be adapted to other channels.
        head_reason: why the checkpoint's classifier has no place in the model.
    Returns:
        (native name -> array with our axes, report). Names that are missing from the dict were re-initialised.
    Raises:
        WeightsError: naming every tensor that is missing, left over or of another shape.
    """
    head = spec.classifier.path + "."
    names = [slot.name for slot in slots]
    body = [name for name in names if not name.startswith(head)]
    # The classifier is looked for also where the model has no place for it, to know its tensors for what they are.
    kept = [name for name in names if name not in body]
    found = recognise(spec, body, list(tensors), also=kept or [f"{head}weight", f"{head}bias"])
    report, arrays, wrong = LoadReport(found.layout, found.prefix), {}, []
    for slot in slots:
        place = found.places[slot.name]
        missing = [name for name in place.names if name not in tensors]
        if missing:
            if slot.name.startswith(head):
                report.reinitialised[slot.name] = "the file has no classifier"
            else:
                wrong += [f"{name} is missing" for name in missing]
            continue
        tensor = join([tensors[name] for name in place.names], place, slot.native_shape)
        try:
            arrays[slot.name] = _fitted(spec, slot, tensor, slot.name == first_conv, report)
        except WeightsError:
            said = " and ".join(place.names)
            wrong.append(f"{said} has shape {tuple(tensor.shape)}, the model needs {slot.shape}")

    for name in sorted(tensors.keys() - {name for slot in slots for name in found.places[slot.name].names}):
        if name in found.sources() and head_reason:
            report.ignored[name] = head_reason
        elif reason := _unused(spec, name, found.prefix):
            report.ignored[name] = reason
        else:
            wrong.append(f"{name} has no place in the model")
    if wrong:
        raise WeightsError(
            f"the weights do not fit {spec.name} ({found.layout} layout, {len(report.loaded)} tensors fit): "
            + "; ".join(wrong[:6])
            + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            + ". Check the architecture's name, or in_channels and num_classes."
        )
    return arrays, report


def _fitted(spec: BackboneSpec, slot: Slot, tensor: np.ndarray, is_first: bool, report: LoadReport) -> np.ndarray:
    """A checkpoint's tensor as the slot needs it, with a word in the report. Raises `WeightsError` if it cannot be."""
    array = slot.read(tensor)
    if array.shape == slot.shape:
        report.loaded.append(slot.name)
        return array
    if is_first and array.ndim == 4 and array.shape[:2] + array.shape[3:] == slot.shape[:2] + slot.shape[3:]:
        pixels = spec.fold**2
        old, new = array.shape[2] // pixels, slot.shape[2] // pixels
        report.adapted[slot.name] = f"first convolution from {old} to {new} channels"
        return adapt_first_kernel(array, new, pixels)
    for pattern, function in spec.resampled.items():
        if fnmatchcase(slot.name, pattern):
            array = slot.read(np.asarray(function(tensor, slot.native_shape)))
            report.adapted[slot.name] = f"resampled from {tuple(tensor.shape)} to {slot.native_shape}"
            return array
    raise WeightsError("it has another shape")


def _unused(spec: BackboneSpec, name: str, prefix: str) -> str:
    """Why a tensor that the file holds is not needed; empty where that is not known."""
    inner = name.removeprefix(prefix)
    reasons = (why for glob, why in spec.ignored.items() if fnmatchcase(inner, glob) or fnmatchcase(name, glob))
    return UNUSED_LEAVES.get(name.rsplit(".", 1)[-1]) or next(reasons, "")
