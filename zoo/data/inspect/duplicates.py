"""Equal and nearly equal images, within and across splits.

Equal files are found by their content. For near duplicates, pairs of images whose perceptual hashes differ in a few
bits are compared pixel by pixel, at a low resolution: copies that were compressed again, resized, mirrored, made grey,
or changed in brightness, contrast or saturation. Crops and other photos of the same scene are not searched for: they
cannot be told from the images of one series, such as the faces of one person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.decode import decode
from zoo.data.inspect.checks import CONTRADICTING, COPY, LEAK, NEAR, NEAR_LEAK
from zoo.data.inspect.findings import Finding, Place
from zoo.data.inspect.images import Look, luminance, shrunk
from zoo.errors import DataError
from zoo.targets.faults import Check

BITS = 10
"""Largest number of different bits of two hashes whose images are compared."""
COMPARED = 24
"""Number of images that an image is compared with. Films and series have many more that are similar."""
SIDE = 48
"""Side of the images that are compared."""
TILES = 4
"""Number of tiles along each side, each of which must fit: a changed detail must not drown in the rest."""
CERTAIN = 0.01
"""Mean squared difference in the worst tile, where the contrast of the whole image is 1, up to which two images are
copies: compressed again, resized, or with another contrast."""
LIKELY = 0.12
"""The same for copies with larger changes, such as clipped highlights. Neighbours in a series may be as close, such as
faces of one person. So a pair counts only if neither image is similar to a third one (up to `SERIES`), and never in
data where many images are alike."""
SERIES = 0.5
ALIKE = 8
"""Largest number of different bits of images that are alike: in a thousand unrelated photos, there is no such pair."""
MANY = 0.05
"""Share of the images from which many are alike."""
CLIPPED = 6
"""Values this close to black or white may have been clipped when the brightness was changed; they are not compared."""
COLOURED = 4.0
"""Mean colourfulness (root mean square of red-green and blue-yellow) from which colours are compared."""
HUE = 0.8
"""Smallest cosine between the colours of two near duplicates."""
_BLOCK = 1 << 23
"""Number of pairs of hashes that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may have copies.

    Attributes:
        place: where it is.
        digest: identifies the content of the file; empty if unknown.
        annotation: two images with the same annotation have the same value.
        words: the annotation in a few words.
    """

    place: Place
    digest: str
    annotation: str
    words: str


def exact(candidates: Sequence[Candidate]) -> list[Finding]:
    """Return a finding for each group of files with the same content."""
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        if one.digest:
            groups.setdefault(one.digest, []).append(one)
    return [_finding(group, CONTRADICTING, LEAK, COPY) for group in groups.values() if len(group) > 1]


def near(
    candidates: Sequence[Candidate], looks: Sequence[Look], load: Callable[[Path], np.ndarray] = decode
) -> list[Finding]:
    """Return a finding for each group of nearly equal images; equal files are one image here.

    Images of a single colour, and images that cannot be read, are left aside.

    Args:
        candidates: the images.
        looks: of each image.
        load: reads the pixels of a file, uint8 (height, width, 3).
    """
    first: dict[str, int] = {}
    kept = [
        index
        for index, (one, seen) in enumerate(zip(candidates, looks, strict=True))
        if not seen.error and not seen.flat and first.setdefault(one.digest or str(one.place.file), index) == index
    ]
    codes = np.array([looks[index].code for index in kept], np.uint64)
    mirrored = np.array([looks[index].mirrored for index in kept], np.uint64)

    @lru_cache(maxsize=4096)
    def small(index: int) -> np.ndarray:
        file = candidates[index].place.file
        assert file is not None
        return shrunk(Image.fromarray(load(file)), SIDE)

    compared = [0] * len(kept)
    similar: list[tuple[float, int, int, bool]] = []
    in_series: set[int] = set()
    alike: set[int] = set()
    for one, other, bits, mirror in _close(codes, mirrored):
        if max(compared[one], compared[other]) >= COMPARED:
            continue
        compared[one], compared[other] = compared[one] + 1, compared[other] + 1
        try:
            left, right = small(kept[one]), small(kept[other])
        except DataError:  # changed or removed since it was looked at
            continue
        distance = difference(left, right[:, ::-1] if mirror else right)
        if distance <= LIKELY:
            similar.append((distance, one, other, mirror))
            continue
        in_series.update((one, other) if distance <= SERIES else ())
        alike.update((one, other) if bits <= ALIKE else ())
    groups = _Groups(len(kept))
    flipped: set[int] = set()
    farthest = CERTAIN if len(alike) > MANY * len(kept) else LIKELY
    for distance, one, other, mirror in sorted(similar):
        copies = distance <= CERTAIN or (distance <= farthest and not in_series & {one, other})
        if copies and groups.root(one) != groups.root(other):
            groups.join(one, other)
            flipped.update((one, other) if mirror else ())
    found = []
    for members in groups.several():
        group = [candidates[kept[index]] for index in members]
        found.append(_finding(group, None, NEAR_LEAK, NEAR, "mirrored" if flipped & set(members) else ""))
    return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two small images, uint8 (side, side, 3), differ in their worst tile.

    Brightness, contrast and saturation do not count. Infinite for different colours.
    """
    colours = [_colours(image) for image in (one, other)]
    strengths = [float(np.sqrt((each**2).mean())) for each in colours]
    if min(strengths) >= COLOURED and float((colours[0] * colours[1]).mean()) < HUE * strengths[0] * strengths[1]:
        return np.inf
    grey = luminance(one), luminance(other)
    clear = np.all([(image > CLIPPED) & (image < 255 - CLIPPED) for image in grey], axis=0)
    if clear.mean() < 0.25:  # drawings in black and white: everything counts
        clear = np.ones_like(clear)
    values = [(image - image[clear].mean()) / max(float(image[clear].std()), 1e-3) for image in grey]
    squares = np.where(clear, (values[0] - values[1]) ** 2, 0)
    tile = (TILES, len(one) // TILES, TILES, len(one) // TILES)
    pixels = np.maximum(clear.reshape(tile).sum((1, 3)), clear.size / TILES**2 / 4)
    return float(np.max(squares.reshape(tile).sum((1, 3)) / pixels))


def _colours(image: np.ndarray) -> np.ndarray:
    """Return red against green and blue against yellow, float32 (side, side, 2)."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    return np.stack([red - green, blue - (red + green) / 2], -1)


def _close(codes: np.ndarray, mirrored: np.ndarray) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (one, other, different bits, whether one is mirrored) for hashes that differ in at most `BITS` bits.

    All pairs are compared, block by block, the closest of a block first: counting bits is far cheaper than decoding
    the images was.
    """
    rows = min(max(_BLOCK // max(len(codes), 1), 1), 1024)
    for start in range(0, len(codes), rows):
        block = codes[start : start + rows, None]
        for mirror, others in ((False, codes), (True, mirrored)):
            bits = np.bitwise_count(block ^ others[None, start:])
            ones, seconds = np.nonzero(bits <= BITS)
            for index in np.argsort(bits[ones, seconds], kind="stable"):
                one, other = int(ones[index]), int(seconds[index])
                if other > one:
                    yield start + one, start + other, int(bits[one, other]), mirror


def _finding(
    group: Sequence[Candidate], contradicting: Check | None, across: Check, within: Check, detail: str = ""
) -> Finding:
    splits = {one.place.split for one in group}
    check = across if len(splits) > 1 else within
    if len({one.annotation for one in group}) > 1:
        check = contradicting or check
        words = list(dict.fromkeys(one.words for one in group if one.words))
        differ = " or ".join(words[:4]) if len(words) > 1 else ""
        detail = ", ".join(filter(None, [detail, f"annotated differently{f': {differ}' * bool(differ)}"]))
    return Finding(check, tuple(one.place for one in group), detail)


class _Groups:
    """Disjoint sets of numbers."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        """Return the number that stands for the set of `index`."""
        while self._parent[index] != index:
            self._parent[index] = index = self._parent[self._parent[index]]
        return index

    def join(self, one: int, other: int) -> None:
        """Unite two sets."""
        self._parent[self.root(other)] = self.root(one)

    def several(self) -> list[list[int]]:
        """Return the sets of more than one number, each sorted."""
        sets: dict[int, list[int]] = {}
        for index in range(len(self._parent)):
            sets.setdefault(self.root(index), []).append(index)
        return [numbers for numbers in sets.values() if len(numbers) > 1]
