"""The extension point of models: export formats. Nothing here imports jax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.registry.parts import Point

if TYPE_CHECKING:
    from zoo.models.export import Export

EXPORTS: Point[Export] = Point("model.export", "export format")
"""A part is an `Export`."""
KEY_LAYOUTS = {
    "timm": "timm's parameter names, with a config.json that timm loads.",
    "torchvision": "torchvision's parameter names.",
    "transformers": "The parameter names of Hugging Face transformers.",
    "original": "The parameter names of the family's original code.",
}
"""Export formats that are key layouts of families, with their summaries. A family has some of them, and others too."""
