"""Which stages of a backbone make a pyramid, decided by the declared strides alone, before anything is built; and what
they give as maps that lie over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from zoo.errors import ConfigError
from zoo.registry.spec import BackboneSpec, Stage

STRIDES = (8, 16, 32)
"""Pixels for each position of the pyramid levels C3, C4 and C5, which detectors read."""


def pyramid_stages(spec: BackboneSpec, strides: Sequence[int] = STRIDES) -> tuple[Stage, ...]:
    """The stages that a pyramid is made of, finest first.

    For each wanted stride that is the last stage that gives a map at it or, where there is none, at the next coarser
    one that is declared. So nets with other strides serve, and nets that end early or are dilated give fewer levels
    (SqueezeNet ends at 16). A net without such maps gives its last tokens, of which a neck such as `SimplePyramid`
    makes several levels.

    Raises:
        ConfigError: where there is neither, with the strides there are.
    """
    last = {stage.stride: stage for stage in spec.stages if stage.kind == "map"}
    coarser = [[stride for stride in last if stride >= wanted] for wanted in strides]
    chosen = sorted({min(found) for found in coarser if found})
    if chosen:
        return tuple(last[stride] for stride in chosen)
    if tokens := [stage for stage in spec.stages if stage.kind == "tokens"]:
        return (tokens[-1],)
    there = ", ".join(map(str, sorted(last))) or "none"
    raise ConfigError(
        f"{spec.name} cannot serve a pyramid: it needs maps at strides of about {', '.join(map(str, strides))} pixels, "
        f"or tokens, and the strides of its maps are {there}. Choose another backbone."
    )


def token_grid(stage: Stage, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the tokens of an image of `size` (height, width)."""
    return size[0] // stage.stride, size[1] // stage.stride


def tokens_to_map(tokens: Array, stage: Stage, size: tuple[int, int]) -> Array:
    """Tokens (b, prefix + rows * columns, c) of images of `size` (height, width) -> map (b, rows, columns, c), without
    those that stand for no place.

    Raises `ConfigError` where their number is not that of the size.
    """
    rows, columns = token_grid(stage, size)
    places = tokens.shape[1] - stage.prefix
    if places != rows * columns:
        raise ConfigError(
            f"stage {stage.name} gives {places} tokens beside its {stage.prefix} leading ones; images of "
            f"{size[0]}x{size[1]} have {rows}x{columns} places of {stage.stride} pixels. Pass the size of the images."
        )
    return tokens[:, stage.prefix :].reshape(tokens.shape[0], rows, columns, tokens.shape[2])


@dataclass(frozen=True)
class StageMaps:
    """The stages that a dense task reads, as maps that lie over the image.

    Convolutions that do not pad lose positions along every border. A map that is short of them and yet taken for one of
    the whole image would be stretched, of SqueezeNet's by half a position at either border, which convolutions cannot
    learn to undo, as they do not know where they are. So what is lost is given back, as copies of the outermost
    positions: then every position is as far as any other from the pixels that it stands for.

    Attributes:
        stages: that are read, finest first. size: (height, width) of the images; tokens are a map of it.
        lost: rows and columns that each is short of. Their number is the same for images of any size.
    """

    stages: tuple[Stage, ...]
    size: tuple[int, int]
    lost: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, stages: Sequence[Stage], size: tuple[int, int], shapes: Mapping[str, ShapeDtypeStruct]) -> Self:
        """Those of a backbone's `stages`, whose outputs have `shapes` where images are of `size`."""
        lost = (_lost(stage, size, shapes[stage.name].shape) for stage in stages)
        return cls(tuple(stages), size, tuple(lost))

    def reduce(self, features: Mapping[str, Array]) -> dict[str, Array]:
        """What is worth keeping of a backbone's features: maps, without what stands for no place."""
        return {
            stage.name: tokens_to_map(features[stage.name], stage, self.size)
            if stage.kind == "tokens"
            else features[stage.name]
            for stage in self.stages
        }

    def __call__(self, reduced: Mapping[str, Array]) -> list[Array]:
        """The maps (b, h, w, c), finest first, each with as many positions as its stride has room for."""
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
