"""Augment whole batches on the device, in JAX, by a random key. Boxes, masks and points move with the pixels.

Random resized crops as in Szegedy et al., 2015 (https://arxiv.org/abs/1409.4842); mixup, Zhang et al., 2017
(https://arxiv.org/abs/1710.09412); cutmix, Yun et al., 2019 (https://arxiv.org/abs/1905.04899); random erasing,
Zhong et al., 2017 (https://arxiv.org/abs/1708.04896).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from zoo.data.mixing import mix
from zoo.data.mosaic import mosaic
from zoo.data.operations import OPERATIONS, Chance, Colours, Crop, Draws, Erasing, Operation, composed
from zoo.errors import ConfigError
from zoo.numbers import check_finite
from zoo.targets.moves import MOVES, Moves, movers
from zoo.targets.moves import unmoved as unmoved
from zoo.targets.spatial.base import Geometry, Shown, source_pixels

Size = int | tuple[int, int]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Augment:
    """Settings of augmentation. An operation that is off costs nothing.

    `then` adds further operations: `Augment(hflip=False).then(MyOperation(0.5))`, see
    `zoo.data.operations.Operation`.

    Attributes:
        hflip: mirror half of the images.
        scale: smallest and largest area of a crop as a share of the image's; (1, 1) keeps the whole image. If the
            largest is above 1, crops may reach outside the image, and the share is drawn uniformly in its logarithm.
        ratio: smallest and largest aspect ratio (width / height) of a crop, relative to that of the image.
        color: brightness, contrast and saturation are multiplied by a factor between 1 - color and 1 + color.
            Saturation and hue only change in images with three channels.
        hue: largest hue rotation, as a share of the full circle.
        erasing: probability that a rectangle (2 % to 33 % of the area) is replaced by noise.
        mixup: concentration of the Beta distribution of the mixing weight, 0 for no mixup. With both mixup and cutmix,
            each image of a batch gets one or the other.
        cutmix: the same for cutmix.
        mosaic: probability that four images of the batch are combined; `scale` is then a share of the mosaic's area.
            Arrays of boxes get four times as many rows.
        min_visible: boxes of which a smaller share of the area remains in the crop become invalid.
        fill: grey value (0 to 255), or one for each channel, outside the image.
        mask_fill: value of masks outside the image.
    """

    hflip: bool = True
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    color: float = 0.2
    hue: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mosaic: float = 0.0
    min_visible: float = 0.0
    fill: int | tuple[int, ...] = 114
    mask_fill: int = 255

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a value out of range."""
        for name, value in vars(self).items():
            check_finite(name, value)
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(
                f"scale {self.scale} and ratio {self.ratio} must be positive, with the smaller number first."
            )
        if not (0 <= self.color <= 1 and 0 <= self.hue <= 0.5 and 0 <= self.erasing <= 1):
            raise ConfigError(
                f"color {self.color} and erasing {self.erasing} must be in [0, 1], hue {self.hue} in [0, 0.5]."
            )
        if min(self.mixup, self.cutmix) < 0:
            raise ConfigError(f"mixup {self.mixup} and cutmix {self.cutmix} must be 0 or positive.")
        if not (0 <= self.mosaic <= 1 and 0 <= self.min_visible <= 1):
            raise ConfigError(f"mosaic {self.mosaic} and min_visible {self.min_visible} must be in [0, 1].")
        levels = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        if not levels or not all(0 <= level <= 255 for level in levels):
            raise ConfigError(f"fill is {self.fill}; it must be between 0 and 255.")

    def then(self, *operations: Operation) -> Augment:
        """Return this augmentation followed by further operations, in the given order."""
        own = {field.name: getattr(self, field.name) for field in fields(Augment)}
        further = (*self.further, *operations)
        return Extended(
            **own, more=further, called=tuple(f"{type(op).__module__}.{type(op).__name__}" for op in further)
        )

    @property
    def further(self) -> tuple[Operation, ...]:
        """The operations that were added."""
        return ()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All operations, in the order in which they are applied."""
        erasing = (Erasing(self.erasing),) if self.erasing else ()
        return Crop(self.hflip, self.scale, self.ratio), Colours(self.color, self.hue), *erasing, *self.further

    @property
    def geometric(self) -> bool:
        """Whether objects may move in an augmented image."""
        return self.hflip or self.mosaic > 0 or {*self.scale, *self.ratio} != {1}

    @property
    def beyond(self) -> bool:
        """Whether a crop may reach outside the image, so that something must be filled in."""
        return self.scale[1] > 1

    @property
    def mixes(self) -> bool:
        """Whether images may be mixed, so that the loss must use `mix`."""
        return self.mixup > 0 or self.cutmix > 0


def named(text: str, own: Mapping[str, Any]) -> Augment | None:
    """Return the augmentation that a text describes, None for no augmentation.

    Args:
        text: `auto`, `none`, or one of them with operations by name (`auto+erasing`).
        own: fields of `Augment` that the task sets for `auto`.

    Raises:
        ConfigError: the first word is not `auto` or `none`.
        UnknownNameError: an operation is unknown.
    """
    first, *others = text.split("+")
    if first not in ("auto", "none"):
        raise ConfigError(
            f"augment is {text!r}; accepted: auto or none, perhaps followed by operations (auto+erasing), or a "
            "zoo.training.Augment."
        )
    operations = [OPERATIONS[name] for name in others]
    if first == "none" and not operations:
        return None
    nothing = {"hflip": False, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "color": 0.0}
    base = Augment(**(own if first == "auto" else nothing))
    return base.then(*operations) if operations else base


@dataclass(frozen=True)
class Extended(Augment):
    """An augmentation with further operations, created by `Augment.then`.

    It is a separate class, so that the representation of other augmentations has no additional fields. The
    representation is stored in run directories and is part of cache keys, which must stay valid.

    Attributes:
        more: the further operations.
        called: the names of their classes, which the representation needs to tell them apart.
    """

    more: tuple[Operation, ...] = ()
    called: tuple[str, ...] = ()

    @property
    def further(self) -> tuple[Operation, ...]:
        return self.more

    @property
    def geometric(self) -> bool:
        return super().geometric or any(operation.geometric for operation in self.more)

    @property
    def beyond(self) -> bool:
        return super().beyond or any(operation.beyond for operation in self.more)


def augment(config: Augment, key: jax.Array, batch: Mapping[str, Any], size: Size, moves: Moves = MOVES) -> Batch:
    """Return an augmented batch.

    Equal keys give equal batches. The result for an image depends only on the key and its row; with mosaic, mixup or
    cutmix also on its partners.

    Args:
        config: the augmentation.
        key: random key of this step.
        batch: `image` uint8 (b, H, W, c) in RGB order, and perhaps `boxes` (b, m, 4) as x1 y1 x2 y2 in pixels with
            `labels`, `box_valid` and `crowd` (b, m), and `mask` (b, H, W) of class or object numbers. Other arrays
            are passed on unchanged, unless they are in `moves`.
        size: of the result, in pixels: a side or (height, width).
        moves: which arrays move with the pixels: name -> nature, see `zoo.targets.natures`.

    Returns:
        `image` float32 (b, h, w, c) in [0, 1]; `boxes` in its pixels, clipped (all 0, and `box_valid` False, if too
        little is left); `mask` (b, h, w), resampled to the nearest value. With mosaic, m is four times as large. With
        mixup or cutmix also `mix`: (partner int32 (b,), weight float32 (b,)). The loss is then
        weight * loss(target) + (1 - weight) * loss(target[partner]).

    Raises:
        ConfigError: mixup or cutmix is used with boxes or masks, mosaic without them, or `fill` has another number of
            channels than the images.
    """
    augmented: Batch = _augment(config, key, dict(batch), size, tuple(moves.items()))
    return augmented


@partial(jax.jit, static_argnames=("config", "size", "moves"))
def _augment(config: Augment, key: jax.Array, batch: Batch, size: Size, moves: tuple[tuple[str, str], ...]) -> Batch:
    # The order is fixed: mosaic, one crop and resize for all geometric operations together, colours, mixup or cutmix.
    # Each step has its own key (`fold_in` with 0, 1, 2), so that switching one on does not change the others' draws.
    height, width = _pair(size)
    fill = _fill(config, batch["image"].shape[-1])
    full: Any = batch["image"].shape[1:3]
    if config.mosaic:
        batch, joined = mosaic(random.fold_in(key, 2), batch, config.mosaic, fill, config.mask_fill, dict(moves))
        # Images that did not become a mosaic fill just the upper left quarter, so crops must stay inside it.
        full = tuple(side * (1 + joined.astype(jnp.float32)) for side in full)
    image = batch["image"]
    keys, draws, geometry = _drawn(config, key, len(image), full, (height, width))
    out = dict(batch)
    one_image = partial(_one_image, config, (height, width), fill.astype(jnp.float32) / 255)
    in_axes = (0, 0, 0, 0, 0 if config.mosaic else None)
    out["image"] = jax.vmap(one_image, in_axes)(image, geometry, keys, draws, full)
    moved = _moved(config, batch, geometry, (height, width), moves)
    out |= moved
    if config.mixes:
        if moved:
            raise ConfigError(
                "mixup and cutmix cannot be used with targets that have positions, such as boxes or masks; set both to "
                "0."
            )
        out["image"], out["mix"] = mix(config.mixup, config.cutmix, random.fold_in(key, 1), out["image"])
    return out


def augment_each(config: Augment, keys: jax.Array, batch: Mapping[str, Any], size: Size, moves: Moves = MOVES) -> Batch:
    """Augment each image with its own key, `keys` (b,), so that the result does not depend on the rest of the batch.

    Otherwise the same as `augment`, without mosaic, mixup and cutmix, which need several images.
    """
    augmented: Batch = _augment_each(config, keys, dict(batch), size, tuple(moves.items()))
    return augmented


@partial(jax.jit, static_argnames=("config", "size", "moves"))
def _augment_each(
    config: Augment, keys: jax.Array, batch: Batch, size: Size, moves: tuple[tuple[str, str], ...]
) -> Batch:
    alone = replace(config, mosaic=0.0, mixup=0.0, cutmix=0.0)

    def one(key: jax.Array, row: Batch) -> Batch:
        out = _augment(alone, key, {name: value[None] for name, value in row.items()}, size, moves)
        return {name: value[0] for name, value in out.items()}

    augmented: Batch = jax.vmap(one)(keys, batch)
    return augmented


def move_each(
    config: Augment, keys: jax.Array, targets: Mapping[str, Any], size: Size, moves: Moves = MOVES
) -> dict[str, jax.Array]:
    """Return the targets that `augment_each` would return, without computing images.

    The images have `size` before and after the augmentation. Targets that do not move are left out.
    """
    height, width = _pair(size)
    alone = replace(config, mosaic=0.0, mixup=0.0, cutmix=0.0)

    def one(key: jax.Array, row: Batch) -> Batch:
        _, _, geometry = _drawn(alone, key, 1, (height, width), (height, width))
        rows = {name: value[None] for name, value in row.items()}
        moved = _moved(alone, rows, geometry, (height, width), tuple(moves.items()))
        return {name: value[0] for name, value in moved.items()}

    moved_targets: Batch = jax.vmap(one)(keys, dict(targets))
    return moved_targets


def _drawn(
    config: Augment, key: jax.Array, count: int, full: Any, size: tuple[int, int]
) -> tuple[jax.Array, Draws, Geometry]:
    """Return (keys, random numbers, crops) of `count` images of size `full`."""
    keys = jax.vmap(random.fold_in, (None, 0))(random.fold_in(key, 0), jnp.arange(count))
    draws = Draws(*jax.vmap(partial(random.uniform, shape=(len(Draws._fields),)))(keys).T)
    in_axes = (0, 0, 0 if config.mosaic else None)
    return keys, draws, jax.vmap(partial(_geometry, config, size), in_axes)(keys, draws, full)


def _moved(
    config: Augment, batch: Batch, at: Geometry, size: tuple[int, int], moves: tuple[tuple[str, str], ...]
) -> Batch:
    """Return the arrays of a batch that move, moved."""
    shown, moved = Shown(size, config.beyond, config.mask_fill, config.min_visible), Batch()
    for name, mover in movers(batch, dict(moves)):
        moved |= mover.moved(name, batch, at, shown)
    return moved


def identity(batch: Mapping[str, Any], size: Size, moves: Moves = MOVES) -> Batch:
    """Return the batch without augmentation: `image` float32 (b, h, w, c) in [0, 1], centre-cropped if it is larger.

    The arrays in `moves` move along.

    Raises:
        ConfigError: images are smaller than `size`.
    """
    height, width = _pair(size)
    image = batch["image"]
    if image.shape[1] < height or image.shape[2] < width:
        raise ConfigError(f"images of {image.shape[1]}x{image.shape[2]} pixels are smaller than {height}x{width}.")
    top, left = (round((full - part) / 2) for full, part in zip(image.shape[1:3], (height, width), strict=True))
    out = {**batch, "image": image[:, top : top + height, left : left + width].astype(jnp.float32) / 255}
    for name, mover in movers(batch, moves):
        out |= mover.cropped(name, batch, top, left, (height, width))
    return out


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _fill(config: Augment, channels: int) -> jax.Array:
    """Return the colour outside the image, uint8 (c,)."""
    levels = config.fill if isinstance(config.fill, tuple) else (config.fill,) * channels
    if len(levels) != channels:
        raise ConfigError(f"fill {config.fill} has {len(levels)} channels, but the images have {channels}.")
    return jnp.array(levels, jnp.uint8)


def _chances(config: Augment, key: jax.Array, draws: Draws) -> Iterator[tuple[Operation, Chance]]:
    """Yield each operation with its source of randomness.

    Zoo's own operations share a key and the draws. Further operations have a key each, so that adding one does not
    change the results of those before it.
    """
    own_count = len(config.operations) - len(config.further)
    for number, operation in enumerate(config.operations):
        yield operation, Chance(key if number < own_count else random.fold_in(key, 2 + number - own_count), draws)


def _geometry(config: Augment, size: tuple[int, int], key: jax.Array, draws: Draws, full: Any) -> Geometry:
    """Return the crop of an image of size `full` by all operations together.

    The first geometry maps the image to the result's `size`; all later ones map `size` to `size`.
    """
    at: Geometry | None = None
    for operation, chance in _chances(config, key, draws):
        then = operation.geometry(chance, full if at is None else size)
        if then is not None:
            at = then if at is None else composed(at, then, size)
    assert at is not None, "Crop always returns a geometry"
    return at


def _one_image(
    config: Augment,
    size: tuple[int, int],
    fill: jax.Array,
    image: jax.Array,
    at: Geometry,
    key: jax.Array,
    draws: Draws,
    full: Any,
) -> jax.Array:
    def coloured(pixels: jax.Array, covers: bool) -> jax.Array:
        for operation, chance in _chances(config, key, draws):
            pixels = operation.colour(chance, pixels) if operation.covers == covers else pixels
        return pixels

    pixels = _resample(image.astype(jnp.float32) / 255, at, size)
    if not config.beyond:
        return coloured(coloured(pixels, False), True)
    y, x = source_pixels(size, at)
    inside = ((y >= 0) & (y < full[0]))[:, None, None] & ((x >= 0) & (x < full[1]))[None, :, None]
    fill = fill.reshape(1, 1, -1)
    # Fill twice: before the colour operations, so that contrast uses a defined mean and not pixels repeated beyond the
    # border; and after them, so that the filled area keeps its colour. Erasing covers the filled area as well.
    filled = jnp.where(inside, coloured(jnp.where(inside, pixels, fill), False), fill)
    return coloured(filled, True)


def _resample(image: jax.Array, at: Geometry, size: tuple[int, int]) -> jax.Array:
    """Crop and resize, (H, W, c) -> (h, w, c), with an antialiased linear kernel, as two matrix products."""
    scale = jnp.array(size, jnp.float32) / jnp.stack([at.height, at.width])
    shift = -jnp.stack([at.top, at.left]) * scale
    shape = (*size, image.shape[-1])
    pixels = jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, method="linear", antialias=True)
    return jnp.where(at.flip, pixels[:, ::-1], pixels)
