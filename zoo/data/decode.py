"""Decode image files: fast for JPEG, complete for other formats, and strict about damage.

Pixels equal those of Pillow's `Image.open(...).convert("RGB")`, with which published weights were trained, except:

- The orientation in the EXIF data is applied.
- Grey values of more than 8 bits (radiographs, microscopy; also floats) are scaled so that the image's lowest and
  highest values become 0 and 255. Pillow clips them. A fixed scale would leave 16 grey levels of the 12 bits that most
  of these devices use. For another window (e.g. a range of Hounsfield units), apply it when writing the files.

As in Pillow, an alpha channel is dropped, not blended; use `RGBA` to keep it.
"""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from zoo.errors import ConfigError, DataError
from zoo.image_header import MAX_PIXELS, BadImage, check_size, exif_orientation, orientation_of, upright
from zoo.image_header import image_size as image_size

Channels = Literal["RGB", "L", "RGBA"]
OnCorrupt = Literal["error", "lenient"]

_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
"""Formats that Pillow registers but cannot decode by itself: videos, numerical data, and those that need a program."""

# Warnings of libjpeg about headers only. The pixels of such files are intact.
_HARMLESS = re.compile(r"unknown JFIF revision|Unknown Adobe color transform|bad ICC marker|thumbnail image size")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
# Markers that come before the first scan: a frame header, quantisation tables, APPn, a comment.
_BEFORE_SCAN = {0xC0, 0xC1, 0xC2, 0xDB, *range(0xE0, 0xF0), 0xFE}
_END_OF_IMAGE = 0xD9


def decode(
    source: str | Path | bytes,
    channels: Channels = "RGB",
    on_corrupt: OnCorrupt = "error",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Return the pixels of an image, upright: uint8 (height, width, channels). An animation gives its first frame.

    Args:
        source: a path, or the bytes of a file.
        channels: `RGB`, `L` (one channel) or `RGBA`.
        on_corrupt: `error` refuses a JPEG with truncated or corrupt data, which most decoders silently turn into a
            partly wrong image. Warnings about headers and padding are not damage. `lenient` accepts what Pillow
            decodes; a truncated file is refused nevertheless.
        max_pixels: larger images are refused by their header, before memory is allocated. Above the default,
            Pillow's own limit (`PIL.Image.MAX_IMAGE_PIXELS`) must be raised too.

    Raises:
        DataError: the file is missing, empty, not an image, damaged or too large; names the file.
        ConfigError: `channels` or `on_corrupt` is not accepted.
    """
    if channels not in ("RGB", "L", "RGBA"):
        raise ConfigError(f"channels is {channels!r}; accepted: RGB, L, RGBA (prepare converts to BGR).")
    if on_corrupt not in ("error", "lenient"):
        raise ConfigError(f"on_corrupt is {on_corrupt!r}; accepted: error, lenient.")
    data, name = _load(source)
    try:
        pixels, orientation = _jpeg(data, on_corrupt, max_pixels) or _pillow(data, channels, max_pixels)
        return np.ascontiguousarray(upright(_convert(pixels, channels), orientation))
    except BadImage as error:
        raise DataError(f"{name} {error}") from error.__cause__


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files that `decode` reads, in lower case: those that the installed Pillow supports."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - _NO_PICTURES
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in readable)


def _load(source: str | Path | bytes) -> tuple[bytes, str]:
    """Return the bytes of a file, and its name for errors."""
    if isinstance(source, bytes):
        data, name = source, "image data"
    else:
        name = str(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise DataError(f"{name} is empty (0 bytes); remove it or download it again.")
    return data, name


def _jpeg(data: bytes, on_corrupt: OnCorrupt, max_pixels: int) -> tuple[np.ndarray, int] | None:
    """Return pixels (height, width, 1 or 3) and orientation of a JPEG, None if the fast decoder cannot be used."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a header that breaks off before the frame
        return None
    if space not in ("YCbCr", "RGB", "Gray"):
        return None
    check_size(width, height, max_pixels)
    colour_space = "GRAY" if space == "Gray" else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(data, colour_space)
    except ValueError as error:
        if on_corrupt == "lenient" or _harmless(str(error), data):
            return None
        raise BadImage(
            f"is a damaged JPEG ({error}); download it again, remove it, or decode it with on_corrupt='lenient'."
        ) from error
    return pixels, _jpeg_orientation(data)


def _jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG from its APP1 segment. Opening the file with Pillow would cost 0.15 ms."""
    start = data.find(b"Exif\0\0")
    if start < 4 or data[start - 4 : start - 2] != b"\xff\xe1":
        return 1
    exif = Image.Exif()
    try:
        exif.load(data[start : start + 0xFFFF])
    except Exception:  # broken metadata is no reason to refuse the image
        return 1
    return exif_orientation(exif)


def _harmless(warning: str, data: bytes) -> bool:
    """Whether a warning of the JPEG decoder does not concern the pixels.

    Extra bytes before the end usually mean that the data was corrupted earlier, unless they are all equal (padding).
    """
    match = _EXTRANEOUS.search(warning)
    if not match:
        return bool(_HARMLESS.search(warning))
    count, marker = int(match[1]), int(match[2], 16)
    if marker != _END_OF_IMAGE:
        return marker in _BEFORE_SCAN
    end = data.rfind(b"\xff\xd9")
    return len(set(data[max(end - count, 0) : end])) == 1


def _pillow(data: bytes, channels: Channels, max_pixels: int) -> tuple[np.ndarray, int]:
    """Return pixels and orientation of any image that Pillow reads."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(*image.size, max_pixels)
            image.load()
            # Read the orientation after loading: Pillow rotates a TIFF itself while loading, and drops its tag.
            return _to_array(image, channels), orientation_of(image)
    except Image.UnidentifiedImageError:
        start = data[:16].decode("latin-1").strip()
        raise BadImage(f"is not an image of a known format; it starts with {start!r}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"is too large: {error}") from error
    except BadImage:
        raise
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged files
        raise BadImage(f"is damaged or of an unsupported kind: {type(error).__name__}: {error}.") from error


def _to_array(image: Image.Image, channels: Channels) -> np.ndarray:
    """Return the pixels of a loaded Pillow image of any mode, with 1, 3 or 4 channels."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(np.asarray(image))[..., None]
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    if channels != "RGBA":
        image.info.pop("transparency", None)  # dropped anyway; Pillow would warn about it
    return np.asarray(image.convert("RGBA" if channels == "RGBA" else "RGB"))


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale grey values to 8 bits by their own range, rounded to nearest; a constant image becomes all 0."""
    values = pixels.astype(np.float64)
    low, high = float(np.min(values)), float(np.max(values))
    if not np.isfinite(high - low):
        raise BadImage("has grey values that are not finite numbers; replace them.")
    return np.rint((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)


def _convert(pixels: np.ndarray, channels: Channels) -> np.ndarray:
    """Convert pixels to the requested channels, as Pillow does."""
    if pixels.shape[-1] == len(channels):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    converted = np.asarray(image.convert(channels))
    return converted[..., None] if channels == "L" else converted
