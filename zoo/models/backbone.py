"""The backbone contract: an ordered list of named stages, from which the core derives everything else."""

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
"""The tap that stands for the images themselves: RGB or grey values in [0, 1], (b, h, w, c)."""


class StagedModule(nnx.Module):
    """What the core needs of a backbone. A subclass gives its stages for each size of images.

    Derive from `Backbone` instead where the stages do not depend on the size, unless the checkpoint calls a module
    `stages`.
    """

    def stages_for(self, size: tuple[int, int] | None) -> Mapping[str, StageFunction]:
        """Stage name -> function of the previous stage's output; the first takes images (b, h, w, c).

        Names and order are those of the spec.

        Args:
            size: (height, width) of the images, None where it is not known. Later stages that cannot tell it from
                their input may need it, e.g. for rotary position embeddings.
        """
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b ..."]:
        """The last stage's output for normalised images (b, h, w, c)."""
        for stage in self.stages_for((x.shape[1], x.shape[2])).values():
            x = stage(x)
        return x


class Backbone(StagedModule):
    """Base of most backbones, whose stages are the same for images of every size."""

    def stages(self) -> Mapping[str, StageFunction]:
        """Stage name -> function of the previous stage's output, see `stages_for`."""
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
    """Outputs of the stages named in `at`, computing no stage beyond the last of them.

    Args:
        x: images (b, h, w, c), or the output of stage `after` where that is given.
        after: the stage whose output `x` is; stages up to it are skipped.
        remat: recompute each stage's inner activations in the backward pass instead of keeping them.
        size: (height, width) of the images, where `x` is not they.
    """
    if after is None:
        size = (x.shape[1], x.shape[2])
    stages = dict(backbone.stages_for(size))  # type: ignore[attr-defined]
    for name in [*at, *([after] if after else [])]:
        if name not in stages:
            raise unknown_name("stage", name, stages)
    wanted, started = set(at), after is None
    found: dict[str, Array] = {}
    for name, function in stages.items():
        if not started:
            started = name == after
            continue
        if not wanted - found.keys():
            break
        x = _recomputed(backbone, name, size, x) if remat else function(x)
        if name in wanted:
            found[name] = x
    if missing := wanted - found.keys():
        raise unknown_name(
            "stage", sorted(missing)[0], [n for n in stages if n not in missing], owner=f"after {after!r}"
        )
    return {name: found[name] for name in at}


def _recomputed(backbone: nnx.Module, name: str, size: tuple[int, int] | None, x: Array) -> Array:
    """One stage under rematerialisation. The backbone is an argument, so that what the stage changes in it (running
    statistics, random streams) is carried out of the inner trace."""

    def stage(backbone: nnx.Module, x: Array) -> Array:
        return backbone.stages_for(size)[name](x)  # type: ignore[attr-defined]

    return nnx.remat(stage)(backbone, x)


def _traced_rngs() -> nnx.Rngs:
    """Random streams for use under a trace. Their counter is a NumPy number: a traced one makes flax search the whole
    program at every draw, which doubles the time for a deep net."""
    rngs = nnx.Rngs(0)
    rngs.default.count.set_value(np.zeros((), np.uint32))
    return rngs


@lru_cache(maxsize=64)
def _built(
    build: Callable[..., nnx.Module], in_channels: int, options: tuple[tuple[str, object], ...]
) -> tuple[nnx.GraphDef[nnx.Module], nnx.State]:
    """Graph and abstract state. Tracing a deep net's constructor takes a second, and one call of `create` asks for it
    several times."""
    with shapes_only():
        backbone = nnx.eval_shape(lambda: build(rngs=_traced_rngs(), in_channels=in_channels, **dict(options)))
    graphdef, state = nnx.split(backbone)
    return graphdef, state


def abstract(spec: BackboneSpec, *, in_channels: int = 3, **options: object) -> nnx.Module:
    """The backbone with shapes in place of arrays: nothing is computed or allocated."""
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
    """Shape and dtype of the named stages for one image of `size` (height, width) and `dtype`, nothing computed.

    Raises `PluginError` when the module does not do what its spec says: this is cheap and comes before any download or
    compilation.
    """
    module = abstract(spec, in_channels=in_channels, **options)
    module.eval()
    graphdef, state = nnx.split(module)
    names = list(module.stages_for(None))  # type: ignore[attr-defined]
    if names != [stage.name for stage in spec.stages]:
        raise PluginError(
            f"backbone {spec.name} has stages {names}, its spec declares {[s.name for s in spec.stages]}; "
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
                f"backbone {spec.name}: stage {name} gives {shape.shape[1:]}, its spec declares kind {declared.kind} "
                f"with {declared.channels} channels; the plugin must make them equal."
            )
    return shapes | ({PIXELS: jax.ShapeDtypeStruct(images.shape, np.float32)} if PIXELS in at else {})


def count_params(spec: BackboneSpec) -> int:
    """Number of trainable parameters of the backbone, without its classifier. Builds shapes only."""
    leaves = jax.tree.leaves(nnx.state(abstract(spec), nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in leaves)
