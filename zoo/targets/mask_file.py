"""Read the values in a mask file as integers, whatever image mode the annotation tool saved it in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.errors import DataError, UnreadableError
from zoo.image_header import MAX_PIXELS, BadImage, check_size, image_bytes

_HALF = 127
"""A pixel with an opacity above this is visible."""
_SPREAD = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow multiplies grey values of 2 or 4 bits to fill 0 to 255."""
_WHOLE = 1e-6
"""Largest difference between a floating-point value and a whole number."""


def mask_values(file: Path, colours: bool = False) -> np.ndarray:
    """Return the values in a mask file, integers (height, width).

    Palette images give the indexes and three equal channels count as one, unless `colours` is set. A colour becomes
    red + 256 green + 65536 blue. Floating-point values must be whole numbers. Transparent pixels are 0. If the whole
    image has one colour, its shape is in the opacity: opaque pixels have the value of the colour, or 255 if that is 0.

    Args:
        file: the mask.
        colours: read colours, not palette indexes or grey values.

    Raises:
        UnreadableError: the file is no image or damaged.
        DataError: the file is a JPEG, or has 16 bits in several channels; values are fractions; or
            transparent pixels have several colours, so that it is unclear whether they count.
    """
    try:
        with Image.open(io.BytesIO(image_bytes(file))) as image:
            check_size(*image.size, MAX_PIXELS)
            if image.format == "JPEG":
                raise DataError(f"{file} is a JPEG, whose compression changes the values of a mask. Save masks as PNG.")
            pixels, alpha = _channels(image, colours, file)
    except DataError:
        raise
    except BadImage as error:
        raise UnreadableError(str(file), str(error)) from None
    except Image.UnidentifiedImageError:
        raise UnreadableError(
            str(file), "cannot be read as a mask: it is empty, or not an image of a known format."
        ) from None
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged files
        raise UnreadableError(str(file), f"cannot be read as a mask: {type(error).__name__}: {error}.") from error
    values = _whole(pixels, file) if pixels.ndim == 2 else _coded(pixels, colours)
    return values if alpha is None else _shown(values, alpha, 0xFFFFFF if colours else 255, file)


def values_if_readable(file: Path, colours: bool = False) -> np.ndarray:
    """Return `mask_values`; no values, (0, 0), if the file cannot be read.

    For readers of data: one damaged file must not hide what else is wrong. `zoo.data.damage` names all such files.
    """
    try:
        return mask_values(file, colours)
    except UnreadableError:
        return np.zeros((0, 0), np.uint8)


def _channels(image: Image.Image, colours: bool, file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values (height, width) or colours (height, width, 3), and the opacity (height, width) or None."""
    tiles = getattr(image, "tile", [])
    stored = str(tiles[0][3]) if tiles else ""  # Pillow's name of the raw mode in the file, e.g. RGB;16B
    if ";16" in stored and len(image.getbands()) > 1:
        raise DataError(
            f"{file} has several channels of 16 bits, of which only 8 bits can be read. Save the mask with one channel."
        )
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        if image.mode == "PA" and not colours:
            return np.asarray(image.getchannel("P")), alpha
        return np.asarray(image.convert("RGBA"))[..., :3], alpha
    if not colours and (image.mode in ("1", "L", "P", "F") or image.mode.startswith("I")):
        values = np.asarray(image)
        # Undo Pillow's scaling, since class numbers are meant. A mask of only 0 and 255 stays as it is, because white
        # is 255 in masks with any number of bits.
        if stored in _SPREAD and not set(np.unique(values).tolist()) <= {0, 255}:
            values = values // _SPREAD[stored]
        return values, None
    return np.asarray(image.convert("RGB")), None


def _whole(values: np.ndarray, file: Path) -> np.ndarray:
    """Return the values of one channel as integers. Raise `DataError` for fractions."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if not (np.abs(values - rounded) <= _WHOLE).all():
            raise DataError(
                f"{file} holds fractions (or NaN), from {values.min():g} to {values.max():g}; the values of a mask "
                "must be whole numbers, one for each class. Round them or apply a threshold."
            )
        return rounded.astype(np.int64)
    return values.astype(values.dtype.newbyteorder("="))


def _coded(pixels: np.ndarray, colours: bool) -> np.ndarray:
    """Return colours (height, width, 3) as numbers; three equal channels as one, uint8, unless `colours` is set."""
    if not colours and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def _shown(values: np.ndarray, alpha: np.ndarray, white: int, file: Path) -> np.ndarray:
    """Set transparent pixels to 0.

    Args:
        values: (height, width).
        alpha: opacity (height, width).
        white: value of the visible pixels if the whole image is black.
        file: the mask, for errors.
    """
    if alpha.min() == alpha.max() > 0:
        return values
    opaque = alpha > _HALF
    if values.min() == values.max():
        return np.where(opaque, values if values.any() else values.dtype.type(white), values.dtype.type(0))
    if values[~opaque].any():
        raise DataError(
            f"{file} has both transparency and colours in transparent pixels, so it is unclear which of them draws the "
            "objects. Save it without transparency (flattened on black), with all objects visible."
        )
    return values
