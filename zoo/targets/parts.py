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
    kinds = [Part(KINDS.name, name, f"zoo.targets.kinds.{file}:KIND", said) for name, (file, said) in _KINDS.items()]
    return [
        *kinds,
        *(Part(NATURES.name, name, f"zoo.targets.spatial.{name}:NATURE", s) for name, s in _NATURES.items()),
    ]
