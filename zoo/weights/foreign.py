"""What other libraries' configurations say about preprocessing: each field is honoured, or refused by its name.

All that these libraries do to the values of a pixel is an affine map of each channel, so it becomes a mean and a
standard deviation of values in [0, 1] (`_normalisation`). What they do to the size of an image becomes a size, a share
and a mode of cropping, where zoo has one that gives the same pixels.
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
"""The kernels that zoo resizes with."""
_PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")
"""Pillow's numbers for its kernels, which transformers writes."""
_WARPS_FROM = 384
"""Processors with a `crop_pct` and no crop warp images whose shorter side is at least this, in place of cropping."""


@dataclass(frozen=True)
class Fields:
    """A configuration's fields, read with the name of the file and of the field in every error."""

    file: str
    data: Mapping[str, Any]

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise `WeightsError` for a field."""
        raise WeightsError(
            f"the {self.file} beside the weights has {name}={self.data.get(name)!r}: {why}. Correct that file, or take "
            "the weights away from it and give the preprocessing yourself (mean=, std=, ...; --set)."
        )

    def number(self, name: str, default: float) -> float:
        """A finite number; `default` where the field is missing or null."""
        value = default if self.data.get(name) is None else self.data[name]
        if not _is_number(value):
            self.refuse(name, "it must be a number")
        return float(value)

    def switch(self, name: str, default: bool) -> bool:
        """A switch; null is off, as a missing one is only where the library's default is."""
        return bool(self.data.get(name, default))

    def statistics(self, name: str, channels: int) -> tuple[float, ...] | None:
        """A number for each of `channels`, given as that many, as one for all, or not at all (None)."""
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
        """One of the accepted words."""
        value = self.data.get(name) or default
        if value not in (*accepted, default):
            self.refuse(name, f"zoo has {', '.join(accepted)}")
        return str(value)

    def preprocess(self, **found: Any) -> Preprocess:
        """The preprocessing, or `WeightsError` naming the file for values that make none."""
        try:
            return Preprocess(**found)
        except ConfigError as error:
            raise WeightsError(f"the {self.file} beside the weights has a field that cannot be: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def share(crop: int, side: int) -> float:
    """The `crop_pct` by which a crop of `crop` pixels is cut from a side of exactly `side`."""
    found = crop / side
    # Floating point may make 255 of 256, which would be other pixels.
    return found if math.floor(crop / found) == side else math.nextafter(found, 0)


# timm ----------------------------------------------------------------------------------------------------------


def of_timm(cfg: Mapping[str, Any], base: Preprocess, file: str) -> Preprocess:
    """The preprocessing of timm's `pretrained_cfg`; fields that it leaves out are those of `base`.

    `test_input_size` and `test_crop_pct` are for evaluations at another size, and `fixed_input_size` is a matter of
    building a net: none of them changes what the net sees by default.
    """
    fields = Fields(file, cfg)
    size = cfg.get("input_size") or (len(base.mean), *base.size)
    if not isinstance(size, Sequence) or len(size) != 3 or not all(map(_is_side, size)):
        fields.refuse("input_size", "it must be [channels, height, width]")
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
    """The preprocessing of torchvision's `ImageClassification` and its kin: resize, crop the centre, normalise."""
    fields = Fields(file, config)
    crop = _one_or_two(fields, "crop_size")
    resized = _one_or_two(fields, "resize_size") or (256,)  # the default of ImageClassification
    if config.get("max_size") is not None:
        fields.refuse("max_size", "zoo prepares all images in one size")
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
    """An image resized to (height, width), then perhaps cropped."""
    height, width = resized
    if crop is None:
        return (height, width), 1.0, "squash"
    crop_pct = share(crop[0], height)
    if crop[0] > height or math.floor(crop[1] / crop_pct) != width:
        fields.refuse(name, f"zoo crops the same share of both sides, and the image is resized to {height}x{width}")
    return crop, crop_pct, "squash"


def _shorter_side(fields: Fields, name: str, edge: int, height: int, width: int) -> tuple[tuple[int, int], float, Mode]:
    """An image whose shorter side is resized to `edge`, then cropped."""
    if height != width or height > edge:
        fields.refuse(name, f"zoo crops a square of at most the side that an image is resized to, here {edge}")
    return (height, width), share(height, edge), "center"


# transformers --------------------------------------------------------------------------------------------------

_SUFFIX = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")
_SQUARE = frozenset({"Beit", "DeiT", "EfficientNet"})
"""Processors that crop, and take one number for the size as that of both sides; the others as the shorter side's."""
_LARGER_EDGE = {"Levit": 256 / 224}
"""Processors that resize the shorter side to this many times of what they say, before they crop."""
_CROP_FIRST = frozenset({"Perceiver"})
_NEVER_NORMALISE = frozenset({"MobileViT"})
"""Processors that normalise only where `do_normalize` says so."""
_SHARE = {"ConvNext": 224 / 256}
"""Processors that crop this share where `crop_pct` is null."""

_SWITCHES = frozenset(
    {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order", "do_convert_rgb"}
)
_OF_LABELS = frozenset({"do_reduce_labels", "do_convert_annotations"})
_STEPS = ("keep_aspect_ratio", "ensure_multiple_of", "size_divisor", "size_divisibility", "clusters", "max_num_patches")
"""What processors do beyond the usual steps, other than by a switch that begins with `do_`."""
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
    """(the preprocessing of a transformers image processor, fields that zoo does not know).

    Kernels and statistics that it leaves out are those of `base`.
    """
    fields = Fields(file, processor)
    for name, value in processor.items():
        if value and name.startswith("do_") and name not in _SWITCHES | _OF_LABELS:
            fields.refuse(name, "zoo has no such step")
        if name in _STEPS and value and (value is True or value != 1):
            fields.refuse(name, "zoo prepares all images in one size that the file must say")
    if not fields.switch("do_resize", True):
        fields.refuse("do_resize", "zoo resizes images to one size; where yours have one, write it as size")
    kind = _SUFFIX.sub("", str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or ""))
    size, crop_pct, mode = _resizing(fields, kind)
    resample = processor.get("resample")
    if resample is not None and (isinstance(resample, bool) or resample not in range(len(_PILLOW_FILTERS))):
        fields.refuse("resample", "zoo has 0 (nearest), 1 (lanczos), 2 (bilinear) and 3 (bicubic)")
    mean, std = _normalisation(fields, kind, base)
    flipped = fields.switch("do_flip_channel_order", False)
    if flipped:  # after all arithmetic, so that the statistics are in the order RGB
        mean, std = mean[::-1], std[::-1]
    found = fields.preprocess(
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
    return found, tuple(sorted(unknown))


def _normalisation(fields: Fields, kind: str, base: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, for values in [0, 1], of what a processor makes of a pixel p in 0 to 255.

    It is (y - m) / s of y = p * factor - offset, which of u = p / 255 is (u - (m + offset) / a) / (s / a) with
    a = 255 * factor.
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
    elif fields.switch("include_top", False):  # such a processor divides by them once more
        std = tuple(value**2 for value in std)
    if min(std) <= 0:
        fields.refuse("image_std", "it must be above 0")
    return tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std)


def _resizing(fields: Fields, kind: str) -> tuple[tuple[int, int], float, Mode]:
    """(size, crop_pct, crop_mode) of an image processor: it resizes to a shorter side, or to both, then may crop."""
    data = fields.data
    crops = fields.switch("do_center_crop", False)
    if data.get("crop_size") is not None and "do_center_crop" not in data:
        fields.refuse("crop_size", "do_center_crop must say whether it counts")
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
        size = {"shortest_edge": size["height"]}  # with a share, equal sides are a shorter side
    if size.keys() != {"shortest_edge"}:
        fields.refuse("size", "zoo prepares all images in one size: {height, width}, or {shortest_edge} and a crop")
    edge = size["shortest_edge"]
    if crop:
        edge = int(edge / pct) if pct is not None else int(edge * _LARGER_EDGE.get(kind, 1))
        return _shorter_side(fields, "crop_size", edge, *crop)
    if pct is None:
        fields.refuse("do_center_crop", "without a crop images of other shapes stay so, and zoo prepares all in one")
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
