"""How a task trains, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.targets.moves import MOVES, Moves


@dataclass(frozen=True)
class Training:
    """How a task trains. The defaults suit a task whose targets do not move and whose backbone may be fine-tuned.

    Attributes:
        recipe: What `zoo.train` does where the user says nothing: fields that `zoo.training.config.Recipe` declares,
            such as `plan`, `epochs`, `batch_size`, `steps` (least number of updates: few images get more epochs) and
            `lr` (of a new head), and fields of `Augment` as `augment`.
        backbone: `free` to be fine-tuned, or `fixed`: the task measures by it, or paints from its features. Then only
            the head trains, on images that may be augmented, and no features are cached.
        cached_mirror: Cache the features of mirror images as well, where the backbone is frozen and augmentation is on.
        cached_views: Randomly augmented views of each image whose features are cached there as well. Large datasets get
            fewer: `zoo.training.phase_sources.VIEWED` in all.
        mixup: The loss accepts images mixed of two (mixup, CutMix): `mix` in the batch, see `zoo.data.augment.augment`.
        tta: `decode` uses test-time augmentation, mirror images (`Model.mirrored`). With a frozen backbone, the
            features of mirrored validation images are cached.
        moves: Spatial targets: name -> nature. Augmentation moves them with the pixels. Natures are `boxes` (b, m, 4)
            with `box_valid`, `labels` and `crowd`; `mask` (b, h, w); `points` (b, n, 2) with `point_valid`; and those
            added to `zoo.targets`. Coordinates are pixels of the prepared image.
        invariant: Targets that stay true when the image is cropped or mirrored, such as a class, or that training does
            not read. Training on augmented images is refused for a target that is neither here nor in `moves`.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    backbone: Literal["free", "fixed"] = "free"
    cached_mirror: bool = False
    cached_views: int = 0
    mixup: bool = False
    tta: bool = False
    moves: Moves = field(default_factory=lambda: MOVES)
    invariant: tuple[str, ...] = ()

    @property
    def caches_views(self) -> bool:
        """Whether more than the plain images is cached for training."""
        return self.cached_mirror or self.cached_views > 0
