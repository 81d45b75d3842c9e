"""Decode image files: fast for JPEG, complete for other formats, and strict about damage.

Pixels equal those of Pillow's `Image.open(...).convert("RGB")`, with which published weights were trained, except:

- The orientation in the EXIF data is applied.
- Grey values of more than 8 bits (radiographs, microscopy; also floats) are scaled so that the image's lowest and
  highest values become 0 and 255. Pillow clips them. A fixed scale would leave 16 grey levels of the 12 bits that most
  of these devices use. For another window (e.g. a range of Hounsfield units), apply it when writing the files.
- Transparent images are composed on a background, white by default. Pillow drops the opacity, and so shows colours that
  no viewer does. Use `RGBA` to keep it.
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

from zoo.errors import ConfigError, UnreadableError
from zoo.image_header import (
    MAX_PIXELS,
    BadImage,
    check_size,
    exif_orientation,
    image_bytes,
    orientation_of,
    upright,
)
from zoo.image_header import image_size as image_size

Channels = Literal["RGB", "L", "RGBA"]
Background = tuple[int, ...]
"""Red, green and blue below transparent pixels; empty to drop the transparency, which shows the colours it hides."""
WHITE: Background = (255, 255, 255)
OnCorrupt = Literal["error", "lenient"]

_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
"""Formats that Pillow registers but cannot decode by itself: videos, numerical data, and those that need a program."""

_WITH_OPACITY = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
"""Pillow's modes of images with an opacity for each pixel. In others, a colour may be marked as transparent."""
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_TOO_LARGE = "is too large: its pixels do not fit into memory."
_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_METADATA = {*range(0xE0, 0xF0), 0xFE}
"""Markers of APPn segments and comments."""
_FILLING = (0x00, 0xFF)
"""Bytes that a single byte of padding may be."""


def decode(
    source: str | Path | bytes,
    channels: Channels = "RGB",
    on_corrupt: OnCorrupt = "error",
    max_pixels: int = MAX_PIXELS,
    *,
    background: Background = WHITE,
    name: str = "image data",
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
        background: red, green and blue on which transparent images are composed, unless `channels` is `RGBA`. Empty
            drops the transparency, as Pillow's `convert("RGB")` does.
        name: what bytes are called in errors.

    Raises:
        UnreadableError: the file is missing, no regular file, empty, not an image, damaged or too large, or reading it
            takes too long; names the file.
        ConfigError: `channels` or `on_corrupt` is not accepted.
    """
    if channels not in ("RGB", "L", "RGBA"):
        raise ConfigError(f"channels is {channels!r}; accepted: RGB, L, RGBA (prepare converts to BGR).")
    if on_corrupt not in ("error", "lenient"):
        raise ConfigError(f"on_corrupt is {on_corrupt!r}; accepted: error, lenient.")
    if not isinstance(source, bytes):
        source, name = image_bytes(source), str(source)
    if not source:
        raise UnreadableError(name, "is empty (0 bytes); remove it or download it again.")
    try:
        pixels, orientation = _jpeg(source, on_corrupt, max_pixels) or _pillow(source, channels, max_pixels, background)
        return np.ascontiguousarray(upright(_convert(pixels, channels), orientation))
    except BadImage as error:
        raise UnreadableError(name, str(error)) from error.__cause__
    except MemoryError as error:
        raise UnreadableError(name, _TOO_LARGE) from error


def pixels_of(image: Image.Image, name: str = "the image", background: Background = WHITE) -> np.ndarray:
    """Return the pixels of a Pillow image as `decode` returns those of its file: uint8 (height, width, 3), upright.

    Raises:
        UnreadableError: its file is damaged or too large.
    """
    try:
        pixels, orientation = _loaded(image, "RGB", MAX_PIXELS, background)
        return np.ascontiguousarray(upright(_convert(pixels, "RGB"), orientation))
    except BadImage as error:
        raise UnreadableError(name, str(error)) from error.__cause__


def check_pixels(path: str | Path) -> None:
    """Read all pixels of an image or a mask, as `decode` does, and forget them.

    Raises:
        UnreadableError: the file is damaged, or something else is wrong with it; see `decode`.
    """
    data = image_bytes(path)
    try:
        if not data:
            raise BadImage("is empty (0 bytes); remove it or download it again.")
        if _jpeg(data, "error", MAX_PIXELS) is None:
            _pillow(data, "RGB", MAX_PIXELS)
    except BadImage as error:
        raise UnreadableError(str(path), str(error)) from error.__cause__
    except MemoryError as error:
        raise UnreadableError(str(path), _TOO_LARGE) from error


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files that `decode` reads, in lower case: those that the installed Pillow supports."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - _NO_PICTURES
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in readable)


def _jpeg(data: bytes, on_corrupt: OnCorrupt, max_pixels: int) -> tuple[np.ndarray, int] | None:
    """Return pixels (height, width, 1 or 3) and orientation of a JPEG, None if the fast decoder cannot be used."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a header that breaks off before the frame
        return None
    check_size(width, height, max_pixels)
    fast = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "GRAY"}.get(space)  # Pillow converts CMYK
    if fast is None and on_corrupt == "lenient":
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, fast or "CMYK")
    except ValueError as error:
        if on_corrupt == "lenient" or _harmless(data, fast or "CMYK"):
            return None
        raise BadImage(f"is a damaged JPEG ({error}); download it again or remove it.") from error
    return (pixels, _jpeg_orientation(data)) if fast else None


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


def _harmless(data: bytes, space: str) -> bool:
    """Whether the warnings of the JPEG decoder concern metadata or padding, and not the pixels.

    The decoder stops at its first warning. So whether there are others is found out without metadata and padding.
    """
    bare = _without_metadata(data)
    for _ in range(2):
        try:
            simplejpeg.decode_jpeg(bare, space)
            return True
        except ValueError as error:
            match, end = _EXTRANEOUS.search(str(error)), bare.rfind(_END_OF_IMAGE)
        # Extra bytes at the end mean that the data before was corrupted, unless they are all equal.
        padding = bare[max(end - int(match[1]), 0) : end] if match else b""
        if len(set(padding)) != 1 or (len(padding) == 1 and padding[0] not in _FILLING):
            return False
        bare = bare[: end - len(padding)] + _END_OF_IMAGE
    return False


def _without_metadata(data: bytes) -> bytes:
    """Return a JPEG without APPn segments, comments, and bytes between the segments before the first scan."""
    kept, place = [data[:2]], 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN:
            return b"".join([*kept, data[place:]])
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment
            place += 1
            continue
        if marker not in _METADATA:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return data


def composed(pixels: np.ndarray, background: Background) -> np.ndarray:
    """Compose pixels with an opacity on a background.

    Args:
        pixels: uint8 (height, width, 4): red, green, blue and opacity.
        background: red, green and blue, or empty to drop the opacity.

    Returns:
        uint8 (height, width, 3). What is opaque keeps its colour exactly.
    """
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    if not background or opacity.min(initial=255) == 255:
        return np.ascontiguousarray(colours)
    below = np.array(background, np.uint16)
    share = opacity.astype(np.uint16)
    return ((colours * share + below * (255 - share) + 127) // 255).astype(np.uint8)


def _pillow(data: bytes, channels: Channels, max_pixels: int, background: Background = WHITE) -> tuple[np.ndarray, int]:
    """Return pixels and orientation of any image that Pillow reads."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _loaded(image, channels, max_pixels, background)
    except Image.UnidentifiedImageError:
        start = data[:16].decode("latin-1").strip()
        raise BadImage(f"is not an image of a known format; it starts with {start!r}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"is too large: {error}") from error
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged files
        raise BadImage(f"is damaged or of an unsupported kind: {type(error).__name__}: {error}.") from error


def _loaded(image: Image.Image, channels: Channels, max_pixels: int, background: Background) -> tuple[np.ndarray, int]:
    """Return pixels and orientation of an opened image."""
    check_size(*image.size, max_pixels)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(f"is damaged or of an unsupported kind: {type(error).__name__}: {error}.") from error
    # Read the orientation after loading: Pillow rotates a TIFF itself while loading, and drops its tag.
    return _to_array(image, channels, background), orientation_of(image)


def _to_array(image: Image.Image, channels: Channels, background: Background) -> np.ndarray:
    """Return the pixels of a loaded Pillow image of any mode, with 1, 3 or 4 channels."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(np.asarray(image))[..., None]
    if background and channels != "RGBA" and (image.mode in _WITH_OPACITY or "transparency" in image.info):
        return composed(np.asarray(image.convert("RGBA")), background)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    if channels != "RGBA" and "transparency" in image.info:
        image = image.copy()  # it may be the caller's own
        image.info.pop("transparency")  # dropped anyway; Pillow would warn about it
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
