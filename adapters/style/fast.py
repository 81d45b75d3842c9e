"""Fast style transfer (arXiv:1603.08155): a network of one style, which paints an image in one forward pass."""

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
    from jaxtyping import Float

    from zoo.adapters.style import Style
    from zoo.models.model import Model

WEIGHTS = {"content": 1.0, "style": 2.0, "tv": 5.0}
"""Default loss weights. They weight relative errors, see `losses.energy`."""
RECIPE = {"plan": "head", "epochs": 40, "steps": 180, "batch_size": 4, "lr": 2e-3, "weight_decay": 0.0}
"""Training defaults."""
WIDTH = 32
"""Default channels of the first layer."""


class Painter(nnx.Module):
    """The head: a transform net on the pixels. The backbone is only the loss network."""

    def __init__(self, net: TransformNet) -> None:
        self.net = net

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        return dict(features)

    def reads(self) -> dict[str, str]:
        return {}

    def __call__(self, features: Mapping[str, Array]) -> Float[Array, "b h w 3"]:
        return self.net(features[PIXELS])


def taps(options: Style, spec: BackboneSpec) -> tuple[str, ...]:
    return (PIXELS,)


def build(options: Style, spec: BackboneSpec, *, rngs: nnx.Rngs) -> nnx.Module:
    width = options.width or WIDTH
    layers = (options.padding, options.upsample, options.output, options.eps)
    return Painter(TransformNet(width, options.blocks, *layers, rngs=rngs))


def loss(options: Style, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Float[Array, " b"]]:
    """Return the losses of the painted images (arXiv:1603.08155, section 3.2).

    The features of a painted image are compared with those of its content, and their Gram matrices with those of the
    style.
    """
    model, painted = forward.model, forward.outputs
    names, content = options.style_stages(model.spec), options.content_stage(model.spec)
    features = model.features(as_input(model, painted), (*dict.fromkeys((*names, content)),))
    original = model.features(as_input(model, forward.reduced[PIXELS]), (content,))[content]
    styles = model.features(as_input(model, unit(batch["style"][:1])), names)  # all rows are the same image
    style = jnp.zeros(painted.shape[0])
    for name in names:
        target = losses.gram(styles[name])
        style = style + losses.squared_error(losses.gram(features[name]), target) / losses.energy(target)
    return {
        "content_loss": losses.squared_error(features[content], original) / losses.energy(original),
        "style_loss": style / len(names),
        "tv_loss": losses.total_variation(painted),
    }


# Painting ------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _run(
    graphdef: nnx.GraphDef[TransformNet], state: nnx.State, pixels: Array, given: Statistics | None
) -> tuple[Array, Statistics]:
    return nnx.merge(graphdef, state).run(pixels, given)


def paint(options: Style, model: Model, painting: Painting) -> np.ndarray:
    """Return the image in the style of the network, (h, w, 3) in [0, 1], blended with the content by share."""
    content, tile = painting.content, painting.tile
    head: Any = model.head
    graphdef, state = nnx.split(head.net)
    # Instance norms would give each tile its own contrast. All tiles use the statistics of the reduced whole image.
    given = None
    if not tiles.fits(content, tile):
        given = _run(graphdef, state, tiles.reduced(content, tile)[None], None)[1]

    def one(pixels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        return np.asarray(_run(graphdef, state, pixels[None], given)[0])[0]

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
"""The table row of this method."""
