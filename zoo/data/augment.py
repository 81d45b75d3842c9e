"""Augmentation on the device: whole batches, in JAX, decided by a key. Boxes, masks and points move with the pixels.

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

from zoo.data.mosaic import mosaic
from zoo.data.operations import OPERATIONS, Chance, Colours, Crop, Draws, Erasing, Operation, composed, rectangle
from zoo.errors import ConfigError
from zoo.numbers import check_finite
from zoo.targets.moves import MOVES, Moves, movers
from zoo.targets.moves import unmoved as unmoved
from zoo.targets.spatial.base import Geometry, Shown, source_pixels

Size = int | tuple[int, int]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Augment:
    """What may happen to an image. Everything that is off costs nothing. `then` adds operations of your own:
    `Augment(hflip=False).then(MyOperation(0.5))`, see `zoo.data.operations.Operation`.

    Attributes:
        hflip: mirror half of the images.
        scale: smallest and largest share of the image's area that a crop takes; (1, 1) keeps all of it. Above 1 the
            image is smaller than the frame, and the share is drawn uniformly in its logarithm.
        ratio: smallest and largest width / height of a crop, relative to the image's own.
        color: brightness, contrast and saturation are multiplied by 1 - color to 1 + color. Saturation (and hue)
            only where there are three channels.
        hue: largest turn of the colours, as a share of the full circle.
        erasing: probability that a rectangle (2 % to 33 % of the area) is replaced by noise.
        mixup, cutmix: concentration of the Beta distribution that the mixing weight is drawn from, 0 for none. With
            both, each image of a batch gets one or the other.
        mosaic: probability that four images of the batch are put together, of which `scale` is then the share. There
            are four times as many rows for boxes.
        min_visible: boxes of which a smaller share of the area is left in the crop are no longer valid.
        fill: grey value (0 to 255), or one for each channel, beside images smaller than the frame.
        mask_fill: the same for masks.
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
        """Raise `ConfigError` for a value out of its range."""
        for name, value in vars(self).items():
            check_finite(name, value)
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"scale {self.scale} and ratio {self.ratio} must be positive and rise.")
        if not (0 <= self.color <= 1 and 0 <= self.hue <= 0.5 and 0 <= self.erasing <= 1):
            raise ConfigError(
                f"color {self.color} and erasing {self.erasing} must lie in [0, 1], hue {self.hue} in [0, 0.5]."
            )
        if min(self.mixup, self.cutmix) < 0:
            raise ConfigError(f"mixup {self.mixup} and cutmix {self.cutmix} must be 0 or positive.")
        if not (0 <= self.mosaic <= 1 and 0 <= self.min_visible <= 1):
            raise ConfigError(f"mosaic {self.mosaic} and min_visible {self.min_visible} must lie in [0, 1].")
        levels = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        if not levels or not all(0 <= level <= 255 for level in levels):
            raise ConfigError(f"fill is {self.fill}; it must lie in 0 to 255.")

    def then(self, *operations: Operation) -> Augment:
        """Return this augmentation, followed by further operations in this order."""
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
        """What happens to each image, in this order."""
        erasing = (Erasing(self.erasing),) if self.erasing else ()
        return Crop(self.hflip, self.scale, self.ratio), Colours(self.color, self.hue), *erasing, *self.further

    @property
    def geometric(self) -> bool:
        """Whether things may be elsewhere in an augmented image."""
        return self.hflip or self.mosaic > 0 or {*self.scale, *self.ratio} != {1}

    @property
    def beyond(self) -> bool:
        """Whether an image may be smaller than the frame, so that something is filled in beside it."""
        return self.scale[1] > 1

    @property
    def mixes(self) -> bool:
        """Whether an augmented image may be made of two, so that the loss must know of `mix`."""
        return self.mixup > 0 or self.cutmix > 0


def named(text: str, own: Mapping[str, Any]) -> Augment | None:
    """The augmentation that `auto`, `none`, or one of them with operations by name (`auto+erasing`) means.

    Args:
        own: fields of `Augment` that the task wants for `auto`.
    Raises:
        ConfigError: for another first word. UnknownNameError: for an operation that nothing is called by.
    """
    first, *others = text.split("+")
    if first not in ("auto", "none"):
        raise ConfigError(
            f"augment is {text!r}; accepted: auto, none, either with operations by name (auto+erasing), or a "
            "zoo.training.Augment."
        )
    operations = [OPERATIONS[name] for name in others]
    if first == "none" and not operations:
        return None
    nothing = {"hflip": False, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "color": 0.0}
    found = Augment(**(own if first == "auto" else nothing))
    return found.then(*operations) if operations else found


@dataclass(frozen=True)
class Extended(Augment):
    """An augmentation with further operations, made by `Augment.then`. It is a class of its own, so that descriptions
    of others stay as they are (in run folders, in keys of caches).

    Attributes:
        more: the operations. called: the names of their classes, which such descriptions need to tell them apart.
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
    """An augmented batch. Equal keys give equal batches; an image's result depends on the key and its row alone, and
    in a mosaic or mixture on its partners.

    Args:
        config: what may happen.
        key: of this step.
        batch: `image` uint8 (b, H, W, c) in RGB order, and perhaps `boxes` (b, m, 4) as x1 y1 x2 y2 in pixels with
            `labels`, `box_valid` and `crowd` (b, m), and `mask` (b, H, W) of class or instance numbers. Other entries
            are passed on, unless they are in `moves`.
        size: of the result, in pixels: a side or (height, width).
        moves: which arrays move with the pixels: name -> nature, see `zoo.targets.natures`.

    Returns:
        `image` float32 (b, h, w, c) in [0, 1], `boxes` in pixels of it, clipped (all 0, and `box_valid` False, where
        too little is left), `mask` (b, h, w), resampled to the nearest. With mosaic, m is four times as large. With
        mixup or cutmix also `mix`: (partner int32 (b,), weight float32 (b,)); the loss is
        weight * loss(target) + (1 - weight) * loss(target[partner]).

    Raises:
        ConfigError: mixup or cutmix with boxes or masks, whose targets cannot be mixed; a mosaic without them; or a
            `fill` for another number of channels.
    """
    found: Batch = _augment(config, key, dict(batch), size, tuple(moves.items()))
    return found


@partial(jax.jit, static_argnames=("config", "size", "moves"))
def _augment(config: Augment, key: jax.Array, batch: Batch, size: Size, moves: tuple[tuple[str, str], ...]) -> Batch:
    height, width = _pair(size)
    fill = _fill(config, batch["image"].shape[-1])
    full: Any = batch["image"].shape[1:3]
    if config.mosaic:
        batch, joined = mosaic(random.fold_in(key, 2), batch, config.mosaic, fill, config.mask_fill, dict(moves))
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
                "mixup and cutmix cannot be used with targets that have a place, such as boxes or masks; set both to 0."
            )
        out["image"], out["mix"] = _mix(config, random.fold_in(key, 1), out["image"])
    return out


def augment_each(config: Augment, keys: jax.Array, batch: Mapping[str, Any], size: Size, moves: Moves = MOVES) -> Batch:
    """As `augment`, but each image (and its boxes and mask) by a key of its own, whatever batch it is in: `keys` (b,).
    What needs partners, mosaics and mixtures, is left out."""
    found: Batch = _augment_each(config, keys, dict(batch), size, tuple(moves.items()))
    return found


@partial(jax.jit, static_argnames=("config", "size", "moves"))
def _augment_each(
    config: Augment, keys: jax.Array, batch: Batch, size: Size, moves: tuple[tuple[str, str], ...]
) -> Batch:
    alone = replace(config, mosaic=0.0, mixup=0.0, cutmix=0.0)

    def one(key: jax.Array, row: Batch) -> Batch:
        out = _augment(alone, key, {name: value[None] for name, value in row.items()}, size, moves)
        return {name: value[0] for name, value in out.items()}

    found: Batch = jax.vmap(one)(keys, batch)
    return found


def move_each(
    config: Augment, keys: jax.Array, targets: Mapping[str, Any], size: Size, moves: Moves = MOVES
) -> dict[str, jax.Array]:
    """What `augment_each` makes of targets that move with images of `size`, which are shown in a frame of this size as
    well; without the images. Other targets are left out."""
    height, width = _pair(size)
    alone = replace(config, mosaic=0.0, mixup=0.0, cutmix=0.0)

    def one(key: jax.Array, row: Batch) -> Batch:
        _, _, geometry = _drawn(alone, key, 1, (height, width), (height, width))
        rows = {name: value[None] for name, value in row.items()}
        moved = _moved(alone, rows, geometry, (height, width), tuple(moves.items()))
        return {name: value[0] for name, value in moved.items()}

    found: Batch = jax.vmap(one)(keys, dict(targets))
    return found


def _drawn(
    config: Augment, key: jax.Array, count: int, full: Any, size: tuple[int, int]
) -> tuple[jax.Array, Draws, Geometry]:
    """(keys, random numbers, which part is seen) of each of `count` images of size `full`."""
    keys = jax.vmap(random.fold_in, (None, 0))(random.fold_in(key, 0), jnp.arange(count))
    draws = Draws(*jax.vmap(partial(random.uniform, shape=(len(Draws._fields),)))(keys).T)
    in_axes = (0, 0, 0 if config.mosaic else None)
    return keys, draws, jax.vmap(partial(_geometry, config, size), in_axes)(keys, draws, full)


def _moved(
    config: Augment, batch: Batch, at: Geometry, size: tuple[int, int], moves: tuple[tuple[str, str], ...]
) -> Batch:
    """The arrays of a batch that move."""
    shown, found = Shown(size, config.beyond, config.mask_fill, config.min_visible), Batch()
    for name, mover in movers(batch, dict(moves)):
        found |= mover.moved(name, batch, at, shown)
    return found


def identity(batch: Mapping[str, Any], size: Size, moves: Moves = MOVES) -> Batch:
    """The batch without augmentation: `image` float32 (b, h, w, c) in [0, 1], cut to its centre where it is larger.

    What `moves` names moves along. Raises `ConfigError` for images smaller than `size`.
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
    """The colour beside images, uint8 (c,)."""
    levels = config.fill if isinstance(config.fill, tuple) else (config.fill,) * channels
    if len(levels) != channels:
        raise ConfigError(f"fill {config.fill} is for {len(levels)} channels; the images have {channels}.")
    return jnp.array(levels, jnp.uint8)


def _chances(config: Augment, key: jax.Array, draws: Draws) -> Iterator[tuple[Operation, Chance]]:
    """Each operation with what it decides by. Zoo's own share a key and the draws; others have a key each, so that they
    change nothing of what comes before them."""
    own = len(config.operations) - len(config.further)
    for number, operation in enumerate(config.operations):
        yield operation, Chance(key if number < own else random.fold_in(key, 2 + number - own), draws)


def _geometry(config: Augment, size: tuple[int, int], key: jax.Array, draws: Draws, full: Any) -> Geometry:
    """Which part is seen of an image of size `full`, after all operations."""
    at: Geometry | None = None
    for operation, chance in _chances(config, key, draws):
        found = operation.geometry(chance, full if at is None else size)
        if found is not None:
            at = found if at is None else composed(at, found, size)
    assert at is not None, "the crop gives one"
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
    # Filled twice: contrast goes by the mean of what is seen, and what was filled keeps its colour.
    filled = jnp.where(inside, coloured(jnp.where(inside, pixels, fill), False), fill)
    return coloured(filled, True)


def _resample(image: jax.Array, at: Geometry, size: tuple[int, int]) -> jax.Array:
    """The seen part at another size, (H, W, c) -> (h, w, c): antialiased linear kernel, as two matrix products."""
    scale = jnp.array(size, jnp.float32) / jnp.stack([at.height, at.width])
    shift = -jnp.stack([at.top, at.left]) * scale
    shape = (*size, image.shape[-1])
    pixels = jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, method="linear", antialias=True)
    return jnp.where(at.flip, pixels[:, ::-1], pixels)


def _beta(key: jax.Array, concentration: float, count: int) -> jax.Array:
    """`count` draws from Beta(a, a), as a ratio of two gammas drawn in one call: it compiles in half the time."""
    own, other = random.loggamma(key, concentration, (2, count))
    return jax.nn.sigmoid(own - other)


def _mix(config: Augment, key: jax.Array, image: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Each image mixed with another of the batch: the images (b, h, w, c), and (partner, weight of its own part)."""
    partner_key, choice_key, mixup_key, cutmix_key, place_key = random.split(key, 5)
    b, height, width, _ = image.shape
    partner = random.permutation(partner_key, b).astype(jnp.int32)
    other = image[partner]
    blend = _beta(mixup_key, config.mixup, b) if config.mixup else jnp.ones(b)
    weight, keep = blend, blend[:, None, None, None]
    if config.cutmix:
        side = jnp.sqrt(1 - _beta(cutmix_key, config.cutmix, b))
        place = random.uniform(place_key, (2, b))
        inside = jax.vmap(partial(rectangle, (height, width)))(side * height, side * width, *place)
        cut = random.bernoulli(choice_key, 0.5 if config.mixup else 1.0, (b,))
        outside = 1 - inside.astype(jnp.float32)
        keep = jnp.where(cut[:, None, None, None], outside[..., None], keep)
        # The share of pixels really kept, rather than the number drawn: a rectangle has whole pixels.
        weight = jnp.where(cut, outside.mean((1, 2)), blend)
    return keep * image + (1 - keep) * other, (partner, weight)
