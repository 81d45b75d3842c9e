"""Findings on single images, and the perceptual hash that finds near duplicates.

The hash is pHash: the signs, relative to their median, of the lowest frequencies of the grey image. Mirroring an image
changes the sign of the odd frequencies across, so the hash of the mirror image costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from zoo.data.content import content
from zoo.data.decode import decode
from zoo.data.inspect.checks import DAMAGED, ELONGATED, MIXED, ONE_COLOUR, TINY
from zoo.data.inspect.findings import Finding, Place
from zoo.errors import UnreadableError

SIDE = 32
"""Side of the image that is transformed."""
LOW = 8
"""Number of low frequencies along each side that make the hash."""
FLAT = 4
"""Largest difference between two values of a channel in an image of one colour: noise, and rounding by JPEG."""
GREY = 4
"""Largest difference between the channels of a grey image, at nearly every pixel of its thumbnail."""
SMALLEST = 16
"""An image with a shorter side has hardly any content, unless all images are that small."""
MUCH_SMALLER = 8
"""An image that is smaller than the median by this factor is rather a thumbnail or a placeholder."""
LONG = 4.0
"""Sides of an image in a ratio above this, and above `MUCH_LONGER` times the usual ratio, are unusual."""
MUCH_LONGER = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """The properties of one image.

    Attributes:
        size: height and width of the upright image; (0, 0) if it cannot be read.
        grey: whether it has no colours.
        flat: whether it has a single colour.
        code: perceptual hash of 64 bits.
        mirrored: perceptual hash of the mirror image.
        error: why the image cannot be read; empty if it can.
    """

    size: tuple[int, int] = (0, 0)
    grey: bool = False
    flat: bool = False
    code: int = 0
    mirrored: int = 0
    error: str = ""


def look(file: Path) -> Look:
    """Decode an image, strictly, and describe it."""
    try:
        pixels = decode(file)
    except UnreadableError as error:
        return Look(error=error.problem)
    image = Image.fromarray(pixels)
    lowest, highest = np.array(image.getextrema()).T  # numpy itself takes ten times as long
    flat = bool(np.max(highest - lowest) <= FLAT)
    thumbnail = shrunk(image, SIDE)
    spread = thumbnail.max(-1) - thumbnail.min(-1)
    frequencies = dctn(luminance(thumbnail), norm="ortho")[:LOW, :LOW]
    across = np.where(np.arange(LOW) % 2, -1, 1)
    return Look(
        pixels.shape[:2],
        float(np.quantile(spread, 0.99)) <= GREY,
        flat,
        _code(frequencies),
        _code(frequencies * across),
    )


def digest(file: Path) -> str:
    """Return the sha256 of a file; empty if it cannot be read."""
    try:
        return content(file).sha256
    except OSError:
        return ""


def shrunk(image: Image.Image, side: int) -> np.ndarray:
    """Return an RGB image as uint8 (side, side, 3), with antialiasing. The aspect ratio is not kept."""
    # Halving first is faster, and what remains above twice the side keeps the result the same to a grey level.
    factor = min(image.size) // (4 * side)
    small = image.reduce(factor) if factor > 1 else image
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Return the grey values of an image, float32 (height, width)."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _code(frequencies: np.ndarray) -> int:
    values = frequencies.reshape(-1)[1:]  # the first is the mean, which says nothing about the content
    bits = np.append(values > np.median(values), False)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def findings(places: Sequence[Place], looks: Sequence[Look]) -> list[Finding]:
    """Return the findings on single images.

    Args:
        places: of each image.
        looks: of each image.
    """
    good = [(place, one) for place, one in zip(places, looks, strict=True) if not one.error]
    found = [Finding(DAMAGED, (place,), one.error) for place, one in zip(places, looks, strict=True) if one.error]
    found += [Finding(ONE_COLOUR, (place,)) for place, one in good if one.flat]
    if not good:
        return found
    sides = np.array([one.size for _, one in good], np.float64)
    short, ratios = sides.min(1), sides.max(1) / sides.min(1)
    usual = float(np.median(short))
    least = max(SMALLEST if usual >= SMALLEST else 0, usual / MUCH_SMALLER)  # data may be tiny throughout
    longest = max(LONG, MUCH_LONGER * float(np.median(ratios)))
    for (place, one), side, ratio in zip(good, short, ratios, strict=True):
        called = f"{one.size[1]}x{one.size[0]}"
        if side < least:
            found.append(Finding(TINY, (place,), called))
        elif ratio > longest:
            found.append(Finding(ELONGATED, (place,), called))
    return found + _mixed([(place, one) for place, one in good if not one.flat])


def _mixed(good: Sequence[tuple[Place, Look]]) -> list[Finding]:
    """Return the grey images if most images have colours, or the reverse."""
    grey = sum(one.grey for _, one in good)
    if grey in (0, len(good)):
        return []
    few = grey <= len(good) / 2
    word = "grey" if few else "colour"
    return [Finding(MIXED, (place,), word) for place, one in good if one.grey is few]
