"""Draw images of coloured shapes on cluttered backgrounds, in two groups of classes. The seed determines each image.

Only the outline depends on the class. Colour, position, size, rotation, stretch and background are random, so a network
cannot tell classes by their mean colour, and a handful of images is too few to learn outlines from scratch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 24
"""Height and width of a drawing in pixels."""
_FINE = 4  # masks are drawn this many times larger and then averaged, for smooth edges

Points = Sequence[tuple[float, float]]
# Outlines in a square from -1 to 1: the first tuple is filled, then the second tuple is cut out.
Shape = tuple[tuple[Points, ...], tuple[Points, ...]]


def _polar(radius: Callable[[float], float], x: float = 0, y: float = 0, corners: int = 72) -> Points:
    """Return the outline at distance radius(angle) from (x, y)."""
    angles = [2 * pi * i / corners for i in range(corners)]
    return [(x + radius(a) * sin(a), y - radius(a) * cos(a)) for a in angles]


def _disc(size: float = 1, x: float = 0, y: float = 0) -> Points:
    return _polar(lambda _: size, x, y)


def _regular(corners: int, size: float = 1, x: float = 0, y: float = 0) -> Points:
    return _polar(lambda _: size, x, y, corners)


def _star(points: int, inner: float) -> Points:
    return [
        (r * sin(pi * i / points), -r * cos(pi * i / points))
        for i, r in ((i, 1 if i % 2 == 0 else inner) for i in range(2 * points))
    ]


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _shape(*solid: Points, cut: tuple[Points, ...] = ()) -> Shape:
    return solid, cut


PRETRAIN: dict[str, Shape] = {
    "bar": _shape(_box(-1, -0.22, 1, 0.22)),
    "chain": _shape(_disc(0.5, -0.5), _disc(0.5, 0.5), cut=(_disc(0.24, -0.5), _disc(0.24, 0.5))),
    "chevron": _shape([(-1, -0.7), (0, 0.1), (1, -0.7), (1, -0.05), (0, 0.75), (-1, -0.05)]),
    "clover": _shape(_polar(lambda a: 0.62 + 0.38 * cos(4 * a))),
    "cross": _shape(_box(-0.3, -1, 0.3, 1), _box(-1, -0.3, 1, 0.3)),
    "disc": _shape(_disc(0.9)),
    "drop": _shape(_disc(0.6, 0, 0.4), [(0, -1), (0.57, 0.2), (-0.57, 0.2)]),
    "dumbbell": _shape(_disc(0.42, -0.6), _disc(0.42, 0.6), _box(-0.6, -0.15, 0.6, 0.15)),
    "ell": _shape(_box(-0.7, -1, -0.15, 1), _box(-0.7, 0.45, 0.8, 1)),
    "fork": _shape(
        _box(-0.15, 0, 0.15, 1), _box(-0.75, -0.1, 0.75, 0.2), _box(-0.75, -1, -0.49, 0), _box(-0.13, -1, 0.13, 0),
        _box(0.49, -1, 0.75, 0),
    ),
    "frame": _shape(_box(-0.85, -0.85, 0.85, 0.85), cut=(_box(-0.5, -0.5, 0.5, 0.5),)),
    "gear": _shape(_polar(lambda a: 1.0 if cos(7 * a) > 0 else 0.7, corners=140), cut=(_disc(0.28),)),
    "half": _shape([p for p in _polar(lambda _: 1, 0, 0.4) if p[1] <= 0.4]),
    "hourglass": _shape([(-0.7, -1), (0.7, -1), (0.1, 0), (0.7, 1), (-0.7, 1), (-0.1, 0)]),
    "house": _shape(_box(-0.65, -0.2, 0.65, 0.9), [(-0.95, -0.15), (0, -1), (0.95, -0.15)]),
    "ladder": _shape(_box(-0.7, -1, -0.3, 1), _box(0.3, -1, 0.7, 1), _box(-0.7, -0.2, 0.7, 0.2)),
    "mushroom": _shape([p for p in _polar(lambda _: 1) if p[1] <= 0], _box(-0.28, -0.1, 0.28, 0.95)),
    "pie": _shape(_disc(0.95), cut=([(0, 0), (1.2, -0.9), (1.2, 0.9)],)),
    "ring": _shape(_disc(0.95), cut=(_disc(0.55),)),
    "square": _shape(_box(-0.8, -0.8, 0.8, 0.8)),
    "star": _shape(_star(5, 0.42)),
    "stairs": _shape(_box(-0.9, 0.3, 0.9, 0.9), _box(-0.3, -0.3, 0.9, 0.4), _box(0.3, -0.9, 0.9, 0.4)),
    "tee": _shape(_box(-0.9, -0.9, 0.9, -0.35), _box(-0.28, -0.9, 0.28, 1)),
    "triangle": _shape(_regular(3, 1.05)),
}  # fmt: skip
"""Classes that the packaged weights were trained on, with their shapes."""

_HEART = [
    (0.95 * sin(t) ** 3, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 17)
    for t in (2 * pi * i / 72 for i in range(72))
]

DEMO: dict[str, Shape] = {
    "arrow": _shape(_box(-1, -0.2, 0.2, 0.2), [(0.1, -0.7), (1, 0), (0.1, 0.7)]),
    "bolt": _shape([(0.05, -1), (-0.65, 0.15), (-0.1, 0.15), (-0.3, 1), (0.65, -0.25), (0.1, -0.25), (0.45, -1)]),
    "crescent": _shape(_disc(1), cut=(_disc(0.85, 0.45),)),
    "fish": _shape([(x, 0.55 * y) for x, y in _disc(0.68, 0.3)], [(-0.15, 0), (-1, -0.6), (-0.75, 0), (-1, 0.6)]),
    "heart": _shape(_HEART),
    "key": _shape(
        _disc(0.45, 0, -0.55), _box(-0.12, -0.2, 0.12, 1), _box(0, 0.3, 0.45, 0.5), _box(0, 0.75, 0.45, 0.97),
        cut=(_disc(0.2, 0, -0.55),),
    ),
}  # fmt: skip
"""Classes of the demonstration, none of them in `PRETRAIN`."""


def draw(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return a drawing of a shape, uint8 (SIDE, SIDE, 3). Backgrounds range from plain to cluttered."""
    clutter = rng.uniform()
    ground = _ground(rng, clutter)
    colour = _contrasting(ground.mean((0, 1)), rng)
    body = colour + 25 * rng.normal() * np.linspace(-1, 1, SIDE).reshape(-1, 1, 1)
    mask = _mask(shape, rng)[..., None]
    pixels = ground * (1 - mask) + body * mask
    pixels = _scribble(pixels, rng, int(clutter * 5))
    pixels += rng.normal(0, 2 + 10 * clutter, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def draw_folder(folder: Path, shapes: dict[str, Shape], count: int, seed: int) -> Path:
    """Write `count` drawings of each shape as `folder/<class>/<number>.png` and return the folder.

    A drawing depends on the seed, the class name and the number only, not on the other classes.
    """
    for name, shape in shapes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng((seed, zlib.crc32(name.encode()), index))
            Image.fromarray(draw(shape, rng)).save(folder / name / f"{index:04}.png", compress_level=1)
    return folder


def _mask(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return the fraction of each pixel that the shape covers, (SIDE, SIDE) in [0, 1].

    Position, size, rotation, stretch and mirroring are random.
    """
    size = rng.uniform(0.3, 0.46) * SIDE
    angle, stretch = rng.uniform(0, 2 * pi), rng.uniform(0.8, 1.25)
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    skew = np.array([[stretch, rng.uniform(-0.2, 0.2)], [0, 1 / stretch]])
    centre = SIDE / 2 + rng.uniform(-1, 1, 2) * (SIDE / 2 - 0.9 * size)
    mirror = np.array([rng.choice([-1, 1]), 1])

    def place(points: Points) -> list[tuple[float, float]]:
        placed = ((np.array(points) * mirror) @ skew @ turn * size + centre) * _FINE
        return [(float(x), float(y)) for x, y in placed]

    image = Image.new("L", (SIDE * _FINE, SIDE * _FINE), 0)
    pen = ImageDraw.Draw(image)
    for fill, outlines in zip((255, 0), shape, strict=True):
        for outline in outlines:
            pen.polygon(place(outline), fill=fill)
    return np.asarray(image, np.float64).reshape(SIDE, _FINE, SIDE, _FINE).mean((1, 3)) / 255


def _ground(rng: np.random.Generator, clutter: float) -> np.ndarray:
    """Return a background of coloured clouds, stripes or patches, (SIDE, SIDE, 3) around 0 to 255.

    Args:
        rng: source of randomness.
        clutter: strength of the contrasts, from 0 (plain) to 1.
    """
    base = rng.uniform(30, 225, 3)
    cells = int(rng.integers(2, 9))
    coarse = rng.normal(0, 40 * clutter, (cells, cells, 3)).astype(np.float32)
    how = Image.Resampling.NEAREST if rng.random() < 0.3 else Image.Resampling.BICUBIC
    layers = [Image.fromarray(coarse[..., c]).resize((SIDE, SIDE), how) for c in range(3)]
    ground = base + np.stack([np.asarray(layer) for layer in layers], -1)
    if rng.random() < 0.4:
        wave, shift = rng.uniform(-1.5, 1.5, 2), rng.uniform(0, 2 * pi)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        ground += rng.normal(0, 30 * clutter, 3) * np.sin(wave[0] * rows + wave[1] * columns + shift)[..., None]
    return ground


def _contrasting(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random colour that differs clearly from the mean colour of the background."""
    while True:
        colour = rng.uniform(0, 255, 3)
        if np.linalg.norm(colour - ground) > 90:
            return colour


def _scribble(pixels: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return the pixels with `count` random strokes and blots drawn over them."""
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(count):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y, dx, dy = (float(v) for v in (*rng.uniform(0, SIDE, 2), *rng.normal(0, SIDE / 4, 2)))
        if rng.random() < 0.6:
            pen.line([(x, y), (x + dx, y + dy)], fill=colour)
        else:
            pen.ellipse([x, y, x + abs(dx) / 3 + 1, y + abs(dy) / 3 + 1], fill=colour)
    return np.asarray(image, np.float64)
