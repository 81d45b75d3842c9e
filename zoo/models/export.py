"""Export a model as a checkpoint of another library: the mapping tables run backwards.

The folder holds `model.safetensors` and a `config.json` as timm writes it, so that timm loads it by
`timm.create_model("local-dir:FOLDER", pretrained=True)` and `zoo.create(ARCH, TASK, weights=FOLDER)` reads all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ConfigError, RunError
from zoo.models.fill import first_conv_of, in_checkpoint
from zoo.models.model import Model
from zoo.models.store import arrays_of, load
from zoo.registry.spec import Range
from zoo.weights.file import write
from zoo.weights.load import layouts_of
from zoo.weights.mapping import locate, slots, split

CONFIG = "config.json"
FILE = "model.safetensors"


def export(model_or_run: Any, out: str | Path, format: str = "timm") -> Path:
    """Write a model's parameters in another library's key layout, with its configuration.

    Args:
        model_or_run: A `Model`, a `Run`, or anything that `zoo.load` accepts.
        out: The folder to write. It must be new or empty.
        format: A key layout of the family (`timm`, `torchvision`, `original`). Only timm reads the `config.json`; for
            another layout, build options such as the padding must be set by hand.

    Returns:
        The folder.

    Raises:
        ConfigError: The family lacks this layout, or its checkpoints have no place for the head.
        RunError: `out` is not empty.
    """
    model = model_or_run if isinstance(model_or_run, Model) else getattr(model_or_run, "model", None)
    if not isinstance(model, Model):
        model = load(model_or_run)
    layouts = layouts_of(model.spec)
    if format not in layouts:
        raise ConfigError(
            f"{model.spec.name} cannot be exported in the format {format!r}; accepted: {', '.join(layouts)}."
        )
    _check(model)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty: choose another folder (--out), or delete it.")
    config = config_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: array
        for native, whole in native_tensors(model)
        for name, array in split(whole, locate(native, layouts[format]))
    }
    write(folder / FILE, tensors, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return folder


def _check(model: Model) -> None:
    """Raise `ConfigError` if the layout has no place for something that the model does."""
    spec = model.spec
    paths = model.adapter.checkpoint_paths(spec)
    if any(not in_checkpoint(slot, paths) for slot in slots(model.head)):
        raise ConfigError(
            f"the head of this {model.card.adapter} has no place in a checkpoint of {spec.name}, which ends in a "
            f"classifier of the form {spec.classifier.form!r} on average-pooled features (head=auto, pool=avg): "
            "zoo.save(model, FILE) keeps all of it, and zoo.load(FILE) gives it back."
        )
    if model.card.preprocess.channels == "BGR":
        raise ConfigError("this model takes its colours in the order BGR, which the configuration cannot say.")


def native_tensors(model: Model) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) for every parameter and statistic, in the family's native layout."""
    paths = model.adapter.checkpoint_paths(model.spec)
    for module, is_head in ((model.backbone, False), (model.head, True)):
        arrays = arrays_of(module)
        for slot in slots(module):
            yield in_checkpoint(slot, paths) if is_head else slot.name, slot.write(arrays[slot.path])


def config_of(model: Model) -> dict[str, Any]:
    """Return the `config.json` that timm keeps beside a model's weights."""
    card, spec, classes = model.card, model.spec, len(model.labels)
    prepared = card.preprocess
    pretrained: dict[str, Any] = {
        "input_size": [card.in_channels, *prepared.size],
        "mean": list(prepared.mean),
        "std": list(prepared.std),
        "interpolation": prepared.interpolation,
        "crop_pct": prepared.crop_pct,
        "crop_mode": prepared.crop_mode,
        "num_classes": classes,
        "label_names": list(model.labels),
        "classifier": spec.classifier.path,
        "license": card.license,
    }
    if spec.resampled:
        # Without it timm builds such a net for another size, and resamples what was made for this one.
        pretrained["fixed_input_size"] = True
    arguments = _model_args(model)
    if card.in_channels == 3:
        # timm adapts what is named here from three channels, which would spoil a convolution made for others.
        first = first_conv_of(spec, slots(model.backbone), card.in_channels)
        pretrained["first_conv"] = first.rpartition(".")[0] if first else None
    else:
        arguments["in_chans"] = card.in_channels
    return {
        "architecture": spec.name,
        "num_classes": classes,
        "num_features": spec.features,
        "pretrained_cfg": pretrained,
        "model_args": arguments,
    }


def _model_args(model: Model) -> dict[str, Any]:
    """Return the build options as arguments of timm's constructor."""
    arguments: dict[str, Any] = {}
    for option, value in model.card.options.items():
        said = model.spec.export_args.get(option, {})
        accepted = model.spec.options[option]
        if isinstance(accepted, Range):  # it changes nothing but training
            continue
        if value not in said and value != accepted[0]:
            raise ConfigError(f"{option}={value!r} of {model.spec.name} has no counterpart in other libraries.")
        arguments |= said.get(value, {})
    return arguments
