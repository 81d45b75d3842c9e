"""AdaIN (arXiv:1703.06868): content features get the statistics of the style, and a decoder makes an image of them."""

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
    from jaxtyping import Float

    from zoo.adapters.style import Style
    from zoo.models.model import Model

DEEPEST = 8
"""Largest stride of the style stages, that of relu4_1 in VGG."""
WEIGHTS = {"content": 1.0, "style": 4.0, "tv": 5.0}
"""Default loss weights. They apply to relative errors (`losses.energy`), the weights of the paper to absolute ones."""
RECIPE = {"plan": "head", "epochs": 40, "steps": 180, "batch_size": 4, "lr": 2e-3, "weight_decay": 0.0}
"""Training defaults. The images of docs/style.png were painted after as many steps."""
FULL_WIDTH = 16
"""Default channels of the decoder at the image's own size."""
WIDEST = 8
"""Largest ratio of the decoder's channels at deeper levels to those at the image's own size."""
BLOCKS = 2
"""Residual blocks of the joined decoder."""
FRAME = 16
"""Pixels of mirrored border on each side, which are painted, too, and cut off."""

Maps = Mapping[str, Array]
"""Maps by stage, each (b, h, w, c)."""
Statistics = tuple[Array, Array]
"""Mean and standard deviation of the channels of a map, each (b, 1, 1, c)."""


class Painter(nnx.Module):
    """The head: a decoder from the tapped maps, or from the deepest of them, after AdaIN.

    Args:
        taps: the pixels and the stages that are read, from the shallowest.
        decoder: the decoder.
        normalized: whether maps are scaled to a mean square of 1 before they are decoded.
    """

    def __init__(self, taps: Sequence[str], decoder: Decoder | JoinedDecoder, normalized: bool) -> None:
        self.taps, self.normalized = tuple(taps), normalized
        self.decoder = decoder

    @property
    def painted(self) -> tuple[str, ...]:
        """Names of the stages that the decoder reads, from the deepest."""
        return self.taps[:0:-1] if isinstance(self.decoder, JoinedDecoder) else self.taps[-1:]

    def reduce(self, features: Maps) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def paint(self, maps: Maps, energies: Maps, features: Maps) -> Float[Array, "b h w 3"]:
        """Decode maps to an image in [0, 1].

        Args:
            maps: maps after AdaIN, by stage.
            energies: their mean squares. They follow from the statistics of the style, not from the maps: those of a
                tile would differ from tile to tile, and leave seams.
            features: the tapped features, for sizes and dtypes.
        """
        sizes = [(features[name].shape[1], features[name].shape[2]) for name in reversed(self.taps[:-1])]
        scaled = []
        for name in self.painted:
            wide = maps[name].astype(jnp.float32)
            wide = wide * lax.rsqrt(energies[name] + losses.EPS) if self.normalized else wide
            scaled.append(wide.astype(features[name].dtype))
        if isinstance(self.decoder, JoinedDecoder):
            return self.decoder(scaled, sizes)
        return self.decoder(scaled[0], sizes)

    def __call__(self, features: Maps) -> Float[Array, "b h w 3"]:
        own = {name: losses.statistics(features[name]) for name in self.painted}
        return self.paint(features, {name: _energy(one) for name, one in own.items()}, features)


def _energy(statistics: Statistics) -> Float[Array, "n 1 1 1"]:
    """Return the mean square of a map with these statistics."""
    # E[x^2] = mean^2 + variance for each channel, averaged over channels.
    return jnp.mean(jnp.square(statistics[0]) + jnp.square(statistics[1]), axis=-1, keepdims=True)


def taps(options: Style, spec: BackboneSpec) -> tuple[str, ...]:
    return (PIXELS, *options.style_stages(spec))


def levels(options: Style, spec: BackboneSpec) -> list[list[int]]:
    """Return the input channels of the decoder's convolutions by level, from the deepest.

    They are those of the encoder's stages up to the deepest tap, in reverse. Levels with a single convolution, except
    the deepest, get a second one. If the encoder has no level at the image's own size, one with half the channels is
    added.
    """
    deepest = options.style_stages(spec)[-1]
    encoder = []
    for stage in maps(spec):
        encoder.append(stage)
        if stage.name == deepest:
            break
    strides = sorted({stage.stride for stage in encoder}, reverse=True)
    mirrored = [[s.channels for s in reversed(encoder) if s.stride == stride] for stride in strides]
    mirrored = [mirrored[0], *(level if len(level) > 1 else level * 2 for level in mirrored[1:])]
    if strides[-1] > 1:
        mirrored.append([max(mirrored[-1][-1] // 2, 16)] * 2)
    share = options.width or FULL_WIDTH
    narrow = [[max(width * share // FULL_WIDTH, 8) for width in level] for level in mirrored]
    narrow[0][0] = encoder[-1].channels
    return narrow


def build(options: Style, spec: BackboneSpec, *, rngs: nnx.Rngs) -> nnx.Module:
    names = taps(options, spec)
    if not options.joined:
        return Painter(names, Decoder(levels(options, spec), rngs=rngs), options.normalized)
    stages = [spec.stage(name) for name in reversed(names[1:])]
    width = options.width or FULL_WIDTH
    widths = [width * min(stage.stride, WIDEST) for stage in stages]
    widths += [width] if stages[-1].stride > 1 else []
    return Painter(names, JoinedDecoder([s.channels for s in stages], widths, BLOCKS, rngs=rngs), options.normalized)


def loss(options: Style, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Float[Array, " b"]]:
    """Return the losses of the painted images (arXiv:1703.06868, eq. 11 to 13).

    Half of the style loss compares channel statistics, and half Gram matrices (arXiv:1603.08155), which also describe
    brush strokes.
    """
    model, reduced = forward.model, forward.reduced
    names = options.style_stages(model.spec)
    encode = partial(model.features, at=names)
    # Every image has a fixed style of its own. Shuffled batches and a shift by one row pair it with other images' in
    # every epoch.
    styles = encode(as_input(model, unit(jnp.roll(batch["style"], 1, axis=0))))
    targets = {name: losses.statistics(styles[name]) for name in names}
    transferred = {name: losses.adain(reduced[name], targets[name]) for name in names}
    head: Any = model.head
    energies = {name: _energy(targets[name]) for name in names}
    painted = head.paint(transferred, energies, reduced).astype(jnp.float32)
    features = encode(as_input(model, painted))
    style = jnp.zeros(painted.shape[0])
    for name in names:
        gram = losses.gram(styles[name])
        style = style + losses.statistics_loss(features[name], targets[name]) / losses.energy(*targets[name])
        style = style + losses.squared_error(losses.gram(features[name]), gram) / losses.energy(gram)
    deepest = names[-1]
    # The content target is the map after AdaIN (`t` in the paper), not that of the content image.
    content = losses.squared_error(features[deepest], transferred[deepest]) / losses.energy(transferred[deepest])
    return {
        "content_loss": content,
        "style_loss": style / (2 * len(names)),
        "tv_loss": losses.total_variation(painted),
    }


# Painting ------------------------------------------------------------------------------------------------------


def transferred(
    x: Float[Array, "1 h w c"],
    own: Statistics,
    styles: Statistics,
    shares: Float[Array, "n h w 1"],
    strength: Array | float = 1.0,
) -> tuple[Float[Array, "1 h w c"], Float[Array, "1 h w 1"]]:
    """Return a map with the statistics of styles, and its mean square according to them.

    Args:
        x: a map of the content, which may be a tile.
        own: statistics of the map of the whole content image.
        styles: statistics of the n styles, each (n, 1, 1, c).
        shares: share of each style at each position; the rest is the content's.
        strength: from 0 for the content to 1.
    """
    # Styles are mixed after AdaIN: position by position, a weighted mean of the maps that each style would give
    # (arXiv:1703.06868, section 7.3). The same weights apply to the mean squares.
    wide, rest = x.astype(jnp.float32), 1 - jnp.sum(shares, axis=0, keepdims=True)

    def mixed(each: Array, before: Array) -> Array:
        after = jnp.sum(each * shares, axis=0, keepdims=True) + before * rest
        return strength * after + (1 - strength) * before

    return mixed(losses.adain(wide, styles, own), wide), mixed(_energy(styles), _energy(own))


@partial(jax.jit, static_argnums=0)
def _statistics(graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array) -> dict[str, Statistics]:
    model = nnx.merge(graphdef, state)
    head: Any = model.head
    features = model.features(as_input(model, pixels), head.painted)
    return {name: losses.statistics(features[name]) for name in head.painted}


@partial(jax.jit, static_argnums=0)
def _paint(
    graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array, own: Mapping[str, Statistics],
    styles: Mapping[str, Statistics], shares: Array, strength: Array,
) -> Array:  # fmt: skip
    """Paint an image or a tile, (1, h, w, 3), with a share of each style at each pixel, (n, h, w, 1)."""
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
    """Return the painted image, (h, w, 3)."""
    shares, tile, strength = painting.places, painting.tile, painting.strength
    graphdef, state = nnx.split(model)
    each = [_statistics(graphdef, state, style[None]) for style in painting.styles]
    target = jax.tree.map(lambda *rows: jnp.concatenate(rows), *each)
    canvas, tile = framed(painting.content, FRAME), tile and tile + 2 * FRAME
    # All tiles are standardised with the statistics of the reduced whole image. With their own, a tile of sky and a
    # tile of grass would come out with the same contrast, and seams would show.
    whole = _statistics(graphdef, state, tiles.reduced(canvas, tile)[None])
    height, width = tiles.grown((canvas.shape[0], canvas.shape[1]), tile)
    beyond = ((0, 0), (FRAME, height - shares.shape[1] - FRAME), (FRAME, width - shares.shape[2] - FRAME))
    places = np.pad(shares.astype(np.float32), beyond, mode="symmetric")[..., None]

    def one(pixels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        covered = places[:, window[0], window[1]]
        return np.asarray(_paint(graphdef, state, pixels[None], whole, target, covered, np.float32(strength)))[0]

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
"""The table row of this method."""
