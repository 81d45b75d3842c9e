"""Read preprocessing from the configurations of other libraries. Every field is honoured, or refused by name.

These libraries change the values of a pixel only by an affine map of each channel, which becomes a mean and standard
deviation of values in [0, 1] (`_normalisation`). Resizing and cropping become a size, a `crop_pct` and a crop mode, if
zoo has ones that give the same pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from zoo.errors import ConfigError, WeightsError
from zoo.registry.spec import Preprocess

Mode = Literal["center", "squash"]
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
"""Resampling filters that zoo supports."""
_PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")
"""Pillow's numbers for its filters, which transformers writes."""
_WARPS_FROM = 384
"""Processors with a `crop_pct` and no crop squash the image instead of cropping it if the shorter side is at least
this."""


@dataclass(frozen=True)
class Fields:
    """The fields of a configuration, read with errors that name the file and the field.

    Attributes:
        file: name of the file.
        data: its content.
    """

    file: str
    data: Mapping[str, Any]

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise `WeightsError` for a field."""
        raise WeightsError(
            f"the {self.file} beside the weights has {name}={self.data.get(name)!r}: {why}. Correct that file, or move "
            "the weights to a folder without it and give the preprocessing yourself (mean=, std=, ...; --set)."
        )

    def number(self, name: str, default: float) -> float:
        """Return a finite number, or `default` if the field is missing or null."""
        value = default if self.data.get(name) is None else self.data[name]
        if not _is_number(value):
            self.refuse(name, "it must be a number")
        return float(value)

    def switch(self, name: str, default: bool) -> bool:
        """Return a switch. Null means off; a missing field means `default`."""
        return bool(self.data.get(name, default))

    def statistics(self, name: str, channels: int) -> tuple[float, ...] | None:
        """Return a number for each channel, or None if the field is missing. A single number counts for all."""
        value = self.data.get(name)
        if value is None:
            return None
        values: Any = [value] if _is_number(value) else value
        if not isinstance(values, Sequence) or not values or not all(map(_is_number, values)):
            self.refuse(name, "it must be a number for each channel")
        if len(values) not in (1, channels):
            self.refuse(name, f"it must be a number for each of {channels} channels")
        return tuple(map(float, values)) * (channels if len(values) == 1 else 1)

    def choice(self, name: str, accepted: Collection[str], default: str) -> str:
        """Return one of the accepted words."""
        value = self.data.get(name) or default
        if value not in (*accepted, default):
            self.refuse(name, f"zoo has {', '.join(accepted)}")
        return str(value)

    def preprocess(self, **values: Any) -> Preprocess:
        """Return the preprocessing, or raise `WeightsError` with the name of the file if a value is not valid."""
        try:
            return Preprocess(**values)
        except ConfigError as error:
            raise WeightsError(f"the {self.file} beside the weights has an invalid field: {error}") from None


MOST_CHANNELS = 1_000
LARGEST_SIDE = 65_536
"""Bounds of what a configuration may ask for, so that a wrong number sizes no array."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_SIDE


def share(crop: int, side: int) -> float:
    """Return the `crop_pct` with which a crop of `crop` pixels comes from a side of exactly `side`."""
    fraction = crop / side
    # Rounding errors may turn a side of 256 into 255, which would give other pixels.
    return fraction if math.floor(crop / fraction) == side else math.nextafter(fraction, 0)


# timm ----------------------------------------------------------------------------------------------------------


def of_timm(cfg: Mapping[str, Any], base: Preprocess, file: str) -> Preprocess:
    """Return the preprocessing of timm's `pretrained_cfg`. Fields that it lacks come from `base`.

    `test_input_size` and `test_crop_pct` are for evaluation at another size, and `fixed_input_size` concerns building
    the network. None of them changes the default input.
    """
    fields = Fields(file, cfg)
    size = cfg.get("input_size") or (len(base.mean), *base.size)
    if not isinstance(size, Sequence) or len(size) != 3 or not all(map(_is_side, size)) or size[0] > MOST_CHANNELS:
        most = f"at most {MOST_CHANNELS:,} channels and {LARGEST_SIDE:,} pixels a side"
        fields.refuse("input_size", f"it must be [channels, height, width] with {most}")
    channels = size[0]
    known = base.for_channels(channels)
    return fields.preprocess(
        size=(size[1], size[2]),
        mean=fields.statistics("mean", channels) or known.mean,
        std=fields.statistics("std", channels) or known.std,
        interpolation=fields.choice("interpolation", FILTERS, base.interpolation),
        crop_pct=fields.number("crop_pct", base.crop_pct),
        crop_mode=fields.choice("crop_mode", ("center", "squash"), base.crop_mode),
        channels="L" if channels == 1 else "RGB",
    )


# torchvision ---------------------------------------------------------------------------------------------------


def is_torchvision(config: Mapping[str, Any]) -> bool:
    """Whether a configuration holds the arguments of torchvision's transforms."""
    return "resize_size" in config or ("crop_size" in config and "mean" in config)


def of_torchvision(config: Mapping[str, Any], base: Preprocess, file: str) -> Preprocess:
    """Return the preprocessing of torchvision's `ImageClassification` and the like: resize, centre crop, normalise."""
    fields = Fields(file, config)
    crop = _one_or_two(fields, "crop_size")
    resized = _one_or_two(fields, "resize_size") or (256,)  # the default of ImageClassification
    if config.get("max_size") is not None:
        fields.refuse("max_size", "zoo resizes all images to one size")
    if not fields.switch("antialias", True):
        fields.refuse("antialias", "zoo resizes with antialiasing, as Pillow does")
    kernel = str(config.get("interpolation") or base.interpolation).rpartition(".")[2].lower()
    if kernel not in FILTERS:
        fields.refuse("interpolation", f"zoo has {', '.join(FILTERS)}")
    if len(resized) == 2:
        both = (crop[0], crop[-1]) if crop else None
        size, crop_pct, mode = _both_sides(fields, "crop_size", resized, both)
    else:
        size, crop_pct, mode = _shorter_side(
            fields, "crop_size", resized[0], (crop or resized)[0], (crop or resized)[-1]
        )
    known = base.for_channels(3)
    mean, std = fields.statistics("mean", 3) or known.mean, fields.statistics("std", 3) or known.std
    return fields.preprocess(size=size, mean=mean, std=std, interpolation=kernel, crop_pct=crop_pct, crop_mode=mode)


def _one_or_two(fields: Fields, name: str) -> tuple[int, ...] | None:
    value = fields.data.get(name)
    values = [value] if _is_side(value) else value
    if values is None:
        return None
    if not isinstance(values, Sequence) or len(values) not in (1, 2) or not all(map(_is_side, values)):
        fields.refuse(name, "it must be a side in pixels, or [height, width]")
    return tuple(values)


def _both_sides(
    fields: Fields, name: str, resized: Sequence[int], crop: tuple[int, int] | None
) -> tuple[tuple[int, int], float, Mode]:
    """Return (size, crop_pct, crop_mode) of an image resized to (height, width), then perhaps cropped."""
    height, width = resized
    if crop is None:
        return (height, width), 1.0, "squash"
    crop_pct = share(crop[0], height)
    if crop[0] > height or math.floor(crop[1] / crop_pct) != width:
        fields.refuse(name, f"zoo crops the same fraction of both sides, and the image is resized to {height}x{width}")
    return crop, crop_pct, "squash"


def _shorter_side(fields: Fields, name: str, edge: int, height: int, width: int) -> tuple[tuple[int, int], float, Mode]:
    """Return (size, crop_pct, crop_mode) of an image whose shorter side is resized to `edge`, then cropped."""
    if height != width or height > edge:
        fields.refuse(name, f"zoo crops a square no larger than the resized shorter side, here {edge}")
    return (height, width), share(height, edge), "center"


# transformers --------------------------------------------------------------------------------------------------

_SUFFIX = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")
_SQUARE = frozenset({"Beit", "DeiT", "EfficientNet"})
"""Processors that crop and take a single number as the size of both sides; others take it as the shorter side."""
_LARGER_EDGE = {"Levit": 256 / 224}
"""Processors that resize the shorter side to this multiple of the given size before they crop."""
_CROP_FIRST = frozenset({"Perceiver"})
_NEVER_NORMALISE = frozenset({"MobileViT"})
"""Processors that normalise only if `do_normalize` is set."""
_SHARE = {"ConvNext": 224 / 256}
"""Default `crop_pct` of processors for which it is null."""

_SWITCHES = frozenset(
    {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order", "do_convert_rgb"}
)
_OF_LABELS = frozenset({"do_reduce_labels", "do_convert_annotations"})
_STEPS = ("keep_aspect_ratio", "ensure_multiple_of", "size_divisor", "size_divisibility", "clusters", "max_num_patches")
"""Further steps of processors that have no switch beginning with `do_`."""
_READ = frozenset(
    {"size", "crop_size", "crop_pct", "default_to_square", "resample", "rescale_factor", "rescale_offset", "offset"}
    | {"image_mean", "image_std", "include_top", "image_processor_type", "feature_extractor_type"}
)
_NOT_OF_PIXELS = frozenset(
    {"processor_class", "auto_map", "return_tensors", "data_format", "input_data_format", "device", "reduce_labels"}
    | {"disable_grouping", "model_input_names", "valid_processor_keys", "_valid_processor_keys", "num_labels"}
    | {"transformers_version", "image_processor_class", "backend", "pad_size", "padding_value", "num_channels"}
    | {"_processor_class", "image_seq_length", "format", "ignore_index", "patch_size", "annotation_format"}
)


def of_processor(processor: Mapping[str, Any], base: Preprocess, file: str) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing of a transformers image processor, and the fields that zoo does not know.

    A resampling filter or statistics that the processor lacks come from `base`.
    """
    fields = Fields(file, processor)
    for name, value in processor.items():
        if value and name.startswith("do_") and name not in _SWITCHES | _OF_LABELS:
            fields.refuse(name, "zoo has no such step")
        if name in _STEPS and value and (value is True or value != 1):
            fields.refuse(name, "zoo resizes all images to one size, which the file must give")
    if not fields.switch("do_resize", True):
        fields.refuse("do_resize", "zoo resizes images to one size; if yours all have the same size, write it as size")
    kind = _SUFFIX.sub("", str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or ""))
    size, crop_pct, mode = _resizing(fields, kind)
    resample = processor.get("resample")
    if resample is not None and (isinstance(resample, bool) or resample not in range(len(_PILLOW_FILTERS))):
        fields.refuse("resample", "zoo has 0 (nearest), 1 (lanczos), 2 (bilinear) and 3 (bicubic)")
    mean, std = _normalisation(fields, kind, base)
    flipped = fields.switch("do_flip_channel_order", False)
    if flipped:  # the processor flips after normalising, so its statistics are in the order RGB
        mean, std = mean[::-1], std[::-1]
    preprocess = fields.preprocess(
        size=size,
        mean=mean,
        std=std,
        interpolation=base.interpolation if resample is None else _PILLOW_FILTERS[resample],
        crop_pct=crop_pct,
        crop_mode=mode,
        channels="L" if len(mean) == 1 else "BGR" if flipped else "RGB",
    )
    known = _SWITCHES | _OF_LABELS | _READ | _NOT_OF_PIXELS | {*_STEPS}
    unknown = (name for name, value in processor.items() if name not in known and value and not name.startswith("do_"))
    return preprocess, tuple(sorted(unknown))


def _normalisation(fields: Fields, kind: str, base: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation, for values in [0, 1], that do the same as a processor.

    The processor maps a pixel p in 0 to 255 to (y - m) / s, where y = p * factor - offset. In terms of u = p / 255 this
    is (u - (m + offset) / a) / (s / a), where a = 255 * factor.
    """
    scale, offset = 255.0, 0.0
    if fields.switch("do_rescale", True):
        scale = 255 * fields.number("rescale_factor", 1 / 255)
        offset = float(fields.switch("rescale_offset", False) or fields.switch("offset", False))
    if scale <= 0:
        fields.refuse("rescale_factor", "it must be above 0")
    given = fields.data.get("image_mean")
    channels = len(given) if isinstance(given, Sequence) and len(given) in (1, 3) else 3
    mean, std = fields.statistics("image_mean", channels), fields.statistics("image_std", channels)
    silent = "do_normalize" not in fields.data
    usual = kind not in _NEVER_NORMALISE and not (mean is None and "do_flip_channel_order" in fields.data)
    if not fields.switch("do_normalize", usual):
        zeros, ones = (0.0,) * channels, (1.0,) * channels
        mean, std = zeros, std if fields.switch("include_top", False) and std else ones
    elif mean is None and std is None and silent and math.isclose(scale, 1) and not offset:
        return base.mean, base.std
    elif mean is None or std is None:
        fields.refuse("image_mean" if mean is None else "image_std", "do_normalize needs it")
    elif fields.switch("include_top", False):  # such a processor divides by the deviation twice
        std = tuple(value**2 for value in std)
    if min(std) <= 0:
        fields.refuse("image_std", "it must be above 0")
    return tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std)


def _resizing(fields: Fields, kind: str) -> tuple[tuple[int, int], float, Mode]:
    """Return (size, crop_pct, crop_mode) of an image processor."""
    # Processors resize the shorter side or both sides, and then may crop. Which of them a bare number means, and
    # whether a crop follows, depends on switches and on the kind of processor.
    data = fields.data
    crops = fields.switch("do_center_crop", False)
    if data.get("crop_size") is not None and "do_center_crop" not in data:
        fields.refuse("crop_size", "do_center_crop must say whether to crop")
    if crops and kind in _CROP_FIRST:
        fields.refuse("do_center_crop", f"{kind} crops before it resizes, which zoo does not")
    size, pct = data.get("size"), data.get("crop_pct")
    if pct is None and not crops:
        pct = _SHARE.get(kind)
    if pct is not None and not (_is_number(pct) and 0 < pct <= 1):
        fields.refuse("crop_pct", "it must be a number in (0, 1]")
    if _is_side(size):
        shorter = (crops and kind not in _SQUARE) or (pct is not None and not crops)
        shorter = not fields.switch("default_to_square", not shorter)
        size = {"shortest_edge": size} if shorter else {"height": size, "width": size}
    elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if not isinstance(size, Mapping) or not size or not all(map(_is_side, size.values())):
        fields.refuse("size", "it must be a side in pixels, {height, width} or {shortest_edge}")
    crop = _crop(fields) if crops else None
    if size.keys() == {"height", "width"}:
        if pct is None or not crops or size["height"] != size["width"]:
            return _both_sides(fields, "crop_size", (size["height"], size["width"]), crop)
        size = {"shortest_edge": size["height"]}  # with crop_pct, equal sides mean the shorter side
    if size.keys() != {"shortest_edge"}:
        fields.refuse("size", "zoo resizes all images to one size: {height, width}, or {shortest_edge} and a crop")
    edge = size["shortest_edge"]
    if crop:
        edge = int(edge / pct) if pct is not None else int(edge * _LARGER_EDGE.get(kind, 1))
        return _shorter_side(fields, "crop_size", edge, *crop)
    if pct is None:
        fields.refuse("do_center_crop", "without a crop, images keep different sizes, and zoo needs one for all")
    if edge >= _WARPS_FROM:
        return (edge, edge), 1.0, "squash"
    return (edge, edge), float(cast(float, pct)), "center"


def _crop(fields: Fields) -> tuple[int, int]:
    crop: Any = fields.data.get("crop_size")
    if crop is None:
        crop = fields.data.get("size")  # one number for both, in old files
    if _is_side(crop):
        return crop, crop
    if isinstance(crop, Sequence) and not isinstance(crop, str) and len(crop) == 2 and all(map(_is_side, crop)):
        return crop[0], crop[1]
    if isinstance(crop, Mapping) and crop.keys() == {"height", "width"} and all(map(_is_side, crop.values())):
        return crop["height"], crop["width"]
    return fields.refuse("crop_size", "it must be a side in pixels or {height, width}")
