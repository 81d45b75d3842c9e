"""Load a checkpoint into a model and account for every tensor.

Every tensor of the file and every array of the model ends up in exactly one of: loaded, adapted (how), re-initialised
(why), ignored (why). Anything else is an error that names the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from zoo.errors import WeightsError
from zoo.registry.spec import BackboneSpec, Stored
from zoo.weights.extra import copies_of, of_optimizer, why_extra
from zoo.weights.mapping import UNUSED_LEAVES, Slot, common_wrapper, join, locate


@dataclass
class LoadReport:
    """What happened to every tensor. Names are those of the native layout; for ignored tensors, those of the file.

    Attributes:
        layout: key layout of the file.
        prefix: wrapper that was stripped from every name.
        loaded: names of tensors taken unchanged.
        adapted: name -> how the tensor was adapted.
        reinitialised: name -> why the array was re-initialised.
        ignored: name -> why the tensor was ignored.
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
    """Return the key layouts that the family reads, native one first, each as path here -> path there."""
    return {spec.native_layout: {}, **{name: build() for name, build in spec.layouts.items()}}


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > count else shown


@dataclass(frozen=True)
class Recognised:
    """The naming scheme of a file.

    Attributes:
        layout: key layout.
        prefix: wrapper before every name.
        places: native name -> where the file stores the tensor, names with their prefix.
    """

    layout: str
    prefix: str
    places: Mapping[str, Stored]

    def sources(self) -> set[str]:
        """Return every name in the file from which a tensor of the model may be read."""
        return {name for place in self.places.values() for name in place.names}


def recognise(
    spec: BackboneSpec, expected: Sequence[str], names: Sequence[str], also: Sequence[str] = ()
) -> Recognised:
    """Recognise the key layout of a file.

    Args:
        spec: the backbone.
        expected: tensor names of the native layout.
        names: tensor names of the file.
        also: further native names to locate (the classifier's), which do not count for choosing the layout.
    Raises:
        WeightsError: if fewer than half of the expected tensors are in the file under every layout.
    """
    # Choose the layout, and the wrapper before its names, under which the file has most of the expected tensors. The
    # moments of an optimizer have the names of all parameters, too, and must not be taken for them.
    names = [name for name in names if not of_optimizer(name)] or names
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
    places_of = {name: _below(prefix, locate(name, layouts[layout])) for name in expected}
    # A classifier may be outside the wrapper of the body: `vit.encoder...` and `classifier`.
    outer = _shorter(prefix)
    for name in also:
        place = locate(name, layouts[layout])
        choices = [_below(start, place) for start in outer]
        places_of[name] = next((c for c in choices if given.issuperset(c.names)), choices[0])
    return Recognised(layout, prefix, places_of)


def _below(prefix: str, place: Stored) -> Stored:
    return replace(place, names=tuple(prefix + name for name in place.names))


def _shorter(prefix: str) -> list[str]:
    """`a.b.` -> [`a.b.`, `a.`, ``]."""
    parts = prefix.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]


def adapt_first_kernel(kernel: np.ndarray, channels: int, pixels: int = 1) -> np.ndarray:
    """Return the kernel of a first convolution for another number of input channels.

    For one channel it is the sum over the old channels, which is exact for a grey image given as equal channels. For n
    channels the old ones are repeated in turn and scaled by in / n, so that activations keep their scale.

    Args:
        kernel: (kh, kw, in, out).
        channels: channels of an image.
        pixels: number of neighbouring pixels that are stacked as inputs, each with all its channels.
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
    """Return the arrays for the slots of a model from the tensors of a checkpoint.

    Args:
        spec: the backbone.
        slots: slots of the backbone and, if the model uses the checkpoint's classifier, of that under its native name.
        tensors: tensors of the file by name.
        first_conv: native name of the kernel that reads the image, which may be adapted to other channels.
        head_reason: why the model does not use the checkpoint's classifier.
    Returns:
        (native name -> array with our axes, report). Names that the dict lacks keep their initial values.
    Raises:
        WeightsError: if tensors are missing, left over or have the wrong shape; it names them.
    """
    head = spec.classifier.path + "."
    names = [slot.name for slot in slots]
    body = [name for name in names if not name.startswith(head)]
    # Locate the classifier even if the model does not use it, so that its tensors can be reported as such.
    classifier = [name for name in names if name not in body]
    scheme = recognise(spec, body, list(tensors), also=classifier or [f"{head}weight", f"{head}bias"])
    report, arrays, wrong = LoadReport(scheme.layout, scheme.prefix), {}, []
    for slot in slots:
        place = scheme.places[slot.name]
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
            stored_as = " and ".join(place.names)
            wrong.append(f"{stored_as} has shape {tuple(tensor.shape)}, the model needs {slot.shape}")

    used = {name for slot in slots for name in scheme.places[slot.name].names}
    left, sources = sorted(tensors.keys() - used), scheme.sources()
    copies = copies_of(left, {name: tensors[name].shape for name in tensors}, scheme.prefix, used)
    extra: list[str] = []
    for name in left:
        if name in sources and head_reason:
            report.ignored[name] = head_reason
        elif reason := _unused(spec, name, scheme.prefix):
            report.ignored[name] = reason
        elif reason := why_extra(name, tensors[name], _shorter(scheme.prefix), sources, copies):
            report.ignored[name] = reason
        else:
            extra.append(name)
    wrong += [f"{name} has no place in the model" for name in extra]
    if wrong:
        raise WeightsError(
            f"the weights do not fit {spec.name} ({scheme.layout} layout, {len(report.loaded)} tensors fit): "
            + "; ".join(wrong[:6])
            + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            + ". Check the name of the backbone, in_channels and num_classes."
            + (_advice(extra) if len(extra) == len(wrong) else "")
        )
    return arrays, report


def _advice(extra: Sequence[str]) -> str:
    """Say how to leave out tensors that have no place in the model."""
    groups = list(dict.fromkeys(f"{name.partition('.')[0]}.*" if "." in name else name for name in extra))
    patterns = " ".join(f"--ignore-tensors '{group}'" for group in groups[:3])
    return f" If only the training needed them, leave them out: ignore_tensors={groups[:3]}, or {patterns}."


def _fitted(spec: BackboneSpec, slot: Slot, tensor: np.ndarray, is_first: bool, report: LoadReport) -> np.ndarray:
    """Return a tensor of the checkpoint in the shape of the slot, and add it to the report.

    Raises:
        WeightsError: if the shapes differ and no rule adapts the tensor.
    """
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
    """Return why the model does not need a tensor of the file, or an empty string if there is no known reason."""
    inner = name.removeprefix(prefix)
    reasons = (why for glob, why in spec.ignored.items() if fnmatchcase(inner, glob) or fnmatchcase(name, glob))
    return UNUSED_LEAVES.get(name.rsplit(".", 1)[-1]) or next(reasons, "")
