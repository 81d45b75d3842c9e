"""Gatys' method (arXiv:1508.06576): the picture itself is optimised until its features look right.

The steps between two previews are one compiled loop. A large picture is painted coarse to fine (arXiv:1611.07865,
section 6): each size starts from the one before, enlarged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from zoo.adapters.style import losses
from zoo.adapters.style.method import CHUNK, Method, Painting, Preview
from zoo.adapters.style.pictures import as_input, fitted, framed, resized
from zoo.adapters.style.stages import stage_of_stride
from zoo.models.backbone import PIXELS
from zoo.registry.spec import BackboneSpec
from zoo.training.step import lenient

if TYPE_CHECKING:
    from zoo.adapters.style import Style
    from zoo.models.model import Model

WEIGHTS = {"content": 1.0, "style": 10.0, "tv": 20.0}
COARSEST = 256
"""Longer side in pixels below which there is no coarser size to start from."""
FRAME = 8
"""Pixels of canvas beyond the picture on each side, cut off in the end."""
LONG_SIDE = 512
"""Longer side of the result in pixels where no size is asked for: every pixel costs hundreds of passes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """What the picture is optimised towards.

    Attributes:
        content: features of the content stage, (1, h, w, c). grams: for each style stage, (n, c, c) of n regions.
        masks: for each style stage the regions' shares, (n, h, w, 1), or None where there is but one region.
    """

    content: Array
    grams: dict[str, Array]
    masks: dict[str, Array] | None


class Still(nnx.Module):
    """The head: nothing. The picture is what it was."""

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def __call__(self, features: Mapping[str, Array]) -> Array:
        return features[PIXELS]


def taps(options: Style, spec: BackboneSpec) -> tuple[str, ...]:
    return (PIXELS,)


def build(options: Style, spec: BackboneSpec, *, rngs: nnx.Rngs) -> nnx.Module:
    return Still()


def objective(options: Style, model: Model, targets: Targets, pixels: Array) -> Array:
    """The weighted sum of the losses for a picture (1, h, w, 3) in [0, 1], ()."""
    names, content = options.style_stages(model.spec), options.content_stage(model.spec)
    found = model.features(as_input(model, pixels), (*dict.fromkeys((*names, content)),))
    style = jnp.zeros(())
    for name in names:
        wanted = targets.grams[name]
        mask = None if targets.masks is None else targets.masks[name]
        features = found[name] if mask is None else jnp.broadcast_to(found[name], (len(wanted), *found[name].shape[1:]))
        share = losses.squared_error(losses.gram(features, mask), wanted) / losses.energy(wanted)
        style = style + jnp.mean(share)
    kept = losses.squared_error(found[content], targets.content) / losses.energy(targets.content)
    return (
        options.weight("content") * jnp.mean(kept)
        + options.weight("style") * style / len(names)
        + options.weight("tv") * jnp.mean(losses.total_variation(pixels))
    )


@partial(jax.jit, static_argnums=0)
def _targets(
    graphdef: nnx.GraphDef[Model], state: nnx.State, content: Array, styles: tuple[Array, ...], mix: Array,
    masks: Array | None, strength: Array,
) -> Targets:  # fmt: skip
    """`mix` (n,) sums to 1. With masks, (n, h, w, 1), each style has a region; else all are mixed over the picture."""
    model = nnx.merge(graphdef, state)
    options: Any = model.adapter
    names, place = options.style_stages(model.spec), options.content_stage(model.spec)
    own = model.features(as_input(model, content), (*dict.fromkeys((*names, place)),))
    theirs = [model.features(as_input(model, style), names) for style in styles]
    grams, regions = {}, {}
    for name in names:
        each = jnp.concatenate([losses.gram(features[name]) for features in theirs])
        shape = own[name].shape[1:3]
        if masks is None:
            wanted = jnp.sum(each * mix.reshape(-1, 1, 1), axis=0, keepdims=True)
            before = losses.gram(own[name])
        else:
            mask = jax.image.resize(masks, (len(theirs), *shape, 1), "linear", antialias=True)
            # What no style claims stays itself: a region of its own, with the content's texture.
            rest = jnp.clip(1 - jnp.sum(mask, axis=0, keepdims=True), 0, 1)
            regions[name] = jnp.concatenate([mask, rest])
            stacked = jnp.broadcast_to(own[name], (len(theirs) + 1, *own[name].shape[1:]))
            before = losses.gram(stacked, regions[name])
            wanted = jnp.concatenate([each, before[-1:]])
        grams[name] = strength * wanted + (1 - strength) * before
    return Targets(own[place].astype(jnp.float32), grams, regions or None)


def _transform(options: Style) -> optax.GradientTransformationExtraArgs:
    return optax.lbfgs() if options.optimizer == "lbfgs" else optax.adam(options.learning_rate)


@partial(jax.jit, static_argnums=0)
def _advance(
    graphdef: nnx.GraphDef[Model], state: nnx.State, targets: Targets, pixels: Array, memory: Any, steps: Array
) -> tuple[Array, Any, Array]:
    """So many steps, at most `CHUNK`: the picture, the optimizer's state, and the loss before each step (CHUNK,)."""
    model = nnx.merge(graphdef, state)
    options: Any = model.adapter
    transform = _transform(options)

    def value(pixels: Array) -> Array:
        with jax.numpy_dtype_promotion("standard"):
            return objective(options, model, targets, pixels)

    def step(i: Array, carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
        pixels, memory, seen = carry
        if options.optimizer == "lbfgs":
            loss, slope = optax.value_and_grad_from_state(value)(pixels, state=memory)
            change, memory = transform.update(slope, memory, pixels, value=loss, grad=slope, value_fn=value)
        else:
            loss, slope = jax.value_and_grad(value)(pixels)
            change, memory = transform.update(slope, memory, pixels)
        return optax.apply_updates(pixels, change), memory, seen.at[i].set(loss)

    with lenient():
        return lax.fori_loop(0, steps, step, (pixels, memory, jnp.zeros(CHUNK, jnp.float32)))


def sizes(options: Style, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes (height, width) that a picture goes through, its own last."""
    count = options.pyramid_levels or 1 + max(int(math.log2(max(size) / COARSEST)), 0)
    scaled = [(max(size[0] >> i, 1), max(size[1] >> i, 1)) for i in reversed(range(count))]
    return [s for s in scaled if min(s) >= 32] or [size]


def optimise(
    options: Style, model: Model, content: np.ndarray, styles: Sequence[np.ndarray], mix: np.ndarray,
    masks: np.ndarray | None, strength: float, preview: Preview | None = None, every: int = 0,
) -> tuple[np.ndarray, list[list[float]]]:  # fmt: skip
    """A picture (h, w, 3) in [0, 1] and the losses before each step, by size.

    Args:
        styles: each (h, w, 3). mix: their shares (n,), which sum to 1. masks: a region for each, (n, h, w), or None.
        every: steps between two previews.
    """
    graphdef, state = nnx.split(model)
    stages = sizes(options, (content.shape[0], content.shape[1]))
    plan = [options.steps if i == 0 else max(options.steps // 2, 1) for i in range(len(stages))]
    picture, done = content, 0
    history: list[list[float]] = []
    for size, steps in zip(stages, plan, strict=True):
        here = framed(fitted(content, size), FRAME)
        looks = tuple(resized(style, max(size))[None] for style in styles)
        regions = None if masks is None else np.stack([framed(fitted(mask, size)[..., None], FRAME) for mask in masks])
        goal = _targets(graphdef, state, here[None], looks, mix.astype(np.float32), regions, np.float32(strength))
        if not history:
            noise = np.random.default_rng(model.card.seed).uniform(0.25, 0.75, here.shape).astype(np.float32)
            start = here if options.init == "content" else noise
        else:
            start = framed(fitted(picture, size), FRAME)
        pixels = jnp.asarray(start[None])
        with lenient():
            memory = _transform(options).init(pixels)
        seen: list[float] = []
        while len(seen) < steps:
            count = min(every or CHUNK, CHUNK, steps - len(seen))
            pixels, memory, loss = _advance(graphdef, state, goal, pixels, memory, np.int32(count))
            seen += np.asarray(loss[:count]).tolist()
            if preview:
                preview(done + len(seen), sum(plan), seen[-1], _unframed(pixels))
        picture, done = _unframed(pixels), done + steps
        history.append(seen)
    return picture, history


def _unframed(pixels: Array) -> np.ndarray:
    """A canvas (1, h, w, 3) without its border, in [0, 1]."""
    return np.clip(np.asarray(pixels)[0, FRAME:-FRAME, FRAME:-FRAME], 0, 1)


def paint(options: Style, model: Model, painting: Painting) -> np.ndarray:
    """Return the picture, (h, w, 3)."""
    picture, _ = optimise(
        options, model, painting.content, painting.styles, painting.shares, painting.exclusive, painting.strength,
        painting.preview, painting.every,
    )  # fmt: skip
    return picture


METHOD = Method(
    taps,
    build,
    paint,
    content=partial(stage_of_stride, stride=8, place=1),  # relu4_2 of VGG19
    deepest=16,
    weights=WEIGHTS,
    long_side=LONG_SIDE,
    layouts="none: method=gatys has no network",
)
"""The row of this method."""
