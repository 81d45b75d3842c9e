"""Read, resize and write images for style transfer, with their orientation, colour profile and EXIF data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from zoo import settings
from zoo.data import decode, list_images
from zoo.data.decode import WHITE, Background, composed
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

    from zoo.models.model import Model

_ORIENTATION = 0x0112
_ASPECT = 0.02
"""Largest relative difference between the aspect ratios of a mask and the content."""
ZOOM = 1.8
"""Largest ratio of a crop's side in the style image to its side in training."""


@dataclass(frozen=True)
class Picture:
    """An image with its metadata.

    Attributes:
        pixels: float32 (height, width, 3), RGB in [0, 1], upright.
        name: its name in messages.
        icc: its colour profile, or empty.
        exif: its EXIF data with upright orientation, or empty.
        opacity: of each pixel, float32 (height, width) in [0, 1]; None if all are opaque.
    """

    pixels: np.ndarray = field(repr=False)
    name: str = "picture"
    icc: bytes = field(default=b"", repr=False)
    exif: bytes = field(default=b"", repr=False)
    opacity: np.ndarray | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def uint8(self) -> np.ndarray:
        """Return the pixels as uint8, 0 to 255."""
        return np.rint(np.clip(self.pixels, 0, 1) * 255).astype(np.uint8)

    def with_opacity(self) -> np.ndarray:
        """Return the pixels as uint8 (height, width, 3), or with the opacity as a fourth channel if there is any."""
        if self.opacity is None:
            return self.uint8()
        opacity = np.rint(np.clip(self.opacity, 0, 1) * 255).astype(np.uint8)
        return np.concatenate([self.uint8(), opacity[..., None]], axis=-1)

    def save(self, path: str | Path) -> Path:
        """Write the image in the format of the path's suffix, with its colour profile and EXIF data.

        Formats without transparency (JPEG, BMP) get the pixels as they were painted on the background.

        Raises:
            ConfigError: for an unknown suffix.
            DataError: if the file cannot be written.
        """
        path = settings.expanded(path)
        check_suffix(path)
        marks: dict[str, Any] = {k: v for k, v in (("icc_profile", self.icc), ("exif", self.exif)) if v}
        if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            marks["quality"] = 95
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            opaque = path.suffix.lower() in (".jpg", ".jpeg", ".bmp")
            Image.fromarray(self.uint8() if opaque else self.with_opacity()).save(path, **marks)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        return path


def check_suffix(path: Path) -> None:
    """Raise `ConfigError` for a file whose suffix is no format that images are written in."""
    written = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
    if path.suffix.lower() not in written:
        raise ConfigError(f"{path} has the suffix {path.suffix!r}; images can be written as {', '.join(written)}.")


def open_picture(source: str | Path | np.ndarray | Picture, background: Background = WHITE) -> Picture:
    """Return an image from a file or a uint8 array (height, width, 3 or 4). A `Picture` is returned as it is.

    A transparent image is composed on the background, and its opacity is kept beside the pixels.

    Raises:
        DataError: for a file that is missing or no image.
        ConfigError: for an array of another dtype or shape.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[-1] not in (3, 4):
            raise ConfigError(
                f"an image must be a uint8 array (height, width, 3 or 4); this one is {source.dtype} {source.shape}."
            )
        return _composed(source, Picture(source), background)
    icc, exif = _marks(settings.expanded(source))
    pixels = decode(settings.expanded(source), "RGBA")
    return _composed(pixels, Picture(pixels, Path(source).name, icc, exif), background)


def _composed(pixels: np.ndarray, picture: Picture, background: Background) -> Picture:
    """Return a picture with uint8 pixels (height, width, 3 or 4), composed on the background."""
    opacity = None
    if pixels.shape[-1] == 4:
        if pixels[..., 3].min() < 255:
            opacity = pixels[..., 3].astype(np.float32) / 255
        pixels = composed(pixels, background)
    return replace(picture, pixels=pixels.astype(np.float32) / 255, opacity=opacity)


def _marks(path: Path) -> tuple[bytes, bytes]:
    """Return the colour profile and EXIF data of a file; broken ones are left out, as the image itself is fine."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            icc, exif = image.info.get("icc_profile") or b"", image.getexif()
            rgb = image.mode in ("RGB", "RGBA", "P")
            if not len(exif):
                return icc if rgb else b"", b""
            exif[_ORIENTATION] = 1  # the pixels are already upright
            return icc if rgb else b"", exif.tobytes()
    except Exception:
        return b"", b""


def resized(pixels: np.ndarray, long_side: int) -> np.ndarray:
    """Resize pixels (h, w, 3) in [0, 1] to a longer side of `long_side`, with antialiasing."""
    height, width = pixels.shape[:2]
    scale = long_side / max(height, width)
    return fitted(pixels, (max(round(height * scale), 1), max(round(width * scale), 1)))


def fitted(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize pixels (h, w) or (h, w, 3) in [0, 1] to `size` (height, width), with antialiasing."""
    if pixels.shape[:2] == size:
        return pixels
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    bands = [
        np.asarray(Image.fromarray(planes[..., i]).resize(size[::-1], Image.Resampling.BICUBIC))
        for i in range(planes.shape[-1])
    ]
    resized = np.clip(np.stack(bands, axis=-1), 0, 1).astype(np.float32)  # bicubic resampling overshoots
    return resized[..., 0] if pixels.ndim == 2 else resized


def framed(pixels: np.ndarray, width: int) -> np.ndarray:
    """Pad pixels (h, w, c) with a mirrored border of `width`.

    Padding inside a network leaves a visible frame in painted images. It falls into this border, which is cut off.
    """
    return np.pad(pixels, ((width, width), (width, width), (0, 0)), mode="symmetric")


def read_mask(source: str | Path | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask as float32 (h, w) in [0, 1], where white is 1, resized to the size of the content.

    Args:
        source: a file or a uint8 array (height, width).
        size: (height, width) of the content.

    Raises:
        ConfigError: if its aspect ratio differs from that of the content.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.dtype != np.uint8:
            raise ConfigError(
                f"a mask must be a uint8 array (height, width); this one is {source.dtype} {source.shape}."
            )
        pixels, name = source, "the mask"
    else:
        pixels, name = decode(settings.expanded(source), "L")[..., 0], str(source)
    aspect, expected = pixels.shape[0] / pixels.shape[1], size[0] / size[1]
    if abs(aspect / expected - 1) > _ASPECT:
        raise ConfigError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]} pixels and the content {size[1]}x{size[0]}: a mask may be "
            "larger or smaller, but must have the proportions of the content."
        )
    return fitted(pixels.astype(np.float32) / 255, size)


def style_files(style: str) -> list[Path]:
    """Return the style images in a file or folder. Raises `ZooError` if there are none."""
    if not style:
        raise ConfigError("training a style needs style images: give --set style=FILE, or a folder of images.")
    return _style_files(style)


@lru_cache(maxsize=16)
def _style_files(style: str) -> list[Path]:
    return list_images(style)


@lru_cache(maxsize=64)
def style_pixels(file: Path, size: int, background: Background = WHITE) -> UInt8[np.ndarray, "h w 3"]:
    """Return a style image for training, read-only, with a shorter side of `size`."""
    picture = open_picture(file, background)
    height, width = picture.size
    scale = size / min(height, width)
    pixels = fitted(picture.pixels, (max(round(height * scale), size), max(round(width * scale), size)))
    shared = replace(picture, pixels=pixels).uint8()
    shared.setflags(write=False)  # the cache gives it to every caller
    return shared


def style_crop(file: Path, size: int, number: int, background: Background = WHITE) -> UInt8[np.ndarray, "size size 3"]:
    """Return a random square crop of a style image.

    A few style images then give as many textures as there are training images.

    Args:
        file: the style image.
        size: side of the result in pixels.
        number: seed of the scale, position and mirroring.
        background: what a transparent style image is composed on.
    """
    rng = np.random.default_rng(number)
    pixels = style_pixels(file, round(size * ZOOM), background)
    side = round(size * rng.uniform(1, ZOOM))
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    cut = pixels[top : top + side, left : left + side, :]
    small = fitted(cut.astype(np.float32) / 255, (size, size))
    return Picture(small[:, ::-1] if rng.random() < 0.5 else small).uint8()


def unit(pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Return uint8 pixels as float32 in [0, 1]."""
    return pixels.astype(jnp.float32) / 255


def as_input(model: Model, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Return RGB pixels in [0, 1] in the channel order and normalisation of the backbone."""
    return model.normalize(pixels[..., ::-1] if model.card.preprocess.channels == "BGR" else pixels)


def contact_sheet(
    rows: Sequence[Sequence[str | Path | np.ndarray | Picture]], path: str | Path, *, height: int = 200, gap: int = 6
) -> Path:
    """Write images as one file, in rows of equal height on white.

    Args:
        rows: the images of each row.
        path: file to write.
        height: height of a row in pixels.
        gap: distance between images in pixels.
    """
    pictures = [[open_picture(one) for one in row] for row in rows]
    scaled = [[_at_height(picture, height) for picture in row] for row in pictures]
    width = max(sum(p.shape[1] + gap for p in row) for row in scaled) + gap
    sheet = np.full((len(rows) * (height + gap) + gap, width, 3), 255, np.uint8)
    for i, row in enumerate(scaled):
        left, top = gap, gap + i * (height + gap)
        for pixels in row:
            sheet[top : top + height, left : left + pixels.shape[1]] = pixels
            left += pixels.shape[1] + gap
    return Picture(sheet.astype(np.float32) / 255).save(path)


def _at_height(picture: Picture, height: int) -> np.ndarray:
    width = max(round(picture.size[1] * height / picture.size[0]), 1)
    return replace(picture, pixels=fitted(picture.pixels, (height, width))).uint8()
