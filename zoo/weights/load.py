"""Putting a checkpoint into a model with nothing left unexplained.

Every tensor of the file and every array of the model ends in exactly one of: loaded, adapted (how), re-initialised
(why), ignored (why). Anything else is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zoo.errors import WeightsError
from zoo.spec import BackboneSpec
from zoo.weights.mapping import UNUSED_LEAVES, Slot, common_wrapper, rename


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


def layouts_of(spec: BackboneSpec) -> dict[str, Mapping[str, str]]:
    """Every key layout the family reads, as module path here -> module path there; the native one first."""
    return {spec.native_layout: {}, **{name: build() for name, build in spec.layouts.items()}}


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > count else shown


def recognise(
    spec: BackboneSpec, expected: Sequence[str], names: Sequence[str], also: Sequence[str] = ()
) -> tuple[str, str, dict[str, str]]:
    """Tell the layout of a file by its keys.

    Args:
        expected: tensor names of the native layout. names: the file's tensor names.
        also: further native names to map, which say nothing about the layout (the classifier's).
    Returns:
        (layout, prefix to strip, native name -> name in the file).
    Raises:
        WeightsError: when less than half of the expected tensors are found in any layout.
    """
    given = set(names)
    best: tuple[int, str, str, dict[str, str]] = (-1, "", "", {})
    for layout, modules in layouts_of(spec).items():
        renamed = {name: rename(name, modules) for name in expected}
        prefix = common_wrapper(names, set(renamed.values()))
        mapping = {native: prefix + there for native, there in renamed.items()}
        hits = sum(name in given for name in mapping.values())
        if hits > best[0]:
            best = (hits, layout, prefix, mapping)
    hits, layout, prefix, mapping = best
    if hits * 2 < len(expected):
        known = ", ".join(layouts_of(spec))
        raise WeightsError(
            f"these weights are not for {spec.name}: {hits} of its {len(expected)} tensors are in the file. The file "
            f"holds {_some(sorted(given))}; {spec.name} needs {_some(expected)} (layouts read: {known})."
        )
    modules = layouts_of(spec)[layout]
    return layout, prefix, mapping | {name: prefix + rename(name, modules) for name in also}


def adapt_first_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first convolution (kh, kw, in, out) for another number of input channels.

    One channel takes the sum over the old ones, which is exact for a grey image given as equal channels; n channels
    repeat the old ones in turn, scaled by in / n so that activations keep their size.
    """
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
    layout, prefix, mapping = recognise(spec, body, list(tensors), also=[n for n in names if n not in body])
    modules = layouts_of(spec)[layout]
    report, arrays, wrong = LoadReport(layout, prefix), {}, []
    for slot in slots:
        source = mapping[slot.name]
        if source not in tensors:
            if slot.name.startswith(head):
                report.reinitialised[slot.name] = "the file has no classifier"
            else:
                wrong.append(f"{source} is missing")
            continue
        array = slot.read(tensors[source])
        same_but_inputs = array.ndim == 4 and array.shape[:2] + array.shape[3:] == slot.shape[:2] + slot.shape[3:]
        if array.shape == slot.shape:
            arrays[slot.name] = array
            report.loaded.append(slot.name)
        elif slot.name == first_conv and same_but_inputs:
            arrays[slot.name] = adapt_first_kernel(array, slot.shape[2])
            report.adapted[slot.name] = f"first convolution from {array.shape[2]} to {slot.shape[2]} channels"
        else:
            wrong.append(f"{source} has shape {tuple(array.shape)}, the model needs {slot.shape}")

    head_there = prefix + rename(head + "weight", modules).removesuffix("weight")
    for name in sorted(tensors.keys() - set(mapping.values())):
        leaf = name.rsplit(".", 1)[-1]
        if leaf in UNUSED_LEAVES:
            report.ignored[name] = UNUSED_LEAVES[leaf]
        elif name.startswith(head_there) and head_reason:
            report.ignored[name] = head_reason
        else:
            wrong.append(f"{name} has no place in the model")
    if wrong:
        raise WeightsError(
            f"the weights do not fit {spec.name} ({layout} layout, {len(report.loaded)} tensors fit): "
            + "; ".join(wrong[:6])
            + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            + ". Check the architecture's name, or in_channels and num_classes."
        )
    return arrays, report
