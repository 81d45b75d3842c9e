"""How images are prepared for a set of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from zoo.errors import ConfigError
from zoo.numbers import check_finite

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # pixels in [0, 1] as they are
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Means and standard deviations of most published weights, by the names that `weight_table` accepts."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How pixels must be prepared for a set of weights. It is stored with the weights.

    Attributes:
        size: (height, width) in pixels at which the net was evaluated.
        mean: mean of each channel, for pixel values scaled to [0, 1].
        std: standard deviation of each channel, for pixel values scaled to [0, 1].
        interpolation: kernel of the antialiased resize: `bilinear`, `bicubic`, `lanczos` or `nearest`.
        crop_pct: the shorter side is resized to floor(size / crop_pct), then the centre is cropped.
        crop_mode: `center` as above; `squash` resizes both sides to floor(size / crop_pct) without keeping the aspect
            ratio, then crops; `letterbox` resizes the whole image to fit `size` and pads it on the right or below.
        channels: order and number of colour channels: `RGB`, `BGR` or `L`. A model built for another number of input
            channels keeps this value and records the number elsewhere.
        fill: grey value (0 to 255) of the letterbox padding; None for the mean.
        frames: further letterbox sizes, for aspect-ratio buckets; each image gets the size that it fills best.
        background: red, green and blue (0 to 255) on which transparent images are composed; empty to drop the
            transparency, which shows the colours that it hides.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash", "letterbox"] = "center"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    fill: int | None = None
    frames: tuple[tuple[int, int], ...] = ()
    background: tuple[int, ...] = (255, 255, 255)

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (height, width) in which an image of `size` is prepared.

        For a letterbox this is the first of the sizes that the image fills best; otherwise it is always `self.size`.
        """
        if self.crop_mode != "letterbox":
            return self.size
        height, width = size

        def filled(frame: tuple[int, int]) -> float:
            scale = min(frame[0] / height, frame[1] / width)
            return scale * scale * height * width / (frame[0] * frame[1])

        return max((self.size, *self.frames), key=filled)

    def for_channels(self, channels: int) -> Preprocess:
        """Return the same preparation for images with another number of channels.

        One channel (grey) gets the average of the statistics; more channels repeat the statistics in turn.
        """
        old = len(self.mean)
        if channels == old:
            return self
        if channels == 1:
            mean, std = (sum(self.mean) / old,), (sum(self.std) / old,)
            return replace(self, mean=mean, std=std, channels="L")
        turn = [i % old for i in range(channels)]
        order = "RGB" if old == 1 else self.channels
        return replace(
            self, mean=tuple(self.mean[i] for i in turn), std=tuple(self.std[i] for i in turn), channels=order
        )

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"mean has {len(self.mean)} and std has {len(self.std)} values; give one value of each per channel."
            )
        for name in ("mean", "std"):
            check_finite(name, getattr(self, name))
        greys = (*self.background, *([] if self.fill is None else [self.fill]))
        if len(self.background) not in (0, 3) or not all(0 <= grey <= 255 for grey in greys):
            raise ConfigError(
                f"background is {self.background} and fill is {self.fill}; the first must have no values or three, and "
                "all must be from 0 to 255."
            )
        if not 0 < self.crop_pct <= 1:
            raise ConfigError(f"crop_pct is {self.crop_pct}; accepted: numbers above 0 and at most 1.")
        if min(self.size) < 1 or min(self.std) <= 0:
            raise ConfigError(f"size is {self.size} and std is {self.std}; all of these must be positive.")
