"""Helpers for tests of backbones and weights: models filled with name-seeded weights, and golden values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import fingerprints
import jax
import numpy as np
import numpy_programs
import pytest
import seeded
from flax import nnx
from jax import Array

from zoo.labels import names as label_names
from zoo.models.adapter import configure
from zoo.models.assemble import Blueprint, assemble
from zoo.models.backbone import run_stages
from zoo.models.card import Card
from zoo.models.fill import fill, in_checkpoint
from zoo.models.model import Model
from zoo.registry import registry
from zoo.registry.spec import OUTPUT_STRIDE, BackboneSpec
from zoo.weights.load import LoadReport, layouts_of
from zoo.weights.mapping import Slot, locate, slots, split

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4
NEEDED = {"ResNet", "MobileNetV2", "VGG", "Inception v3", "ConvNeXt", "Swin Transformer", "ViT", "DINOv2"}
"""Families that every task on maps must serve."""
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options of programs that run a few times on a few pixels: optimising takes half of the time that compiling
takes. What users run is tested by `test_backbones.py` (one program a family), `test_layers.py` and the tests of real
weights."""


@cache
def backbones() -> dict[str, BackboneSpec]:
    """Return every backbone of zoo itself, by name."""
    return dict(registry().backbones())


def cases() -> list[tuple[str, str]]:
    """(backbone, case) for the defaults and for every other value of every option. Dilation, which has no tensors of
    its own, is compared for the smallest of each family at its most."""

    def others(name: str, option: str) -> list[Any]:
        values = list(backbones()[name].options[option])[1:]
        return values if option != OUTPUT_STRIDE else values[-1:] if name in one_per_family() else []

    return [
        (name, case)
        for name, spec in backbones().items()
        for case in ("default", *(f"{option}={v}" for option in spec.options for v in others(name, option)))
    ]


@cache
def one_per_family() -> list[str]:
    """Return the smallest backbone of every family, by the golden parameter counts (those without one come last)."""

    def size(name: str) -> float:
        return _golden_or_none(name, "default").get("params", math.inf)

    smallest: dict[str, str] = {}
    for name, spec in sorted(backbones().items(), key=lambda item: size(item[0])):
        smallest.setdefault(spec.family, name)
    return list(smallest.values())


@cache
def _goldens(file: str) -> dict[str, Any]:
    path = GOLDEN / file
    return json.loads(path.read_text())["variants"] if path.exists() else {}


def _golden_or_none(name: str, case: str) -> dict[str, Any]:
    return _goldens(seeded.family_file(backbones()[name].family)).get(name, {}).get(case, {})


def golden(name: str, case: str = "default") -> dict[str, Any]:
    """Return the golden values; fail if there are none, saying how to make them."""
    found = _golden_or_none(name, case)
    if not found:
        pytest.fail(
            f"no golden for {name} ({case}): run python tools/golden_backbones.py --reference PYTHON {name}, where "
            "PYTHON has torch, torchvision and timm."
        )
    return found


LARGE = 10_000_000
"""Parameters from which a net is large."""


DAILY = {"CIFAR ResNet", "MobileNetV2", "MobileNetV3", "SqueezeNet", "ConvNeXt", "ViT"}
"""Families that every run of the tests takes: convolutions with and without normalisation, plain, depthwise and gated
blocks, tokens. The others are taken where their code, or a layer or block that they are built of, has changed since it
was recorded (`tools/fingerprints.py`), and by `make test-all`."""


def due(names: Iterable[str], *, large: bool = False) -> list[Any]:
    """Backbones as parameters of a test that every run makes for the families of `DAILY` and for those whose code has
    changed; the smallest of `large` families only where they are asked for, because such nets take long."""

    def left_out(name: str) -> bool:
        heavy = not large and _golden_or_none(name, "default").get("params", 0) > LARGE
        return heavy or (backbones()[name].family not in DAILY and known_code(name))

    return [pytest.param(name, marks=[pytest.mark.exhaustive] * left_out(name)) for name in names]


def each_family(*, large: bool = False) -> list[Any]:
    """Return the smallest backbone of every family as parameters of a test, see `due`."""
    return due(one_per_family(), large=large)


def options_of(spec: BackboneSpec, case: str) -> dict[str, Any]:
    """Return the build options that the name of a case stands for."""
    if case == "default":
        return {}
    option, text = case.split("=")
    return {option: next(value for value in spec.options[option] if str(value) == text)}


def composed(
    spec: BackboneSpec,
    options: Mapping[str, Any] | None = None,
    *,
    in_channels: int = 3,
    labels: tuple[str, ...] | None = None,
    dtype: str = "float32",
) -> Model:
    """Return an abstract classifier on a backbone, by default with the checkpoint's classes, or a few if it has none.

    The head is built for the declared stages; `test_backbones.py` shows that those are the real ones.
    """
    adapter_spec = registry().adapter("classifier")
    own = label_names(spec.classifier.labels) if spec.classifier.labels else map(str, range(seeded.CLASSES))
    adapter = configure(adapter_spec.adapter, tuple(own) if labels is None else labels, {})
    preprocess = spec.preprocess.for_channels(in_channels)
    card = Card(
        spec.name,
        adapter_spec.name,
        preprocess=preprocess,
        in_channels=in_channels,
        dtype=dtype,
        options=spec.build_options(options or {}),
    )
    return assemble(Blueprint(spec, adapter, preprocess, in_channels, options or {}, declared=True), card)


def checkpoint_slots(model: Model) -> list[tuple[str, Slot]]:
    """Return (name in the native checkpoint, slot) of every array of a composed model."""
    paths = model.adapter.checkpoint_paths(model.spec)
    tops = [(in_checkpoint(slot, paths), slot) for slot in slots(model.head)]
    return [(slot.name, slot) for slot in slots(model.backbone)] + tops


def checkpoint_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the native checkpoint, with the checkpoint's axes."""
    return {name: slot.native_shape for name, slot in checkpoint_slots(model)}


def in_layout(spec: BackboneSpec, layout: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a native checkpoint in another key layout of the family."""
    entries = layouts_of(spec)[layout]
    return {there: part for name, whole in tensors.items() for there, part in split(whole, locate(name, entries))}


def checkpoint(name: str, case: str = "default") -> dict[str, np.ndarray]:
    """Return a native checkpoint of name-seeded tensors. Do not write to it."""
    return dict(_checkpoint(name, case))


@lru_cache(maxsize=1)  # several tests of one net follow each other; all nets would fill gigabytes
def _checkpoint(name: str, case: str) -> dict[str, np.ndarray]:
    spec = backbones()[name]
    shapes = checkpoint_shapes(composed(spec, options_of(spec, case)))
    tensors = seeded.tensors(shapes, golden(name, case)["scales"])
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return tensors


def load(model: Model, tensors: Mapping[str, np.ndarray], *, keep_head: bool = True) -> LoadReport:
    """Put a checkpoint into a composed model, as `zoo.create` does, and set it to evaluation mode."""
    report = fill(
        model.spec,
        model.backbone,
        model.head,
        model.adapter,
        tensors,
        model.card.in_channels,
        keep_head=keep_head,
        seed=0,
    )
    model.eval()
    return report


def _outputs(graphdef: nnx.GraphDef[Model], state: nnx.State, x: Array) -> dict[str, Array]:
    model = nnx.merge(graphdef, state)
    found = run_stages(model.backbone, x, [stage.name for stage in model.spec.stages])
    last = found[model.spec.stages[-1].name]
    pooled = last.mean(tuple(range(1, last.ndim - 1)))
    logits = model.outputs(model.head.reduce({name: found[name] for name in model.adapter.taps(model.spec)}))
    return {**found, "pooled": pooled, "logits": logits}


def outputs(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the output of every stage, pooled features and logits for normalised images, evaluated with NumPy.

    `test_backbones.py` compiles one net of each family.
    """
    graphdef, state = nnx.split(model)
    with jax.numpy_dtype_promotion("strict"):
        return numpy_programs.evaluate(partial(_outputs, graphdef), state, x)


def fingerprint(model: Model, golden: Mapping[str, Any]) -> str:
    """Fingerprint of the program behind `outputs`, of what weights are read into, of the declared stages, and of the
    golden values."""
    model.eval()
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((2, *golden["size"], 3), np.float32)
    with jax.numpy_dtype_promotion("strict"):
        program = jax.make_jaxpr(partial(_outputs, graphdef))(state, x)
    return fingerprints.fingerprint(program, checkpoint_slots(model), model.spec.stages, golden)


def code_of(name: str) -> tuple[str, str]:
    """Return the key of the code behind a backbone (its plugin module and family), and the hash of the code."""
    module = next(row.module for row in registry().rows("backbones") if row.name == name)
    family = backbones()[name].family
    return f"{module} {family}", fingerprints.code_of(module, GOLDEN / seeded.family_file(family))


def known_code(name: str) -> bool:
    """Return whether the code behind a backbone has the recorded hash."""
    key, found = code_of(name)
    return fingerprints.recorded().get(key) == found


def deviations(model: Model, name: str, case: str = "default") -> dict[str, float]:
    """Return the deviation of each output of a composed model with the name-seeded checkpoint; see `errors`."""
    load(model, checkpoint(name, case))
    wanted = golden(name, case)
    return errors(outputs(model, seeded.images(2, *wanted["size"])), wanted["outputs"])


def errors(found: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> dict[str, float]:
    """Return the deviation of each output from the golden value, in units of that output's standard deviation."""
    assert found.keys() == wanted.keys()
    return {name: seeded.error(found[name], wanted[name]) for name in wanted}
