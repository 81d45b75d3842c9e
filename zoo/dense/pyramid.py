"""Which stages of a backbone make a pyramid: decided by the declared strides alone, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array

from zoo.errors import ConfigError
from zoo.spec import BackboneSpec, Stage

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
