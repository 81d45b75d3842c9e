"""Resize and crop as the weights were made: Pillow's antialiased kernels, torchvision's and timm's rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from zoo.errors import DataError
from zoo.spec import Preprocess

_KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A 1x5000 line, resized to a shorter side of 256, would take a gigabyte; only the part that is kept is computed.
_MAX_GROWTH = 64


def prepare(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """An image as a net evaluates it: uint8 (H, W, channels) with (H, W) = `preprocess.size`.

    Equal, pixel for pixel, to timm's evaluation transform before normalisation: the shorter side is resized to
    floor(size / crop_pct) (`squash`: both sides), then the centre is cropped. Only where the resized image would
    be over 64 times larger than the crop, a grey value may differ by one.

    Args:
        image: uint8 (height, width, channels), RGB where there are three channels. These are turned to BGR or to grey
            as `preprocess.channels` says; any other number of channels is kept.

    Raises:
        DataError: not such an array.
    """
    return _resize_and_crop(image, preprocess, _scaled(preprocess, 1.0), preprocess.size)


def prepare_train(image: np.ndarray, preprocess: Preprocess, scale: float = 1.0) -> np.ndarray:
    """An image with room for random crops on the device: uint8 (H', W', channels).

    Resized as by `prepare`, but all of the centre is kept: H' and W' are floor(size * scale / crop_pct).

    Args:
        scale: above 1, more pixels are kept, so that small random crops need not be enlarged.
    """
    side = _scaled(preprocess, scale)
    return _resize_and_crop(image, preprocess, side, side)


def _scaled(preprocess: Preprocess, scale: float) -> tuple[int, int]:
    height, width = (math.floor(side * scale / preprocess.crop_pct) for side in preprocess.size)
    return height, width


def _resize_and_crop(
    image: np.ndarray, preprocess: Preprocess, side: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Resize so that `side` is covered, then crop the centre; `crop` never exceeds `side`, so nothing is padded."""
    if image.ndim != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(f"an image is uint8 (height, width, channels), not {image.dtype} {image.shape}.")
    height, width = side if preprocess.crop_mode == "squash" else _covering(image.shape[:2], side)
    top, left = (int(round((full - part) / 2.0)) for full, part in zip((height, width), crop, strict=True))
    kernel = _KERNELS[preprocess.interpolation]

    def cut(band: Image.Image) -> Image.Image:
        if height * width > _MAX_GROWTH * crop[0] * crop[1]:
            across, down = band.width / width, band.height / height
            right, bottom = min((left + crop[1]) * across, band.width), min((top + crop[0]) * down, band.height)
            return band.resize(crop[::-1], kernel, box=(left * across, top * down, right, bottom))
        return band.resize((width, height), kernel).crop((left, top, left + crop[1], top + crop[0]))

    return _with_channels(image, preprocess.channels, cut)


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
