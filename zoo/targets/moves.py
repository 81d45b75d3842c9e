"""Find the arrays of a batch that move with the pixels, and their natures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from zoo.errors import ConfigError
from zoo.targets import nature

if TYPE_CHECKING:
    from zoo.targets.spatial.base import Spatial

Moves = Mapping[str, str]
"""Array of a batch -> its nature, a name that `zoo.targets.nature` knows."""

MOVES: Moves = {"boxes": "boxes", "mask": "mask"}
"""Arrays that move if a task defines no others."""


def movers(names: Collection[str], moves: Moves = MOVES) -> list[tuple[str, Spatial]]:
    """Return (array, nature) for each array in `names` that moves.

    Raises:
        UnknownNameError: a nature is unknown.
        ConfigError: an array lacks a companion that its nature requires.
    """
    moving_arrays = [(name, nature(kind)) for name, kind in moves.items() if name in names]
    for name, mover in moving_arrays:
        if lacking := [other for other in mover.required(name) if other not in names]:
            raise ConfigError(
                f"the targets have {name}, which moves as {mover.name} and requires {', '.join(lacking)} as well."
            )
    return moving_arrays


def moving(names: Collection[str], moves: Moves = MOVES) -> list[str]:
    """Return the arrays in `names` that move, and their companions."""
    return [
        other for name, mover in movers(names, moves) for other in (name, *mover.companions(name)) if other in names
    ]


def unmoved(names: Collection[str], moves: Moves = MOVES) -> list[str]:
    """Return the arrays in `names` that do not change when images are cropped, mirrored or joined in a mosaic."""
    return sorted(set(names) - {"image"} - set(moving(names, moves)))
