"""The backbone contract: an ordered list of named stages. The core derives everything else from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from zoo.errors import PluginError, unknown_name
from zoo.layers.initialisers import shapes_only
from zoo.registry.spec import BackboneSpec

if TYPE_CHECKING:
    from jaxtyping import Float, Num

StageFunction = Callable[[Array], Array]
PIXELS = "pixels"
"""Name that stands for the images themselves among stages: RGB or grey values in [0, 1], (b, h, w, c)."""


class StagedModule(nnx.Module):
    """Base class of every backbone: stages that may depend on the image size.

    If they do not, derive from `Backbone`, unless the checkpoint has a module called `stages`.
    """

    def stages_for(self, size: tuple[int, int] | None) -> Mapping[str, StageFunction]:
        """Return the stages: name -> function of the previous stage's output. The first takes images (b, h, w, c).

        Names and order must equal those of the spec.

        Args:
            size: (height, width) of the images; None if unknown. Later stages may need it, e.g. for rotary position
                embeddings, because they cannot tell it from their input.
        """
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b ..."]:
        """Return the output of the last stage for normalised images (b, h, w, c)."""
        for stage in self.stages_for((x.shape[1], x.shape[2])).values():
            x = stage(x)
        return x


class Backbone(StagedModule):
    """Base class of most backbones: the same stages for every image size."""

    def stages(self) -> Mapping[str, StageFunction]:
        """Return the stages: name -> function of the previous stage's output, see `stages_for`."""
        raise NotImplementedError

    def stages_for(self, size: tuple[int, int] | None) -> Mapping[str, StageFunction]:
        return self.stages()


def run_stages(
    backbone: nnx.Module,
    x: Num[Array, "b ..."],
    at: Collection[str],
    *,
    after: str | None = None,
    remat: bool = False,
    size: tuple[int, int] | None = None,
) -> dict[str, Num[Array, "b ..."]]:
    """Return the outputs of the stages named in `at`. Stages after the last of them are not computed.

    Args:
        backbone: The backbone.
        x: Images (b, h, w, c), or with `after` the output of that stage.
        at: Names of the stages.
        after: Start after this stage, with its output as `x`.
        remat: Recompute each stage's inner activations in the backward pass, which saves memory.
        size: (height, width) of the images. Needed with `after` alone; otherwise `x` has it.

    Raises:
        UnknownNameError: The backbone has no such stage, or none after `after`.
    """
    if after is None:
        size = (x.shape[1], x.shape[2])
    stages = dict(backbone.stages_for(size))  # type: ignore[attr-defined]
    for name in [*at, *([after] if after else [])]:
        if name not in stages:
            raise unknown_name("stage", name, stages)
    pending, started = set(at), after is None
    outputs: dict[str, Array] = {}
    for name, function in stages.items():
        if not started:
            started = name == after
            continue
        if not pending:
            break
        x = _recomputed(backbone, name, size, x) if remat else function(x)
        if name in pending:
            outputs[name] = x
            pending.remove(name)
    if pending:
        later = [name for name in stages if name not in pending]
        raise unknown_name("stage", sorted(pending)[0], later, owner=f"after {after!r}")
    return {name: outputs[name] for name in at}


def _recomputed(backbone: nnx.Module, name: str, size: tuple[int, int] | None, x: Array) -> Array:
    """Return the output of one stage under rematerialisation."""

    # The backbone is an argument and not captured, so that changes that the stage makes in it (running statistics,
    # random streams) leave the inner trace.
    def stage(backbone: nnx.Module, x: Array) -> Array:
        return backbone.stages_for(size)[name](x)  # type: ignore[attr-defined]

    return nnx.remat(stage)(backbone, x)


def _traced_rngs() -> nnx.Rngs:
    """Return random streams for use under a trace."""
    rngs = nnx.Rngs(0)
    # With a traced counter, flax would search the whole program at every draw, which doubles the time for a deep net.
    rngs.default.count.set_value(np.zeros((), np.uint32))
    return rngs


@lru_cache(maxsize=64)
def _built(
    build: Callable[..., nnx.Module], in_channels: int, options: tuple[tuple[str, object], ...]
) -> tuple[nnx.GraphDef[nnx.Module], nnx.State]:
    """Return the graph and the abstract state of a backbone.

    Cached, because tracing the constructor of a deep net takes a second, and `create` needs it several times.
    """
    with shapes_only():
        backbone = nnx.eval_shape(lambda: build(rngs=_traced_rngs(), in_channels=in_channels, **dict(options)))
    graphdef, state = nnx.split(backbone)
    return graphdef, state


def abstract(spec: BackboneSpec, *, in_channels: int = 3, **options: object) -> nnx.Module:
    """Return the backbone with shapes instead of arrays. Nothing is computed or allocated."""
    graphdef, state = _built(spec.build, in_channels, tuple(sorted(options.items())))
    return nnx.merge(graphdef, state, copy=True)


def feature_shapes(
    spec: BackboneSpec,
    size: tuple[int, int],
    at: Collection[str],
    *,
    in_channels: int = 3,
    dtype: DTypeLike = np.float32,
    **options: object,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shape and dtype of the outputs of stages for one image. Nothing is computed.

    This also checks the module against its spec, before any download or compilation.

    Args:
        spec: The backbone.
        size: (height, width) of the image.
        at: Names of the stages; `PIXELS` stands for the image.
        in_channels: Channels of the image.
        dtype: Dtype of the image.
        **options: Build options.

    Raises:
        PluginError: The stages of the module differ from those of the spec.
    """
    module = abstract(spec, in_channels=in_channels, **options)
    module.eval()
    graphdef, state = nnx.split(module)
    names = list(module.stages_for(None))  # type: ignore[attr-defined]
    if names != [stage.name for stage in spec.stages]:
        raise PluginError(
            f"backbone {spec.name} has the stages {names}, but its spec declares {[s.name for s in spec.stages]}; "
            "the plugin must make them equal."
        )

    def forward(state: nnx.State, x: Array) -> dict[str, Array]:
        return run_stages(nnx.merge(graphdef, state), x, [name for name in at if name != PIXELS])

    images = jax.ShapeDtypeStruct((1, *size, in_channels), dtype)
    shapes = jax.eval_shape(forward, state, images)
    for name, shape in shapes.items():
        declared = spec.stage(name)
        rank = {"map": 4, "tokens": 3, "vector": 2}[declared.kind]
        if len(shape.shape) != rank or shape.shape[-1] != declared.channels:
            raise PluginError(
                f"backbone {spec.name}: stage {name} gives {shape.shape[1:]}, but its spec declares kind "
                f"{declared.kind} with {declared.channels} channels; the plugin must make them equal."
            )
    return shapes | ({PIXELS: jax.ShapeDtypeStruct(images.shape, np.float32)} if PIXELS in at else {})


def count_params(spec: BackboneSpec) -> int:
    """Return the number of trainable parameters of a backbone, without its classifier. Only shapes are built."""
    leaves = jax.tree.leaves(nnx.state(abstract(spec), nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in leaves)
