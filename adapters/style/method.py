"""A style method as a table row, and the inputs it paints from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.registry.parts import Point
from zoo.registry.spec import BackboneSpec

Preview = Callable[[int, int, float, np.ndarray], None]
"""Function (step, total steps, loss, image (h, w, 3) in [0, 1])."""
CHUNK = 50
"""Most steps between two previews."""
Network = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Options that follow from a file, and tensors by name in the head, with PyTorch's axes."""


@dataclass(frozen=True)
class Painting:
    """The inputs for painting an image.

    Attributes:
        content: the content image, (h, w, 3) in [0, 1].
        styles: the style images, each (h, w, 3) in [0, 1]; none for a method of one style.
        shares: share of each style, (n,), with a sum of 1.
        regions: where each style applies, (h, w) in [0, 1]: none, one for all styles, or one for each.
        strength: from 0 for the content image itself to 1.
        tile: side of tiles in pixels, for images larger than that; 0 for one piece.
        preview: called by methods that optimise.
        every: steps between two previews; 0 for `CHUNK`.
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
        """Share of each style at each pixel, (n, h, w). The content takes the rest."""
        shares = self.shares.reshape(-1, 1, 1)
        if not self.regions:
            return np.broadcast_to(shares, (len(self.shares), *self.content.shape[:2]))
        if len(self.regions) == 1:
            return shares * self.regions[0]
        # Equal shares leave the regions as they are. Where overlapping regions add up to more than 1, they are scaled
        # down; where they add up to less, the content shows.
        weighted = np.stack(list(self.regions)) * (self.shares * len(self.shares)).reshape(-1, 1, 1)
        return weighted / np.maximum(weighted.sum(0, keepdims=True), 1)

    @property
    def exclusive(self) -> np.ndarray | None:
        """A region for each style, (n, h, w), with a sum of at most 1 at each pixel; None without regions."""
        if not self.regions:
            return None
        count = len(self.styles)
        each = np.stack(list(self.regions) if len(self.regions) == count else [self.regions[0] / count] * count)
        return each / np.maximum(each.sum(0, keepdims=True), 1)


@dataclass(frozen=True)
class Method:
    """A style method. `options` below are the fields of `zoo.adapters.style.Style`.

    Attributes:
        taps: function (options, spec) that returns the names of the stages that the head reads.
        build: function (options, spec, rngs=) that returns the head.
        paint: function (options, model, painting) that returns the painted image, (h, w, 3).
        content: function (spec) that returns the default stage of the content loss.
        deepest: largest stride of the stages of the style loss.
        weights: default weights of the losses `content`, `style` and `tv`.
        loss: function (options, forward, batch) that returns the terms `content_loss`, `style_loss` and `tv_loss`, each
            (b,); None for a method that optimises each image and trains no network.
        recipe: training defaults, see `zoo.models.adapter.Training.recipe`.
        one_style: whether the network learns a single style, and takes no style image when it paints.
        long_side: default longer side of the result in pixels; 0 for that of the content.
        read: function (source, tensors) that reads the network from a file of another library; None for an unknown
            layout.
        layouts: the layouts that `read` accepts, for error messages.
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
"""All style methods: the built-in ones and those of other plugins."""
