"""Export a model for other programs.

A format is a part of the extension point `model.export`. zoo's own are key layouts: the mapping tables of a family run
backwards. Their folder holds `model.safetensors` and a `config.json` as timm writes it, so that timm loads it by
`timm.create_model("local-dir:FOLDER", pretrained=True)` and `zoo.create(ARCH, TASK, weights=FOLDER)` reads all of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo import settings
from zoo.errors import ConfigError, RunError, unknown_name
from zoo.models.fill import first_conv_of, in_checkpoint
from zoo.models.model import Model
from zoo.models.points import EXPORTS, KEY_LAYOUTS
from zoo.models.store import arrays_of, load
from zoo.registry.spec import Range
from zoo.weights.file import write
from zoo.weights.load import layouts_of
from zoo.weights.mapping import locate, slots, split

CONFIG = "config.json"
FILE = "model.safetensors"

Export = Callable[[Model, Path], None]
"""A part: writes a model into an empty folder. It raises `ConfigError` for a model that the format cannot hold; what it
has written until then is removed."""


def export(model_or_run: Any, out: str | Path, format: str = "timm") -> Path:
    """Write a model in a format that other programs read.

    Args:
        model_or_run: A `Model`, a `Run`, or anything that `zoo.load` accepts.
        out: The folder to write. It must be new or empty.
        format: A name that `zoo list exports` shows, or another key layout of the family. Of the key layouts, only
            timm's is loaded with the `config.json`; for others, set build options such as the padding by hand.

    Returns:
        The folder.

    Raises:
        UnknownNameError: There is no such format.
        ConfigError: The format cannot hold the model, e.g. because the family lacks this key layout.
        RunError: `out` is not empty.
    """
    model = model_or_run if isinstance(model_or_run, Model) else getattr(model_or_run, "model", None)
    if not isinstance(model, Model):
        model = load(model_or_run)
    row = _row(model, format)
    folder = settings.expanded(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty: choose another folder (--out), or delete it.")
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        row(model, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir(exist_ok=True)
        raise
    return folder


def _row(model: Model, format: str) -> Export:
    """Return the part called `format`, else the family's key layout of this name."""
    if format in EXPORTS:
        return EXPORTS[format]
    layouts = layouts_of(model.spec)
    if format in layouts:
        return KeyLayout(format)
    others = (name for name in EXPORTS if name not in KEY_LAYOUTS)
    hint = f"{model.spec.name} has the key layouts {', '.join(layouts)}; `zoo list exports` shows the other formats."
    raise unknown_name("export format", format, [*layouts, *others], hint)


@dataclass(frozen=True)
class KeyLayout:
    """Export in a key layout of the family, as safetensors and config.json.

    Attributes:
        name: the layout, a key of `layouts_of(spec)`.
    """

    name: str

    def __call__(self, model: Model, folder: Path) -> None:
        """Write the parameters and the configuration of a model."""
        layouts = layouts_of(model.spec)
        if self.name not in layouts:
            raise ConfigError(
                f"{model.spec.name} cannot be exported as {self.name!r}; its key layouts are {', '.join(layouts)}."
            )
        _check(model)
        config = config_of(model)
        tensors = {
            name: array
            for native, whole in native_tensors(model)
            for name, array in split(whole, locate(native, layouts[self.name]))
        }
        write(folder / FILE, tensors, {"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


TIMM, TORCHVISION, TRANSFORMERS, ORIGINAL = map(KeyLayout, KEY_LAYOUTS)


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
