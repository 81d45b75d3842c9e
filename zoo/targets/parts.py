"""Parts that `zoo.targets` registers: kinds of target, and natures of their arrays."""

from __future__ import annotations

from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Part
from zoo.targets import KINDS, NATURES

_KINDS = {
    "class": ("label", "One class per image."),
    "classes": ("labels", "Any number of classes per image."),
    "boxes": ("boxes", "Bounding boxes with classes, perhaps with masks or outlines."),
    "masks": ("masks", "A class for every pixel."),
    "images": ("images", "Images without annotations."),
}
_NATURES = {
    "boxes": "Boxes (b, m, 4) with `labels`, `box_valid` and `crowd`, in pixels.",
    "mask": "A class for every pixel, (b, h, w).",
    "points": "Points (b, n, 2) with `point_valid`, in pixels.",
}


@hookimpl
def zoo_parts() -> list[Part]:
    kinds = {name: (f"kinds.{file}:KIND", summary) for name, (file, summary) in _KINDS.items()}
    natures = {name: (f"spatial.{name}:NATURE", summary) for name, summary in _NATURES.items()}
    return [
        Part(point.name, name, f"zoo.targets.{place}", summary)
        for point, rows in ((KINDS, kinds), (NATURES, natures))
        for name, (place, summary) in rows.items()
    ]
