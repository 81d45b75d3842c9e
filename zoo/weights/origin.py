"""What belongs to a set of weights: preprocessing, build options, labels, licence, and how that is known.

In this order: the catalogue's row, a zoo file's own card, the configuration that timm or transformers keeps beside the
file, the marks of another framework that the family declares, and last the family's defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np

from zoo.errors import WeightsError
from zoo.spec import BackboneSpec, Preprocess, WeightSpec

PROCESSOR = "preprocessor_config"
"""Name of the file in which transformers keeps how images are prepared."""
_PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")
"""Pillow's numbers for its filters, which transformers writes."""


@dataclass(frozen=True)
class Origin:
    """What travels with weights.

    Attributes:
        preprocess, options, license: as in `WeightSpec`. labels: name of a label set. label_names: the names
            themselves, where the file brings its own. notes: how this is known, for people.
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
    metadata: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
) -> Origin:
    """What is known of weights for `spec`.

    Args:
        row: the catalogue's, where one was named or recognised by its sha256.
        config: the `config.json` beside the file; transformers' has the image processor's under `PROCESSOR`.
        metadata: of the file's header. tensors: its arrays.
    """
    if row is not None:
        note = f"preprocessing and options of {row.name}"
        return Origin(row.preprocess, row.options, row.labels, (), row.license, (note,))
    if "zoo" in metadata:
        return _from_zoo(metadata["zoo"])
    if config and ("pretrained_cfg" in config or "mean" in config):
        return _from_timm(spec, config)
    if config and is_transformers(config):
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


def _from_zoo(text: str) -> Origin:
    try:
        saved = json.loads(text)
        preprocess = msgspec.convert(saved["card"]["preprocess"], Preprocess)
        card = saved["card"]
        return Origin(
            preprocess,
            card["options"],
            card["label_set"],
            tuple(saved["labels"]),
            card["license"],
            (f"saved by zoo from {card['backbone']}",),
        )
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise WeightsError(f"the file says it was saved by zoo, but its description is damaged: {error!r}.") from None


def _from_timm(spec: BackboneSpec, config: Mapping[str, Any]) -> Origin:
    """From timm's `config.json`: the fields of `pretrained_cfg` over those of the top level."""
    cfg = {**config, **config.get("pretrained_cfg", {})}
    architecture = config.get("architecture", spec.name)
    if architecture != spec.name:
        raise WeightsError(
            f"the config.json beside the weights says they are for {architecture}, not {spec.name}; use that name."
        )
    base = spec.preprocess
    try:
        preprocess = Preprocess(
            size=tuple(cfg.get("input_size", (3, *base.size))[1:]),  # type: ignore[arg-type]
            mean=tuple(cfg.get("mean", base.mean)),
            std=tuple(cfg.get("std", base.std)),
            interpolation=cfg.get("interpolation", base.interpolation),
            crop_pct=float(cfg.get("crop_pct", base.crop_pct)),
            crop_mode=cfg.get("crop_mode", base.crop_mode),
            channels="L" if len(cfg.get("mean", base.mean)) == 1 else "RGB",
        )
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the config.json beside the weights has a field that cannot be read: {error}") from None
    arguments = {**config.get("model_args", {})}
    options = {
        option: value
        for option, values in spec.export_args.items()
        for value, wanted in values.items()
        if wanted.items() <= arguments.items()
    }
    names = tuple(cfg.get("label_names") or ())
    return Origin(
        preprocess,
        options,
        "",
        names,
        str(cfg.get("license") or "unknown"),
        ("preprocessing of the config.json beside the file",),
    )


def is_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is transformers'."""
    return "model_type" in config or "transformers_version" in config


def _same_computation(spec: BackboneSpec, config: Mapping[str, Any]) -> None:
    """Raise `WeightsError` where the configuration is of a net with the same tensors that computes something else."""
    said = {**config, **(config.get("vision_config") or {})}
    for name, (own, default) in spec.computes.items():
        if (other := said.get(name, default)) != own:
            raise WeightsError(
                f"the config.json beside the weights is of a net with {name} {other!r}; {spec.name} has {own!r}. Use "
                "the architecture of the same shape that has it (zoo list backbones)."
            )


def _from_transformers(spec: BackboneSpec, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Origin:
    """From transformers' `config.json` and, where it is there, its image processor's configuration."""
    _same_computation(spec, config)
    base, note = spec.preprocess, f"nothing is known of the file's preprocessing: {spec.family}'s default is used"
    try:
        names = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
        if processor:
            size, crop_pct, crop_mode = _resizing(processor)
            resample = processor.get("resample")
            interpolation = base.interpolation if resample is None else _PILLOW_FILTERS[resample]
            std = tuple(processor.get("image_std", base.std))
            if processor.get("include_top"):  # such a processor divides by them once more
                std = tuple(value**2 for value in std)
            base = Preprocess(
                size=size,
                mean=tuple(processor.get("image_mean", base.mean)),
                std=std,
                interpolation=interpolation,  # type: ignore[arg-type]
                crop_pct=crop_pct,
                crop_mode=crop_mode,
            )
            note = f"preprocessing of the {PROCESSOR}.json beside the file"
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the config.json or {PROCESSOR}.json beside the weights has a field that cannot be read: {error!r}"
        ) from None
    labels = tuple(names[index] for index in sorted(names))
    if len(set(labels)) < len(labels) or all(name.startswith("LABEL_") for name in labels):
        labels = ()  # not names but what transformers writes where there are none
    return Origin(base, label_names=labels, notes=(note,))


def _resizing(processor: Mapping[str, Any]) -> tuple[tuple[int, int], float, Literal["center", "squash"]]:
    """(size, crop_pct, crop_mode) of an image processor: it resizes to a shortest side, or to both, then may crop."""
    asked = processor["size"]
    if isinstance(asked, int):
        kept = "crop_pct" in processor or processor.get("do_center_crop")
        asked = {"shortest_edge": asked} if kept else {"height": asked, "width": asked}
    crop = processor.get("crop_size") if processor.get("do_center_crop") else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    if "shortest_edge" not in asked:
        resized = (asked["height"], asked["width"])
        size = (crop["height"], crop["width"]) if crop else resized
        return size, size[0] / resized[0], "squash"
    edge = asked["shortest_edge"]
    if crop:
        return (crop["height"], crop["width"]), crop["height"] / edge, "center"
    if "crop_pct" in processor and edge >= 384:  # some processors warp large images in place of cropping
        return (edge, edge), 1.0, "squash"
    return (edge, edge), processor.get("crop_pct") or 1.0, "center"
