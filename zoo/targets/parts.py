"""What the room of targets adds to extension points: kinds of target, and the natures of their arrays."""

from __future__ import annotations

from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part
from zoo.targets import KINDS, NATURES

_KINDS = {
    "class": ("label", "One class for an image."),
    "classes": ("labels", "Several classes, or none."),
    "boxes": ("boxes", "Boxes with classes, perhaps with masks or outlines."),
    "masks": ("masks", "A class for every pixel."),
    "images": ("images", "Nothing is known of an image."),
}
_NATURES = {
    "boxes": "Boxes (b, m, 4) with `labels`, `box_valid` and `crowd`, in pixels.",
    "mask": "A class for every pixel, (b, h, w).",
    "points": "Points (b, n, 2) with `point_valid`, in pixels.",
}


@hookimpl
def zoo_parts() -> list[Part]:
    kinds = {name: (f"kinds.{file}:KIND", said) for name, (file, said) in _KINDS.items()}
    natures = {name: (f"spatial.{name}:NATURE", said) for name, said in _NATURES.items()}
    return [
        Part(point.name, name, f"zoo.targets.{place}", said)
        for point, rows in ((KINDS, kinds), (NATURES, natures))
        for name, (place, said) in rows.items()
    ]
