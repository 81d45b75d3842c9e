"""AdaIN (arXiv:1703.06868): content features take on the style's statistics, and a decoder paints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from zoo.adapters.style import checkpoints, losses, tiles
from zoo.adapters.style.joined import JoinedDecoder
from zoo.adapters.style.method import Method, Painting
from zoo.adapters.style.nets import Decoder
from zoo.adapters.style.pictures import as_input, framed, unit
from zoo.adapters.style.stages import maps, style_stages
from zoo.models.backbone import PIXELS
from zoo.models.task.forward import ForwardPass
from zoo.registry.spec import BackboneSpec

if TYPE_CHECKING:
    from zoo.adapters.style import Style
    from zoo.models.model import Model

DEEPEST = 8
"""Largest stride that a style is read from: relu4_1 of a VGG."""
WEIGHTS = {"content": 1.0, "style": 4.0, "tv": 5.0}
"""Of shares (`losses.energy`); arXiv:1703.06868, section 6.1, weighs absolute losses."""
RECIPE = {"plan": "head", "epochs": 40, "steps": 180, "batch_size": 4, "lr": 2e-3, "weight_decay": 0.0}
"""What it trains by where a user does not say; so many steps gave the pictures of docs/style.png."""
FULL_WIDTH = 16
WIDEST = 8
"""Times the decoder's width at the picture's own size that it has at most, at the deeper ones."""
BLOCKS = 2
FRAME = 16
"""Pixels beyond the picture on each side that are painted too, and cut off."""

Maps = Mapping[str, Array]
Statistics = tuple[Array, Array]


class Painter(nnx.Module):
    """The head: a decoder from the tapped maps, or from the deepest of them, once they have the style's statistics."""

    def __init__(self, taps: Sequence[str], decoder: Decoder | JoinedDecoder, normalized: bool) -> None:
        self.taps, self.normalized = tuple(taps), normalized
        self.decoder = decoder

    @property
    def painted(self) -> tuple[str, ...]:
        """The maps that the decoder reads, from the deepest."""
        return self.taps[:0:-1] if isinstance(self.decoder, JoinedDecoder) else self.taps[-1:]

    def reduce(self, features: Maps) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def paint(self, maps: Maps, energies: Maps, features: Maps) -> Array:
        """A picture in [0, 1], (b, h, w, 3), from `maps` with new statistics, whose mean squares are `energies`: what
        they are by the style, not by what a part of a picture shows, so that parts of a picture match."""
        sizes = [(features[name].shape[1], features[name].shape[2]) for name in reversed(self.taps[:-1])]
        scaled = []
        for name in self.painted:
            wide = maps[name].astype(jnp.float32)
            wide = wide * lax.rsqrt(energies[name] + losses.EPS) if self.normalized else wide
            scaled.append(wide.astype(features[name].dtype))
        if isinstance(self.decoder, JoinedDecoder):
            return self.decoder(scaled, sizes)
        return self.decoder(scaled[0], sizes)

    def __call__(self, features: Maps) -> Array:
        own = {name: losses.statistics(features[name]) for name in self.painted}
        return self.paint(features, {name: _energy(one) for name, one in own.items()}, features)


def _energy(statistics: Statistics) -> Array:
    """Mean square of a map with these statistics, (n, 1, 1, 1)."""
    return jnp.mean(jnp.square(statistics[0]) + jnp.square(statistics[1]), axis=-1, keepdims=True)


def taps(options: Style, spec: BackboneSpec) -> tuple[str, ...]:
    return (PIXELS, *options.style_stages(spec))


def levels(options: Style, spec: BackboneSpec) -> list[list[int]]:
    """Input channels of the decoder's convolutions by level, from the deepest: the encoder's stages up to the deepest
    tap in reverse. A level of fewer than two convolutions gets a second one, and a level at the picture's own size,
    with half the channels, is added where the encoder has none."""
    deepest = options.style_stages(spec)[-1]
    encoder = []
    for stage in maps(spec):
        encoder.append(stage)
        if stage.name == deepest:
            break
    strides = sorted({stage.stride for stage in encoder}, reverse=True)
    found = [[s.channels for s in reversed(encoder) if s.stride == stride] for stride in strides]
    found = [found[0], *(level if len(level) > 1 else level * 2 for level in found[1:])]
    if strides[-1] > 1:
        found.append([max(found[-1][-1] // 2, 16)] * 2)
    share = options.width or FULL_WIDTH
    narrow = [[max(width * share // FULL_WIDTH, 8) for width in level] for level in found]
    narrow[0][0] = encoder[-1].channels
    return narrow


def build(options: Style, spec: BackboneSpec, *, rngs: nnx.Rngs) -> nnx.Module:
    read = taps(options, spec)
    if not options.joined:
        return Painter(read, Decoder(levels(options, spec), rngs=rngs), options.normalized)
    stages = [spec.stage(name) for name in reversed(read[1:])]
    width = options.width or FULL_WIDTH
    widths = [width * min(stage.stride, WIDEST) for stage in stages]
    widths += [width] if stages[-1].stride > 1 else []
    return Painter(read, JoinedDecoder([s.channels for s in stages], widths, BLOCKS, rngs=rngs), options.normalized)


def loss(options: Style, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
    """arXiv:1703.06868, eq. 11 to 13. Half of the style loss is that of Gram matrices (arXiv:1603.08155), which tell of
    strokes what statistics do not. Styles move on by one row, so that photos meet others' in every epoch."""
    model, reduced = forward.model, forward.reduced
    names = options.style_stages(model.spec)
    encode = partial(model.features, at=names)
    styles = encode(as_input(model, unit(jnp.roll(batch["style"], 1, axis=0))))
    targets = {name: losses.statistics(styles[name]) for name in names}
    wanted = {name: losses.adain(reduced[name], targets[name]) for name in names}
    head: Any = model.head
    energies = {name: _energy(targets[name]) for name in names}
    picture = head.paint(wanted, energies, reduced).astype(jnp.float32)
    found = encode(as_input(model, picture))
    style = jnp.zeros(picture.shape[0])
    for name in names:
        gram = losses.gram(styles[name])
        style = style + losses.statistics_loss(found[name], targets[name]) / losses.energy(*targets[name])
        style = style + losses.squared_error(losses.gram(found[name]), gram) / losses.energy(gram)
    deepest = names[-1]
    return {
        "content_loss": losses.squared_error(found[deepest], wanted[deepest]) / losses.energy(wanted[deepest]),
        "style_loss": style / (2 * len(names)),
        "tv_loss": losses.total_variation(picture),
    }


# Painting ------------------------------------------------------------------------------------------------------


def transferred(
    x: Array, own: Statistics, styles: Statistics, shares: Array, strength: Array | float = 1.0
) -> tuple[Array, Array]:
    """A map (1, h, w, c) with the styles' statistics, and its mean square by these, (1, h, w, 1).

    Args:
        own: statistics of the whole picture's map. styles: of each style's, (n, 1, 1, c).
        shares: how much of each style there is at each place, (n, h, w, 1); the rest stays as it is.
    """
    wide, rest = x.astype(jnp.float32), 1 - jnp.sum(shares, axis=0, keepdims=True)

    def mixed(each: Array, before: Array) -> Array:
        after = jnp.sum(each * shares, axis=0, keepdims=True) + before * rest
        return strength * after + (1 - strength) * before

    return mixed(losses.adain(wide, styles, own), wide), mixed(_energy(styles), _energy(own))


@partial(jax.jit, static_argnums=0)
def _statistics(graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array) -> dict[str, Statistics]:
    model = nnx.merge(graphdef, state)
    head: Any = model.head
    found = model.features(as_input(model, pixels), head.painted)
    return {name: losses.statistics(found[name]) for name in head.painted}


@partial(jax.jit, static_argnums=0)
def _paint(
    graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array, own: Mapping[str, Statistics],
    styles: Mapping[str, Statistics], shares: Array, strength: Array,
) -> Array:  # fmt: skip
    """`shares` (n, h, w, 1) is how much of each style there is at each pixel."""
    model = nnx.merge(graphdef, state)
    head: Any = model.head
    features = head.reduce(model.features(as_input(model, pixels), head.taps))
    maps, energies = {}, {}
    for name in head.painted:
        size = features[name].shape[1:3]
        places = jax.image.resize(shares, (shares.shape[0], *size, 1), "linear", antialias=True)
        maps[name], energies[name] = transferred(features[name], own[name], styles[name], places, strength)
    return head.paint(maps, energies, features).astype(jnp.float32)


def paint(options: Style, model: Model, painting: Painting) -> np.ndarray:
    """Return the picture, (h, w, 3)."""
    shares, tile, strength = painting.places, painting.tile, painting.strength
    graphdef, state = nnx.split(model)
    each = [_statistics(graphdef, state, style[None]) for style in painting.styles]
    target = jax.tree.map(lambda *parts: jnp.concatenate(parts), *each)
    canvas, tile = framed(painting.content, FRAME), tile and tile + 2 * FRAME
    # Of a large picture the statistics are those of it reduced: a tile has none of its own.
    whole = _statistics(graphdef, state, tiles.reduced(canvas, tile)[None])
    height, width = tiles.grown((canvas.shape[0], canvas.shape[1]), tile)
    beyond = ((0, 0), (FRAME, height - shares.shape[1] - FRAME), (FRAME, width - shares.shape[2] - FRAME))
    places = np.pad(shares.astype(np.float32), beyond, mode="symmetric")[..., None]

    def one(part: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        mine = places[:, window[0], window[1]]
        return np.asarray(_paint(graphdef, state, part[None], whole, target, mine, np.float32(strength)))[0]

    return tiles.painted(canvas, one, tile)[FRAME:-FRAME, FRAME:-FRAME]


METHOD = Method(
    taps,
    build,
    paint,
    content=lambda spec: style_stages(spec, DEEPEST)[-1],
    deepest=DEEPEST,
    weights=WEIGHTS,
    loss=loss,
    recipe=RECIPE,
    read=checkpoints.read_decoder,
    layouts="a Sequential decoder (1.weight, 5.weight, ...)",
)
"""The row of this method."""
