"""Which arrays of a batch move with the pixels, and which nature each has."""

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
"""What moves where a task says nothing."""


def movers(names: Collection[str], moves: Moves = MOVES) -> list[tuple[str, Spatial]]:
    """Return (array, nature) for each array among these that moves.

    Raises:
        UnknownNameError: a nature that nobody added. ConfigError: one lacks an array that it needs beside.
    """
    found = [(name, nature(kind)) for name, kind in moves.items() if name in names]
    for name, mover in found:
        if lacking := [other for other in mover.required(name) if other not in names]:
            raise ConfigError(
                f"the targets have {name}, which moves as {mover.name} and needs {', '.join(lacking)} beside it."
            )
    return found


def moving(names: Collection[str], moves: Moves = MOVES) -> list[str]:
    """Return the arrays among these that move, or belong to one that does."""
    return [
        other for name, mover in movers(names, moves) for other in (name, *mover.companions(name)) if other in names
    ]


def unmoved(names: Collection[str], moves: Moves = MOVES) -> list[str]:
    """Return the arrays among these that stay as they are when images are cropped, mirrored or joined."""
    return sorted(set(names) - {"image"} - set(moving(names, moves)))
