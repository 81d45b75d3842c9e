"""Pictures in and out: read upright, resized, with their colour profile and EXIF data, and written with them."""

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

from zoo.data import decode, list_images
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zoo.models.model import Model

_ORIENTATION = 0x0112
_ASPECT = 0.02
"""Largest relative difference of aspect ratios at which a mask is still one for the picture."""
ZOOM = 1.8
"""How much larger than the crop that is learnt from a style picture is at most."""


@dataclass(frozen=True)
class Picture:
    """A picture as one reads, paints and writes it.

    Attributes:
        pixels: float32 (height, width, 3), RGB in [0, 1], upright. name: for people.
        icc: its colour profile, or empty. exif: its EXIF data, upright, or empty.
    """

    pixels: np.ndarray = field(repr=False)
    name: str = "picture"
    icc: bytes = field(default=b"", repr=False)
    exif: bytes = field(default=b"", repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def uint8(self) -> np.ndarray:
        """The pixels as grey values 0 to 255."""
        return np.rint(np.clip(self.pixels, 0, 1) * 255).astype(np.uint8)

    def save(self, path: str | Path) -> Path:
        """Write it in the format of the path's suffix, with its colour profile and EXIF data.

        Raises:
            ConfigError: for a suffix that no format has. DataError: where it cannot be written.
        """
        path = Path(path)
        check_suffix(path)
        marks: dict[str, Any] = {k: v for k, v in (("icc_profile", self.icc), ("exif", self.exif)) if v}
        if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            marks["quality"] = 95
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.uint8()).save(path, **marks)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        return path


def check_suffix(path: Path) -> None:
    """Raise `ConfigError` for a file whose suffix says no format that pictures are written in."""
    written = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
    if path.suffix.lower() not in written:
        raise ConfigError(f"{path} has the suffix {path.suffix!r}; a picture is written as {', '.join(written)}.")


def open_picture(source: str | Path | np.ndarray | Picture) -> Picture:
    """A picture from a file, a uint8 array (height, width, 3), or one that is already open.

    Raises:
        DataError: for a file that is missing or no image. ConfigError: for another array.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[-1] != 3:
            raise ConfigError(f"a picture is uint8 (height, width, 3); this array is {source.dtype} {source.shape}.")
        return Picture(source.astype(np.float32) / 255)
    pixels = decode(Path(source).expanduser())
    icc, exif = _marks(Path(source).expanduser())
    return Picture(pixels.astype(np.float32) / 255, Path(source).name, icc, exif)


def _marks(path: Path) -> tuple[bytes, bytes]:
    """Colour profile and EXIF data of a file. Broken ones must not cost the picture."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            icc, exif = image.info.get("icc_profile") or b"", image.getexif()
            rgb = image.mode in ("RGB", "RGBA", "P")
            if not len(exif):
                return icc if rgb else b"", b""
            exif[_ORIENTATION] = 1  # the pixels were turned
            return icc if rgb else b"", exif.tobytes()
    except Exception:
        return b"", b""


def resized(pixels: np.ndarray, long_side: int) -> np.ndarray:
    """Pixels (h, w, 3) in [0, 1] with the longer side at `long_side`, antialiased."""
    height, width = pixels.shape[:2]
    scale = long_side / max(height, width)
    return fitted(pixels, (max(round(height * scale), 1), max(round(width * scale), 1)))


def fitted(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (h, w) or (h, w, 3) in [0, 1] at exactly `size` (height, width), antialiased."""
    if pixels.shape[:2] == size:
        return pixels
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    bands = [
        np.asarray(Image.fromarray(planes[..., i]).resize(size[::-1], Image.Resampling.BICUBIC))
        for i in range(planes.shape[-1])
    ]
    found = np.clip(np.stack(bands, axis=-1), 0, 1).astype(np.float32)
    return found[..., 0] if pixels.ndim == 2 else found


def framed(pixels: np.ndarray, width: int) -> np.ndarray:
    """Pixels (h, w, c) with a mirrored border of `width`: what networks make of a picture's border looks like a frame,
    and can be cut off."""
    return np.pad(pixels, ((width, width), (width, width), (0, 0)), mode="symmetric")


def read_mask(source: str | Path | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shares (h, w) in [0, 1] from a picture whose white parts are meant, at the content's size.

    Raises:
        ConfigError: for a mask of another shape than the content's; one of another size is resized.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.dtype != np.uint8:
            raise ConfigError(f"a mask is uint8 (height, width); this array is {source.dtype} {source.shape}.")
        pixels, name = source, "the mask"
    else:
        pixels, name = decode(Path(source).expanduser(), "L")[..., 0], str(source)
    here, there = pixels.shape[0] / pixels.shape[1], size[0] / size[1]
    if abs(here / there - 1) > _ASPECT:
        raise ConfigError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]} pixels and the content {size[1]}x{size[0]}: a mask may be "
            "larger or smaller, but must have the content's proportions."
        )
    return fitted(pixels.astype(np.float32) / 255, size)


def style_files(style: str) -> list[Path]:
    """The pictures of a style: one file, or all of a folder. Raises `ZooError` where there are none."""
    if not style:
        raise ConfigError("training a style needs pictures of it: --set style=PICTURE, or a folder of pictures.")
    return _style_files(style)


@lru_cache(maxsize=16)
def _style_files(style: str) -> list[Path]:
    return list_images(style)


@lru_cache(maxsize=64)
def style_pixels(file: Path, size: int) -> np.ndarray:
    """A style picture for training, uint8 (h, w, 3), read-only: its shorter side is `size`."""
    picture = open_picture(file)
    height, width = picture.size
    scale = size / min(height, width)
    pixels = fitted(picture.pixels, (max(round(height * scale), size), max(round(width * scale), size)))
    found = replace(picture, pixels=pixels).uint8()
    found.setflags(write=False)
    return found


def style_crop(file: Path, size: int, number: int) -> np.ndarray:
    """A square of a style picture, uint8 (size, size, 3): what scale, where and whether mirrored, the number decides.
    A handful of pictures then gives as many textures as there are photos to train on."""
    rng = np.random.default_rng(number)
    pixels = style_pixels(file, round(size * ZOOM))
    side = round(size * rng.uniform(1, ZOOM))
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    cut = pixels[top : top + side, left : left + side, :]
    small = fitted(cut.astype(np.float32) / 255, (size, size))
    return Picture(small[:, ::-1] if rng.random() < 0.5 else small).uint8()


def unit(pixels: Array) -> Array:
    """uint8 pixels as float32 in [0, 1]."""
    return pixels.astype(jnp.float32) / 255


def as_input(model: Model, pixels: Array) -> Array:
    """RGB pixels in [0, 1], (b, h, w, 3), as the backbone takes them."""
    return model.normalize(pixels[..., ::-1] if model.card.preprocess.channels == "BGR" else pixels)


def contact_sheet(
    rows: Sequence[Sequence[str | Path | np.ndarray | Picture]], path: str | Path, *, height: int = 200, gap: int = 6
) -> Path:
    """Pictures in rows of equal height on white, written as one file."""
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
