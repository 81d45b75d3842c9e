"""Fast style transfer (arXiv:1603.08155): a network for one style, which paints in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from zoo.adapters.style import checkpoints, losses, tiles
from zoo.adapters.style.method import Method, Painting
from zoo.adapters.style.nets import Statistics, TransformNet
from zoo.adapters.style.pictures import as_input, unit
from zoo.adapters.style.stages import stage_of_stride
from zoo.models.backbone import PIXELS
from zoo.models.task.forward import ForwardPass
from zoo.registry.spec import BackboneSpec

if TYPE_CHECKING:
    from zoo.adapters.style import Style
    from zoo.models.model import Model

WEIGHTS = {"content": 1.0, "style": 2.0, "tv": 5.0}
RECIPE = {"plan": "head", "epochs": 40, "steps": 180, "batch_size": 4, "lr": 2e-3, "weight_decay": 0.0}
"""What it trains by where a user does not say."""
WIDTH = 32


class Painter(nnx.Module):
    """The head: a transform net on the pixels. The backbone only measures what it paints."""

    def __init__(self, net: TransformNet) -> None:
        self.net = net

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def __call__(self, features: Mapping[str, Array]) -> Array:
        return self.net(features[PIXELS])


def taps(options: Style, spec: BackboneSpec) -> tuple[str, ...]:
    return (PIXELS,)


def build(options: Style, spec: BackboneSpec, *, rngs: nnx.Rngs) -> nnx.Module:
    width = options.width or WIDTH
    how = (options.padding, options.upsample, options.output, options.eps)
    return Painter(TransformNet(width, options.blocks, *how, rngs=rngs))


def loss(options: Style, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
    """arXiv:1603.08155, section 3.2: features of the painted picture against the photo's and the style's."""
    model, picture = forward.model, forward.outputs
    names, content = options.style_stages(model.spec), options.content_stage(model.spec)
    found = model.features(as_input(model, picture), (*dict.fromkeys((*names, content)),))
    there = model.features(as_input(model, forward.reduced[PIXELS]), (content,))[content]
    styles = model.features(as_input(model, unit(batch["style"][:1])), names)  # all rows are the same picture
    style = jnp.zeros(picture.shape[0])
    for name in names:
        target = losses.gram(styles[name])
        style = style + losses.squared_error(losses.gram(found[name]), target) / losses.energy(target)
    return {
        "content_loss": losses.squared_error(found[content], there) / losses.energy(there),
        "style_loss": style / len(names),
        "tv_loss": losses.total_variation(picture),
    }


# Painting ------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _run(
    graphdef: nnx.GraphDef[TransformNet], state: nnx.State, pixels: Array, given: Statistics | None
) -> tuple[Array, Statistics]:
    return nnx.merge(graphdef, state).run(pixels, given)


def paint(options: Style, model: Model, painting: Painting) -> np.ndarray:
    """A picture (h, w, 3) in [0, 1] in the network's style; the photo shines through where shares or strength say."""
    content, tile = painting.content, painting.tile
    head: Any = model.head
    graphdef, state = nnx.split(head.net)
    given = None
    if not tiles.fits(content, tile):
        given = _run(graphdef, state, tiles.reduced(content, tile)[None], None)[1]

    def one(part: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        return np.asarray(_run(graphdef, state, part[None], given)[0])[0]

    painted = np.clip(tiles.painted(content, one, tile), 0, 1)
    share = painting.strength * np.clip(painting.places.sum(0), 0, 1)[..., None].astype(np.float32)
    return share * painted + (1 - share) * content


METHOD = Method(
    taps,
    build,
    paint,
    content=partial(stage_of_stride, stride=4, place=-1),  # relu3_3 of VGG16
    deepest=16,
    weights=WEIGHTS,
    loss=loss,
    recipe=RECIPE,
    one_style=True,
    read=checkpoints.read_transform_net,
    layouts="PyTorch's fast_neural_style (conv1.conv2d.weight, ...), TensorFlow's (Variable, Variable_1, ...)",
)
"""The row of this method."""
