"""AdaIN (arXiv:1703.06868): content features take on the style's statistics, and a decoder paints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from zoo.adapters.style import losses, tiles
from zoo.adapters.style.nets import Decoder
from zoo.adapters.style.pictures import as_input, unit
from zoo.adapters.style.stages import maps

from zoo.backbone import PIXELS
from zoo.spec import BackboneSpec

if TYPE_CHECKING:
    from zoo.adapters.style import Style

    from zoo.model import Model

WEIGHTS = {"content": 3.0, "style": 1.0, "tv": 1.0}
"""Of shares (`losses.energy`); arXiv:1703.06868, section 6.1, weighs absolute losses."""
FULL_WIDTH = 16


class Painter(nnx.Module):
    """The head: a decoder from the deepest tapped map, at the sizes of the shallower ones."""

    def __init__(
        self, taps: Sequence[str], levels: Sequence[Sequence[int]], normalized: bool, *, rngs: nnx.Rngs
    ) -> None:
        self.taps = tuple(taps)
        self.decoder = Decoder(levels, normalized, rngs=rngs)

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def paint(self, deepest: Array, features: Mapping[str, Array]) -> Array:
        """A picture in [0, 1], (b, h, w, 3), from features with other statistics."""
        sizes = [(features[name].shape[1], features[name].shape[2]) for name in reversed(self.taps[:-1])]
        return self.decoder(deepest, sizes)

    def __call__(self, features: Mapping[str, Array]) -> Array:
        return self.paint(features[self.taps[-1]], features)


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
    return Painter(taps(options, spec), levels(options, spec), options.normalized, rngs=rngs)


def terms(options: Style, model: Model, reduced: Mapping[str, Array], batch: Mapping[str, Any]) -> dict[str, Array]:
    """arXiv:1703.06868, eq. 11 to 13. Styles move on by one row, so that photos meet others' in every epoch."""
    names = options.style_stages(model.spec)
    encode = partial(model.features, at=names)
    styles = encode(as_input(model, unit(jnp.roll(batch["style"], 1, axis=0))))
    wanted = losses.adain(reduced[names[-1]], losses.statistics(styles[names[-1]]))
    head: Any = model.head
    picture = head.paint(wanted.astype(reduced[names[-1]].dtype), reduced).astype(jnp.float32)
    found = encode(as_input(model, picture))
    style = jnp.zeros(picture.shape[0])
    for name in names:
        target = losses.statistics(styles[name])
        style = style + losses.statistics_loss(found[name], target) / losses.energy(*target)
    return {
        "content_loss": losses.squared_error(found[names[-1]], wanted) / losses.energy(wanted),
        "style_loss": style / len(names),
        "tv_loss": losses.total_variation(picture),
    }


# Painting ------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array) -> Array:
    model = nnx.merge(graphdef, state)
    name = model.adapter.style_stages(model.spec)[-1]  # type: ignore[attr-defined]
    return model.features(as_input(model, pixels), (name,))[name].astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def _paint(
    graphdef: nnx.GraphDef[Model], state: nnx.State, pixels: Array, own: tuple[Array, Array],
    styles: tuple[Array, Array], shares: Array, strength: Array,
) -> Array:  # fmt: skip
    """`styles` are statistics (n, 1, 1, c), `shares` (n, h, w, 1) how much of each style there is at each pixel."""
    model = nnx.merge(graphdef, state)
    head: Any = model.head
    features = head.reduce(model.features(as_input(model, pixels), head.taps))
    deepest = features[head.taps[-1]]
    wide = deepest.astype(jnp.float32)
    each = losses.adain(wide, styles, own)
    places = jax.image.resize(shares, (shares.shape[0], *wide.shape[1:3], 1), "linear", antialias=True)
    mixed = jnp.sum(each * places, axis=0, keepdims=True) + wide * (1 - jnp.sum(places, axis=0, keepdims=True))
    mixed = strength * mixed + (1 - strength) * wide
    return head.paint(mixed.astype(deepest.dtype), features).astype(jnp.float32)


def paint(
    options: Style, model: Model, content: np.ndarray, styles: Sequence[np.ndarray], shares: np.ndarray,
    strength: float, tile: int,
) -> np.ndarray:  # fmt: skip
    """A picture (h, w, 3) in [0, 1] painted like `styles`, each (h, w, 3), in `shares` (n, h, w)."""
    graphdef, state = nnx.split(model)
    each = [losses.statistics(_encode(graphdef, state, style[None])) for style in styles]
    target = (jnp.concatenate([s[0] for s in each]), jnp.concatenate([s[1] for s in each]))
    # Of a large picture the statistics are those of it reduced: a tile has none of its own.
    whole = losses.statistics(_encode(graphdef, state, tiles.reduced(content, tile)[None]))

    def one(part: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        mine = shares[:, window[0], window[1], None].astype(np.float32)
        return np.asarray(_paint(graphdef, state, part[None], whole, target, mine, np.float32(strength)))[0]

    return tiles.painted(content, one, tile)
