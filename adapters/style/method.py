"""The row of a style method, and what it is given to paint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.registry.parts import Point
from zoo.registry.spec import BackboneSpec

Preview = Callable[[int, int, float, np.ndarray], None]
"""Called with (step, steps in all, loss, picture (h, w, 3) in [0, 1])."""
CHUNK = 50
"""Steps between two previews at most."""
Network = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Options that a file decides, and tensor name in the head -> array with PyTorch's axes."""


@dataclass(frozen=True)
class Painting:
    """A picture to be painted.

    Attributes:
        content: The image, (h, w, 3) in [0, 1].
        styles: The style pictures, each (h, w, 3); one is enough, and none for a method of one style.
        shares: How much of each style, (n,), which sum to 1.
        regions: Where each style goes, (h, w) in [0, 1]: none, one for all styles, or one for each.
        strength: From 0, the image itself, to 1.
        tile: Side of the tiles of a large picture in pixels, 0 for one piece.
        preview: Called every `every` steps, by methods that optimise.
    """

    content: np.ndarray
    styles: Sequence[np.ndarray]
    shares: np.ndarray
    regions: Sequence[np.ndarray] = ()
    strength: float = 1.0
    tile: int = 0
    preview: Preview | None = None
    every: int = 0

    @property
    def places(self) -> np.ndarray:
        """How much of each style there is at each pixel, (n, h, w)."""
        shares = self.shares.reshape(-1, 1, 1)
        if not self.regions:
            return np.broadcast_to(shares, (len(self.shares), *self.content.shape[:2]))
        if len(self.regions) == 1:
            return shares * self.regions[0]
        parts = np.stack(list(self.regions)) * (self.shares * len(self.shares)).reshape(-1, 1, 1)
        return parts / np.maximum(parts.sum(0, keepdims=True), 1)

    @property
    def exclusive(self) -> np.ndarray | None:
        """A region for each style, (n, h, w), which together cover no place more than once; None without regions."""
        if not self.regions:
            return None
        count = len(self.styles)
        each = np.stack(list(self.regions) if len(self.regions) == count else [self.regions[0] / count] * count)
        return each / np.maximum(each.sum(0, keepdims=True), 1)


@dataclass(frozen=True)
class Method:
    """What sets a style method apart. `options` are those of `zoo.adapters.style.Style`.

    Attributes:
        taps: `taps(options, spec)` names the stages that the head reads.
        build: `build(options, spec, rngs=rngs)` makes the head.
        paint: `paint(options, model, painting)` gives the picture, (h, w, 3).
        content: `content(spec)` names the stage that content is compared at.
        deepest: Largest stride that a style is read from.
        weights: Factors of the losses `content`, `style` and `tv`, for the user to change.
        loss: `loss(options, forward, batch)` gives the terms `content_loss`, `style_loss` and `tv_loss`, each (b,).
            None for a method that optimises each picture and trains nothing.
        recipe: Training defaults, see `zoo.models.adapter.Training.recipe`.
        one_style: Whether the network learns a single style, and takes none when it paints.
        long_side: Longer side of the result in pixels where the user names none; 0 for that of the image.
        read: `read(source, tensors)` gives the network in a file of another library, None for an unknown layout.
        layouts: What `read` knows, for messages.
    """

    taps: Callable[..., tuple[str, ...]]
    build: Callable[..., Any]
    paint: Callable[..., np.ndarray]
    content: Callable[[BackboneSpec], str]
    deepest: int
    weights: Mapping[str, float]
    loss: Callable[..., dict[str, Any]] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    one_style: bool = False
    long_side: int = 0
    read: Callable[[str, Mapping[str, np.ndarray]], Network | None] | None = None
    layouts: str = "none: it has no network"


METHODS: Point[Method] = Point("style.method", "style method", Method)
"""The style methods, zoo's own and those of other plugins."""
