"""Resize and crop as the weights were trained: Pillow's antialiased kernels, torchvision's and timm's rounding."""

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
_MAX_GROWTH = 64
"""If the resized image would have more than this many times the pixels of the crop, only the crop is computed. A
1x5000 line, resized to a shorter side of 256, would otherwise take a gigabyte."""


class Frame(NamedTuple):
    """Position of the original image in the prepared one: x in the original is at x * scale_x + left.

    Attributes:
        scale_y: prepared pixels per original pixel, vertically.
        scale_x: the same, horizontally.
        top: vertical position of the original's upper left corner, in prepared pixels.
        left: its horizontal position.
        height: of the original.
        width: of the original.
    """

    scale_y: float
    scale_x: float
    top: float
    left: float
    height: int
    width: int


def frame_of(size: tuple[int, int], preprocess: Preprocess) -> Frame:
    """Return the `Frame` that `prepare` gives an image of `size` (height, width)."""
    crop = preprocess.frame(size)
    (height, width), (top, left) = _placed(size, preprocess, _scaled(preprocess), crop)
    return Frame(height / size[0], width / size[1], -top, -left, *size)


def prepare(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Prepare an image for inference: uint8 (H, W, channels) with (H, W) = `preprocess.frame(size of the image)`.

    The result equals timm's evaluation transform before normalisation, pixel for pixel: the shorter side is resized to
    floor(size / crop_pct) (`squash`: both sides), then the centre is cropped. A grey value may differ by one only if
    the resized image would be over 64 times larger than the crop.

    Args:
        image: uint8 (height, width, channels), RGB if there are three channels. Three channels are converted to BGR or
            grey as `preprocess.channels` requires; any other number of channels stays unchanged.
        preprocess: the weights' preparation.

    Raises:
        DataError: `image` has another shape or type.
    """
    return _resize_and_crop(image, preprocess, _scaled(preprocess), preprocess.frame(image.shape[:2]))


def with_room(preprocess: Preprocess) -> Preprocess:
    """Return the preparation of training images, which leaves room for random crops on the device.

    Images are resized as by `prepare`, but cropped to sides of floor(size / crop_pct), not to `size`. Boxes and masks
    are prepared in the same way. A letterbox shows the whole image anyway, so its preparation stays unchanged.
    """
    if preprocess.crop_mode == "letterbox":
        return preprocess
    return replace(preprocess, size=_scaled(preprocess), crop_pct=1.0)


def place(image: np.ndarray, preprocess: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """Place an image at the upper left of an array of `size` without resizing; fill the rest as in a letterbox.

    Returns:
        uint8 (height, width, channels).
    """
    return _filled(_with_channels(image, preprocess.channels, lambda band: band), preprocess, size)


def _scaled(preprocess: Preprocess) -> tuple[int, int]:
    """Return the size to resize to before the crop."""
    height, width = (math.floor(side / preprocess.crop_pct) for side in preprocess.size)
    return height, width


def _resize_and_crop(
    image: np.ndarray, preprocess: Preprocess, side: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Resize and crop as computed by `_placed`."""
    if image.ndim != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(f"an image must be uint8 (height, width, channels), not {image.dtype} {image.shape}.")
    (height, width), (top, left) = _placed(image.shape[:2], preprocess, side, crop)
    kernel = _KERNELS[preprocess.interpolation]
    letterbox = preprocess.crop_mode == "letterbox"

    def cut(band: Image.Image) -> Image.Image:
        if not letterbox and height * width > _MAX_GROWTH * crop[0] * crop[1]:
            # Resize just the part of the original that the crop shows, straight to the size of the crop.
            across, down = band.width / width, band.height / height
            right, bottom = min((left + crop[1]) * across, band.width), min((top + crop[0]) * down, band.height)
            return band.resize(crop[::-1], kernel, box=(left * across, top * down, right, bottom))
        whole = band.resize((width, height), kernel)
        return whole if letterbox else whole.crop((left, top, left + crop[1], top + crop[0]))

    resized = _with_channels(image, preprocess.channels, cut)
    return _filled(resized, preprocess, crop) if letterbox else resized


def _placed(
    size: tuple[int, ...], preprocess: Preprocess, side: tuple[int, int], crop: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (size that an image of `size` is resized to, top and left of the crop in the resized image).

    With a letterbox, the resized image fits into `crop`, at the upper left. Otherwise it covers `side`, and the crop
    is its centre; the crop is never larger than `side`.
    """
    if preprocess.crop_mode == "letterbox":
        ratio = min(crop[0] / size[0], crop[1] / size[1])
        # Round down as the reference detectors do. The small number keeps a whole number such as 416 from becoming
        # 415 by floating-point error.
        return (max(int(size[0] * ratio + 1e-6), 1), max(int(size[1] * ratio + 1e-6), 1)), (0, 0)
    height, width = side if preprocess.crop_mode == "squash" else _covering(size, side)
    return (height, width), (int(round((height - crop[0]) / 2.0)), int(round((width - crop[1]) / 2.0)))


def _filled(image: np.ndarray, preprocess: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """Place an image at the upper left of an array of `size`, filled with `preprocess.fill` or the mean colour."""
    mean = np.resize(np.round(np.array(preprocess.mean) * 255), image.shape[-1])
    fill = mean if preprocess.fill is None else preprocess.fill
    frame = np.empty((*size, image.shape[-1]), np.uint8)
    frame[:] = fill
    frame[: image.shape[0], : image.shape[1]] = image[: size[0], : size[1]]
    return frame


def _covering(size: tuple[int, ...], side: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size (height, width) with the aspect ratio of `size` that covers `side`.

    If `side` is square, round as torchvision's `Resize` does, else as timm's `ResizeKeepRatio`.
    """
    height, width = size
    if side[0] == side[1]:
        long = int(side[0] * max(size) / min(size))
        return (side[0], long) if height <= width else (long, side[0])
    ratio = min(height / side[0], width / side[1])
    return round(height / ratio), round(width / ratio)


def _with_channels(image: np.ndarray, channels: str, cut: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply `cut` to the image, and convert its channels to `channels` (RGB, BGR or L)."""
    if image.shape[-1] != 3:
        # Band by band: Pillow takes two bands for grey and alpha and four for colour and alpha, and weights by alpha.
        bands = [np.asarray(cut(Image.fromarray(image[..., band]))) for band in range(image.shape[-1])]
        return np.stack(bands, axis=-1)
    picture = Image.fromarray(image)
    if channels == "L":
        return np.asarray(cut(picture.convert("L")))[..., None]
    pixels = np.asarray(cut(picture))
    return np.ascontiguousarray(pixels[..., ::-1]) if channels == "BGR" else pixels
