"""The values in a mask's file, as numbers: whatever the tool that wrote it has made of one channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.errors import DataError

_HALF = 127
"""The opacity above which a pixel is seen."""
_SPREAD = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies grey numbers of 2 or 4 bits, so that they fill 0 to 255."""
_WHOLE = 1e-6
"""By so much a floating-point number may differ from a whole one."""


def mask_values(file: Path, colours: bool = False) -> np.ndarray:
    """The values in a mask's file, integers (height, width).

    Of a palette the indexes, unless its `colours` are meant. Three equal channels are one, unless colours are meant; of
    other colours a value is red + 256 green + 65536 blue. Floating-point numbers must be whole. What is transparent is
    0; where the whole picture has one colour, the opaque part has its value, or 255 where that is 0.

    Raises `DataError` for a file that is no image, damaged, or a JPEG, for fractions, and for transparent pixels of
    several colours, of which nobody can tell whether they count.
    """
    try:
        with Image.open(file) as image:
            if image.format == "JPEG":
                raise DataError(f"{file} is a JPEG, which blurs the values of a mask; PNG keeps them.")
            pixels, alpha = _channels(image, colours, file)
    except DataError:
        raise
    except Exception as error:  # damaged files make Pillow's parsers raise nearly anything
        raise DataError(f"{file} cannot be read as a mask: {type(error).__name__}: {error}.") from error
    values = _whole(pixels, file) if pixels.ndim == 2 else _coded(pixels, colours)
    return values if alpha is None else _shown(values, alpha, 0xFFFFFF if colours else 255, file)


def _channels(image: Image.Image, colours: bool, file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(values (height, width) or colours (height, width, 3), opacity (height, width) where the file has a channel)."""
    tiles = getattr(image, "tile", [])
    stored = str(tiles[0][3]) if tiles else ""  # how Pillow calls the numbers in the file, e.g. RGB;16B
    if ";16" in stored and len(image.getbands()) > 1:
        raise DataError(
            f"{file} has 16 bits in each of several channels, of which only 8 could be read: write the mask as one "
            "channel."
        )
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        if image.mode == "PA" and not colours:
            return np.asarray(image.getchannel("P")), alpha
        return np.asarray(image.convert("RGBA"))[..., :3], alpha
    if not colours and (image.mode in ("1", "L", "P", "F") or image.mode.startswith("I")):
        values = np.asarray(image)
        # Black and white stay so, since white is 255 in whatever number of bits.
        if stored in _SPREAD and not set(np.unique(values).tolist()) <= {0, 255}:
            values = values // _SPREAD[stored]
        return values, None
    return np.asarray(image.convert("RGB")), None


def _whole(values: np.ndarray, file: Path) -> np.ndarray:
    """Values of one channel as integers."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if not (np.abs(values - rounded) <= _WHOLE).all():
            raise DataError(
                f"{file} holds fractions (or no numbers), from {values.min():g} to {values.max():g}; the values of a "
                "mask must be whole numbers, one for each class. Write them so, e.g. by a threshold."
            )
        return rounded.astype(np.int64)
    return values.astype(values.dtype.newbyteorder("="))


def _coded(pixels: np.ndarray, colours: bool) -> np.ndarray:
    """Colours (height, width, 3) as numbers; of three equal channels one, uint8, unless `colours` are meant."""
    if not colours and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def _shown(values: np.ndarray, alpha: np.ndarray, white: int, file: Path) -> np.ndarray:
    """Values as the opacity has them: 0 where nothing is seen."""
    if alpha.min() == alpha.max() > 0:
        return values
    opaque = alpha > _HALF
    if values.min() == values.max():
        return np.where(opaque, values if values.any() else values.dtype.type(white), values.dtype.type(0))
    if values[~opaque].any():
        raise DataError(
            f"{file} is transparent where it has colours of several kinds, so that its shapes are told twice: save it "
            "without transparency (flattened on black), with what counts visible."
        )
    return values
