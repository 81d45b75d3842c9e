"""Images for prediction, in whatever form a program has them: paths, Pillow images, arrays, bytes, open files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from zoo.data.decode import WHITE, Background, composed, decode, pixels_of
from zoo.data.files import list_images
from zoo.errors import ConfigError

ACCEPTED = (
    "paths, folders and patterns, PIL images, bytes or open files of an image, and arrays of shape (height, width), "
    "(height, width, channels) or (n, height, width, channels), uint8 or floats from 0 to 1; or an iterable of these"
)


@dataclass(frozen=True)
class Input:
    """One image that was given for prediction.

    Attributes:
        name: its path or file name, else `image 0`, `image 1` and so on.
        source: what was given.
    """

    name: str
    source: Any

    def opened(self, in_channels: int = 3, background: Background = WHITE) -> Path | np.ndarray:
        """Return a path as it is, and everything else as pixels: uint8 (height, width, channels).

        As in files, transparent images are composed on a background, and grey images get three equal channels. Arrays
        with the model's number of channels stay as they are.

        Args:
            in_channels: number of channels that the model takes.
            background: red, green and blue, or empty to drop the transparency.

        Raises:
            UnreadableError: bytes or the content of an open file are no image, or damaged.
            ConfigError: an array has another shape, type or range of values.
        """
        source = self.source
        if isinstance(source, Path):
            return source
        if isinstance(source, Image.Image):
            return pixels_of(source, self.name, background)
        if hasattr(source, "read"):
            source = _content(source, self.name)
        if isinstance(source, bytes | bytearray | memoryview):
            return decode(bytes(source), background=background, name=self.name)
        return _channels(_eight_bits(np.asarray(source), self.name), in_channels, self.name, background)


def inputs(images: Any, *, strict: bool = True) -> Iterator[Input]:
    """Yield the images one by one, as they are asked for, with folders, patterns, batches and lists expanded.

    Args:
        images: see `ACCEPTED`.
        strict: whether a path that does not exist is an error here, or where it is read.

    Raises:
        DataError: a path does not exist, or a folder or pattern gives no images.
        ConfigError: something is no image.
    """
    for number, (name, source) in enumerate(_each(images, strict)):
        yield Input(name or f"image {number}", source)


def is_single(images: Any) -> bool:
    """Whether one image was given, and not a folder, a pattern, a batch or an iterable of images."""
    if isinstance(images, str | os.PathLike):
        path = os.path.expanduser(os.fspath(images))
        return not os.path.isdir(path) and (os.path.exists(path) or not glob.has_magic(str(path)))
    if isinstance(images, Image.Image | bytes | bytearray | memoryview) or hasattr(images, "read"):
        return True
    return hasattr(images, "__array__") and getattr(images, "ndim", 0) in (2, 3)


def _each(images: Any, strict: bool) -> Iterator[tuple[str, Any]]:
    """Yield (name, image); the name is empty for what has none."""
    if isinstance(images, str | os.PathLike):
        if "://" in str(images):
            raise ConfigError(f"{images} is an address; download the image, and give the file or its bytes.")
        for file in list_images(Path(images), strict=strict):
            yield str(file), file
    elif isinstance(images, Image.Image):
        yield str(getattr(images, "filename", "") or ""), images
    elif hasattr(images, "read"):
        name = getattr(images, "name", "")
        yield name if isinstance(name, str) else "", images
    elif isinstance(images, bytes | bytearray | memoryview):
        yield "", images
    elif hasattr(images, "__array__") and getattr(images, "ndim", 1) != 1:
        if images.ndim == 4:
            yield from (("", image) for image in np.asarray(images))
        else:
            yield "", images
    elif isinstance(images, Iterable) and not isinstance(images, Mapping):
        for image in images:
            yield from _each(image, strict)
    else:
        raise ConfigError(f"{images!r:.80} is a {type(images).__name__}, no image. Accepted: {ACCEPTED}.")


def _content(file: IO[bytes], name: str) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise ConfigError(f"{name} was opened as text; open it with open(path, 'rb').")
    return content


def _eight_bits(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as uint8. Floats are taken as 0 for black and 1 for white."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind in "biuOSUMmc":
        raise ConfigError(
            f"{name} is an array of {pixels.dtype}; accepted: uint8, or floats from 0 to 1. Convert values from 0 to "
            "255 with .astype('uint8'), and scale others."
        )
    values = pixels.astype(np.float32)  # bfloat16 too, which is no type of NumPy's own
    low, high = (float(np.min(values)), float(np.max(values))) if values.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise ConfigError(
            f"{name} is an array of {pixels.dtype} with values from {low:g} to {high:g}; accepted: uint8, or floats "
            "from 0 to 1. Give the image before it is normalised; convert values from 0 to 255 with .astype('uint8')."
        )
    return np.rint(values * 255).astype(np.uint8)


def _channels(pixels: np.ndarray, in_channels: int, name: str, background: Background) -> np.ndarray:
    """Return pixels (height, width, channels) with the number of channels that a decoded file has."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ConfigError(f"{name} is an array of shape {pixels.shape}; accepted: {ACCEPTED}.")
    channels = pixels.shape[-1]
    if channels == in_channels or channels == 3:
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 2:  # grey and opacity
        return composed(pixels[..., [0, 0, 0, 1]], background)
    if channels == 4:
        return composed(pixels, background)
    if pixels.shape[0] in (1, 3, 4, in_channels):
        raise ConfigError(
            f"{name} is an array of shape {pixels.shape}, which looks like (channels, height, width); the channels "
            "must come last: transpose it with .transpose(1, 2, 0)."
        )
    raise ConfigError(
        f"{name} is an array of shape {pixels.shape}: {channels} channels, and the model takes {in_channels}. Give "
        f"(height, width, {in_channels}), or several grey images as (n, height, width, 1)."
    )
