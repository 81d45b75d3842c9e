"""Resize and crop as the weights were made: Pillow's antialiased kernels, torchvision's and timm's rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from zoo.errors import DataError
from zoo.registry.spec import Preprocess

_KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A 1x5000 line, resized to a shorter side of 256, would take a gigabyte; only the part that is kept is computed.
_MAX_GROWTH = 64


class Frame(NamedTuple):
    """Where a prepared image shows the original one: x of the original is seen at x * scale_x + left.

    Attributes:
        scale_y, scale_x: prepared pixels for one of the original. top, left: of the original's corner in prepared
            pixels. height, width: of the original.
    """

    scale_y: float
    scale_x: float
    top: float
    left: float
    height: int
    width: int


def frame_of(size: tuple[int, int], preprocess: Preprocess) -> Frame:
    """How `prepare` frames an image of `size` (height, width)."""
    crop = preprocess.frame(size)
    (height, width), (top, left) = _placed(size, preprocess, _scaled(preprocess), crop)
    return Frame(height / size[0], width / size[1], -top, -left, *size)


def prepare(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """An image as a net evaluates it: uint8 (H, W, channels) with (H, W) = `preprocess.frame(size of the image)`.

    Equal, pixel for pixel, to timm's evaluation transform before normalisation: the shorter side is resized to
    floor(size / crop_pct) (`squash`: both sides), then the centre is cropped. Only where the resized image would
    be over 64 times larger than the crop, a grey value may differ by one.

    Args:
        image: uint8 (height, width, channels), RGB where there are three channels. These are turned to BGR or to grey
            as `preprocess.channels` says; any other number of channels is kept.

    Raises:
        DataError: not such an array.
    """
    return _resize_and_crop(image, preprocess, _scaled(preprocess), preprocess.frame(image.shape[:2]))


def with_room(preprocess: Preprocess) -> Preprocess:
    """How training images are prepared, with room for random crops on the device: resized as by `prepare`, but all of
    the centre is kept, so that sides are floor(size / crop_pct). What lies in the images, boxes and masks, is
    prepared in the same way. A letterbox shows everything anyway.
    """
    if preprocess.crop_mode == "letterbox":
        return preprocess
    return replace(preprocess, size=_scaled(preprocess), crop_pct=1.0)


def place(image: np.ndarray, preprocess: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """An image as large as it is, at the upper left of a frame of `size` (height, width) that is filled as a letterbox:
    uint8 (height, width, channels)."""
    return _filled(_with_channels(image, preprocess.channels, lambda band: band), preprocess, size)


def _scaled(preprocess: Preprocess) -> tuple[int, int]:
    height, width = (math.floor(side / preprocess.crop_pct) for side in preprocess.size)
    return height, width


def _resize_and_crop(
    image: np.ndarray, preprocess: Preprocess, side: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Resize and cut as `_placed` says."""
    if image.ndim != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(f"an image is uint8 (height, width, channels), not {image.dtype} {image.shape}.")
    (height, width), (top, left) = _placed(image.shape[:2], preprocess, side, crop)
    kernel = _KERNELS[preprocess.interpolation]
    letterbox = preprocess.crop_mode == "letterbox"

    def cut(band: Image.Image) -> Image.Image:
        if not letterbox and height * width > _MAX_GROWTH * crop[0] * crop[1]:
            across, down = band.width / width, band.height / height
            right, bottom = min((left + crop[1]) * across, band.width), min((top + crop[0]) * down, band.height)
            return band.resize(crop[::-1], kernel, box=(left * across, top * down, right, bottom))
        whole = band.resize((width, height), kernel)
        return whole if letterbox else whole.crop((left, top, left + crop[1], top + crop[0]))

    seen = _with_channels(image, preprocess.channels, cut)
    return _filled(seen, preprocess, crop) if letterbox else seen


def _placed(
    size: tuple[int, ...], preprocess: Preprocess, side: tuple[int, int], crop: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size that an image of `size` is resized to, top and left of the crop in it).

    It covers `side`, and the crop, which never exceeds that, is its centre; or, in a letterbox, it fits into `crop`.
    """
    if preprocess.crop_mode == "letterbox":
        ratio = min(crop[0] / size[0], crop[1] / size[1])
        # Rounded down as the reference detectors do, but for what floating point makes of a whole number.
        return (max(int(size[0] * ratio + 1e-6), 1), max(int(size[1] * ratio + 1e-6), 1)), (0, 0)
    height, width = side if preprocess.crop_mode == "squash" else _covering(size, side)
    return (height, width), (int(round((height - crop[0]) / 2.0)), int(round((width - crop[1]) / 2.0)))


def _filled(seen: np.ndarray, preprocess: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """An image at the upper left of a frame of `size`."""
    mean = np.resize(np.round(np.array(preprocess.mean) * 255), seen.shape[-1])
    fill = mean if preprocess.fill is None else preprocess.fill
    frame = np.empty((*size, seen.shape[-1]), np.uint8)
    frame[:] = fill
    frame[: seen.shape[0], : seen.shape[1]] = seen[: size[0], : size[1]]
    return frame


def _covering(size: tuple[int, ...], side: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) that keeps the aspect of `size` and just covers `side`.

    Square sides are rounded as torchvision's `Resize` does, others as timm's `ResizeKeepRatio`.
    """
    height, width = size
    if side[0] == side[1]:
        long = int(side[0] * max(size) / min(size))
        return (side[0], long) if height <= width else (long, side[0])
    ratio = min(height / side[0], width / side[1])
    return round(height / ratio), round(width / ratio)


def _with_channels(image: np.ndarray, channels: str, cut: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply `cut` to the image with its channels in the order asked for."""
    if image.shape[-1] != 3:
        # Band by band: Pillow would take two bands for grey and alpha, four for colour and alpha, and weight by alpha.
        bands = [np.asarray(cut(Image.fromarray(image[..., band]))) for band in range(image.shape[-1])]
        return np.stack(bands, axis=-1)
    picture = Image.fromarray(image)
    if channels == "L":
        return np.asarray(cut(picture.convert("L")))[..., None]
    pixels = np.asarray(cut(picture))
    return np.ascontiguousarray(pixels[..., ::-1]) if channels == "BGR" else pixels
