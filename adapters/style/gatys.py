"""Neural style transfer of Gatys et al. (arXiv:1508.06576): the pixels of each image are optimised.

The steps between two previews are one compiled loop. Large images are painted coarse to fine (arXiv:1611.07865, section
6): each size starts from the upsampled result of the one before. A network reads a limited neighbourhood of pixels, so
large structures of the style appear at small sizes only.
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
    from jaxtyping import Float

    from zoo.adapters.style import Style
    from zoo.models.model import Model

WEIGHTS = {"content": 1.0, "style": 10.0, "tv": 20.0}
"""Default loss weights. They weight relative errors, see `losses.energy`."""
COARSEST = 256
"""Smallest longer side in pixels of the coarsest size, by default."""
FRAME = 8
"""Pixels of mirrored border on each side, which are optimised, too, and cut off at the end."""
LONG_SIDE = 512
"""Largest default of the result's longer side in pixels: every pixel takes part in hundreds of forward passes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """The targets of the optimisation, for n regions.

    Attributes:
        content: features of the content stage.
        grams: Gram matrices of the regions for each style stage.
        masks: weights of the regions for each style stage; None for a single region.
    """

    content: Float[Array, "1 h w c"]
    grams: dict[str, Float[Array, "n _c _c"]]
    masks: dict[str, Float[Array, "n _h _w 1"]] | None


class Still(nnx.Module):
    """The head, which returns the image unchanged."""

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


def objective(options: Style, model: Model, targets: Targets, pixels: Float[Array, "1 h w 3"]) -> Float[Array, ""]:
    """Return the weighted sum of the losses of an image in [0, 1]."""
    names, content = options.style_stages(model.spec), options.content_stage(model.spec)
    features = model.features(as_input(model, pixels), (*dict.fromkeys((*names, content)),))
    style = jnp.zeros(())
    for name in names:
        x, gram = features[name], targets.grams[name]
        mask = None if targets.masks is None else targets.masks[name]
        x = x if mask is None else jnp.broadcast_to(x, (len(gram), *x.shape[1:]))
        style = style + jnp.mean(losses.squared_error(losses.gram(x, mask), gram) / losses.energy(gram))
    error = losses.squared_error(features[content], targets.content) / losses.energy(targets.content)
    return (
        options.weight("content") * jnp.mean(error)
        + options.weight("style") * style / len(names)
        + options.weight("tv") * jnp.mean(losses.total_variation(pixels))
    )


@partial(jax.jit, static_argnums=0)
def _targets(
    graphdef: nnx.GraphDef[Model], state: nnx.State, content: Array, styles: tuple[Array, ...], mix: Array,
    masks: Array | None, strength: Array,
) -> Targets:  # fmt: skip
    """Return the targets of an image.

    Args:
        graphdef: structure of the model.
        state: its parameters.
        content: the content image, (1, h, w, 3).
        styles: the n style images, each (1, h, w, 3).
        mix: share of each style, (n,), with a sum of 1. Without masks the Gram matrices of all styles are averaged.
        masks: region of each style, (n, h, w, 1), or None.
        strength: from 0 for the textures of the content to 1 for those of the styles.
    """
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
            target = jnp.sum(each * mix.reshape(-1, 1, 1), axis=0, keepdims=True)
            before = losses.gram(own[name])
        else:
            mask = jax.image.resize(masks, (len(theirs), *shape, 1), "linear", antialias=True)
            # Pixels outside all masks form one more region, whose target is the texture of the content there.
            rest = jnp.clip(1 - jnp.sum(mask, axis=0, keepdims=True), 0, 1)
            regions[name] = jnp.concatenate([mask, rest])
            stacked = jnp.broadcast_to(own[name], (len(theirs) + 1, *own[name].shape[1:]))
            before = losses.gram(stacked, regions[name])
            target = jnp.concatenate([each, before[-1:]])
        grams[name] = strength * target + (1 - strength) * before
    return Targets(own[place].astype(jnp.float32), grams, regions or None)


def _transform(options: Style) -> optax.GradientTransformationExtraArgs:
    return optax.lbfgs() if options.optimizer == "lbfgs" else optax.adam(options.learning_rate)


@partial(jax.jit, static_argnums=0)
def _advance(
    graphdef: nnx.GraphDef[Model], state: nnx.State, targets: Targets, pixels: Array, memory: Any, steps: Array
) -> tuple[Array, Any, Array]:
    """Take `steps` optimisation steps, at most `CHUNK`.

    Returns:
        The image, the state of the optimizer, and the loss before each step, (CHUNK,).
    """
    model = nnx.merge(graphdef, state)
    options: Any = model.adapter
    transform = _transform(options)

    def value(pixels: Array) -> Array:
        with jax.numpy_dtype_promotion("standard"):
            return objective(options, model, targets, pixels)

    def step(i: Array, carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
        pixels, memory, history = carry
        if options.optimizer == "lbfgs":
            # The line search has already computed value and gradient at the new pixels; they are in its state.
            loss, slope = optax.value_and_grad_from_state(value)(pixels, state=memory)
            change, memory = transform.update(slope, memory, pixels, value=loss, grad=slope, value_fn=value)
        else:
            loss, slope = jax.value_and_grad(value)(pixels)
            change, memory = transform.update(slope, memory, pixels)
        return optax.apply_updates(pixels, change), memory, history.at[i].set(loss)

    with lenient():
        return lax.fori_loop(0, steps, step, (pixels, memory, jnp.zeros(CHUNK, jnp.float32)))


def sizes(options: Style, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of the coarse-to-fine pyramid, the image's own last."""
    count = options.pyramid_levels or 1 + max(int(math.log2(max(size) / COARSEST)), 0)
    scaled = [(max(size[0] >> i, 1), max(size[1] >> i, 1)) for i in reversed(range(count))]
    return [s for s in scaled if min(s) >= 32] or [size]


def optimise(
    options: Style, model: Model, content: np.ndarray, styles: Sequence[np.ndarray], mix: np.ndarray,
    masks: np.ndarray | None, strength: float, preview: Preview | None = None, every: int = 0,
) -> tuple[np.ndarray, list[list[float]]]:  # fmt: skip
    """Return the painted image, (h, w, 3) in [0, 1], and the losses before each step, one list for each size.

    Args:
        options: options of the method.
        model: the model.
        content: the content image, (h, w, 3) in [0, 1].
        styles: the style images, each (h, w, 3) in [0, 1].
        mix: share of each style, (n,), with a sum of 1.
        masks: region of each style, (n, h, w), or None.
        strength: from 0 for the textures of the content to 1.
        preview: called every `every` steps.
        every: steps between two previews; 0 for `CHUNK`.
    """
    graphdef, state = nnx.split(model)
    stages = sizes(options, (content.shape[0], content.shape[1]))
    plan = [options.steps if i == 0 else max(options.steps // 2, 1) for i in range(len(stages))]
    painted, done = content, 0
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
            start = framed(fitted(painted, size), FRAME)
        pixels = jnp.asarray(start[None])
        with lenient():
            memory = _transform(options).init(pixels)
        trace: list[float] = []
        while len(trace) < steps:
            count = min(every or CHUNK, CHUNK, steps - len(trace))
            pixels, memory, loss = _advance(graphdef, state, goal, pixels, memory, np.int32(count))
            trace += np.asarray(loss[:count]).tolist()
            if preview:
                preview(done + len(trace), sum(plan), trace[-1], _unframed(pixels))
        painted, done = _unframed(pixels), done + steps
        history.append(trace)
    return painted, history


def _unframed(pixels: Float[Array, "1 h w 3"]) -> np.ndarray:
    """Return an image without its mirrored border, (h, w, 3) in [0, 1]."""
    return np.clip(np.asarray(pixels)[0, FRAME:-FRAME, FRAME:-FRAME], 0, 1)


def paint(options: Style, model: Model, painting: Painting) -> np.ndarray:
    """Return the painted image, (h, w, 3)."""
    painted, _ = optimise(
        options, model, painting.content, painting.styles, painting.shares, painting.exclusive, painting.strength,
        painting.preview, painting.every,
    )  # fmt: skip
    return painted


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
"""The table row of this method."""
