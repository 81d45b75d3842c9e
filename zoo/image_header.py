"""Read the size and the EXIF orientation of an image from the header of its file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.errors import UnreadableError
from zoo.reading import in_time, whole

LARGE = 64 << 20
"""Bytes from which the header of a file is read before the rest."""
MAX_PIXELS = 178_956_970
"""Above this, Pillow refuses an image. From half as many on it prints a warning for each, which is turned off."""
_ORIENTATION_TAG = 0x0112

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def image_size(path: str | Path) -> tuple[tuple[int, int], int]:
    """Return ((height, width), orientation) of an image file, from its header alone.

    The size is that of the upright image, as `decode` returns it. An EXIF orientation of 5 to 8 means that the file
    stores the image transposed.

    Raises:
        UnreadableError: the file is no image, no regular file, is damaged, or has too many pixels, as far as the
            header tells.
    """
    return in_time(_image_size, path)


def image_bytes(path: str | Path) -> bytes:
    """Return the content of an image file. A large file is read only if its header is that of an image.

    Raises:
        UnreadableError: as for `image_size` and `zoo.reading.read_file`.
    """
    return in_time(_image_bytes, path)


def size_if_readable(path: str | Path) -> tuple[int, int]:
    """Return the (height, width) of an image, (1, 1) if it cannot be read.

    For readers of data: one damaged file must not hide what else is wrong. `zoo.data.damage` names all such files.
    """
    try:
        return image_size(path)[0]
    except UnreadableError:
        return 1, 1


def _image_bytes(path: str) -> bytes:
    if os.path.getsize(path) > LARGE:
        _image_size(path)
    return whole(path)


def _image_size(path: str) -> tuple[tuple[int, int], int]:
    try:
        with Image.open(path) as image:
            check_size(*image.size, MAX_PIXELS)
            # Pillow gives the upright size of a TIFF, but the stored size of all other formats.
            orientation, turned = orientation_of(image), image.format == "TIFF"
            width, height = image.size
    except BadImage as error:
        raise UnreadableError(path, str(error)) from None
    except Image.UnidentifiedImageError:
        raise UnreadableError(
            path, "is empty, or not an image of a known format; download it again or remove it."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(path, f"is too large: {error}") from error
    except Exception as error:  # damaged files make Pillow's parsers raise nearly anything
        raise UnreadableError(path, f"cannot be read as an image: {type(error).__name__}: {error}.") from error
    size = (width, height) if orientation >= 5 and not turned else (height, width)
    return size, orientation


class BadImage(Exception):
    """A fault of an image. `decode` puts the name of the file before the message."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `BadImage` if an image has more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise BadImage(
            f"has {width}x{height} pixels; at most {max_pixels:,} are accepted (max_pixels). Resize it or cut it up."
        )


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1 if its metadata is broken."""
    try:
        return exif_orientation(image.getexif())
    except Exception:  # an image with broken metadata is still usable
        return 1


def exif_orientation(exif: Image.Exif) -> int:
    """Return the orientation, 1 to 8; 1 (upright) if it is missing or invalid."""
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the upright pixels of an image with an EXIF orientation.

    See Exif 2.3, section 4.6.4. Orientations 5 to 8 are transposed first; then rows or columns are flipped.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
