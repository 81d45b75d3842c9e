"""What the header of an image file tells: its upright size, and how the stored picture is turned (EXIF)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.errors import DataError

MAX_PIXELS = 178_956_970
_ORIENTATION_TAG = 0x0112


def image_size(path: str | Path) -> tuple[tuple[int, int], int]:
    """((height, width), orientation) of an image file: the size that `decode` gives, by the header alone.

    An orientation of 5 to 8 (EXIF) means that the file stores the picture with its sides exchanged.
    Raises `DataError` as `decode` does, for what the header tells.
    """
    try:
        with Image.open(path) as image:
            check_size(*image.size, MAX_PIXELS)
            # Pillow gives the size of a TIFF as it will turn it, and of all others as it is stored.
            orientation, turned = orientation_of(image), image.format == "TIFF"
            width, height = image.size
    except BadImage as error:
        raise DataError(f"{path} {error}") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path} is no image of a known format, or empty; fetch it again or remove it.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large: {error}") from error
    except Exception as error:  # damaged files make Pillow's parsers raise nearly anything
        raise DataError(f"{path} cannot be read as an image: {type(error).__name__}: {error}.") from error
    size = (width, height) if orientation >= 5 and not turned else (height, width)
    return size, orientation


class BadImage(Exception):
    """What is wrong with an image; `decode` puts the file's name before it."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(f"has {width}x{height} pixels; at most {max_pixels:,} are accepted (max_pixels).")


def orientation_of(image: Image.Image) -> int:
    try:
        return exif_orientation(image.getexif())
    except Exception:  # broken metadata must not cost the picture
        return 1


def exif_orientation(exif: Image.Exif) -> int:
    """The orientation, 1 to 8; 1 (upright) where there is none or it makes no sense."""
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (Exif 2.3, 4.6.4): 5 to 8 are transposed, the rest is flips."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
