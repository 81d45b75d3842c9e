"""What belongs to a set of weights: preprocessing, build options, labels and licence.

The sources, in this order: the catalogue, the card of a saved model, the configuration of timm or transformers beside
the file, tensors by which the family recognises another framework, and the family's defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.errors import WeightsError
from zoo.models.saved import Saved
from zoo.registry.spec import BackboneSpec, Preprocess, WeightSpec
from zoo.weights import foreign

PROCESSOR = "preprocessor_config"
"""Name of the file in which transformers saves how images are prepared."""
_CONFIG = "config.json"
_BUILT_ANYWAY = frozenset(
    {"num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate"}
    | {"pretrained", "global_pool", "features_only", "scriptable", "exportable", "dynamic_img_size", "strict_img_size"}
)
"""Arguments of timm's constructors to ignore: tensor shapes tell them, only training uses them, or others read them."""
_OF_TIMM = frozenset(
    {"input_size", "test_input_size", "min_input_size", "fixed_input_size", "mean", "std", "interpolation", "crop_pct"}
    | {"test_crop_pct", "crop_mode", "num_classes", "label_names", "label_descriptions", "label_offset", "classifier"}
    | {"first_conv", "pool_size", "url", "file", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag"}
    | {"custom_load", "state_dict", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"}
    | {"num_features", "global_pool", "model_args", "pretrained_cfg"}
)
"""What timm's `config.json` may hold, at the top level and in `pretrained_cfg`."""


@dataclass(frozen=True)
class Origin:
    """What travels with weights.

    Attributes:
        preprocess: How images are prepared.
        options: Build options of the backbone.
        labels: Name of a label set.
        label_names: Class names that the file itself brings.
        license: Licence of the weights.
        notes: How this is known, for people.
    """

    preprocess: Preprocess = Preprocess()
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: str = ""
    label_names: tuple[str, ...] = ()
    license: str = "unknown"
    notes: tuple[str, ...] = ()


def origin_of(
    spec: BackboneSpec,
    row: WeightSpec | None,
    config: Mapping[str, Any] | None,
    saved: Saved | None,
    tensors: Mapping[str, np.ndarray],
) -> Origin:
    """Return what is known about weights for `spec`.

    Args:
        spec: The backbone.
        row: The catalogue's row, if the weights were named or recognised by their sha256.
        config: The `config.json` beside the file; that of transformers has the image processor's under `PROCESSOR`.
        saved: The description of a saved model.
        tensors: The arrays of the file.
    """
    if row is not None:
        note = f"preprocessing and options of {row.name}"
        return Origin(row.preprocess or spec.preprocess, row.options, row.labels, (), row.license, (note,))
    if saved is not None:
        card, note = saved.card, f"saved by zoo from {saved.card.backbone}"
        return Origin(card.preprocess, card.options, card.label_set, saved.labels, card.license, (note,))
    if config and foreign.is_torchvision(config) and "pretrained_cfg" not in config and not is_transformers(config):
        preprocess = foreign.of_torchvision(config, spec.preprocess, _CONFIG)
        return Origin(preprocess, notes=("preprocessing of the config.json beside the file, as torchvision means it",))
    if config and ("pretrained_cfg" in config or "mean" in config):
        return _from_timm(spec, config)
    if config and (is_transformers(config) or PROCESSOR in config):
        found = _from_transformers(spec, config, config.get(PROCESSOR, {}))
        options = next((c.options for c in spec.conventions if c.recognise(tensors)), {})
        return replace(found, options=options)
    for convention in spec.conventions:
        if convention.recognise(tensors):
            note = (
                f"recognised as {convention.name} weights by their tensors: mean {convention.preprocess.mean}, "
                f"{', '.join(f'{k}={v}' for k, v in convention.options.items()) or 'default options'} "
                "(options and preprocessing can be set by hand)"
            )
            return Origin(convention.preprocess, convention.options, notes=(note,))
    note = f"nothing is known of the file's preprocessing: {spec.family}'s default is used"
    return Origin(spec.preprocess, notes=(note,))


def _from_timm(spec: BackboneSpec, config: Mapping[str, Any]) -> Origin:
    """Read timm's `config.json`. Fields of `pretrained_cfg` override those of the top level."""
    inner, arguments = config.get("pretrained_cfg") or {}, config.get("model_args") or {}
    fields = foreign.Fields(_CONFIG, config)
    for name, value in (("pretrained_cfg", inner), ("model_args", arguments)):
        if not isinstance(value, Mapping):
            fields.refuse(name, "it must be an object")
    cfg = {**config, **inner}
    architecture = config.get("architecture", spec.name)
    if architecture != spec.name:
        raise WeightsError(
            f"the {_CONFIG} beside the weights says they are for {architecture}, not {spec.name}; use that name."
        )
    if "max" in str(pool := arguments.get("global_pool") or cfg.get("global_pool")):
        foreign.Fields(_CONFIG, {"global_pool": pool}).refuse("global_pool", "zoo's classifiers read the mean of a map")
    if cfg.get("label_offset"):
        foreign.Fields(_CONFIG, cfg).refuse("label_offset", "zoo keeps all of a classifier's outputs")
    preprocess = foreign.of_timm(cfg, spec.preprocess, _CONFIG)
    options: dict[str, Any] = {}
    meant: set[str] = set()
    for option, values in spec.export_args.items():
        for value, wanted in values.items():
            if wanted.items() <= arguments.items():
                options[option] = value
                meant |= wanted.keys()
    for name, value in arguments.items():
        if name not in meant | _BUILT_ANYWAY and value is not None:
            foreign.Fields(_CONFIG, arguments).refuse(name, f"zoo builds no {spec.name} with that argument of timm's")
    notes = ("preprocessing of the config.json beside the file", *_unread(cfg.keys() - _OF_TIMM))
    names = cfg.get("label_names") or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        foreign.Fields(_CONFIG, cfg).refuse("label_names", "it must be a list of names")
    names = tuple(names)
    return Origin(preprocess, options, "", names, str(cfg.get("license") or "unknown"), notes)


def _unread(names: Collection[str]) -> tuple[str, ...]:
    """Return a note on fields of a configuration that are not read."""
    return (f"not read in the configuration beside the file: {', '.join(sorted(names))}",) if names else ()


def is_transformers(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` was written by transformers."""
    return "model_type" in config or "transformers_version" in config


def _same_computation(spec: BackboneSpec, config: Mapping[str, Any]) -> None:
    """Raise `WeightsError` if the configuration is for a net with the same tensors but another computation."""
    said = {**config, **(config.get("vision_config") or {})}
    for name, (own, default) in spec.computes.items():
        if (other := said.get(name, default)) != own:
            raise WeightsError(
                f"the config.json beside the weights describes a network with {name} {other!r}, but {spec.name} "
                f"has {own!r}. Use the architecture of the same shape that has it (zoo list backbones)."
            )


def _from_transformers(spec: BackboneSpec, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Origin:
    """Read transformers' `config.json` and the image processor's configuration, if there is one."""
    _same_computation(spec, config)
    try:
        names = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    except (AttributeError, TypeError, ValueError):
        foreign.Fields(_CONFIG, config).refuse("id2label", "it must map the number of each class to its name")
    if processor:
        preprocess, unknown = foreign.of_processor(processor, spec.preprocess, f"{PROCESSOR}.json")
        notes = (f"preprocessing of the {PROCESSOR}.json beside the file", *_unread(unknown))
        if (
            preprocess.mean == spec.preprocess.mean
            and "image_mean" not in processor
            and "do_normalize" not in processor
        ):
            notes += (f"mean and standard deviation are {spec.family}'s default: that file has none",)
    else:
        preprocess = spec.preprocess
        notes = (f"nothing is known of the file's preprocessing: {spec.family}'s default is used",)
    labels = tuple(names[index] for index in sorted(names))
    if len(set(labels)) < len(labels) or all(name.startswith("LABEL_") for name in labels):
        labels = ()  # not names but what transformers writes where there are none
    return Origin(preprocess, label_names=labels, notes=notes)
