"""Choose the stages of a backbone that form a pyramid, and turn their outputs into maps aligned with the image.

The choice depends on the declared strides alone, so it is made before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from zoo.errors import ConfigError
from zoo.registry.spec import BackboneSpec, Stage

if TYPE_CHECKING:
    from jaxtyping import Shaped

STRIDES = (8, 16, 32)
"""Pixels for each position of the pyramid levels C3, C4 and C5, which detectors read."""


def pyramid_stages(spec: BackboneSpec, strides: Sequence[int] = STRIDES) -> tuple[Stage, ...]:
    """Return the stages that form a pyramid, finest first.

    For each requested stride, take the last stage with a map at that stride, or at the next coarser stride that the
    backbone has. So networks with unusual strides work, and networks that end early or are dilated give fewer levels
    (SqueezeNet ends at 16). A network without such maps gives its last token stage, from which a neck such as
    `SimplePyramid` makes several levels.

    Raises:
        ConfigError: if the backbone has neither maps at such strides nor tokens.
    """
    last = {stage.stride: stage for stage in spec.stages if stage.kind == "map"}
    coarser = [[stride for stride in last if stride >= wanted] for wanted in strides]
    chosen = sorted({min(candidates) for candidates in coarser if candidates})
    if chosen:
        return tuple(last[stride] for stride in chosen)
    if tokens := [stage for stage in spec.stages if stage.kind == "tokens"]:
        return (tokens[-1],)
    available = ", ".join(map(str, sorted(last))) or "none"
    raise ConfigError(
        f"{spec.name} cannot feed a feature pyramid, which needs maps at strides of about "
        f"{', '.join(map(str, strides))} pixels, or tokens. The strides of its maps are {available}. Choose another "
        "backbone."
    )


def token_grid(stage: Stage, size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the patch tokens of an image of `size` (height, width)."""
    return size[0] // stage.stride, size[1] // stage.stride


def tokens_to_map(
    tokens: Shaped[Array, "b n c"], stage: Stage, size: tuple[int, int]
) -> Shaped[Array, "b rows columns c"]:
    """Arrange the patch tokens as a map, without the leading tokens (class token, registers).

    Args:
        tokens: (b, prefix + rows * columns, c).
        stage: the stage that gave them.
        size: (height, width) of the images.
    Raises:
        ConfigError: if the number of tokens is not that of images of `size`.
    """
    rows, columns = token_grid(stage, size)
    places = tokens.shape[1] - stage.prefix
    if places != rows * columns:
        raise ConfigError(
            f"stage {stage.name} gives {places} patch tokens after its {stage.prefix} leading tokens, but images of "
            f"{size[0]}x{size[1]} have {rows}x{columns} patches of {stage.stride} pixels. Pass the size of the images."
        )
    return tokens[:, stage.prefix :].reshape(tokens.shape[0], rows, columns, tokens.shape[2])


@dataclass(frozen=True)
class StageMaps:
    """The stages that a dense task reads, as maps aligned with the image.

    Convolutions without padding lose positions along every border. If such a map were taken for one of the whole image,
    it would be stretched: in SqueezeNet by half a position at each border. Later convolutions cannot learn to undo
    that, because they do not know their position. So the lost positions are restored as copies of the outermost ones.
    Then the offset between a position and the pixels it describes is the same everywhere.

    Attributes:
        stages: stages that are read, finest first.
        size: (height, width) of the images.
        lost: (rows, columns) that each stage lacks. They do not depend on the size of the images.
    """

    stages: tuple[Stage, ...]
    size: tuple[int, int]
    lost: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, stages: Sequence[Stage], size: tuple[int, int], shapes: Mapping[str, ShapeDtypeStruct]) -> Self:
        """Create from `stages` of a backbone whose outputs have `shapes` for images of `size`."""
        lost = (_lost(stage, size, shapes[stage.name].shape) for stage in stages)
        return cls(tuple(stages), size, tuple(lost))

    def reduce(self, features: Mapping[str, Shaped[Array, "b *_n _c"]]) -> dict[str, Shaped[Array, "b _h _w _c"]]:
        """Return the features to cache: maps, without class tokens and registers."""
        return {
            stage.name: tokens_to_map(features[stage.name], stage, self.size)
            if stage.kind == "tokens"
            else features[stage.name]
            for stage in self.stages
        }

    def __call__(self, reduced: Mapping[str, Shaped[Array, "b _h _w _c"]]) -> list[Shaped[Array, "b _h _w _c"]]:
        """Return the maps, finest first, each with its lost positions restored."""
        return [_grown(reduced[stage.name], lost) for stage, lost in zip(self.stages, self.lost, strict=True)]


def _lost(stage: Stage, size: tuple[int, int], shape: Sequence[int]) -> tuple[int, int]:
    if stage.kind != "map":
        return 0, 0
    rows, columns = (max(side // stage.stride - n, 0) for side, n in zip(size, shape[1:3], strict=True))
    return rows, columns


def _grown(x: Array, lost: tuple[int, int]) -> Array:
    if not any(lost):
        return x
    return jnp.pad(x, ((0, 0), *(((n + 1) // 2, n // 2) for n in lost), (0, 0)), mode="edge")
